"""A placed ECP5 design: where its cells are, what may move where, and how long its paths are.

Delays are in nanoseconds, of speed grade 6. Those of cells are nextpnr's; those of wires are fitted
to routed designs, with a standard deviation of 0.24.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Place", "PlacedDesign", "Wire", "way_ns"]

CLOCK_TO_OUT = defaultdict(lambda: 0.525, {"DP16KD": 1.06})
LUT, INTO_CARRY, CARRY, OUT_OF_CARRY = 0.236, 0.45, 0.071, 0.44
WIRE_NS = defaultdict(
    lambda: 0.6, {"LUT": 0.5, "A": 0.9, "B": 0.9, "C": 0.67, "D": 0.67, "AD": 0.85, "DI": 0.85}
)
"""Shortest wire to a pin: of a LUT, where routing swaps pins so that the latest signal gets the
fastest pin; A to D of a carry; of a block RAM; and, the default, of any other cell."""
NEAR = 6
PER_TILE = ((0.075, 0.041), (0.09, 0.035))
"""For a wire sideways, and one up: what each of the first `NEAR` tiles adds, and
what each farther tile adds."""
SAME_TILE = -0.2
INSIDE = {"FCI": 0.0, "FXA": 0.0, "FXB": 0.0, "DI": 0.13}
"""Wires to these pins stay in a tile, or lead to the next one."""
UNTIMED = {"DCCA", "TRELLIS_IO", "EHXPLLL"}
CLOCKS = {"CLK", "CLK0", "CLKA", "CLKB", "WCK"}
LCS = 8
"""Pairs of a LUT and a flip-flop in a tile."""

SLICE = re.compile(r"X(\d+)/Y(\d+)/SLICE([A-D])\.(\w+?)([01]?)$")


class Place(NamedTuple):
    """Place of one cell in half a slice.

    Members
    -------
    x, y : the tile
    lc : which of the tile's eight halves of slices
    kind : `FF` for the flip-flop, `K` for the LUT
    """

    x: int
    y: int
    lc: int
    kind: str


class Wire(NamedTuple):
    """A wire between a unit and a cell outside it.

    Members
    -------
    arc : the wire's number
    other : the cell outside
    dx, dy : tiles from the unit's first cell to its cell at this wire
    """

    arc: int
    other: int
    dx: int
    dy: int


class PlacedDesign:
    """The cells of a design and the wires between them, both by number.

    Parameters
    ----------
    cells : cells of a netlist that nextpnr has placed
    limit_ns : the longest path that is not too long

    Members
    -------
    xy, places : of each cell its tile, and its place if it is in half a slice
    units : what moves as one, by the number of its first cell: a flip-flop; a LUT with the
        flip-flop that it feeds; a carry chain with the flip-flops that it feeds
    unit_of : the unit of a cell that may move
    wires : the wires of each unit
    path : of each wire, the length of the longest path through it
    excess : of each wire, by how much that path would be too long if the wire took no tile
    """

    def __init__(self, cells: list[dict[str, Any]], limit_ns: float) -> None:
        self.cells = cells
        self.places: list[Place | None] = []
        self.xy: list[tuple[int, int]] = []
        self.limit_ns = limit_ns
        self._ram_tiles: set[tuple[int, int]] = set()
        for cell in cells:
            bel = cell["attributes"]["NEXTPNR_BEL"]
            tile = re.match(r"X(\d+)/Y(\d+)/", bel)
            assert tile is not None, bel
            self.xy.append((int(tile[1]), int(tile[2])))
            match = SLICE.match(bel)
            half = match is not None and match[4] in ("FF", "K")
            self.places.append(
                Place(*self.xy[-1], "ABCD".index(match[3]) * 2 + int(match[5]), match[4])
                if match is not None and half
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
            WIRE_NS[_pin(self.cells[sink], port)]
            for sink, port in zip(self._sink, self._in, strict=True)
        ]
        self._from: list[list[int]] = [[] for _ in self.cells]
        self._to: list[list[int]] = [[] for _ in self.cells]
        for arc, (source, _, sink, _) in enumerate(arcs):
            self._from[source].append(arc)
            self._to[sink].append(arc)
        # Of each wire: the longest path to its start, and from its end.
        self._before = [0.0] * len(arcs)
        self._after = [0.0] * len(arcs)
        self.path = [0.0] * len(arcs)
        self.excess = [0.0] * len(arcs)
        self._order = list(self._in_order())

    def _in_order(self) -> Iterator[int]:
        """The LUTs, each one after those that feed it. LUTs of a loop are left out."""
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
        self.units = units
        self.unit_of = {each: unit for unit, members in units.items() for each in members}
        self.wires: dict[int, list[Wire]] = {}
        for unit, members in units.items():
            x, y = self.xy[unit]
            self.wires[unit] = [
                Wire(arc, other, self.xy[each][0] - x, self.xy[each][1] - y)
                for each in members
                for arcs, ends in ((self._to, self._source), (self._from, self._sink))
                for arc in arcs[each]
                if self.unit_of.get(other := ends[arc]) != unit
            ]

    def _fed(self, lut: int) -> list[int]:
        """The flip-flop beside a LUT, if its input is that LUT; a list of one or none."""
        place = self.places[lut]
        assert place is not None
        register = self._at.get(place._replace(kind="FF"))
        takes = [] if register is None else self.cells[register]["connections"].get("DI")
        return [register] if register is not None and takes else []

    def analyse(self) -> None:
        """Static timing analysis: bring `path` and `excess` up to date."""
        lengths = []
        for arc, inside in enumerate(self._inside):
            if inside is not None:
                lengths.append(inside)
                continue
            (x, y), (to_x, to_y) = self.xy[self._source[arc]], self.xy[self._sink[arc]]
            lengths.append(self._wire[arc] + way_ns(abs(x - to_x), abs(y - to_y)))
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
        self.path = [a + b + c for a, b, c in zip(before, lengths, after, strict=True)]
        self.excess = [
            before[arc]
            + after[arc]
            - self.limit_ns
            + (self._wire[arc] if inside is None else inside)
            for arc, inside in enumerate(self._inside)
        ]

    def _through(self, number: int, way_in: int, way_out: int) -> float:
        carry_in, carry_out = self._in[way_in] == "FCI", self._out[way_out] == "FCO"
        if carry_in:
            return CARRY if carry_out else OUT_OF_CARRY
        return INTO_CARRY if carry_out else LUT

    def in_part(self, x: int, y: int) -> bool:
        """Whether there are logic cells at a tile."""
        return y in self._rows and self._columns[0] <= x <= self._columns[1]

    def room(self, unit: int, x: int, y: int) -> list[Place] | None:
        """Free places for a unit's cells at a tile; `None` if there are none."""
        chain = _mode(self.cells[unit]) != "LOGIC"
        for shift in (0,) if chain else range(LCS):
            places = self.shifted(unit, x, y, shift)
            pairs = zip(self.units[unit], places, strict=True)
            if all(
                self.allowed(place) and next(self.conflicts(unit, each, place), None) is None
                for each, place in pairs
            ):
                return places
        return None

    def shifted(self, unit: int, x: int, y: int, shift: int) -> list[Place]:
        """Places of a unit's cells if it moved to a tile and, within the tile, by `shift`."""
        old_x, old_y = self.xy[unit]
        return [
            Place(place.x + x - old_x, place.y + y - old_y, (place.lc + shift) % LCS, place.kind)
            for place in self.places_of(unit)
        ]

    def places_of(self, unit: int) -> list[Place]:
        """Places of a unit's cells now."""
        return [place for each in self.units[unit] if (place := self.places[each]) is not None]

    def allowed(self, place: Place) -> bool:
        """Whether any cell may go to a place. LUT RAM must have its tile for itself."""
        tile = place[:2]
        return tile not in self._ram_tiles and self.in_part(*tile)

    def conflicts(self, unit: int, number: int, place: Place) -> Iterator[int]:
        """Cells of other units that nextpnr refuses together with a unit's cell at a place."""

        def other(place: Place) -> int | None:
            number = self._at.get(place)
            return None if number is None or self.unit_of.get(number) == unit else number

        occupant = other(place)
        if occupant is not None:
            yield occupant
        beside = other(place._replace(lc=place.lc ^ 1))
        if place.kind == "K":
            # Either both LUTs of a slice belong to a chain, or neither does.
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
            if self._tile_kind[each] != self._tile_kind[number] and self.unit_of.get(each) != unit:
                yield each

    def move(self, unit: int, places: list[Place]) -> None:
        """Move a unit to free places."""
        self.remove(unit)
        self.put(unit, places)

    def remove(self, unit: int) -> None:
        """Free the places of a unit."""
        for place, each in zip(self.places_of(unit), self.units[unit], strict=True):
            del self._at[place]
            if place.kind == "FF":
                self._registers[place[:2]].remove(each)

    def put(self, unit: int, places: list[Place]) -> None:
        """Put a unit that was removed into free places."""
        for each, place in zip(self.units[unit], places, strict=True):
            self.places[each] = place
            self._at[place] = each
            self.xy[each] = place[:2]
            if place.kind == "FF":
                self._registers[place[:2]].append(each)


def _pin(cell: dict[str, Any], port: str) -> str:
    """A pin as `WIRE_NS` names it."""
    if cell["type"] == "TRELLIS_COMB" and port in ("A", "B", "C", "D"):
        return "LUT" if _mode(cell) == "LOGIC" else port
    return port[:2]


def way_ns(across: int, up: int) -> float:
    """What a wire takes longer for its length in tiles."""
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
    """Whether a cell is a LUT of four inputs, with no part in a chain or a wider LUT."""
    wires = cell["connections"]
    pins = ("FXA", "FXB", "F1", "OFX", "FCI", "FCO", "M")
    return _mode(cell) == "LOGIC" and not any(wires.get(pin) for pin in pins)


def _tile_kind(cell: dict[str, Any]) -> tuple[Any, ...]:
    """What all flip-flops of a tile must have in common."""
    modes = (cell["parameters"].get(name) for name in ("CLKMUX", "LSRMUX", "SRMODE"))
    return (*modes, *(tuple(cell["connections"].get(pin, ())) for pin in ("CLK", "LSR")))


def _slice_kind(cell: dict[str, Any]) -> tuple[Any, ...]:
    """What both flip-flops of a slice must have in common."""
    modes = (cell["parameters"].get(name) for name in ("CEMUX", "GSR"))
    return (*modes, tuple(cell["connections"].get("CE", ())))
