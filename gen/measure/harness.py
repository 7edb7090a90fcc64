"""The harness in which every engine is measured: one pin in, one pin out, registers between.

A shift register drives every input of the component, its reset among them; every output has a
register, and a pipelined XOR tree makes one pin of them. The clock is an ordinary pin. Synthesis
keeps the registers at the component's ports apart (`KEPT`): they can take no logic from it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Module, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tritloom.gen.passes.netlist import Netlist

__all__ = ["KEPT", "Harness", "harness_cost"]

KEPT = "*.harness_in *.harness_out"
"""The modules that synthesis must not flatten before it is done."""
OWN = re.compile(r"harness_(in|out|tree)\.register(_\d+)?")
"""Names of the registers' nets in the flat netlist."""
CHUNK_BITS = 128
"""Flip-flops in a row: yosys overflows its stack on much longer shift registers."""
TAP = 3
"""Where a chunk is tapped for the next one; an XOR with the pin keeps the two different."""


def _register(width: int, number: int = 0) -> Signal:
    return Signal(width, name=f"register_{number}", reset_less=True, attrs={"keep": 1})


class Bank(wiring.Component):
    """Flip-flops: `o` is `i` a cycle later."""

    i: Signal
    o: Signal

    def __init__(self, width: int) -> None:
        super().__init__({"i": In(width), "o": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        register = _register(len(self.i))
        m.d.sync += register.eq(self.i)
        m.d.comb += self.o.eq(register)
        return m


class XorTree(wiring.Component):
    """`o` is the XOR of `i`, with a register for each XOR of up to four."""

    i: Signal
    o: Signal

    def __init__(self, width: int) -> None:
        super().__init__({"i": In(width), "o": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        level = self.i
        number = 0
        while len(level) > 1:
            groups = [level[at : at + 4].xor() for at in range(0, len(level), 4)]
            level = _register(len(groups), number)
            m.d.sync += level.eq(Cat(groups))
            number += 1
        m.d.comb += self.o.eq(level)
        return m


class Harness(wiring.Component):
    """A component between one pin in and one pin out.

    Members
    -------
    clk : the clock's pin
    i, o : data
    the clocks of the component that `clocks` names, each with a pin of its own
    """

    clk: Signal
    i: Signal
    o: Signal

    def __init__(self, component: Any, clocks: Sequence[str] = ()) -> None:
        self.component = component
        self.clocks = clocks
        super().__init__({"clk": In(1), "i": In(1), "o": Out(1), **dict.fromkeys(clocks, In(1))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.component = component = self.component
        ports = [
            (member.flow, Value.cast(port))
            for path, member, port in component.signature.flatten(component)
            if path[0] not in self.clocks
        ]
        m.d.comb += [getattr(component, name).eq(getattr(self, name)) for name in self.clocks]
        inputs = Cat(ResetSignal(), *(port for flow, port in ports if flow is In))
        outputs = Cat(port for flow, port in ports if flow is Out)
        m.submodules.harness_in = shift = Bank(len(inputs))
        m.submodules.harness_out = bank = Bank(len(outputs))
        m.submodules.harness_tree = tree = XorTree(len(outputs))
        m.d.comb += [
            ClockSignal().eq(self.clk),
            shift.i.eq(Cat(self.i, shift.o[:-1])),
            inputs.eq(shift.o),
            bank.i.eq(outputs),
            tree.i.eq(bank.o),
            self.o.eq(tree.o),
        ]
        for start in range(CHUNK_BITS, len(inputs), CHUNK_BITS):
            m.d.comb += shift.i[start].eq(self.i ^ shift.o[start - CHUNK_BITS + TAP])
        return m


def harness_cost(netlist: Netlist) -> dict[str, int]:
    """What the harness has of a flat netlist: `luts`, `ffs`, and `cells` with one or both.

    A register at an output is no cell of the harness where it can share that of a LUT which drives
    nothing else: that LUT is the component's.
    """
    drivers, users = netlist.pins("output"), netlist.pins("input")
    luts: set[str] = set()
    ffs = cells = 0
    for name, net in netlist.module["netnames"].items():
        if not OWN.fullmatch(name):
            continue
        for driver in (pin.cell for bit in net["bits"] for pin in drivers[bit]):
            ports = netlist.cells[driver]["connections"]
            if not {"D", "DI"} & set(ports):
                continue  # a block RAM has taken the register in as its own
            (data,) = ports["D"] if "D" in ports else ports["DI"]
            by = {pin.cell for pin in drivers.get(data, ()) if _is_lut(netlist, pin.cell)}
            outer = name.startswith("harness_out")
            luts |= set() if outer else by
            ffs += 1
            cells += not (outer and by and len(users[data]) == 1)
    return {"luts": len(luts), "ffs": ffs, "cells": cells}


def _is_lut(netlist: Netlist, cell: str) -> bool:
    return str(netlist.cells[cell]["type"]).removeprefix("SB_").startswith("LUT")
