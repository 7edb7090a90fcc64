"""Measures the vector unit alone: placed and routed in the harness of the engines."""

from __future__ import annotations

import shlex
from typing import Any

from amaranth.back import rtlil

from tritloom.boards.families.family import RESOURCES, TOP, load_family
from tritloom.gen.flow.tools import YOSYS, Progress, timed, tool_version
from tritloom.gen.measure.engine import median_mhz, place_and_route
from tritloom.gen.measure.harness import Harness
from tritloom.rtl.core.vector_unit import VectorUnit
from tritloom.rtl.spec.vector_facts import VectorConfig

__all__ = ["SUM_BITS", "measure_vector"]

SUM_BITS = 20
"""Width of the core's results, as those of up to 2,080 features have."""


def measure_vector(
    family: str,
    config: VectorConfig,
    *,
    part: str | None = None,
    seeds: int = 3,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Resources and clock of the unit without commands; the harness is not in `luts` and `ffs`.

    Parameters
    ----------
    family : of FPGAs
    config : of the unit
    part : of the family; its first by default
    seeds : placements, from seed 1 on

    Returns
    -------
    The resources by name, `fmax_mhz` of each seed, its median capped at the part's limit, the worst
    critical path, the configuration, the tools and the command. Where the family has no open router
    the clocks are None.

    Raises
    ------
    BuildError : it does not fit the part, or a tool failed
    """
    facts = load_family(family)
    place = facts.measure.place
    part, part_facts = facts.part(part)
    tools = [f"{name} {tool_version(name)}" for name in ("amaranth", YOSYS, place) if name]
    design = rtlil.convert(Harness(VectorUnit(config, SUM_BITS)), name=TOP, emit_src=False)
    used = list(range(1, seeds + 1)) if place else [1]
    runs = place_and_route(design, family, part, used, tools, timed(progress))
    routed = [run["fmax_mhz"] for run in runs if run["fmax_mhz"] is not None]
    net = {name: runs[-1][name] for name in RESOURCES}
    for name in ("luts", "ffs"):
        net[name] -= runs[-1][f"harness_{name}"]
    return {
        "family": family,
        "part": part,
        **net,
        "fmax_mhz_median": median_mhz(routed, part_facts.limit_mhz),
        "fmax_mhz": routed,
        "critical_path": min(runs, key=lambda run: run["fmax_mhz"] or 0.0)["critical_path"],
        "seeds": used if place else [],
        "sum_bits": SUM_BITS,
        "vector": config.to_dict(),
        "tools": tools,
        "command": _command(family, config, part, seeds if place else None),
    }


def _command(family: str, config: VectorConfig, part: str, seeds: int | None) -> str:
    """The command that gives these figures, every choice said."""
    words = ["tritloom", "measure", "vector", "--family", family, "--part", part]
    words += ["--words", str(config.words), "--multipliers", str(config.multipliers)]
    words += ["--lanes", str(config.lanes)] if config.lanes > 1 else []
    words += ["--bfloat16"] * config.bfloat16
    words += [] if seeds is None else ["--seeds", str(seeds)]
    return shlex.join([*words, "--json"])
