"""Registers that feed memories or adders all over an ECP5, one for each few of them.

Block RAM stands in rows across the die. A wire to all of it takes longer than any logic, nextpnr
does not copy registers, and yosys would merge copies. So do wires to many tables in LUT RAM, and to
the adders that one sign, or one mask, goes to.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tritloom.gen.passes.netlist import Netlist, Pin

__all__ = ["copy_registers"]

EACH = {"DP16KD": 3, "TRELLIS_DPR16X4": 16, "CCU2C": 24}
"""Cells of a kind that one flip-flop feeds at most."""


def copy_registers(netlist: Netlist) -> None:
    """Give every few cells of these kinds that a flip-flop feeds a copy of it, in their order."""
    users = netlist.pins("input")
    order = {name: number for number, name in enumerate(netlist.cells)}
    for name, cell in list(netlist.cells.items()):
        if cell["type"] != "TRELLIS_FF":
            continue
        pins = [pin for pin in users[cell["connections"]["Q"][0]] if _kind(netlist, pin) in EACH]
        fed = sorted({pin.cell for pin in pins}, key=order.__getitem__)
        if not fed:
            continue
        most = min(EACH[_kind(netlist, pin)] for pin in pins)
        each = -(-len(fed) // -(-len(fed) // most))  # evenly
        for number, start in enumerate(range(each, len(fed), each)):
            copy = deepcopy(cell)
            copy["connections"]["Q"] = [netlist.new_bit()]
            netlist.cells[f"{name}_COPY_{number}"] = copy
            own = set(fed[start : start + each])
            for pin in pins:
                if pin.cell in own:
                    bits = netlist.cells[pin.cell]["connections"][pin.port]
                    bits[pin.index] = copy["connections"]["Q"][0]


def _kind(netlist: Netlist, pin: Pin) -> str:
    return str(netlist.cells[pin.cell]["type"])
