"""Synthesis, and the netlist of a family's cells that comes of it, to read and to change."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PASSES", "Netlist", "Pin", "improve"]

Bit = int | str
"""A net by number, or a constant: ``"0"``, ``"1"``, ``"x"``, ``"z"``."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Bit ``index`` of ``port`` of the cell called ``cell``."""

    cell: str
    port: str
    index: int


class Netlist:
    """The flat top module of a yosys JSON netlist; ``cells`` are as yosys writes them."""

    def __init__(self, document: dict[str, Any], top: str) -> None:
        self.document = document
        self.module: dict[str, Any] = document["modules"][top]
        self.cells: dict[str, dict[str, Any]] = self.module["cells"]
        used = [bit for port in self.module["ports"].values() for bit in port["bits"]]
        for cell in self.cells.values():
            for bits in cell["connections"].values():
                used += bits
        self._next = max((bit for bit in used if isinstance(bit, int)), default=1) + 1

    def new_bit(self) -> int:
        """A net that nothing has yet."""
        self._next += 1
        return self._next - 1

    def pins(self, direction: str) -> dict[Bit, list[Pin]]:
        """Cells' pins of a direction (``input``: users, ``output``: drivers) by net, as now."""
        found: dict[Bit, list[Pin]] = defaultdict(list)
        for name, cell in self.cells.items():
            directions = cell["port_directions"]
            for port, bits in cell["connections"].items():
                if directions[port] == direction:
                    for index, bit in enumerate(bits):
                        found[bit].append(Pin(name, port, index))
        return found

    def outputs(self) -> set[Bit]:
        """Nets that leave the module, which must stay as they are."""
        return {
            bit
            for port in self.module["ports"].values()
            if port["direction"] != "input"
            for bit in port["bits"]
        }


PASSES: dict[str, tuple[Callable[[Netlist], None], ...]] = {}
"""By family: what to do with a netlist between synthesis and placement, in order."""


def improve(file: Path, top: str, family: str) -> None:
    """Run the family's passes over a JSON netlist, in place."""
    if family not in PASSES:
        return
    netlist = Netlist(json.loads(file.read_text(encoding="utf-8")), top)
    for each in PASSES[family]:
        each(netlist)
    file.write_text(json.dumps(netlist.document), encoding="utf-8")
