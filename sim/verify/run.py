"""Runs the benches of `BENCHES` on an emitted design's Verilog.

The design's folder stays as it is; the simulator works in a temporary one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from tritloom.rtl.links.port_names import DEFAULT_TOP, PLAIN, PortNames
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.design import FORMAT, MANIFEST
from tritloom.rtl.spec.errors import ConfigError, InputError, ToolError, TritloomError
from tritloom.rtl.spec.files import write_whole
from tritloom.rtl.spec.remedies import package_remedy
from tritloom.sim.tools import Simulator, find_simulator

__all__ = ["BenchResult", "VerifyError", "VerifyResult", "verify", "verify_design"]

PROGRAMS = "tritloom.sim.verify.benches.programs"
"""The module of benches for designs with a vector unit only."""
BENCHES = (
    "tritloom.sim.verify.benches.protocol",
    "tritloom.sim.verify.benches.products",
    "tritloom.sim.verify.benches.checks",
    PROGRAMS,
    "tritloom.sim.verify.benches.mixed",
)
"""The modules that hold benches, in the order in which they run."""
SUITE = "tritloom.sim.verify"
"""Name of the suite in JUnit files."""
HIDDEN = ("PYTEST_CURRENT_TEST", "PYTHONOPTIMIZE")
"""Variables that the simulator must not see: cocotb's runner takes itself for a test by the first,
and by the second Python drops the checks of the benches, so that every design would pass."""
POLL_S = 0.2
NAME_COLUMNS = 32
"""Columns for the name of a bench; the longest is `identify idle=heavy stall=heavy`."""

Progress = Callable[[str], None]


class VerifyError(TritloomError, ValueError):
    """A design that cannot be verified: not what `generate` wrote, or it does not compile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchResult:
    """One bench; `message` says on one line why it failed, and is empty if it passed."""

    name: str
    seconds: float
    message: str = ""

    @property
    def ok(self) -> bool:
        return not self.message


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyResult:
    """The results of all benches on one design, in their order."""

    simulator: str
    seed: int
    benches: tuple[BenchResult, ...]

    @property
    def passed(self) -> int:
        return sum(bench.ok for bench in self.benches)

    @property
    def failed(self) -> int:
        return len(self.benches) - self.passed

    @property
    def ok(self) -> bool:
        """At least one bench ran and none failed."""
        return self.passed > 0 and self.failed == 0


def _ignore(line: str) -> None:
    pass


def verify(
    directory: Path,
    *,
    junit: Path | None = None,
    seed: int = 0,
    plugins: Sequence[str] = (),
    fail_fast: bool = False,
    progress: Progress = _ignore,
) -> VerifyResult:
    """Run the benches on the design in `directory`, as `generate` wrote it.

    `plugins` are modules that register what the configuration names; `fail_fast` ends with the
    first bench that fails; `progress` gets a line for each bench that is done. `junit` is written
    whole when the benches have run, or not at all.
    """
    if not directory.is_dir():
        raise VerifyError(f"{directory} is not a folder; name one that generate wrote")
    if junit is not None and (junit.is_dir() or not junit.absolute().parent.is_dir()):
        raise VerifyError(f"cannot write {junit}; name a file in a folder that exists")
    _import(plugins)
    design = _read_design(directory / MANIFEST)
    config = design.config
    verilog = _read(directory / design.verilog)
    result = verify_design(
        verilog,
        config,
        top=design.top,
        port_names=design.port_names,
        seed=seed,
        plugins=plugins,
        fail_fast=fail_fast,
        progress=progress,
    )
    if junit is not None:
        _write_junit(junit, _junit(result, config))
    return result


def verify_design(
    verilog: str,
    config: AcceleratorConfig,
    *,
    top: str = DEFAULT_TOP,
    port_names: PortNames = PLAIN,
    seed: int = 0,
    plugins: Sequence[str] = (),
    fail_fast: bool = False,
    progress: Progress = _ignore,
) -> VerifyResult:
    """Run the benches on the text of a design and the configuration that it should have.

    `top` names its top module, `port_names` the pins; the other parameters are those of `verify`.
    """
    port_names = port_names.of_width(config.link.beat_bytes)
    design = _Design(config=config, top=top, port_names=port_names)
    if not isinstance(config.link, PacketStream):
        raise VerifyError(
            f"link must be stream, not {config.link.name!r}; generate the design with packet "
            "streams (the serial link has its own tests)"
        )
    held = [name for name in _check_ports(verilog, design) if name not in _surrounded(config)]
    if isinstance(config.memory, Axi) and importlib.util.find_spec("cocotbext") is None:
        raise ToolError(f"cocotbext-axi not found; {package_remedy('cocotbext-axi', 'test')}")
    simulator = find_simulator()
    with tempfile.TemporaryDirectory(prefix="tritloom-verify-") as name, _without(*HIDDEN):
        folder = Path(name)
        (folder / design.verilog).write_text(verilog, encoding="utf-8")
        manifest = {
            "config": config.to_dict(),
            "interface": port_names.to_dict(),
            "held": held,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        with simulator.active():
            runner = _build(simulator, folder, design)
            settings = {
                "TRITLOOM_PLUGINS": ",".join(plugins),
                "COCOTB_RANDOM_SEED": str(seed),
                "COCOTB_MAX_FAILURES": str(int(fail_fast)),
            }
            benches = _run(runner, simulator, folder, design, settings, progress)
    return VerifyResult(simulator=simulator.name, seed=seed, benches=benches)


def _import(plugins: Sequence[str]) -> None:
    for name in plugins:
        try:
            import_module(name)
        except ImportError as error:
            raise VerifyError(f"plug-in {name!r} cannot be imported: {error}") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise VerifyError(f"{path} is missing; run tritloom generate into that folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise VerifyError(f"cannot read {path}: {error}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Design:
    """What the manifest says of a design."""

    config: AcceleratorConfig
    top: str
    port_names: PortNames

    @property
    def verilog(self) -> str:
        """Name of the Verilog file."""
        return f"{self.top}.v"

    def port_bits(self) -> dict[str, int]:
        """Bits of each pin that the benches use, by name."""
        names = self.port_names
        bits = {names.clock: 1, names.reset: 1}
        if self.config.memory.own_clock_hz(self.config):
            bits[names.memory_clock] = 1
        beat_bytes = self.config.link.beat_bytes
        return bits | names.commands.widths(beat_bytes) | names.responses.widths(beat_bytes)


def _read_design(path: Path) -> _Design:
    try:
        manifest = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise VerifyError(f"{path} is not JSON: {error}") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("config"), dict):
        raise VerifyError(f"{path} has no configuration; run tritloom generate again")
    if (written := manifest.get("format")) != FORMAT:
        raise VerifyError(
            f"{path} must have format {FORMAT}, not {written!r}; run tritloom generate again"
        )
    top = manifest.get("top", DEFAULT_TOP)
    names = manifest.get("interface", PLAIN.to_dict())
    if not isinstance(top, str) or not re.fullmatch(r"[A-Za-z]\w*", top, re.ASCII):
        raise VerifyError(f"{path} names no top module; run tritloom generate again")
    if not isinstance(names, dict):
        raise VerifyError(f"{path} does not name the pins; run tritloom generate again")
    try:
        config = AcceleratorConfig.from_dict(manifest["config"])
        return _Design(config=config, top=top, port_names=PortNames.from_dict(names))
    except (ConfigError, InputError) as error:
        raise VerifyError(f"{path}: {error}") from None


def _check_ports(verilog: str, design: _Design) -> list[str]:
    """The inputs that a plug-in brought, which the benches do not drive.

    Raises `VerifyError` if the text has no top module, or a port is missing or has a wrong width.
    """
    top, file = design.top, design.verilog
    module = re.search(rf"^\s*module\s+{top}\b(.*?)^\s*endmodule\b", verilog, re.DOTALL | re.M)
    if module is None:
        raise VerifyError(f"{file} has no whole module {top}; run tritloom generate again")
    widths: dict[str, int] = {}
    inputs = []
    declarations = r"\b(input|output)\s+(?:wire\s+|reg\s+)?(?:\[(\d+):0\]\s*)?(\w+)"
    for direction, high, name in re.findall(declarations, module[1]):
        widths[name] = int(high or 0) + 1
        if direction == "input":
            inputs.append(name)
    for name, bits in design.port_bits().items():
        if name not in widths:
            raise VerifyError(f"{file} has no port {name}; run tritloom generate again")
        if widths[name] != bits:
            raise VerifyError(
                f"port {name} of {file} must have {bits} bits, not {widths[name]}; "
                "run tritloom generate again"
            )
    return [name for name in inputs if name not in design.port_bits()]


def _surrounded(config: AcceleratorConfig) -> set[str]:
    """The pins that the benches put a model at."""
    return set(config.memory.pins) if config.memory.bench else set()


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Takes variables out of the environment for the length of a block."""
    values = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(values)


def _build(simulator: Simulator, folder: Path, design: _Design) -> Any:
    if importlib.util.find_spec("cocotb_tools") is None:
        raise ToolError(f"cocotb not found; {package_remedy('cocotb', 'sim')}")
    from cocotb_tools.runner import get_runner

    log = folder / "build.log"
    try:
        runner = get_runner(simulator.name)
        runner.build(
            sources=[folder / design.verilog],
            hdl_toplevel=design.top,
            build_dir=folder / "build",
            build_args=list(simulator.build_args),
            timescale=("1ns", "1ps"),
            log_file=log,
        )
    except (RuntimeError, ValueError, SystemExit) as error:
        reason = _last_line(log, folder, "error").removeprefix("%Error: ") or str(error)
        raise VerifyError(f"{simulator.name} cannot compile {design.verilog}: {reason}") from None
    return runner


def _run(
    runner: Any,
    simulator: Simulator,
    folder: Path,
    design: _Design,
    settings: Mapping[str, str],
    progress: Progress,
) -> tuple[BenchResult, ...]:
    log, results, done = folder / "run.log", folder / "results.xml", folder / "progress"
    done.touch()
    modules = list(BENCHES)
    if design.config.vector is None and PROGRAMS in modules:
        modules.remove(PROGRAMS)
        progress(f"{'programs':<{NAME_COLUMNS}} skipped: no vector unit")

    def simulate() -> None:
        runner.test(
            test_module=modules,
            hdl_toplevel=design.top,
            build_dir=folder / "build",
            test_dir=folder,
            results_xml=str(results),
            log_file=log,
            timescale=("1ns", "1ps") if simulator.name == "icarus" else None,
            extra_env={
                "TRITLOOM_MANIFEST": str(folder / MANIFEST),
                "TRITLOOM_PROGRESS": str(done),
                "COCOTB_ANSI_OUTPUT": "0",
                "PYTHONOPTIMIZE": "",  # the benches assert
                **settings,
            },
        )

    with ThreadPoolExecutor(1) as pool:
        names = _watch(pool.submit(simulate), done, progress)
    if not results.exists():
        reason = _last_line(log, folder, "timeout (")
        if reason.startswith("Timeout ("):
            reason = "it was stuck in one clock cycle"
        at = f"after the bench {names[-1]!r}" if names else "before the first bench was done"
        raise VerifyError(f"{simulator.name} ended early, {at}{reason and ': ' + reason}")
    return tuple(_benches(results))


def _watch(running: Future[None], done: Path, progress: Progress) -> list[str]:
    """Report each line of the progress file when it comes; the names of the benches that ended."""
    names: list[str] = []
    while True:
        ended = running.done()
        lines = done.read_text(encoding="utf-8").splitlines()
        for line in lines[len(names) :]:
            name, result, seconds = line.split("\t")
            progress(progress_line(name, result, float(seconds)))
            names.append(name)
        if ended:
            break
        time.sleep(POLL_S)
    failure = running.exception()
    if failure is not None and not isinstance(failure, RuntimeError | SystemExit):
        raise ToolError(f"the simulator cannot be run: {failure}") from None
    return names


def progress_line(name: str, result: str, seconds: float) -> str:
    """One line of progress; the columns of all lines are aligned."""
    return f"{name:<{NAME_COLUMNS}} {result:<6} {seconds:7.1f} s"


def _benches(results: Path) -> Iterator[BenchResult]:
    for case in ET.parse(results).getroot().iter("testcase"):
        bad = [child for child in case if child.tag in ("failure", "error", "skipped")]
        message = ""
        if bad and bad[0].get("type") == "RegressionTerminated":
            continue  # fail_fast: not run
        if bad:
            lines = (bad[0].get("message") or "").strip().splitlines()
            message = lines[0] if lines else bad[0].get("type") or bad[0].tag
        yield BenchResult(
            name=str(case.get("name")).replace("/", " "),
            seconds=float(case.get("time", 0)),
            message=message,
        )


def _last_line(log: Path, folder: Path, word: str) -> str:
    """The first line of a log that has a word in it, else the last, without the folder's path."""
    if not log.exists():
        return ""
    text = log.read_text(encoding="utf-8", errors="replace").replace(f"{folder}{os.sep}", "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matching = [line for line in lines if word in line.lower()] or lines[-1:]
    return matching[0] if matching else ""


def _junit(result: VerifyResult, config: AcceleratorConfig) -> bytes:
    """The results in the XML that CI systems read."""
    counts = {
        "tests": str(len(result.benches)),
        "failures": str(result.failed),
        "errors": "0",
        "skipped": "0",
        "time": f"{sum(bench.seconds for bench in result.benches):.3f}",
    }
    root = ET.Element("testsuites", {"name": "tritloom verify", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": SUITE, **counts})
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("simulator", result.simulator),
        ("seed", str(result.seed)),
        ("build_digest", config.build_digest.hex()),
        ("config", config.to_json()),
    ):
        ET.SubElement(properties, "property", {"name": name, "value": value})
    for bench in result.benches:
        case = ET.SubElement(
            suite,
            "testcase",
            {"classname": SUITE, "name": bench.name, "time": f"{bench.seconds:.3f}"},
        )
        if not bench.ok:
            failure = ET.SubElement(case, "failure", {"message": bench.message})
            failure.text = bench.message
    ET.indent(root)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root) + b"\n"


def _write_junit(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise VerifyError(f"cannot write {path}: {error.strerror}; name another file") from None
