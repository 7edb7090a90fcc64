"""A queue between two clocks: nothing lost, invented or reordered, and a payload a cycle."""

import random
from math import ceil

import pytest
from amaranth.hdl import ClockDomain, Module, ResetSignal, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.sim import Simulator

from tests.support import quick_first
from tritloom.rtl.lib.crossing import RESET_CYCLES, LongReset, StreamCrossing

COUNT = 100
RATIOS = [0.31, 0.75, 1.0, 1.001, 5 / 3, 7.3]


class Echo(wiring.Component):
    """Payloads go into the domain `far` and come back; `far` is reset with `sync`."""

    def __init__(self):
        signature = stream.Signature(16)
        self.restart = Signal()
        super().__init__({"i": In(signature), "o": Out(signature)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.there = there = StreamCrossing(16, 16, "sync", "far")
        m.submodules.back = back = StreamCrossing(16, 16, "far", "sync")
        connect(m, flipped(self.i), there.i)
        connect(m, there.o, back.i)
        connect(m, back.o, flipped(self.o))
        return m


def simulate(ratio, phase, idle, pause, count=COUNT, seed=1):
    """Sent and received payloads, and the cycles in which they moved, for both sides in `sync`."""
    dut = Echo()
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_clock(1e-6 / ratio, phase=phase * 1e-6 / ratio, domain="far")
    rng = random.Random(seed)
    items = [rng.getrandbits(16) for _ in range(count)]
    received, came = [], []

    async def send(ctx):
        for item in items:
            while rng.random() < idle:
                await ctx.tick()
            ctx.set(dut.i.payload, item)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)

    async def take(ctx):
        cycle = 0
        while len(received) < count:
            ready = rng.random() >= pause
            ctx.set(dut.o.ready, ready)
            *_, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid and ready:
                received.append(payload)
                came.append(cycle)
            cycle += 1
            assert cycle < 40 * count / min(1, ratio)

    simulator.add_testbench(send)
    simulator.add_testbench(take)
    simulator.run()
    return items, received, came


@quick_first("ratio", RATIOS)
@pytest.mark.parametrize(("idle", "pause"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.6)])
def test_order(ratio, idle, pause):
    for phase in (0.0, 0.25, 0.7):
        items, received, _ = simulate(ratio, phase, idle, pause)
        assert received == items


@pytest.mark.parametrize(("ratio", "least"), [(0.75, 0.74), (1.0, 1.0), (5 / 3, 1.0)])
def test_rate(ratio, least):
    """A payload a cycle of the slower clock, once the first one has come."""
    _, _, came = simulate(ratio, 0.4, 0.0, 0.0)
    assert (len(came) - 1) / (came[-1] - came[0]) >= least


@pytest.mark.parametrize("ratio", [0.31, 1.0, 5 / 3])
def test_reset(ratio):
    """A reset of both sides leaves nothing behind, whatever was on its way."""

    class Restarted(Echo):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.domains.sync = ClockDomain()
            m.domains.far = ClockDomain()
            m.d.comb += ResetSignal("sync").eq(self.restart)
            m.submodules.far = ResetSynchronizer(ResetSignal("sync"), domain="far")
            return m

    dut = Restarted()
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_clock(0.97e-6 / ratio, domain="far")
    rng = random.Random(2)
    seen = []

    async def bench(ctx):
        for round_ in range(6):
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.o.ready, round_ % 2)
            for item in range(rng.randint(1, 60)):
                ctx.set(dut.i.payload, 0x8000 | item)
                await ctx.tick()
            ctx.set(dut.i.valid, 0)
            ctx.set(dut.restart, 1)
            for _ in range(ceil(RESET_CYCLES / min(1, ratio))):
                await ctx.tick()
            ctx.set(dut.restart, 0)
            ctx.set(dut.o.ready, 1)
            for _ in range(rng.randint(0, 40)):  # nothing of before comes out any more
                *_, valid = await ctx.tick().sample(dut.o.valid)
                assert not valid
            for item in range(50):
                ctx.set(dut.i.payload, item)
                ctx.set(dut.i.valid, 1)
                while True:
                    *_, ready, valid, payload = await ctx.tick().sample(
                        dut.i.ready, dut.o.valid, dut.o.payload
                    )
                    seen.extend([payload] * valid)
                    if ready:
                        break
            ctx.set(dut.i.valid, 0)
            for _ in range(200):
                *_, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
                seen.extend([payload] * valid)
            assert seen == list(range(50)), (round_, seen)
            seen.clear()

    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(("other_hz", "cycles"), [(200, 5), (100, 5), (99, 6), (25, 20)])
def test_long_reset(other_hz, cycles):
    """High at once, for as long as the input is, and then for the cycles of the slower clock."""
    dut = LongReset(100, other_hz)
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    highs = []

    async def bench(ctx):
        for pulse in (1, 3):
            ctx.set(dut.i, 1)
            for _ in range(pulse):
                assert ctx.get(dut.o)
                await ctx.tick()
            ctx.set(dut.i, 0)
            high = 0
            while ctx.get(dut.o):
                await ctx.tick()
                high += 1
            highs.append(high)

    simulator.add_testbench(bench)
    simulator.run()
    assert highs == [cycles, cycles]
