"""Frames between two clocks: all slots are used, none is written before it was sent."""

import random

import pytest
from amaranth.hdl import ClockDomain, Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from tritloom.rtl.links.udp import FrameStore
from tritloom.rtl.links.udp_facts import FRAME_SLOTS, SLOT_WORDS

WORDS = 3
FRAMES = 40
FULL_CYCLES = 100
MOST_CYCLES = 2000
"""That a side waits for the other one."""


class Store(wiring.Component):
    """A store with the PHY's domain."""

    def __init__(self):
        self.store = FrameStore()
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.domains.phy = ClockDomain(reset_less=True)
        m.submodules.store = self.store
        return m


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ratio", [0.3, 1.001, 125 / 80])
def test_order_and_room(ratio, seed):
    """Nothing is sent at first; then frames come and go with pauses, in both clocks."""
    dut = Store()
    store = dut.store
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_clock(1e-6 / ratio, phase=0.37e-6 / ratio, domain="phy")
    rng = random.Random(seed)
    frames = [[rng.getrandbits(16) for _ in range(WORDS)] for _ in range(FRAMES)]
    places = [0, 1, SLOT_WORDS - 1]
    written, received, full = [], [], []

    async def until(ctx, domain, signal):
        for _ in range(MOST_CYCLES):
            if ctx.get(signal):
                return
            await ctx.tick(domain)
        pytest.fail(f"{signal.name} stays 0")

    async def write(ctx):
        for frame in frames:
            await until(ctx, "sync", store.free)
            for place, word in zip(places, frame, strict=True):
                ctx.set(store.place, place)
                ctx.set(store.word, word)
                ctx.set(store.write, 1)
                await ctx.tick()
            ctx.set(store.write, 0)
            ctx.set(store.commit, 1)
            await ctx.tick()
            ctx.set(store.commit, 0)
            written.append(frame)
            for _ in range(rng.choice([0, 0, 1, 9])):
                await ctx.tick()

    async def send(ctx):
        await ctx.tick("phy").repeat(FULL_CYCLES)
        full.append((len(written), ctx.get(store.free)))
        for number in range(FRAMES):
            await until(ctx, "phy", store.waiting)
            frame = []
            for place in places:
                ctx.set(store.address, number % FRAME_SLOTS * SLOT_WORDS + place)
                await ctx.tick("phy").repeat(2)
                frame.append(ctx.get(store.data))
            received.append(frame)
            for _ in range(rng.choice([0, 0, 3, 40])):
                await ctx.tick("phy")
            ctx.set(store.sent, 1)
            await ctx.tick("phy")
            ctx.set(store.sent, 0)
            await ctx.tick("phy")
        await ctx.tick("phy").repeat(9)
        assert not ctx.get(store.waiting)

    simulator.add_testbench(write)
    simulator.add_testbench(send)
    simulator.run()
    assert full == [(FRAME_SLOTS, 0)]
    assert received == frames
