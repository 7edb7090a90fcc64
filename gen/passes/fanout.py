"""Netlist pass for ECP5: a register that feeds cells all over the die gets copies.

Block RAMs stand in rows across the die. A wire from one register to all of them takes longer than
any logic, and so do wires to many tables in LUT RAM, or to all adders that use one sign or mask.
nextpnr copies no registers, and yosys would merge copies that the design makes.
"""

from __future__ import annotations

from copy import deepcopy

from tritloom.gen.passes.netlist import Netlist, Pin

__all__ = ["copy_registers"]

EACH = {"DP16KD": 3, "TRELLIS_DPR16X4": 16, "CCU2C": 24}
"""How many cells of a type one flip-flop may feed."""


def copy_registers(netlist: Netlist) -> None:
    """Split the cells of the types in `EACH` among copies of the flip-flop that feeds them.

    The cells are split in the order of the netlist, which keeps neighbours together.
    """
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
