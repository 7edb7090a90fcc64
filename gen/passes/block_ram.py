"""Netlist pass for ECP5: the registers behind block RAMs move into the blocks."""

from __future__ import annotations

from typing import Any

from tritloom.gen.passes.netlist import Bit, Netlist

__all__ = ["absorb_output_registers", "register_kind"]

WIDE_BITS = 36
"""Width at which a block reads through both of its ports."""


def absorb_output_registers(netlist: Netlist) -> None:
    """Use the output registers that a DP16KD has, in place of the flip-flops behind it.

    Data leaves a block 5.8 ns after the clock edge; with its own registers, 1 ns after it. The
    registers of a port share one enable and have no reset. So a port's outputs must all go to
    flip-flops of one such kind, and to nothing else.
    """
    users, module_outputs = netlist.pins("input"), netlist.outputs()
    for cell in list(netlist.cells.values()):
        if cell["type"] != "DP16KD":
            continue
        # A block of 36 bits reads through both ports' outputs, by the clock of port B.
        wide = int(cell["parameters"]["DATA_WIDTH_B"], 2) == WIDE_BITS
        for ports, clock_port in (("AB", "B"),) if wide else (("A", "A"), ("B", "B")):
            outputs = [
                (name, bits[0])
                for name, bits in cell["connections"].items()
                if name[:2] == "DO"
                and name[2] in ports
                and (users[bits[0]] or bits[0] in module_outputs)
            ]
            readers = [pin for _, bit in outputs for pin in users[bit]]
            if (
                not outputs
                or len(readers) != len(outputs)
                or any(bit in module_outputs for _, bit in outputs)
                or any(len(users[bit]) != 1 for _, bit in outputs)
            ):
                continue
            kinds = {register_kind(netlist.cells[pin.cell], pin.port) for pin in readers}
            clock = (
                cell["parameters"][f"CLK{clock_port}MUX"] == "INV",
                cell["connections"][f"CLK{clock_port}"][0],
            )
            kind = kinds.pop()
            if kinds or kind is None or kind[:2] != clock:
                continue
            for (name, _), pin in zip(outputs, readers, strict=True):
                cell["connections"][name] = netlist.cells.pop(pin.cell)["connections"]["Q"]
            for port in ports:
                cell["parameters"][f"REGMODE_{port}"] = "OUTREG"
                cell["connections"][f"OCE{port}"] = [kind[2]]


def register_kind(cell: dict[str, Any], port: str) -> tuple[bool, Bit, Bit] | None:
    """Whether the clock is inverted, the clock and the enable of a flip-flop without reset.

    `None` if the cell is none, or if `port` is not its data input.
    """
    if cell["type"] != "TRELLIS_FF" or port != "DI":
        return None
    wires, modes = cell["connections"], cell["parameters"]
    if wires["LSR"] != ["0"] or modes["LSRMUX"] != "LSR" or modes["REGSET"] != "RESET":
        return None
    enable = modes["CEMUX"].strip()  # yosys writes "1 ", so that it is not taken for a number
    if enable not in ("CE", "1"):
        return None
    return (
        modes["CLKMUX"] == "INV",
        wires["CLK"][0],
        wires["CE"][0] if enable == "CE" else "1",
    )
