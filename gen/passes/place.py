"""Shorter paths in an ECP5 design that misses its clock.

nextpnr's placers draw connected cells together. They do not see where on its way a row of registers
should stand, so one of its wires is long and the others are short; and a LUT may lie far from the
one register that decides the clock. This pass moves the flip-flops, LUTs and carry chains on long
paths to better places, by estimated delays, and moves aside what is in their way. nextpnr then
refuses what is not legal.
"""

from __future__ import annotations

import json
import random
from typing import Any

from tritloom.boards.families.family import TOP
from tritloom.gen.passes.placed import PlacedDesign, way_ns

__all__ = ["improve_placement"]

LONG = 0.87
"""Share of the clock's period from which an estimated path is too long. Routing adds the rest."""
TILE_COST = 0.0008
"""Cost of a tile of wire, in ns²."""
SWEEPS = 20
"""How often all paths are analysed and shortened."""
TILES = 300
"""How many tiles are considered for a unit."""
TRIES = 40
"""How many of the best of these tiles are tried."""
MARGIN = 2
"""Tiles by which the searched area is larger than the area of a unit's neighbours."""
SLACK_NS = 1
"""A wire with more slack than this does not shape the searched area."""
ASIDE_X, ASIDE_Y = 6, 2
"""How many tiles a unit moves at most that is in the way of another."""
MOVABLE_CELLS = 2
"""Largest unit, in cells, that moves out of another's way."""


def improve_placement(text: str, period_ns: float) -> str:
    """Move cells of a placed design so that its longest paths become shorter.

    Parameters
    ----------
    text : the design in the JSON that nextpnr writes
    period_ns : the clock's period that is wanted

    Returns
    -------
    The same netlist as JSON, with each cell's place as a constraint for nextpnr
    """
    document = json.loads(text)
    module = document["modules"][TOP]
    design = PlacedDesign(list(module["cells"].values()), LONG * period_ns)
    _Improver(design).improve()
    for cell, (x, y), place in zip(design.cells, design.xy, design.places, strict=True):
        attributes = cell["attributes"]
        bel = attributes.pop("NEXTPNR_BEL")
        attributes.pop("BEL_STRENGTH", None)
        if place is not None:
            bel = f"X{x}/Y{y}/SLICE{'ABCD'[place.lc // 2]}.{place.kind}{place.lc % 2}"
        attributes["BEL"] = bel
        # nextpnr drops a pin without a net when it reads the file, and no longer ties it. An "x"
        # keeps the pin.
        for pin, bits in cell["connections"].items():
            if not bits and cell["port_directions"][pin] == "input":
                cell["connections"][pin] = ["x"]
    for net in module["netnames"].values():
        net["attributes"].pop("ROUTING", None)
    # Settings in the file override nextpnr's options, so the router's go. nextpnr derives no clock
    # constraint for a packed design, so the clock is set here.
    settings = {name: value for name, value in module["settings"].items() if "router" not in name}
    module["settings"] = settings | {"target_freq": f"{1e9 / period_ns:.6f}"}
    return json.dumps(document)


class _Improver:
    """The search for better places."""

    def __init__(self, design: PlacedDesign) -> None:
        self._design = design
        self._random = random.Random(1)

    def improve(self) -> None:
        """Move units on long paths until none moves any more, at most `SWEEPS` times."""
        for _ in range(SWEEPS):
            self._design.analyse()
            if not self._sweep():
                break

    def _slow(self) -> list[int]:
        """Units on paths that are too long."""
        design = self._design
        return [
            unit
            for unit, wires in design.wires.items()
            if any(design.path[wire.arc] > design.limit_ns for wire in wires)
        ]

    def _sweep(self) -> int:
        """Move each slow unit to the best tile among its neighbours; return how many moved."""
        design = self._design
        moved = 0
        for unit in self._slow():
            here = self._cost(unit, *design.xy[unit])
            ends = [design.xy[unit]] + [
                (design.xy[wire.other][0] - wire.dx, design.xy[wire.other][1] - wire.dy)
                for wire in design.wires[unit]
                if design.excess[wire.arc] > -SLACK_NS
            ]
            x_range, y_range = (
                range(
                    min(end[axis] for end in ends) - MARGIN,
                    max(end[axis] for end in ends) + MARGIN + 1,
                )
                for axis in (0, 1)
            )
            tiles = [(x, y) for x in x_range for y in y_range if design.in_part(x, y)]
            if len(tiles) > TILES:
                tiles = self._random.sample(tiles, TILES)
            costs = ((self._cost(unit, *tile), tile) for tile in tiles)
            for cost, tile in sorted(each for each in costs if each[0] < here)[:TRIES]:
                if self._take(unit, tile, here - cost):
                    moved += 1
                    break
        return moved

    def _take(self, unit: int, tile: tuple[int, int], gain: float) -> bool:
        """Move a unit to a tile, if the units in its way can move aside for less than `gain`."""
        design = self._design
        if room := design.room(unit, *tile):
            design.move(unit, room)
            return True
        places = design.shifted(unit, *tile, 0)
        in_way: set[int | None] = set()
        for each, place in zip(design.units[unit], places, strict=True):
            in_way |= {design.unit_of.get(cell) for cell in design.conflicts(unit, each, place)}
        movable = {
            each for each in in_way if each is not None and len(design.units[each]) <= MOVABLE_CELLS
        }
        if len(movable) < len(in_way) or not all(design.allowed(place) for place in places):
            return False
        undo = [(each, design.places_of(each)) for each in (unit, *sorted(movable))]
        loss = -sum(self._cost(each, *design.xy[each]) for each in movable)
        for each, _ in undo:
            design.remove(each)
        design.put(unit, places)
        aside = []
        for each in sorted(movable):
            best = self._best_room(each)
            if best is None:
                break
            cost, room = best
            design.put(each, room)
            aside.append(each)
            loss += cost
        if len(aside) == len(movable) and loss < gain:
            return True
        for each in (unit, *aside):
            design.remove(each)
        for each, old in undo:
            design.put(each, old)
        return False

    def _best_room(self, unit: int) -> tuple[float, Any] | None:
        """The best free places near a unit, and their cost; `None` if there are none."""
        design = self._design
        x, y = design.xy[unit]
        tiles = [
            (x + dx, y + dy)
            for dx in range(-ASIDE_X, ASIDE_X + 1)
            for dy in range(-ASIDE_Y, ASIDE_Y + 1)
        ]
        costs = ((self._cost(unit, *tile), tile) for tile in tiles if design.in_part(*tile))
        for cost, tile in sorted(costs):
            if room := design.room(unit, *tile):
                return cost, room
        return None

    def _cost(self, unit: int, x: int, y: int) -> float:
        """Cost of a unit at a tile: squares of what paths are too long by, and a little for wires.

        The squares make the longest paths count most.
        """
        design = self._design
        total = 0.0
        for arc, other, dx, dy in design.wires[unit]:
            other_x, other_y = design.xy[other]
            across, up = abs(x + dx - other_x), abs(y + dy - other_y)
            excess = design.excess[arc] + way_ns(across, up)
            if excess > 0:
                total += excess * excess
            total += TILE_COST * (across + up)
        return total
