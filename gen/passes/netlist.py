"""The netlist of a family's cells that yosys writes, to read and to change."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

__all__ = ["Bit", "Netlist", "Pin"]

Bit = int | str
"""A net by its number, or a constant: `"0"`, `"1"`, `"x"`, `"z"`."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Bit `index` of `port` of the cell called `cell`."""

    cell: str
    port: str
    index: int


class Netlist:
    """The flat top module of a yosys JSON netlist.

    Parameters
    ----------
    document : the parsed JSON
    top : name of the module

    `cells` are the module's cells by name, as yosys writes them; a change of them changes the
    document.
    """

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
        """The number of a new net."""
        self._next += 1
        return self._next - 1

    def pins(self, direction: str) -> dict[Bit, list[Pin]]:
        """The cells' pins by net: with `"input"` those that read it, with `"output"` its driver.

        The result does not follow later changes of the netlist.
        """
        pins: dict[Bit, list[Pin]] = defaultdict(list)
        for name, cell in self.cells.items():
            directions = cell["port_directions"]
            for port, bits in cell["connections"].items():
                if directions[port] == direction:
                    for index, bit in enumerate(bits):
                        pins[bit].append(Pin(name, port, index))
        return pins

    def outputs(self) -> set[Bit]:
        """Nets that leave the module. They must keep their numbers."""
        return {
            bit
            for port in self.module["ports"].values()
            if port["direction"] != "input"
            for bit in port["bits"]
        }
