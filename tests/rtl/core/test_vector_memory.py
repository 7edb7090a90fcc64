"""The queue of codes: order, room, and when it is idle, at any pace of both sides."""

import random

import pytest
from amaranth.lib.stream import Signature
from amaranth.sim import Simulator

from tritloom.rtl.core.vector_memory import CodeQueue
from tritloom.sim.conformance.streams import FLOWS

LATENCY = 17
"""Cycles from the entry of an element to its code, as the pipeline has."""


def run_queue(count, idle, pause, cycles=3000):
    """Send codes through a queue. Returns those that arrived, and the cycles that it took."""
    dut = CodeQueue()
    assert isinstance(dut.o.signature, Signature)
    rng = random.Random(count)
    codes = [rng.randrange(-128, 128) for _ in range(count)]
    entered: list[int] = []
    received: list[int] = []
    taken = 0

    async def bench(ctx):
        nonlocal taken
        pipeline = [None] * LATENCY
        waiting = None
        while len(received) < count:
            assert ctx.get(dut.idle) == (len(entered) == len(received))
            enters = ctx.get(dut.room) and len(entered) < count and rng.random() >= idle
            ctx.set(dut.enters, enters)
            pipeline.append(codes[len(entered)] if enters else None)
            if enters:
                entered.append(codes[len(entered)])
            assert len(entered) - len(received) <= CodeQueue.DEPTH
            code = pipeline.pop(0)
            ctx.set(dut.i_valid, code is not None)
            ctx.set(dut.i, 0x55 if code is None else code)
            ready = rng.random() >= pause
            ctx.set(dut.o.ready, ready)
            *_, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            assert waiting is None or (valid, payload) == (1, waiting)
            waiting = payload if valid and not ready else None
            if valid and ready:
                received.append(payload)
            taken += 1
            assert taken < cycles
        assert ctx.get(dut.idle)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert received == codes
    return taken


@pytest.mark.parametrize(("idle", "pause"), [*FLOWS[:4], (0.0, 0.9)])
def test_order(idle, pause):
    run_queue(200, idle, pause)


def test_full_rate():
    """A code in each cycle, since the depth covers the pipeline; the queue adds two cycles."""
    assert run_queue(200, 0, 0) == 200 + LATENCY + 2
