"""Registers behind multipliers: which ones move into them; the design runs as before."""

import json

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, ClockDomain, ClockSignal, Module, Signal, Value, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tests.support.netlists import assert_runs_as_before
from tritloom.boards.families.family import TOP
from tritloom.gen.passes.netlist import Netlist
from tritloom.gen.passes.synthesis import synthesise
from tritloom.rtl.lib.streams import PACKET

ABSORBED = ("register", "unsigned", "two", "part")
LEFT = ("enable", "reset", "init", "second user", "output", "falling", "some", "added")


class Products(wiring.Component):
    """Products of 18 bits whose factors come from registers, and a register of a kind behind.

    Each byte that comes is one cycle of work. The response is the XOR of all bytes of the products.
    In the kind `output` the product itself is an output of the design.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        packets = stream.Signature(PACKET)
        raw = {"raw": Out(36)} if kind == "output" else {}
        super().__init__({"i": In(packets), "o": Out(packets), **raw})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kind = self.kind
        work = Signal()
        past = Signal(64)
        noise = Cat(self.i.payload.data, past)
        m.domains.late = late = ClockDomain(
            reset_less=True, clk_edge="neg" if kind == "falling" else "pos"
        )
        m.d.comb += [
            late.clk.eq(ClockSignal()),
            work.eq(self.i.valid & self.o.ready),
            self.i.ready.eq(self.o.ready),
            self.o.valid.eq(self.i.valid),
            self.o.payload.last.eq(self.i.payload.last),
        ]
        with m.If(work):
            m.d.sync += past.eq(noise)
        results: list[Value] = []
        for number in range(2 if kind == "two" else 1):
            shape = (unsigned if kind == "unsigned" else signed)(18)
            a, b = (Signal(shape, reset_less=True, name=f"{name}{number}") for name in "ab")
            m.d.sync += [
                a.eq(noise[3 + 9 * number :][:18]),
                b.eq(noise[25 + 7 * number :][:18]),
            ]
            exact = Signal(36)
            m.d.comb += exact.eq(a * b)
            o = Signal(36, reset_less=kind != "reset", init=int(kind == "init"))
            target = m.d.late if kind == "falling" else m.d.sync
            if kind == "some":  # some of the bits have an enable
                target += o[8:].eq(exact[8:])
                with m.If(work):
                    target += o[:8].eq(exact[:8])
            elif kind == "part":  # 9 bits are not used at all
                target += o[:27].eq(exact[:27])
            elif kind == "added":
                target += o.eq(exact + noise[:20])
            else:
                with m.If(work if kind in ("enable", "reset") else 1):
                    target += o.eq(exact)
            results.append(o)
            if kind == "second user":
                results.append(exact[20])
            if kind == "output":
                m.d.comb += self.raw.eq(exact)
        total: Value = results[0][:8]
        every = Cat(results)
        for at in range(8, len(every), 8):
            total = total ^ every[at : at + 8]
        m.d.comb += self.o.payload.data.eq(total)
        return m


class TwoClocks(wiring.Component):
    """A product in each of two clock domains."""

    def __init__(self) -> None:
        super().__init__(
            {"other": In(1), "a": In(signed(18)), "b": In(signed(18)), "c": In(signed(18))}
            | {"o": Out(72)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.other = other = ClockDomain(reset_less=True)
        m.d.comb += other.clk.eq(self.other)
        for number, (domain, factor) in enumerate((("sync", self.b), ("other", self.c))):
            late = Signal(36, reset_less=True, name=f"late{number}")
            m.d[domain] += late.eq(self.a * factor)
            m.d.comb += self.o[36 * number :][:36].eq(late)
        return m


def modes(text: str) -> list[str]:
    """Of each multiplier: the clock of its output register, or NONE."""
    cells = Netlist(json.loads(text), TOP).cells.values()
    return [
        cell["parameters"].get("REG_OUTPUT_CLK", "NONE")
        for cell in cells
        if cell["type"] == "MULT18X18D"
    ]


def registers(text: str) -> int:
    cells = Netlist(json.loads(text), TOP).cells.values()
    return sum(cell["type"] == "TRELLIS_FF" for cell in cells)


@pytest.mark.sim
@pytest.mark.parametrize("kind", [*ABSORBED, *LEFT])
def test_which_are_absorbed(kind: str) -> None:
    """Only a register of all used bits, of the rising edge, without enable and reset."""
    netlist = synthesise(rtlil.convert(Products(kind), emit_src=False), "ecp5")
    assert modes(netlist) == ["CLK0" if kind in ABSORBED else "NONE"] * (1 + (kind == "two"))


@pytest.mark.sim
def test_registers_are_gone() -> None:
    absorbed, left = (
        registers(synthesise(rtlil.convert(Products(kind), emit_src=False), "ecp5"))
        for kind in ("register", "enable")
    )
    assert left - absorbed == 36


@pytest.mark.sim
def test_one_clock() -> None:
    """The multipliers of a tile share their clocks."""
    netlist = synthesise(rtlil.convert(TwoClocks(), emit_src=False), "ecp5")
    assert sorted(modes(netlist)) == ["CLK0", "NONE"]


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in (*ABSORBED, *LEFT) if kind != "falling"])
def test_runs_as_before(kind: str) -> None:
    """The simulation's clock has no falling edge that a register would see."""
    assert_runs_as_before(rtlil.convert(Products(kind), emit_src=False))
