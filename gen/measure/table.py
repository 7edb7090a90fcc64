"""The measured table that `auto` chooses by: what geometries of every engine take of a part.

`measured.json` beside this file holds the points; `tritloom measure table` makes them, by the
flow of `measure engine`, and measures a point again only where its design or the tools are others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tritloom.boards.families.family import RESOURCES, TOP, load_family
from tritloom.gen.flow.tools import YOSYS, BuildError, Progress, timed, tool_version
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.errors import ConfigError, InputError
from tritloom.rtl.spec.files import write_whole
from tritloom.rtl.spec.plugins import engines

__all__ = ["TABLE", "Point", "grid", "measure", "read_table"]

TABLE = Path(__file__).with_name("measured.json")
FORMAT = 1
SEEDS = (1,)
"""Of the points that are routed; their clock is the median. More of them take long and tell little:
another seed differs by about 8 %."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A measurement on the family's first part, the harness not counted.

    Of the core alone; or, where `memory_words` is not 0, of the whole accelerator behind a UART.
    `mhz`: median, at most the part's limit; `None` where it was not routed. `design`: digest
    of the netlist's sources and the tools.
    """

    family: str
    engine: str
    encoding: str
    lanes: int
    rows: int
    tokens: int
    fill: int
    act_bits: int
    in_features: int
    out_features: int
    memory_words: int = 0
    max_layers: int = 0
    packet_bytes: int = 0
    slots: int = 0
    luts: int = 0
    ffs: int = 0
    block_rams: int = 0
    dsps: int = 0
    mhz: float | None = None
    design: str = ""

    @property
    def config(self) -> AcceleratorConfig:
        """What was measured; of a core, the rest is of no effect."""
        names = ("engine", "encoding", "lanes", "rows", "tokens", "fill", "act_bits")
        rest: dict[str, Any] = {"packet_bytes": 4096}
        if self.memory_words:
            whole = ("max_layers", "packet_bytes", "slots")
            rest = {name: getattr(self, name) for name in whole} | {"link": Uart(baud=BAUD)}
        return AcceleratorConfig(
            **{name: getattr(self, name) for name in names},
            alphabet=encodings[self.encoding].alphabet,
            memory=BlockRam(words=self.memory_words or 1),
            max_in_features=self.in_features,
            max_out_features=self.out_features,
            banks=1,
            **rest,
        )

    @property
    def key(self) -> tuple[Any, ...]:
        """What is measured, without what came of it."""
        return tuple(getattr(self, name) for name in FIELDS if name not in RESULTS)

    def to_dict(self) -> dict[str, Any]:
        fields = asdict(self)
        return {name: fields[name] for name in FIELDS if self.memory_words or name not in WHOLE}


FIELDS = tuple(Point.__dataclass_fields__)
RESULTS = (*RESOURCES, "mhz", "design")
WHOLE = ("memory_words", "max_layers", "packet_bytes", "slots")
BAUD = 1_000_000

Geometry = tuple[int, int, int, int, int, int, int, bool]
"""Lanes, rows, tokens, fill, act_bits, in and out features; whether to route it."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The geometries of an engine that are measured with each of its encodings.

    Each geometry differs from the others in more than one of what the model counts, so that the fit
    can tell those apart.

    Members
    -------
    geometries : what is measured
    in_codes : whether the lanes of `geometries` are numbers of codes
    routes_best : whether the best known geometry is routed as well. nextpnr takes minutes a seed
        for as many adders as that of `select` has.
    """

    geometries: tuple[Geometry, ...]
    in_codes: bool
    routes_best: bool


CODES = (
    (4, 1, 1, 1, 8, 512, 256, False),
    (8, 1, 1, 4, 8, 2560, 640, True),
    (8, 1, 2, 2, 8, 1024, 512, False),
    (8, 2, 1, 8, 8, 2560, 2560, False),
    (12, 1, 1, 3, 4, 2560, 640, False),
    (8, 4, 1, 4, 8, 512, 512, False),
    (24, 2, 1, 8, 8, 6912, 4096, False),
)
LANES = (
    (10, 1, 1, 1, 8, 512, 256, False),
    (20, 2, 1, 4, 8, 2560, 640, True),
    (20, 1, 2, 2, 8, 1024, 512, False),
    (20, 4, 1, 4, 4, 1024, 512, False),
    (60, 2, 1, 10, 8, 6912, 4096, True),
    (30, 4, 1, 3, 8, 512, 512, False),
    (40, 8, 1, 4, 8, 6912, 2560, False),
)
GRIDS = {
    "table": Grid(CODES, in_codes=True, routes_best=True),
    "select": Grid(LANES, in_codes=False, routes_best=False),
}
"""The grid of each engine that is measured."""
ACCELERATORS = (
    # Engine, encoding, lanes, rows, tokens, fill, features; words, layers, packet bytes, slots.
    ("select", "base3x5", 20, 1, 1, 1, (140, 128), (256, 8, 256, 2)),
    ("select", "diff2", 20, 4, 1, 4, (512, 512), (1024, 16, 512, 4)),
    ("select", "base3x5", 40, 2, 1, 5, (2080, 2048), (3072, 64, 1024, 8)),
    ("table", "base3x5", 40, 1, 2, 4, (1024, 512), (2048, 16, 1024, 4)),
    ("table", "sym6x10", 48, 1, 1, 4, (2560, 2560), (6144, 32, 1024, 4)),
    ("select", "diff2", 60, 4, 1, 10, (1024, 1024), (1024, 64, 1024, 8)),
    ("table", "base3x5", 20, 2, 1, 2, (256, 256), (512, 8, 256, 2)),
)
"""What is around a core is the difference to the core alone, which is measured too."""


def grid(family: str, engine: str | None = None) -> Iterator[tuple[Point, bool]]:
    """What `measure table` measures, results missing, and whether to route it.

    `ConfigError` for an engine that has no grid.
    """
    measure = load_family(family).measure
    if engine is not None and engine not in GRIDS:
        raise ConfigError(f"engine must be one of {', '.join(sorted(GRIDS))}, not {engine!r}")
    for name in sorted(GRIDS) if engine is None else [engine]:
        own = GRIDS[name]
        for encoding in engines[name].encodings:
            facts = encodings[encoding]
            unit = facts.trits_per_code if own.in_codes else 1
            # Binary weights cost what ternary ones do; a few points show it.
            few = tuple(each for each in own.geometries[:4] if not each[-1])
            for lanes, *values, routed in few if facts.alphabet == "binary" else own.geometries:
                yield _core(family, name, encoding, lanes * unit, *values), bool(routed)
            if best := measure.geometries.get((name, encoding)):
                of = best["lanes"], best["rows"], best.get("tokens", 1), best["fill"]
                yield _core(family, name, encoding, *of, 8, *measure.features), own.routes_best
    for name, encoding, lanes, rows, tokens, fill, features, whole in ACCELERATORS:
        if engine in (None, name):
            core = _core(family, name, encoding, lanes, rows, tokens, fill, 8, *features)
            words, layers, packet_bytes, slots = whole
            yield core, False
            yield (
                replace(
                    core,
                    memory_words=words,
                    max_layers=layers,
                    packet_bytes=packet_bytes,
                    slots=slots,
                ),
                False,
            )


def _core(family: str, engine: str, encoding: str, *geometry: int) -> Point:
    names = ("lanes", "rows", "tokens", "fill", "act_bits", "in_features", "out_features")
    values: dict[str, Any] = dict(zip(names, geometry, strict=True))
    return Point(family=family, engine=engine, encoding=encoding, **values)


def measure(
    family: str,
    engine: str | None = None,
    *,
    progress: Progress = lambda line: None,
    table: Path = TABLE,
) -> tuple[int, int]:
    """Bring a family's points in `table` up to date; gives how many were measured, and how many
    there are.

    A point that is there is measured again only where its design or the tools are others. What does
    not fit the family's first part is not routed. The file is written after each point.
    `BuildError`, at the end, names those at which the tools failed.
    """
    # Reading the table must not need Amaranth: `tritloom auto` reads it and builds nothing.
    from amaranth.back import rtlil

    from tritloom.gen.measure.engine import median_mhz, place_and_route
    from tritloom.gen.measure.harness import Harness
    from tritloom.gen.passes.synthesis import RECIPE
    from tritloom.rtl.core.core import Core
    from tritloom.rtl.top import Accelerator

    points = {point.key: point for point in read_table(table)} if table.exists() else {}
    say = timed(progress)
    facts = load_family(family)
    part, part_facts = facts.part()
    place = facts.measure.place
    tools = [f"{name} {tool_version(name)}" for name in ("amaranth", YOSYS, place) if name]
    # What takes longest last.
    wanted = sorted(dict(grid(family, engine)).items(), key=lambda item: item[1])
    count = 0
    failed = []
    for number, (point, routed) in enumerate(wanted, 1):
        config = point.config
        component: Any = (Accelerator if point.memory_words else Core)(config)
        design = rtlil.convert(Harness(component), name=TOP, emit_src=False)
        routed = routed and bool(place)
        seeds: Sequence[int | None] = SEEDS if routed else [None]
        key = (design, facts.synthesis, facts.measure.finish, RECIPE, tools, seeds)
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:12]
        known = points.get(point.key)
        if known is not None and known.design == digest:
            continue
        say(f"{number} of {len(wanted)}: {_told(point)}{', routed' if routed else ''}")
        try:
            try:
                runs = place_and_route(
                    design, family, part, seeds, tools, say if routed else _silent
                )
            except BuildError as error:
                if not routed or "does not fit" not in str(error):
                    raise
                runs = place_and_route(design, family, part, [None], tools, _silent)
        except BuildError as error:
            say(f"{_told(point)}: {error}")
            failed.append(_told(point))
            continue
        net = {name: runs[-1][name] for name in RESOURCES}
        for name in ("luts", "ffs"):
            net[name] -= runs[-1][f"harness_{name}"]
        reached = [run["fmax_mhz"] for run in runs if run["fmax_mhz"] is not None]
        median = median_mhz(reached, part_facts.limit_mhz)
        points[point.key] = replace(point, **net, mhz=median, design=digest)
        _write(table, points.values())
        count += 1
    # What the grid no longer has goes.
    keys = {point.key for point, _ in wanted}
    mine = [p.key for p in points.values() if p.family == family and engine in (None, p.engine)]
    stale = [key for key in mine if key not in keys]
    for key in stale:
        del points[key]
    if stale:
        _write(table, points.values())
    if failed:
        raise BuildError(
            f"not measured: {', '.join(failed)}; {len(wanted) - len(failed)} other points are there"
        )
    return count, len(wanted)


def _silent(line: str) -> None:
    """For what is over in seconds."""


def _told(point: Point) -> str:
    what = "accelerator, " if point.memory_words else ""
    tokens = f" × {point.tokens} tokens" if point.tokens > 1 else ""
    return f"{what}{point.engine} {point.encoding} {point.lanes} × {point.rows}{tokens}"


def _write(table: Path, points: Any) -> None:
    lines = sorted(points, key=lambda point: tuple(map(_sortable, point.key)))
    rows = ",\n".join(json.dumps(point.to_dict()) for point in lines)
    write_whole(table, f'{{"format": {FORMAT}, "points": [\n{rows}\n]}}\n')


def _sortable(value: object) -> tuple[bool, Any]:
    return (isinstance(value, str), value)


def read_table(table: Path = TABLE) -> list[Point]:
    """The points of a file that `measure` wrote; `InputError` for any other."""
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}")
        return [Point(**values) for values in content["points"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{table} is not a table of measure table: {error}; delete it and make it again"
        ) from None
