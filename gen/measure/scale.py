# amaranth: UnusedElaboratable=no
"""Measures a scaling unit of group sums alone: placed and routed in the harness of the engines."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from amaranth.back import rtlil

from tritloom.boards.families.family import RESOURCES, TOP, load_family
from tritloom.gen.flow.tools import YOSYS, Progress, timed, tool_version
from tritloom.gen.measure.engine import median_mhz, place_and_route
from tritloom.gen.measure.harness import Harness
from tritloom.rtl.lib.group_scale import FixedToFloat, GroupFixed, GroupFloat
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.scale_facts import fixed_bits

__all__ = ["UNITS", "measure_scale"]

UNITS: dict[str, Callable[[int, int, int], Any]] = {
    "fixed": GroupFixed,
    "float": lambda sum_bits, rows, groups: GroupFloat(sum_bits, rows),
    "convert": lambda sum_bits, rows, groups: FixedToFloat(fixed_bits(sum_bits, groups)),
}
"""What can be measured: both units, and the conversion of a total of `fixed` to float32."""


def measure_scale(
    family: str,
    unit: str,
    *,
    sum_bits: int = 17,
    rows: int = 4096,
    groups: int = 256,
    part: str | None = None,
    seeds: int = 3,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Resources and clock of a unit with its totals; the harness is not in `luts` and `ffs`.

    Parameters
    ----------
    family : of FPGAs
    unit : a name of `UNITS`
    sum_bits, rows, groups : as of the unit
    part : of the family; its first by default
    seeds : placements, from seed 1 on

    Returns
    -------
    The resources by name, `fmax_mhz` of each seed, its median capped at the part's limit, the worst
    critical path, the parameters, the tools and the command. Where the family has no open router
    the clocks are None.

    Raises
    ------
    InputError : an unknown unit
    BuildError : it does not fit the part, or a tool failed
    """
    if unit not in UNITS:
        raise InputError(f"unit must be one of {', '.join(UNITS)}, not {unit!r}")
    facts = load_family(family)
    place = facts.measure.place
    part, part_facts = facts.part(part)
    tools = [f"{name} {tool_version(name)}" for name in ("amaranth", YOSYS, place) if name]
    component = Harness(UNITS[unit](sum_bits, rows, groups))
    design = rtlil.convert(component, name=TOP, emit_src=False)
    used = list(range(1, seeds + 1)) if place else [1]
    runs = place_and_route(design, family, part, used, tools, timed(progress))
    routed = [run["fmax_mhz"] for run in runs if run["fmax_mhz"] is not None]
    net = {name: runs[-1][name] for name in RESOURCES}
    for name in ("luts", "ffs"):
        net[name] -= runs[-1][f"harness_{name}"]
    words = ["tritloom", "measure", "scale", "--family", family, "--part", part, "--unit", unit]
    words += ["--sum-bits", str(sum_bits), "--rows", str(rows), "--groups", str(groups)]
    words += ["--seeds", str(seeds)] if place else []
    return {
        "family": family,
        "part": part,
        "unit": unit,
        "sum_bits": sum_bits,
        "rows": rows,
        "groups": groups,
        **net,
        "fmax_mhz_median": median_mhz(routed, part_facts.limit_mhz),
        "fmax_mhz": routed,
        "critical_path": min(runs, key=lambda run: run["fmax_mhz"] or 0.0)["critical_path"],
        "seeds": used if place else [],
        "tools": tools,
        "command": shlex.join([*words, "--json"]),
    }
