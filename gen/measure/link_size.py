"""Measures a link's size and clocks: placed and routed in the harness of the engines."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from tritloom.boards.families.ecp5 import ECP5
from tritloom.boards.families.family import TOP
from tritloom.gen.flow.tools import (
    YOSYS,
    BuildError,
    Progress,
    Watch,
    run_tool,
    timed,
    tool_version,
)
from tritloom.gen.measure.harness import KEPT, Harness, harness_cost
from tritloom.gen.passes.netlist import Netlist
from tritloom.gen.passes.reroute import TIMING
from tritloom.gen.passes.synthesis import RECIPE, improve, run_synthesis
from tritloom.rtl.links.contract import create_link
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.files import scratch_folder, write_whole
from tritloom.sim.tools import cache_folder, locked

__all__ = ["PART", "measure_size"]

PART = "LFE5U-25F-6"
"""The slowest grade: what meets its clock there meets it on every ECP5."""
CACHE = "measure"


def measure_size(
    config: AcceleratorConfig, seeds: int = 3, progress: Progress = lambda line: None
) -> dict[str, Any]:
    """Resources and clocks of the link of a configuration on an ECP5, without the harness.

    Parameters
    ----------
    config : says the link
    seeds : placements, from seed 1 on

    Returns
    -------
    `luts` as nextpnr counts them, with carry chains and LUT RAM; `ffs`, `block_rams`; `fmax_mhz` of
    each seed and its median: of the clock at the link's pads if it has one, else of the device's;
    `device_fmax_mhz` the same of the device's clock.

    Raises
    ------
    BuildError : a tool failed
    """
    say = timed(progress)
    pads = tuple(config.link.clocks)
    design = rtlil.convert(Harness(create_link(config), pads), name=TOP, emit_src=False)
    tools = [f"{name} {tool_version(name)}" for name in (YOSYS, ECP5.measure.place)]
    facts = repr((design, ECP5.synthesis, ECP5.passes, PART, tools, RECIPE))
    key = hashlib.sha256(facts.encode()).hexdigest()[:24]
    waiting = "waiting for another process that measures the link"
    runs: list[dict[str, Any]] = []
    with (
        cache_folder(CACHE) as folder,
        locked(folder / f"{key}.lock", lambda: say(waiting)),
        scratch_folder(folder) as scratch,
    ):
        for seed in range(1, seeds + 1):
            file = folder / f"{key}-{seed}.json"
            if not file.exists():
                write_whole(file, json.dumps(_measure(design, bool(pads), seed, scratch, say)))
            runs.append(json.loads(file.read_text()))
            say(f"seed {seed}: {runs[-1]['clocks']}")
    fmax = [run["clocks"]["pads" if pads else "device"] for run in runs]
    return {
        **runs[-1]["counts"],
        "fmax_mhz": fmax,
        "fmax_mhz_median": statistics.median(fmax),
        "device_fmax_mhz": [run["clocks"]["device"] for run in runs],
        "part": PART,
        "tools": tools,
    }


def _measure(design: str, pads: bool, seed: int, folder: Path, say: Progress) -> dict[str, Any]:
    """What one placement takes and reaches; the netlist is made unless `folder` has it."""
    netlist = folder / f"{TOP}.json"
    if not netlist.exists():
        netlist.write_text(_synthesise(design, folder, say), encoding="utf-8")
    cost = harness_cost(Netlist(json.loads(netlist.read_text()), TOP))
    timing = _route(seed, folder, say)
    used = Counter({name: count["used"] for name, count in timing["utilization"].items()})
    counts = {
        name: sum(used[cell] * each for cell, each in ECP5.cells[name].items()) - cost.get(name, 0)
        for name in ("luts", "ffs", "block_rams")
    }
    return {"counts": counts, "clocks": _clocks(timing, pads)}


def _synthesise(design: str, folder: Path, say: Progress) -> str:
    def run(arguments: list[str], place: Path) -> None:
        run_tool(YOSYS, YOSYS, arguments, place, Watch("synthesis", say))

    scripts = [
        f"setattr -mod -set keep_hierarchy 1 {KEPT}; {commands}; "
        f"setattr -mod -unset keep_hierarchy {KEPT}; flatten; opt_clean; {ECP5.measure.finish}"
        for commands in ECP5.synthesis
    ]
    return improve(run_synthesis(design, scripts, folder, run), ECP5)


def _route(seed: int, folder: Path, say: Progress) -> Any:
    options = [
        *ECP5.parts[PART].options,
        *("--json", f"{TOP}.json", "--report", TIMING, "--timing-allow-fail"),
        *("--freq", "150", "--seed", str(seed)),
    ]
    tool = ECP5.measure.place
    run_tool(tool, tool, options, folder, Watch(f"seed {seed}: packing cells", say))
    return json.loads((folder / TIMING).read_text())


def _clocks(timing: Any, pads: bool) -> dict[str, float]:
    """What each clock reaches: of the harness's pin `clk`, and of the link's own."""
    reached = {}
    for name, facts in timing["fmax"].items():
        reached["device" if "rx_clk" not in name else "pads"] = round(facts["achieved"], 2)
    if len(reached) != 1 + pads or len(timing["fmax"]) != len(reached):
        raise BuildError(f"nextpnr reports the clocks {', '.join(timing['fmax'])}")
    return reached
