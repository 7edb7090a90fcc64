"""Builds bitstreams with the open tools: synthesis, placement, routing and a report."""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tritloom.boards.board import Board
from tritloom.boards.clock import choose_pll
from tritloom.boards.families.family import (
    RESOURCES,
    TOP,
    Bitstream,
    Family,
    bitstream_families,
    load_family,
)
from tritloom.boards.top import BoardTop
from tritloom.gen.flow.pad_clocks import pad_clocks
from tritloom.gen.flow.report import (
    FORMAT,
    LABELS,
    advice,
    critical_path,
    crossing_ns,
    floorplan_svg,
    html_report,
)
from tritloom.gen.flow.tools import (
    YOSYS,
    BuildError,
    Progress,
    Watch,
    run_tool,
    timed,
    tool_version,
)
from tritloom.gen.passes.netlist import Netlist
from tritloom.gen.passes.reroute import AGAIN, PLACED, TIMING, route_again
from tritloom.gen.passes.synthesis import RECIPE, synthesise
from tritloom.gen.plan.models import on_device
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.files import scratch_folder
from tritloom.rtl.spec.plugins import engines
from tritloom.rtl.spec.registry import load_component
from tritloom.sim.tools import cache_folder, locked, read_output

__all__ = ["Build", "BuildError", "build", "fit"]

CLOCK_TOLERANCE = 0.01
CLOCKS = ("clock_mhz", "memory_clock_mhz")
"""The clocks in a report: the accelerator's, and the weight memory's if it has one of its own."""


@dataclass(frozen=True, slots=True)
class Build:
    """A finished build: the path of the bitstream, and the contents of `report.json`."""

    bitstream: Path
    report: dict[str, Any]

    @property
    def timing_met(self) -> bool:
        return bool(self.report["timing_met"])

    @property
    def advice(self) -> str:
        """By how much timing was missed and what to change; empty if it was met."""
        return advice(self.report)


def build(
    board: Board,
    directory: Path,
    *,
    config: AcceleratorConfig | None = None,
    seed: int = 1,
    seeds: int = 1,
    progress: Progress = lambda line: None,
) -> Build:
    """Build `board`'s bitstream into `directory`, with its reports and floorplan.

    Places with up to `seeds` seeds from `seed` on, until one meets timing, and keeps the
    fastest. `config` replaces the board's accelerator; its link becomes the board's. A build of
    the same design with the same tools and seed is taken from the cache. Missed timing is
    reported, not raised: `BuildError` is for what gives no bitstream.
    """
    with _writable(directory):
        config = _for_board(board, config)
        cached = _Design(board, config).build(range(seed, seed + seeds), timed(progress))
        return _deliver(board, cached, directory)


def fit(
    board: Board,
    directory: Path,
    *,
    config: AcceleratorConfig | None = None,
    seed: int = 1,
    seeds: int = 1,
    progress: Progress = lambda line: None,
) -> Build:
    """Build the largest geometry that meets the clock.

    First the most rows, with the lanes of the configuration; then, with these rows, the most lanes.
    The bits of weight memory stay what the configuration has. The rest is as in `build`.

    Raises
    ------
    BuildError : not even one row fits and meets the clock
    """
    start = _for_board(board, config)
    weight_bits = start.memory_words * start.word_bits
    step = _lane_step(start)
    say = timed(progress)
    reasons: dict[tuple[int, int], str] = {}

    def attempt(lanes: int, rows: int) -> Path | None:
        geometry = f"{lanes} lanes × {rows} row{'' if rows == 1 else 's'}"
        try:
            if lanes - step >= start.max_in_features:
                raise ConfigError("more lanes than inputs are of no use")
            tried = replace(start, lanes=lanes, rows=rows)
            tried = tried.with_words(max(1, weight_bits // tried.word_bits))
            say(f"{geometry}: at most {tried.macs_per_cycle} MAC/cycle")
            folder = _Design(board, tried).build(range(seed, seed + seeds), say)
        except (BuildError, ConfigError) as error:
            reasons[lanes, rows] = str(error)
        else:
            missed = advice(_read_report(folder))
            if not missed:
                say(f"{geometry}: timing met")
                return folder
            reasons[lanes, rows] = missed
        say(f"{geometry}: {reasons[lanes, rows]}")
        return None

    with _writable(directory):
        rows, best = _largest(start.rows, lambda rows: attempt(start.lanes, rows))
        if best is None:
            raise BuildError(f"not even one row of {start.lanes} lanes: {reasons[start.lanes, 1]}")
        _, wider = _largest(1, lambda steps: attempt(start.lanes + steps * step, rows))
        return _deliver(board, wider or best, directory)


def _largest(start: int, attempt: Callable[[int], Path | None]) -> tuple[int, Path | None]:
    """The largest number from 1 that succeeds, and its folder; (0, None) if none does.

    Doubles the number while it succeeds, or halves it until it does, then halves the step.
    """
    good, bad, number = 0, 0, start
    best: Path | None = None
    while number != good:
        folder = attempt(number)
        if folder is not None:
            good, best = number, folder
        else:
            bad = number
        number = (good + bad) // 2 if bad else 2 * good
    return good, best


def _lane_step(config: AcceleratorConfig) -> int:
    """The smallest number of lanes that may be added to a configuration, any number of times."""
    trits_per_code = encodings[config.encoding].trits_per_code
    units = engines[config.engine].fill_units
    # `fill` must divide the lanes and what the engine fills.
    step = trits_per_code
    while step % config.fill or (units(replace(config, lanes=config.lanes)) * step) % (
        config.fill * config.lanes
    ):
        step += trits_per_code
    return step


def _for_board(board: Board, config: AcceleratorConfig | None) -> AcceleratorConfig:
    """The configuration to build. Its link becomes the board's unless it is of the same kind."""
    if config is None:
        return board.build_config
    same_kind = type(config.link) is type(board.link)
    return config if same_kind else replace(config, link=board.link)


class _Design:
    """The inputs that the tools get for a configuration on a board. Results stay in the cache."""

    def __init__(self, board: Board, config: AcceleratorConfig) -> None:
        self._board = board
        self._config = config
        self._family, self._flow = _flow(board)
        platform = board.create_platform()
        # An impossible clock fails here with its one line, not in the midst of the design.
        own_hz = config.memory.own_clock_hz(config)
        choose_pll(platform, self._family, config.clock_hz, own_hz)
        # Source positions would make the files those of one installation.
        plan = platform.prepare(BoardTop(board, config), TOP, emit_src=False)
        names = (f"{TOP}.il", f"{TOP}.{self._flow.constraints}")
        self._inputs = {
            name: text if isinstance(text := plan.files[name], bytes) else text.encode()
            for name in names
        }
        self._place_options = self._flow.place_options(platform)
        self._tools = [f"{name} {tool_version(name)}" for name in (YOSYS, self._flow.package)]

    def build(self, seeds: range, say: Progress) -> Path:
        """The folder of the first seed that meets timing, or else that of the fastest seed."""
        # The accelerator's and the memory's clock count by the one that falls shortest of its aim.
        best: tuple[tuple[bool, float], Path] | None = None
        waiting = "waiting for another build of the same design"
        with (
            cache_folder("builds") as place,
            locked(place / f"{self._key()}.lock", lambda: say(waiting)),
            scratch_folder(place) as scratch,
        ):
            for seed in seeds:
                cached = place / self._key(seed)
                if all((cached / file).is_file() for file in self._products()):
                    say(f"seed {seed}: built before, taken from the cache")
                else:
                    self._make(seed, scratch, cached, say)
                report = _read_report(cached)
                clocks = [report[key] for key in CLOCKS if key in report]
                texts = [f"{clock['reached']:g} of {clock['wanted']:g} MHz" for clock in clocks]
                say(f"seed {seed}: {', memory '.join(texts)}")
                worst = min(clock["reached"] / clock["wanted"] for clock in clocks)
                rank = (report["timing_met"], worst)
                if best is None or rank > best[0]:
                    best = rank, cached
                if report["timing_met"]:
                    break
        assert best is not None, "there is at least one seed"
        return best[1]

    def _key(self, *seed: int) -> str:
        """Digest of everything that the result depends on."""
        facts = (
            FORMAT,
            (self._board.name, self._board.title, self._board.part),
            self._config.to_json(),
            sorted(self._inputs.items()),
            self._place_options,
            *([large] if (large := self._board.large_cells) else []),
            (RECIPE, self._family.passes, self._flow.pack_options, self._tools),
            seed,
        )
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:24]

    def _products(self) -> tuple[str, ...]:
        bitstream = f"{self._board.name}.{self._flow.bitstream}"
        return bitstream, "floorplan.svg", "report.html", "report.json"

    def _make(self, seed: int, scratch: Path, cached: Path, say: Progress) -> None:
        """Synthesises unless `scratch` has the netlist; places, routes, moves the result whole."""
        flow = self._flow
        netlist = scratch / f"{TOP}.json"
        if not netlist.exists():
            for file, content in self._inputs.items():
                (scratch / file).write_bytes(content)
            netlist.write_text(self._synthesise(say), encoding="utf-8")
        cells = Netlist(json.loads(netlist.read_text(encoding="utf-8")), TOP).cells.values()
        kinds = Counter(cell["type"] for cell in cells)
        self._place(kinds.total(), seed, scratch, say)
        run_tool(flow.pack, flow.package, flow.pack_options, scratch, Watch("packing", say))
        placed, timing = _results(scratch)
        report = self._report(placed, timing, kinds, seed)
        known = self._family.part_of(self._board.part)
        picture = floorplan_svg(placed, known[1].grid if known else (1, 1))
        out = scratch / f"seed-{seed}"
        out.mkdir()
        shutil.copy(scratch / f"{TOP}.{flow.bitstream}", out / self._products()[0])
        texts = {
            "floorplan.svg": picture,
            "report.html": html_report(report, self._board, picture),
            "report.json": json.dumps(report, indent=2, ensure_ascii=False) + "\n",
        }
        for file, text in texts.items():
            (out / file).write_bytes(text.encode())
        shutil.rmtree(cached, ignore_errors=True)
        os.replace(out, cached)

    def _synthesise(self, say: Progress) -> str:
        def run(arguments: Sequence[str], folder: Path) -> None:
            run_tool(YOSYS, YOSYS, arguments, folder, Watch("synthesis", say))

        return synthesise(self._inputs[f"{TOP}.il"].decode(), self._board.family, run)

    def _place(self, cells: int, seed: int, scratch: Path, say: Progress) -> None:
        files = ["--json", f"{TOP}.json", "--report", TIMING, "--write", PLACED]
        options = [*self._place_options, *files, "--timing-allow-fail", "--seed", str(seed)]
        large = 0 < (self._board.large_cells or self._flow.large_cells) <= cells
        if large:
            options += self._flow.large_options
        watch = Watch(f"seed {seed}: packing cells", say)
        tool = self._flow.package
        try:
            run_tool(tool, tool, options, scratch, watch)
        except BuildError:
            over = [
                f"{used:,} of {available:,} {LABELS[name]}"
                for name, (cell, *_) in self._family.cells.items()
                for used, available in [watch.utilization.get(cell, (0, 0))]
                if used > available
            ]
            if over:
                raise BuildError(
                    f"does not fit the {self._board.part}: {', '.join(over)}; take fewer rows, "
                    "lanes or memory_words, or use --fit"
                ) from None
            raise
        wanted = self._wanted_mhz()
        placed, timing = _results(scratch)
        for clock, mhz in zip(_our_clocks(placed, timing, len(wanted)), wanted, strict=True):
            actual = timing["fmax"][clock]["constraint"]
            if abs(actual - mhz) > CLOCK_TOLERANCE * mhz:
                raise BuildError(f"the PLL makes {actual:.2f} MHz by nextpnr, not {mhz:g}")
        # The pass knows paths of one clock only.
        if self._flow.shorten_paths and not large and len(wanted) == 1:
            stage = f"seed {seed}: shortening paths"
            outcome = route_again(
                scratch,
                wanted[0],
                self._reached,
                lambda to: run_tool(tool, tool, [*options, *AGAIN], to, Watch(stage, say)),
                load_component(self._flow.shorten_paths),
            )
            if outcome:
                say(f"seed {seed}: {outcome}")

    def _wanted_mhz(self) -> list[float]:
        """The accelerator's clock, and the memory's if it has one of its own."""
        config = self._config
        own_hz = config.memory.own_clock_hz(config)
        return [hz / 1e6 for hz in (config.clock_hz, own_hz) if hz]

    def _reached(self, folder: Path) -> float:
        placed, timing = _results(folder)
        (clock,) = _our_clocks(placed, timing, 1)
        return float(timing["fmax"][clock]["achieved"])

    def _report(
        self, placed: Any, timing: Any, kinds: Mapping[str, int], seed: int
    ) -> dict[str, Any]:
        config = self._config
        used = {name: self._used(name, timing["utilization"], kinds) for name in RESOURCES}
        wanted = self._wanted_mhz()
        clocks = _our_clocks(placed, timing, len(wanted))
        reached = [timing["fmax"][clock]["achieved"] for clock in clocks]
        missed = [has < mhz for has, mhz in zip(reached, wanted, strict=True)]
        others = pad_clocks(config, timing, clocks)
        # The bits of a Gray code must arrive within a cycle of each other.
        crossing = {
            "longest": round(crossing_ns(timing, clocks), 2),
            "allowed": round(1000 / max(wanted), 2),
        }
        crosses = len(clocks) == 1 or crossing["longest"] < crossing["allowed"]
        return {
            **used,
            **{
                key: {"wanted": mhz, "reached": round(has, 2)}
                for key, has, mhz in zip(CLOCKS, reached, wanted, strict=False)
            },
            **({"other_clocks_mhz": others} if others else {}),
            **({"crossing_ns": crossing} if len(clocks) > 1 else {}),
            "timing_met": not any(missed)
            and crosses
            and all(other["reached"] >= other["wanted"] for other in others),
            "mac_per_cycle": config.macs_per_cycle,
            "lut_per_mac": round(used["luts"]["used"] / config.macs_per_cycle, 2),
            "weight_capacity": {
                "trits": config.memory_words * config.rows * config.lanes,
                "bits": config.memory_words * config.word_bits,
            },
            "models": {name: each.to_dict() for name, each in on_device(config).items()},
            # That of the memory's clock only where this one alone is missed.
            "critical_path": critical_path(timing, clocks[missed == [False, True]]),
            "tools": self._tools,
            "seed": seed,
            "config": config.to_dict(),
        }

    def _used(
        self, resource: str, utilization: Mapping[str, Any], kinds: Mapping[str, int]
    ) -> dict[str, int]:
        """How much of a resource is used, as nextpnr counts it, or else as the netlist does."""
        cell, *_ = self._family.cells[resource]
        if cell in utilization:
            return {key: utilization[cell][key] for key in ("used", "available")}
        count = sum(
            number for kind, number in kinds.items() if self._family.cell_type(kind) == cell
        )
        _, part = self._family.part_of(self._board.part) or self._family.part()
        return {"used": count, "available": part.available[RESOURCES.index(resource)]}


def _flow(board: Board) -> tuple[Family, Bitstream]:
    """The board's family, and its flow to a bitstream."""
    if board.family not in bitstream_families():
        raise BuildError(
            f"no open flow for family {board.family!r} of {board.name}; "
            f"known are {', '.join(bitstream_families())}"
        )
    family = load_family(board.family)
    assert family.bitstream is not None
    return family, family.bitstream


def _results(folder: Path) -> tuple[Any, Any]:
    """The two files that nextpnr wrote: the placed design, and its timing report."""
    placed, timing = (json.loads(read_output(folder / name, "}")) for name in (PLACED, TIMING))
    return placed, timing


def _our_clocks(placed: Any, timing: Any, count: int) -> list[str]:
    """The names of the accelerator's clocks, which come from the PLL: those of most cells.

    Its own clock has the most, that of the weight memory's logic the second most.
    """
    top = placed["modules"][TOP]
    cells = top["cells"].values()
    wires = Counter(bit for cell in cells for bit in cell["connections"].get("CLK", ()))
    found = []
    for bit, _ in wires.most_common(count):
        names = {name for name, net in top["netnames"].items() if net["bits"] == [bit]}
        found += [str(name) for name in timing["fmax"] if name in names][:1]
    if len(found) < count:
        raise BuildError("nextpnr reports no clock for the accelerator")
    return found


def _read_report(cached: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((cached / "report.json").read_text(encoding="utf-8"))
    return report


@contextmanager
def _writable(directory: Path) -> Iterator[None]:
    """Checks before the work that a folder can be written; a failure leaves no empty folder."""
    is_new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise BuildError(
            f"cannot write to {directory}: {error.strerror or error}; choose another folder"
        ) from None
    try:
        yield
    except BaseException:
        if is_new and not any(directory.iterdir()):
            directory.rmdir()
        raise


def _deliver(board: Board, cached: Path, directory: Path) -> Build:
    """Copies a result into the user's folder. Each file appears whole, the report last."""
    files = sorted(cached.iterdir(), key=lambda file: (file.name == "report.json", file.name))
    with scratch_folder(directory) as scratch:
        for file in files:
            shutil.copyfile(file, scratch / file.name)
        for file in files:
            os.replace(scratch / file.name, directory / file.name)
    bitstream = f"{board.name}.{_flow(board)[1].bitstream}"
    return Build(directory / bitstream, _read_report(cached))
