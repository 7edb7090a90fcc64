"""Netlist pass for ECP5: the registers behind multipliers move into the multipliers."""

from __future__ import annotations

from tritloom.gen.passes.block_ram import register_kind
from tritloom.gen.passes.netlist import Bit, Netlist

__all__ = ["absorb_product_registers"]


def absorb_product_registers(netlist: Netlist) -> None:
    """Use the output registers that a MULT18X18D has, in place of the flip-flops behind it.

    A product leaves a multiplier 3.9 ns after its factors came, and then has a wire to its
    flip-flop. With the multiplier's own register there is no such wire. The register has one clock,
    and is used without enable and reset. So all outputs must go to flip-flops of that kind, and to
    nothing else. Multipliers of one tile share their clocks, so only those of one clock are taken.
    """
    users, module_outputs = netlist.pins("input"), netlist.outputs()
    shared: Bit | None = None
    for cell in list(netlist.cells.values()):
        if cell["type"] != "MULT18X18D":
            continue
        outputs = [
            (name, bits[0])
            for name, bits in cell["connections"].items()
            if name[0] == "P" and (users[bits[0]] or bits[0] in module_outputs)
        ]
        if any(len(users[bit]) != 1 or bit in module_outputs for _, bit in outputs):
            continue
        readers = [users[bit][0] for _, bit in outputs]
        kinds = {register_kind(netlist.cells[pin.cell], pin.port) for pin in readers}
        kind = kinds.pop() if len(kinds) == 1 else None
        if kind is None or (kind[0], kind[2]) != (False, "1") or shared not in (None, kind[1]):
            continue
        shared = kind[1]
        for (name, _), pin in zip(outputs, readers, strict=True):
            cell["connections"][name] = netlist.cells.pop(pin.cell)["connections"]["Q"]
        cell["parameters"]["REG_OUTPUT_CLK"] = "CLK0"
        for name, bit in (("CLK0", shared), ("CE0", "1"), ("RST0", "0")):
            cell["connections"][name] = [bit]
            cell["port_directions"][name] = "input"
