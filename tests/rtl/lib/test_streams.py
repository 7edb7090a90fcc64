"""Stream helpers: nothing lost, invented or reordered, at full rate, one cycle late."""

import random

import pytest
from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.streams import (
    PACKET,
    StreamRegister,
    StreamSwitch,
    bits_for,
    stream_from_memory,
)
from tritloom.sim.conformance.streams import FLOWS, simulate, sink, source

COUNT = 40


class Reader(wiring.Component):
    """Sends the words of a memory, as often as `go` lets it."""

    def __init__(self, words: list[int]) -> None:
        self.words = words
        super().__init__({"go": In(1), "o": Out(stream.Signature(8))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=len(self.words), init=self.words)
        port = memory.read_port()
        address = Signal(range(len(self.words) + 1))
        m.d.comb += port.addr.eq(address)
        with m.If(stream_from_memory(m, port, self.o, self.go & (address != len(self.words)))):
            m.d.sync += address.eq(address + 1)
        return m


@pytest.mark.parametrize(("idle", "pause"), FLOWS)
@pytest.mark.parametrize("shape", [unsigned(1), unsigned(17), PACKET])
def test_register(shape, idle, pause):
    rng = random.Random(1)
    if shape is PACKET:
        items = [{"data": rng.randrange(256), "last": rng.randrange(2)} for _ in range(COUNT)]
    else:
        items = [rng.getrandbits(shape.width) for _ in range(COUNT)]
    dut = StreamRegister(shape)
    received: list = []
    simulate(dut, source(dut.i, items, idle, 2), sink(dut.o, COUNT, received, pause, 3))
    assert received == items


def moments(dut, strobes, count):
    """Bench and lists: the cycles in which each strobe was set, until the last one's `count`."""
    cycles: list[list[int]] = [[] for _ in strobes]

    async def bench(ctx):
        cycle = 0
        while len(cycles[-1]) < count:
            _, _, *values = await ctx.tick().sample(*strobes)
            for seen, value in zip(cycles, values, strict=True):
                seen.extend([cycle] * value)
            cycle += 1

    return bench, cycles


def test_register_one_cycle_late_at_full_rate():
    dut = StreamRegister(8)
    strobes = [dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready]
    watch, (went, came) = moments(dut, strobes, COUNT)
    simulate(dut, source(dut.i, range(COUNT)), sink(dut.o, COUNT, []), watch)
    assert went == list(range(went[0], went[0] + COUNT))
    assert came == [cycle + 1 for cycle in went]


class Switched(wiring.Component):
    """A `StreamSwitch` between registers, so that a bench has a clock."""

    def __init__(self) -> None:
        byte = stream.Signature(8)
        super().__init__({"i": In(byte), "second": In(1), "a": Out(byte), "b": Out(byte)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.switch = switch = StreamSwitch(8)
        m.submodules.register = register = StreamRegister(8)
        wiring.connect(m, wiring.flipped(self.i), register.i)
        wiring.connect(m, register.o, switch.i)
        wiring.connect(m, switch.o_first, wiring.flipped(self.a))
        wiring.connect(m, switch.o_second, wiring.flipped(self.b))
        m.d.comb += switch.second.eq(self.second)
        return m


@pytest.mark.parametrize(("idle", "pause"), FLOWS)
def test_switch(idle, pause):
    """Words go to one output until it has them all, then to the other."""
    words = random.Random(7).choices(range(256), k=COUNT)
    dut = Switched()
    first, second = [], []

    async def take(ctx):
        await sink(dut.a, COUNT // 2, first, pause, 8)(ctx)
        assert not ctx.get(dut.b.valid)
        ctx.set(dut.second, 1)
        await sink(dut.b, COUNT // 2, second, pause, 9)(ctx)
        assert not ctx.get(dut.a.valid)

    simulate(dut, source(dut.i, words, idle, 10), take)
    assert first + second == words


@pytest.mark.parametrize(("idle", "pause"), FLOWS)
def test_stream_from_memory(idle, pause):
    words = random.Random(4).choices(range(256), k=COUNT)
    dut = Reader(words)
    received: list[int] = []

    async def permit(ctx):
        rng = random.Random(5)
        while len(received) < COUNT:
            ctx.set(dut.go, rng.random() >= idle)
            await ctx.tick()

    simulate(dut, permit, sink(dut.o, COUNT, received, pause, 6))
    assert received == words


def test_stream_from_memory_full_rate():
    dut = Reader(list(range(COUNT)))
    watch, (requested, came) = moments(dut, [dut.go, dut.o.valid & dut.o.ready], COUNT)

    async def permit(ctx):
        ctx.set(dut.go, 1)
        await ctx.tick()

    simulate(dut, permit, sink(dut.o, COUNT, []), watch)
    assert came == list(range(requested[0] + 1, requested[0] + 1 + COUNT))


@pytest.mark.parametrize(
    ("limit", "width"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (255, 8), (256, 9)]
)
def test_bits_for(limit, width):
    assert bits_for(limit) == unsigned(width)
