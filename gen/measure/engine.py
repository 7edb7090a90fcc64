"""Measures a dot engine: the whole core, placed and routed in a harness, and a layer run on it."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.back import rtlil

from tritloom.boards.families.family import RESOURCES, TOP, Family, Part, load_family
from tritloom.gen.flow.report import critical_path
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
from tritloom.gen.passes.reroute import AGAIN, PLACED, TIMING, route_again
from tritloom.gen.passes.synthesis import RECIPE, improve, run_synthesis
from tritloom.gen.workloads import MIXES, layer_cycles, mix_figures
from tritloom.rtl.core.core import Core
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS, encodings
from tritloom.rtl.spec.errors import ConfigError, ToolError
from tritloom.rtl.spec.files import scratch_folder, write_whole
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import act_limits
from tritloom.rtl.spec.plugins import engines
from tritloom.rtl.spec.registry import load_component
from tritloom.rtl.spec.scale_facts import DEFAULT_KIND, ScaleConfig
from tritloom.sim.device.core import CoreSimulation
from tritloom.sim.tools import cache_folder, locked

__all__ = [
    "engine_config",
    "figures",
    "measure_engine",
    "median_mhz",
    "place_and_route",
    "vectors",
]

CACHE = "measure"
"""The folder of the cache that has what was measured."""
FORMAT = 1
"""Of what is kept of a placement; a change of what is counted, and how, needs a new number."""
RANDOM_TOKENS = 3
"""Random vectors of activations, beside the extreme ones."""
I8 = npt.NDArray[np.int8]


def engine_config(
    family: str,
    engine: str,
    in_features: int | None = None,
    out_features: int | None = None,
    **given: int | str | None,
) -> AcceleratorConfig:
    """The configuration to measure: the family's best known geometry, changed by what is given.

    A number for `scale` adds the units that scale sums of so many inputs, of the kind `scale_kind`.
    """
    options = {name: value for name, value in given.items() if value is not None}
    group, kind = options.pop("scale", None), options.pop("scale_kind", DEFAULT_KIND)
    engines[engine]  # its one line, if there is none of that name
    measure = load_family(family).measure
    known = [encoding for name, encoding in measure.geometries if name == engine]
    alphabet = options.get("alphabet", "ternary")
    fitting = [
        name
        for name in (*known, *engines[engine].encodings)
        if encodings[name].alphabet == alphabet
    ]
    encoding = options.setdefault("encoding", (fitting or known or engines[engine].encodings)[0])
    geometry = measure.geometries.get((engine, str(encoding)))
    if geometry is None and not {"lanes", "rows"} <= options.keys():
        raise ConfigError(
            f"no geometry of {engine} with {encoding} is known for {family}; "
            "give --lanes and --rows"
        )
    values: dict[str, Any] = {**(geometry or {}), **options}
    return AcceleratorConfig(
        engine=engine,
        memory=BlockRam(words=1),
        max_in_features=in_features or measure.features[0],
        max_out_features=out_features or measure.features[1],
        banks=1,  # the figures are those of the engine: a second bank serves the front end
        packet_bytes=4096,  # no part of the core; only the widest words need so much
        scale=ScaleConfig(kind=str(kind), group=group) if isinstance(group, int) else None,
        **values,
    )


def measure_engine(
    family: str,
    config: AcceleratorConfig,
    *,
    part: str | None = None,
    seeds: int = 3,
    mix: str | None = None,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Measure an engine; the figures by name, as `docs/reference/engines.md` explains them.

    The layer is that of the configuration's greatest features. `BuildError` if it does not fit
    the part, `ToolError` if a result or the count of cycles is not exact.
    """
    facts = load_family(family)
    place = facts.measure.place
    part, part_facts = facts.part(part)
    if mix is not None and max(layer[1] for layer in MIXES[mix][1]) > config.max_in_features:
        needed = max(layer[1] for layer in MIXES[mix][1])
        raise ConfigError(f"--mix {mix} needs --in-features of at least {needed}")
    say = timed(progress)
    tools = [f"{name} {tool_version(name)}" for name in ("amaranth", YOSYS, place) if name]
    design = rtlil.convert(Harness(Core(config)), name=TOP, emit_src=False)
    used = list(range(1, seeds + 1)) if place else [1]
    runs = place_and_route(design, family, part, used, tools, say)
    cycles, exact = _simulate(config, tools, say)
    limit = part_facts.limit_mhz
    routed = [run["fmax_mhz"] for run in runs if run["fmax_mhz"] is not None]
    return {
        "family": family,
        "engine": config.engine,
        "encoding": config.encoding,
        "in_features": config.max_in_features,
        "out_features": config.max_out_features,
        "part": part,
        **figures(config, runs[-1], part_facts, routed, cycles),
        "exact_vectors": exact,
        **({} if mix is None else {"mix": mix_figures(mix, config, median_mhz(routed, limit))}),
        "fmax_mhz": routed,
        "fmax_limit_mhz": limit,
        "critical_path": min(runs, key=lambda run: run["fmax_mhz"] or 0.0)["critical_path"],
        "seeds": used if place else [],
        "tools": tools,
        "config": config.to_dict(),
        "command": _command(family, config, part, seeds, mix),
    }


def figures(
    config: AcceleratorConfig,
    run: Mapping[str, Any],
    part: Part,
    fmax_mhz: Sequence[float],
    cycles: int,
) -> dict[str, Any]:
    """What follows from one placement's resources, the clocks reached and the cycles of the layer.

    Clocks are capped at the part's limit; `None` without any. The harness is not in `luts` and
    `ffs`.
    """
    shape = _shape(config)
    macs = config.macs_per_cycle
    net = {name: run[name] for name in RESOURCES}
    for name in ("luts", "ffs"):
        net[name] -= run[f"harness_{name}"]
    share = {
        name: 100 * net[name] / available
        for name, available in zip(RESOURCES, part.available, strict=True)
    }
    weights = config.max_in_features * config.max_out_features
    utilization = weights * config.tokens / (cycles * macs)
    median = median_mhz(fmax_mhz, part.limit_mhz)
    capped = [min(value, part.limit_mhz or value) for value in fmax_mhz]
    scarcest = max(share, key=lambda name: share[name])
    peak = None if median is None else macs * median / 1e3
    density = None if peak is None else peak / (net["luts"] / 1e3)
    return {
        **net,
        "part_share": {name: round(value, 2) for name, value in share.items()},
        "scarcest": scarcest,
        "gmac_per_s_per_percent": None if peak is None else round(peak / share[scarcest], 3),
        "mac_per_cycle": macs,
        "lut_per_mac": round(net["luts"] / macs, 3),
        "ff_per_mac": round(net["ffs"] / macs, 3),
        "fmax_mhz_median": median,
        "fmax_mhz_min": min(capped, default=None),
        "fmax_mhz_max": max(capped, default=None),
        "bits_per_weight": round(shape.words * 8 * config.word_bytes / weights, 4),
        "cycles": cycles,
        "utilization": round(utilization, 4),
        "gmac_per_s_per_klut_peak": None if density is None else round(density, 2),
        "gmac_per_s_per_klut_sustained": (
            None if density is None else round(density * utilization, 2)
        ),
        "harness_luts": run["harness_luts"],
        "harness_ffs": run["harness_ffs"],
    }


def median_mhz(fmax_mhz: Sequence[float], limit_mhz: float | None) -> float | None:
    if not fmax_mhz:
        return None
    return round(min(statistics.median(fmax_mhz), limit_mhz or math.inf), 2)


def _shape(config: AcceleratorConfig) -> LayerShape:
    return LayerShape.of(config, config.max_out_features, config.max_in_features)


def _command(family: str, config: AcceleratorConfig, part: str, seeds: int, mix: str | None) -> str:
    """The command that gives these figures, every choice said."""
    values: dict[str, object] = {"family": family, "engine": config.engine}
    names = ("encoding", "lanes", "rows", "tokens", "fill", "act_bits", "alphabet")
    values |= {name: getattr(config, name) for name in names}
    values |= {"in_features": config.max_in_features, "out_features": config.max_out_features}
    values |= {"part": part} | ({"seeds": seeds} if load_family(family).measure.place else {})
    values |= {} if mix is None else {"mix": mix}
    if config.scale is not None:
        values["scale"] = config.scale.group
        if config.scale.kind != DEFAULT_KIND:
            values["scale_kind"] = config.scale.kind
    options = [(f"--{name.replace('_', '-')}", str(value)) for name, value in values.items()]
    return shlex.join(["tritloom", "measure", "engine", *sum(options, ()), "--json"])


def place_and_route(
    design: str,
    family: str,
    part: str,
    seeds: Sequence[int | None],
    tools: Sequence[str],
    say: Progress,
) -> list[dict[str, Any]]:
    """Resources, the harness's share of them and the clock reached, for each seed.

    With `None` for a seed the cells are packed and counted, not placed, and may be too many.
    """
    facts = load_family(family)
    measure = facts.measure
    of_family = (
        facts.synthesis,
        facts.passes,
        measure.finish,
        measure.constraints,
        measure.target_mhz,
        measure.shorten_paths,
        [dict(cells) for cells in facts.cells.values()],
    )
    key = (FORMAT, design, of_family, facts.parts[part].options, tools, RECIPE)
    runs = []
    with cache_folder(CACHE) as folder, ExitStack() as stack:
        scratch: Path | None = None
        for seed in seeds:

            def make(seed: int | None = seed) -> dict[str, Any]:
                nonlocal scratch
                if scratch is None:
                    scratch = stack.enter_context(scratch_folder(folder))
                    _synthesize(design, family, scratch, say)
                return _route(family, part, seed, scratch, say)

            runs.append(_cached(("place", key, seed), make, say, _name(seed)))
    return runs


def _cached(facts: object, make: Callable[[], Any], say: Progress, what: str) -> Any:
    """The result that the cache has for the same facts, or else the one that `make` gives."""
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:24]
    waiting = f"{what}: waiting for another process that measures it"
    with (
        cache_folder(CACHE) as folder,
        locked(folder / f"{key}.lock", lambda: say(waiting)),
    ):
        file = folder / f"{key}.json"
        if file.exists():
            say(f"{what}: measured before, taken from the cache")
            return json.loads(file.read_text())
        result = make()
        write_whole(file, json.dumps(result))
        return result


def _synthesize(design: str, family: str, folder: Path, say: Progress) -> None:
    facts = load_family(family)
    (folder / f"{TOP}.cst").write_text(facts.measure.constraints)
    stages = iter(("synthesis", "synthesis again, by other commands"))

    def run(arguments: list[str], place: Path) -> None:
        run_tool(YOSYS, YOSYS, arguments, place, Watch(next(stages), say))

    scripts = [
        f"setattr -mod -set keep_hierarchy 1 {KEPT}; {commands}; "
        f"setattr -mod -unset keep_hierarchy {KEPT}; flatten; opt_clean; {facts.measure.finish}"
        for commands in facts.synthesis
    ]
    netlist = run_synthesis(design, scripts, folder, run)
    (folder / f"{TOP}.json").write_text(improve(netlist, facts), encoding="utf-8")


def _name(seed: int | None) -> str:
    return "synthesis" if seed is None else f"seed {seed}"


def _route(family: str, part: str, seed: int | None, folder: Path, say: Progress) -> dict[str, Any]:
    facts = load_family(family)
    measure = facts.measure
    netlist = Netlist(json.loads((folder / f"{TOP}.json").read_text()), TOP)
    cells = Counter(facts.cell_type(cell["type"]) for cell in netlist.cells.values())
    fmax = path = None
    if measure.place:
        timing = _nextpnr(facts, part, seed, folder, say)
        for name, count in timing["utilization"].items():
            cells[name] = count["used"]
        if seed is not None:
            fmax, path = (
                round(_reached(timing), 2),
                critical_path(timing, next(iter(timing["fmax"]))),
            )
            say(f"seed {seed}: {fmax:g} MHz, from {path['from']} to {path['to']}")
    for name, counter in measure.count.items():
        cells[name] = load_component(counter)(netlist)
    used = {
        name: sum(cells[cell] * each for cell, each in facts.cells[name].items())
        for name in RESOURCES
    }
    available = dict(zip(RESOURCES, facts.parts[part].available, strict=True))
    if seed is not None:
        _refuse(part, filter(None, (_over(n, used[n], available[n]) for n in RESOURCES)))
    cost = harness_cost(netlist)
    return {
        **used,
        "harness_luts": cost["cells" if measure.paired else "luts"],
        "harness_ffs": cost["ffs"],
        "fmax_mhz": fmax,
        "critical_path": path,
    }


def _over(name: str, used: int, available: int) -> str:
    return f"{used:,} of {available:,} {name}" if used > available else ""


def _refuse(part: str, over: Iterable[str]) -> None:
    if excess := ", ".join(over):
        raise BuildError(
            f"does not fit the {part}: {excess}; take fewer lanes or rows, or another --part"
        )


def _nextpnr(family: Family, part: str, seed: int | None, folder: Path, say: Progress) -> Any:
    measure = family.measure
    options = [
        *family.parts[part].options,
        *("--json", f"{TOP}.json", "--report", TIMING, "--timing-allow-fail"),
        *("--freq", str(measure.target_mhz)),
        *(("--pack-only",) if seed is None else ("--seed", str(seed), "--write", PLACED)),
    ]
    watch = Watch(f"{_name(seed)}: packing cells", say)
    try:
        run_tool(measure.place, measure.place, options, folder, watch)
    except BuildError:
        _refuse(
            part, filter(None, (_over(name, *used) for name, used in watch.utilization.items()))
        )
        raise
    if measure.shorten_paths and seed is not None:
        outcome = route_again(
            folder,
            measure.target_mhz,
            lambda where: _reached(json.loads((where / TIMING).read_text())),
            lambda where: run_tool(measure.place, measure.place, [*options, *AGAIN], where, watch),
            load_component(measure.shorten_paths),
        )
        if outcome:
            say(f"seed {seed}: {outcome}")
    return json.loads((folder / TIMING).read_text())


def _reached(timing: Any) -> float:
    if len(timing["fmax"]) != 1:
        raise BuildError(f"nextpnr reports {len(timing['fmax'])} clocks, not one")
    ((_, clock),) = timing["fmax"].items()
    return float(clock["achieved"])


def _simulate(config: AcceleratorConfig, tools: Sequence[str], say: Progress) -> tuple[int, int]:
    """Cycles of the layer, and how many results were exact: all, or it is a `ToolError`."""

    def make() -> list[int]:
        say("simulating the layer")
        return list(_compare(config, say))

    design = rtlil.convert(Core(config), name=TOP, emit_src=False)
    cycles, exact = _cached(("cycles", design, config.to_json(), tools), make, say, "simulation")
    return cycles, exact


def _compare(config: AcceleratorConfig, say: Progress) -> tuple[int, int]:
    trits, tokens = vectors(config)
    expected = numerics.matmul(trits, tokens)
    formula = layer_cycles(config, config.max_in_features, config.max_out_features)
    done = 0
    for sums, cycles in CoreSimulation(config).layer(trits, tokens):
        if cycles != formula:
            raise ToolError(f"the layer took {cycles} cycles, not {formula} as the formula has it")
        if (sums != expected[done : done + len(sums)]).any():
            raise ToolError(f"a result of tokens {done} to {done + len(sums) - 1} is not exact")
        done += len(sums)
        say(f"simulated {done} of {len(tokens)} tokens, {cycles:,} cycles each, exact")
    return formula, expected.size


def vectors(config: AcceleratorConfig) -> tuple[I8, I8]:
    """Weights [out, in] and activations [tokens, in]: the extreme ones first, then random ones."""
    rng = np.random.default_rng(4)
    inputs, outputs = config.max_in_features, config.max_out_features
    low, high = act_limits(config)
    sign = np.where(np.arange(inputs) % 2, -1, 1)
    trits = rng.choice(np.array(ALPHABETS[config.alphabet], np.int8), (outputs, inputs))
    for row, extreme in enumerate((-1, 1, sign, -sign)):
        if row < outputs:
            trits[row] = extreme
    tokens = np.stack(
        [
            np.full(inputs, low),
            np.full(inputs, high),
            np.where(sign < 0, low, high),
            *rng.integers(low, high + 1, (RANDOM_TOKENS, inputs)),
        ]
    )
    whole = np.resize(tokens, (-(-len(tokens) // config.tokens) * config.tokens, inputs))
    return trits, whole.astype(np.int8)
