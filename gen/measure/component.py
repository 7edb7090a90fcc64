"""Measures a component alone: placed and routed in the harness of the engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.back import rtlil

from tritloom.boards.families.family import RESOURCES, TOP, load_family
from tritloom.gen.flow.tools import YOSYS, Progress, timed, tool_version
from tritloom.gen.measure.engine import median_mhz, place_and_route
from tritloom.gen.measure.harness import Harness

__all__ = ["measure_component"]


def measure_component(
    create: Callable[[], Any],
    family: str,
    *,
    part: str | None = None,
    seeds: int = 3,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Resources and clock of a component; the harness is not in `luts` and `ffs`.

    Parameters
    ----------
    create : makes the component, with all its logic in the domain `sync`
    family : of FPGAs
    part : of the family; its first by default
    seeds : placements, from seed 1 on

    Returns
    -------
    The resources by name, `fmax_mhz` of each seed, its median capped at the part's limit, the worst
    critical path, the part, the seeds and the tools. Where the family has no open router there is
    one synthesis, and no clocks.

    Raises
    ------
    BuildError : it does not fit the part, or a tool failed
    """
    facts = load_family(family)
    place = facts.measure.place
    part, part_facts = facts.part(part)
    tools = [f"{name} {tool_version(name)}" for name in ("amaranth", YOSYS, place) if name]
    design = rtlil.convert(Harness(create()), name=TOP, emit_src=False)
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
        "tools": tools,
    }
