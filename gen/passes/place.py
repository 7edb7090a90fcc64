"""Shorter paths in an ECP5 design that misses its clock.

nextpnr's placers draw together what is connected. To them it is all one where on its way a row of
registers stands, so of its wires one is long and the rest are short; and a LUT may lie far from the
one register that decides the clock. Here flip-flops, LUTs and carry chains on long paths move to
better places, by estimated delays, and what is in their way moves aside. nextpnr then refuses what
is not legal.

Delays are in nanoseconds, of speed grade 6: cells as in nextpnr's database, wires fitted to those
of routed designs (standard deviation 0.24).
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tritloom.gen.passes.netlist import TOP
from tritloom.rtl.spec.errors import ToolError

__all__ = ["AGAIN", "PLACED", "TIMING", "improve_placement", "route_again"]

PLACED, TIMING = "placed.json", "timing.json"
"""What nextpnr writes: the design, and its report."""
AGAIN = ("--no-pack", "--tmg-ripup")
"""Options for a design of constraints; routing tries harder, which takes long on large ones."""

CLOCK_TO_OUT = defaultdict(lambda: 0.525, {"DP16KD": 1.06})
LUT, INTO_CARRY, CARRY, OUT_OF_CARRY = 0.236, 0.45, 0.071, 0.44
WIRE = defaultdict(
    lambda: 0.6, {"LUT": 0.5, "A": 0.9, "B": 0.9, "C": 0.67, "D": 0.67, "AD": 0.85, "DI": 0.85}
)
"""To a pin of a LUT, where routing swaps pins so that the last one is fast; of a carry; of block
RAM; and to any other."""
NEAR = 6
PER_TILE = ((0.075, 0.041), (0.09, 0.035))
"""Sideways and up: each of the ``NEAR`` first tiles, and each farther one."""
SAME_TILE = -0.2
INSIDE = {"FCI": 0.0, "FXA": 0.0, "FXB": 0.0, "DI": 0.13}
"""Wires to these pins lie inside a tile, or lead to the next one."""
UNTIMED = {"DCCA", "TRELLIS_IO", "EHXPLLL"}
CLOCKS = {"CLK", "CLKA", "CLKB", "WCK"}

LONG = 0.87
"""Of the clock's period: estimated paths beyond it are too long, as routing adds to them."""
TILE_COST = 0.0008
"""What a tile of wire costs, in ns²."""
SWEEPS, TILES, TRIES = 20, 300, 40
ASIDE = 6
"""Tiles that one which is in the way goes at most."""
SLICE = re.compile(r"X(\d+)/Y(\d+)/SLICE([A-D])\.(\w+?)([01]?)$")


class _Place(NamedTuple):
    """Half of a slice: ``lc`` counts the tile's eight; ``kind`` is ``FF``, or ``K`` for a LUT."""

    x: int
    y: int
    lc: int
    kind: str


class _Wire(NamedTuple):
    """Of a unit to another: its number, the other cell, and where the unit's end lies in it."""

    arc: int
    other: int
    dx: int
    dy: int


def route_again(
    folder: Path,
    wanted_mhz: float,
    reached_mhz: Callable[[Path], float],
    run: Callable[[Path], None],
) -> str:
    """Where a routed design misses its clock, place it better, and keep the faster one.

    ``folder`` has nextpnr's files, ``reached_mhz`` reads the clock from such a folder, and ``run``
    places by constraints and routes in one that has the design and its pins. Returns what came of
    it, in a line; empty if there was nothing to do.
    """
    before = reached_mhz(folder)
    if before >= wanted_mhz:
        return ""
    text = improve_placement((folder / PLACED).read_text(encoding="utf-8"), 1000 / wanted_mhz)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        again = Path(name)
        (again / f"{TOP}.json").write_text(text, encoding="utf-8")
        for pins in folder.glob(f"{TOP}.lpf"):
            shutil.copy(pins, again)
        try:
            run(again)
        except ToolError as error:
            return f"shorter paths refused, nextpnr's placement kept: {error}"
        after = reached_mhz(again)
        if after > before:
            for file in again.iterdir():
                if file.name != f"{TOP}.json":
                    os.replace(file, folder / file.name)
    return f"shorter paths: {before:.4g} MHz, then {after:.4g}"


def improve_placement(text: str, period_ns: float) -> str:
    """A placed design as nextpnr wrote it: the same with each cell's place as a constraint."""
    document = json.loads(text)
    module = document["modules"][TOP]
    design = _Design(list(module["cells"].values()), LONG * period_ns)
    design.improve()
    for cell, (x, y), place in zip(design.cells, design.xy, design.places, strict=True):
        attributes = cell["attributes"]
        bel = attributes.pop("NEXTPNR_BEL")
        attributes.pop("BEL_STRENGTH", None)
        if place is not None:
            bel = f"X{x}/Y{y}/SLICE{'ABCD'[place.lc // 2]}.{place.kind}{place.lc % 2}"
        attributes["BEL"] = bel
        # Read again, a pin without a net is none, and would not be tied to what it is tied to now.
        for pin, bits in cell["connections"].items():
            if not bits and cell["port_directions"][pin] == "input":
                cell["connections"][pin] = ["x"]
    for net in module["netnames"].values():
        net["attributes"].pop("ROUTING", None)
    # Settings go before options. Of a design that is packed, nextpnr derives no clock constraints.
    kept = {name: value for name, value in module["settings"].items() if "router" not in name}
    module["settings"] = kept | {"target_freq": f"{1e9 / period_ns:.6f}"}
    return json.dumps(document)


class _Design:
    """Cells by number, the wires between them by number, and what may move."""

    def __init__(self, cells: list[dict[str, Any]], long_ns: float) -> None:
        self.cells = cells
        self.places: list[_Place | None] = []
        self.xy: list[tuple[int, int]] = []
        self._long = long_ns
        self._random = random.Random(1)
        self._ram_tiles: set[tuple[int, int]] = set()
        for cell in cells:
            bel = cell["attributes"]["NEXTPNR_BEL"]
            found = re.match(r"X(\d+)/Y(\d+)/", bel)
            assert found is not None, bel
            self.xy.append((int(found[1]), int(found[2])))
            found = SLICE.match(bel)
            half = found is not None and found[4] in ("FF", "K")
            self.places.append(
                _Place(*self.xy[-1], "ABCD".index(found[3]) * 2 + int(found[5]), found[4])
                if found is not None and half
                else None
            )
            if "RAMW" in bel or _mode(cell) == "DPRAM":
                self._ram_tiles.add(self.xy[-1])
        self._at = {place: number for number, place in enumerate(self.places) if place}
        self._registers: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, number in self._at.items():
            if place.kind == "FF":
                self._registers[place[:2]].append(number)
        self._tile_kind = [_tile_kind(cell) for cell in cells]
        self._slice_kind = [_slice_kind(cell) for cell in cells]
        self._comb = [cell["type"] == "TRELLIS_COMB" for cell in cells]
        self._rows = {place.y for place in self._at}
        columns = [place.x for place in self._at] or [0]
        self._columns = min(columns), max(columns)
        self._connect()
        self._find_units()

    def _connect(self) -> None:
        drivers: dict[int, tuple[int, str]] = {}
        sinks: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for number, cell in enumerate(self.cells):
            if cell["type"] in UNTIMED:
                continue
            directions = cell["port_directions"]
            for port, bits in cell["connections"].items():
                for bit in bits:
                    if directions[port] == "output":
                        drivers[bit] = number, port
                    elif port not in CLOCKS:
                        sinks[bit].append((number, port))
        arcs = [(*driver, *sink) for bit, driver in drivers.items() for sink in sinks.get(bit, ())]
        self._source = [arc[0] for arc in arcs]
        self._out = [arc[1] for arc in arcs]
        self._sink = [arc[2] for arc in arcs]
        self._in = [arc[3] for arc in arcs]
        self._inside = [INSIDE.get(port) for port in self._in]
        self._wire = [
            WIRE[_pin(self.cells[sink], port)]
            for sink, port in zip(self._sink, self._in, strict=True)
        ]
        self._from: list[list[int]] = [[] for _ in self.cells]
        self._to: list[list[int]] = [[] for _ in self.cells]
        for arc, (source, _, sink, _) in enumerate(arcs):
            self._from[source].append(arc)
            self._to[sink].append(arc)
        # Of each wire: the longest way to its start, from its end, and on the whole.
        self._before = [0.0] * len(arcs)
        self._after = [0.0] * len(arcs)
        self._path = [0.0] * len(arcs)
        self._excess = [0.0] * len(arcs)
        self._order = list(self._in_order())

    def _in_order(self) -> Iterator[int]:
        """LUTs, each after those that feed it; a loop is left out."""
        waits = [sum(self._comb[self._source[arc]] for arc in arcs) for arcs in self._to]
        ready = [n for n, comb in enumerate(self._comb) if comb and not waits[n]]
        while ready:
            number = ready.pop()
            yield number
            for arc in self._from[number]:
                sink = self._sink[arc]
                waits[sink] -= 1
                if self._comb[sink] and not waits[sink]:
                    ready.append(sink)

    def _find_units(self) -> None:
        """What moves as one: a flip-flop, a LUT and the flip-flop that it feeds, a carry chain."""
        units: dict[int, tuple[int, ...]] = {}
        follows = {
            self._source[arc]: self._sink[arc] for arc, port in enumerate(self._in) if port == "FCI"
        }
        inner = set(follows.values())
        for number, cell in enumerate(self.cells):
            place = self.places[number]
            if place is None or place[:2] in self._ram_tiles:
                continue
            if cell["type"] == "TRELLIS_FF":
                if cell["connections"].get("M") and not cell["connections"].get("DI"):
                    units[number] = (number,)
            elif _plain(cell):
                units[number] = (number, *self._fed(number))
            elif number in follows and number not in inner:
                chain = [number]
                while chain[-1] in follows:
                    chain.append(follows[chain[-1]])
                units[number] = (*chain, *(fed for each in chain for fed in self._fed(each)))
        self._units = units
        self._unit_of = {each: unit for unit, members in units.items() for each in members}
        self._wires: dict[int, list[_Wire]] = {}
        for unit, members in units.items():
            x, y = self.xy[unit]
            self._wires[unit] = [
                _Wire(arc, other, self.xy[each][0] - x, self.xy[each][1] - y)
                for each in members
                for arcs, ends in ((self._to, self._source), (self._from, self._sink))
                for arc in arcs[each]
                if self._unit_of.get(other := ends[arc]) != unit
            ]

    def _fed(self, lut: int) -> list[int]:
        """The flip-flop that takes in the LUT beside it."""
        place = self.places[lut]
        assert place is not None
        register = self._at.get(place._replace(kind="FF"))
        takes = [] if register is None else self.cells[register]["connections"].get("DI")
        return [register] if register is not None and takes else []

    def improve(self) -> None:
        """Move what is on long paths until nothing moves any more, or it takes too long."""
        for _ in range(SWEEPS):
            self._analyse()
            if not self._descend():
                break

    def _analyse(self) -> None:
        """Static timing analysis."""
        lengths = []
        for arc, inside in enumerate(self._inside):
            if inside is not None:
                lengths.append(inside)
                continue
            (x, y), (to_x, to_y) = self.xy[self._source[arc]], self.xy[self._sink[arc]]
            lengths.append(self._wire[arc] + _way(abs(x - to_x), abs(y - to_y)))
        before, after = self._before, self._after
        for number, cell in enumerate(self.cells):
            if not self._comb[number]:
                for arc in self._from[number]:
                    before[arc] = CLOCK_TO_OUT[cell["type"]]
                for arc in self._to[number]:
                    after[arc] = 0.0
        for number in self._order:
            for arc in self._from[number]:
                before[arc] = max(
                    (
                        before[way] + lengths[way] + self._through(number, way, arc)
                        for way in self._to[number]
                    ),
                    default=0.0,
                )
        for number in reversed(self._order):
            for arc in self._to[number]:
                after[arc] = max(
                    (
                        after[way] + lengths[way] + self._through(number, arc, way)
                        for way in self._from[number]
                    ),
                    default=0.0,
                )
        self._path = [a + b + c for a, b, c in zip(before, lengths, after, strict=True)]
        # Without what a wire's length adds.
        self._excess = [
            before[arc] + after[arc] - self._long + (self._wire[arc] if inside is None else inside)
            for arc, inside in enumerate(self._inside)
        ]

    def _through(self, number: int, way_in: int, way_out: int) -> float:
        carry_in, carry_out = self._in[way_in] == "FCI", self._out[way_out] == "FCO"
        if carry_in:
            return CARRY if carry_out else OUT_OF_CARRY
        return INTO_CARRY if carry_out else LUT

    def _slow(self) -> list[int]:
        """Units on paths that are too long."""
        return [
            unit
            for unit, wires in self._wires.items()
            if any(self._path[wire.arc] > self._long for wire in wires)
        ]

    def _descend(self) -> int:
        """Move each slow unit to the best place between those that it is connected to."""
        moved = 0
        for unit in self._slow():
            here = self._cost(unit, *self.xy[unit])
            ends = [self.xy[unit]] + [
                (self.xy[wire.other][0] - wire.dx, self.xy[wire.other][1] - wire.dy)
                for wire in self._wires[unit]
                if self._excess[wire.arc] > -1
            ]
            x_range, y_range = (
                range(min(end[axis] for end in ends) - 2, max(end[axis] for end in ends) + 3)
                for axis in (0, 1)
            )
            tiles = [(x, y) for x in x_range for y in y_range if self._in_part(x, y)]
            if len(tiles) > TILES:
                tiles = self._random.sample(tiles, TILES)
            costs = ((self._cost(unit, *tile), tile) for tile in tiles)
            for cost, tile in sorted(each for each in costs if each[0] < here)[:TRIES]:
                if self._take(unit, tile, here - cost):
                    moved += 1
                    break
        return moved

    def _take(self, unit: int, tile: tuple[int, int], gain: float) -> bool:
        """Move a unit to a tile; what is in its way must go elsewhere for less than ``gain``."""
        if places := self._room(unit, *tile):
            self._move(unit, places)
            return True
        places = self._shifted(unit, *tile, 0)
        in_way: set[int | None] = set()
        for each, place in zip(self._units[unit], places, strict=True):
            in_way |= {self._unit_of.get(other) for other in self._conflicts(unit, each, place)}
        movable = {each for each in in_way if each is not None and len(self._units[each]) <= 2}
        if len(movable) < len(in_way) or not all(self._allowed(place) for place in places):
            return False
        undo = [(each, self._places_of(each)) for each in (unit, *sorted(movable))]
        loss = -sum(self._cost(each, *self.xy[each]) for each in movable)
        for each, _ in undo:
            self._remove(each)
        self._put(unit, places)
        gone = []
        for each in sorted(movable):
            x, y = self.xy[each]
            tiles = [
                (x + dx, y + dy) for dx in range(-ASIDE, ASIDE + 1) for dy in (-2, -1, 0, 1, 2)
            ]
            rooms = ((self._cost(each, *tile), tile) for tile in tiles if self._in_part(*tile))
            found = next(
                ((cost, room) for cost, tile in sorted(rooms) if (room := self._room(each, *tile))),
                None,
            )
            if found is None:
                break
            self._put(each, found[1])
            gone.append(each)
            loss += found[0]
        if len(gone) == len(movable) and loss < gain:
            return True
        for each in (unit, *gone):
            self._remove(each)
        for each, old in undo:
            self._put(each, old)
        return False

    def _in_part(self, x: int, y: int) -> bool:
        return y in self._rows and self._columns[0] <= x <= self._columns[1]

    def _cost(self, unit: int, x: int, y: int) -> float:
        """Squares of what paths are too long by, and a little for the wires."""
        total = 0.0
        for arc, other, dx, dy in self._wires[unit]:
            other_x, other_y = self.xy[other]
            across, up = abs(x + dx - other_x), abs(y + dy - other_y)
            excess = self._excess[arc] + _way(across, up)
            if excess > 0:
                total += excess * excess
            total += TILE_COST * (across + up)
        return total

    def _room(self, unit: int, x: int, y: int) -> list[_Place] | None:
        """Free places for a unit at a tile, if there are any."""
        chain = _mode(self.cells[unit]) != "LOGIC"
        for shift in (0,) if chain else range(8):
            places = self._shifted(unit, x, y, shift)
            pairs = zip(self._units[unit], places, strict=True)
            if all(
                self._allowed(place) and next(self._conflicts(unit, each, place), None) is None
                for each, place in pairs
            ):
                return places
        return None

    def _shifted(self, unit: int, x: int, y: int, shift: int) -> list[_Place]:
        old_x, old_y = self.xy[unit]
        return [
            _Place(place.x + x - old_x, place.y + y - old_y, (place.lc + shift) % 8, place.kind)
            for place in self._places_of(unit)
        ]

    def _places_of(self, unit: int) -> list[_Place]:
        return [place for each in self._units[unit] if (place := self.places[each]) is not None]

    def _allowed(self, place: _Place) -> bool:
        tile = place[:2]
        return tile not in self._ram_tiles and self._in_part(*tile)

    def _conflicts(self, unit: int, number: int, place: _Place) -> Iterator[int]:
        """Cells of other units that nextpnr does not allow beside a unit's cell at a place."""

        def other(place: _Place) -> int | None:
            found = self._at.get(place)
            return None if found is None or self._unit_of.get(found) == unit else found

        there = other(place)
        if there is not None:
            yield there
        beside = other(place._replace(lc=place.lc ^ 1))
        if place.kind == "K":
            # Both LUTs of a slice are of a chain, or neither.
            if beside is not None and not (
                _plain(self.cells[number]) and _plain(self.cells[beside])
            ):
                yield beside
            return
        if beside is not None and self._slice_kind[beside] != self._slice_kind[number]:
            yield beside
        lut = other(place._replace(kind="K"))
        if lut is not None and self.cells[lut]["connections"].get("M"):
            yield lut
        for each in self._registers[place[:2]]:
            if self._tile_kind[each] != self._tile_kind[number] and self._unit_of.get(each) != unit:
                yield each

    def _move(self, unit: int, places: list[_Place]) -> None:
        self._remove(unit)
        self._put(unit, places)

    def _remove(self, unit: int) -> None:
        for place, each in zip(self._places_of(unit), self._units[unit], strict=True):
            del self._at[place]
            if place.kind == "FF":
                self._registers[place[:2]].remove(each)

    def _put(self, unit: int, places: list[_Place]) -> None:
        for each, place in zip(self._units[unit], places, strict=True):
            self.places[each] = place
            self._at[place] = each
            self.xy[each] = place[:2]
            if place.kind == "FF":
                self._registers[place[:2]].append(each)


def _pin(cell: dict[str, Any], port: str) -> str:
    """As ``WIRE`` names it."""
    if cell["type"] == "TRELLIS_COMB" and port in ("A", "B", "C", "D"):
        return "LUT" if _mode(cell) == "LOGIC" else port
    return port[:2]


def _way(across: int, up: int) -> float:
    if not across and not up:
        return SAME_TILE
    (near_x, far_x), (near_y, far_y) = PER_TILE
    return (
        near_x * min(across, NEAR)
        + far_x * max(across - NEAR, 0)
        + near_y * min(up, NEAR)
        + far_y * max(up - NEAR, 0)
    )


def _mode(cell: dict[str, Any]) -> str:
    return str(cell["parameters"].get("MODE", "LOGIC"))


def _plain(cell: dict[str, Any]) -> bool:
    """A LUT of four inputs."""
    wires = cell["connections"]
    pins = ("FXA", "FXB", "F1", "OFX", "FCI", "FCO", "M")
    return _mode(cell) == "LOGIC" and not any(wires.get(pin) for pin in pins)


def _tile_kind(cell: dict[str, Any]) -> tuple[Any, ...]:
    """What all flip-flops of a tile have in common."""
    modes = (cell["parameters"].get(name) for name in ("CLKMUX", "LSRMUX", "SRMODE"))
    return (*modes, *(tuple(cell["connections"].get(pin, ())) for pin in ("CLK", "LSR")))


def _slice_kind(cell: dict[str, Any]) -> tuple[Any, ...]:
    """What both flip-flops of a slice have in common."""
    modes = (cell["parameters"].get(name) for name in ("CEMUX", "GSR"))
    return (*modes, tuple(cell["connections"].get("CE", ())))
