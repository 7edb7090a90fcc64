"""The order of commands against a model: sessions, sequence numbers, what can be repeated."""

import random

import pytest
from amaranth.sim import Simulator

from tritloom.rtl.control.order import CommandOrder
from tritloom.rtl.spec.commands import SESSION_BITS
from tritloom.rtl.spec.config import TINY, AcceleratorConfig

WIDE = AcceleratorConfig.from_dict(TINY.to_dict() | {"slots": 8})


class Model:
    """What `tritloom.rtl.spec.commands` says of sessions and sequence numbers."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.session, self.expected, self.stored = 0, 1, 0

    def verdict(self, session: int, seq: int) -> tuple[bool, bool, bool, int]:
        behind = (self.expected - seq) % 65536
        return session != self.session, behind == 0, behind <= self.stored, self.expected

    def decide(self, session: int, seq: int, reset: bool) -> None:
        foreign, in_order, _, _ = self.verdict(session, seq)
        if reset and foreign:
            self.session, self.expected, self.stored = session, 1, 0
        elif not reset and not foreign and in_order:
            self.expected = (self.expected + 1) % 65536
            self.stored = min(self.stored + 1, self.window)


@pytest.mark.parametrize("config", [TINY, WIDE], ids=["tiny", "wide"])
def test_order(config):
    """Random requests; only those with `decide` change the state.

    The responses to the last `unsent` commands have not been sent to their end.
    """
    rng = random.Random(41)
    dut, model = CommandOrder(config), Model(config.window)
    seen = set()

    async def bench(ctx):
        for _ in range(1500):
            session = (
                model.session
                if rng.random() < 0.9
                else rng.choice((0, 1, 5, 1 << SESSION_BITS - 1))
            )
            away = rng.choice((0, 0, 0, 1, 2, -1, config.window, config.window + 1, 256, 32768))
            seq = (model.expected - away) % 65536
            reset, decide = rng.random() < 0.1, rng.random() < 0.7
            unsent = rng.randint(0, config.slots)
            ctx.set(dut.session, session)
            ctx.set(dut.seq, seq)
            ctx.set(dut.reset, reset)
            ctx.set(dut.decide, decide)
            ctx.set(dut.unsent, unsent)
            names = (dut.foreign, dut.in_order, dut.repeated, dut.expected)
            verdict = tuple(ctx.get(name) for name in names)
            assert verdict == model.verdict(session, seq)
            behind = (model.expected - seq) % 65536
            awaited = verdict[2] and behind <= unsent
            assert ctx.get(dut.full) == (unsent == config.slots)
            # The caller asks for it only of requests that are not in order.
            assert verdict[1] or ctx.get(dut.awaited) == awaited
            seen.add((*verdict[:3], awaited))
            await ctx.tick()
            if decide:
                model.decide(session, seq, reset)

    run(dut, bench)
    assert {(False, False, True, True), (False, False, True, False)} <= seen
    assert (False, False, False, False) in seen


@pytest.mark.sim
def test_numbers_wrap():
    """After number 65535 comes 0; the response to 65535 can still be repeated."""
    dut = CommandOrder(WIDE)

    async def bench(ctx):
        ctx.set(dut.decide, 1)
        for seq in range(1, 65536):
            ctx.set(dut.seq, seq)
            await ctx.tick()
        ctx.set(dut.decide, 0)
        assert ctx.get(dut.expected) == 0
        ctx.set(dut.seq, 65536 - WIDE.window)
        assert ctx.get(dut.repeated)
        ctx.set(dut.seq, 65536 - WIDE.window - 1)
        assert not ctx.get(dut.repeated)

    run(dut, bench)


def run(dut, bench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
