"""What only the netlist of a 7 Series part shows."""

from __future__ import annotations

from tritloom.gen.passes.netlist import Netlist

__all__ = ["route_throughs"]


def route_throughs(netlist: Netlist) -> int:
    """LUTs that only carry a signal to a CARRY4: its input S has no other way in."""
    drivers = netlist.pins("output")
    free = {
        bit
        for bit, pins in drivers.items()
        if any(netlist.cells[pin.cell]["type"].startswith(("LUT", "INV")) for pin in pins)
    }
    needed = 0
    for cell in netlist.cells.values():
        if cell["type"] == "CARRY4":
            for bit in cell["connections"]["S"]:
                if bit in free:
                    free.remove(bit)  # a LUT is beside one carry only
                else:
                    needed += isinstance(bit, int)
    return needed
