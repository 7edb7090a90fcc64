"""Whose session it is, against a model of the rule."""

import random
from dataclasses import dataclass, replace
from typing import ClassVar

from amaranth.sim import Simulator

from tests.support.peers import Peers
from tritloom.rtl.control.owner import Owner
from tritloom.rtl.spec.config import TINY

HOLD = 37


@dataclass(frozen=True, kw_only=True)
class Hosts(Peers):
    """Peers of three bits; the upper two name the host."""

    name: ClassVar[str] = "hosts"

    def host_bits(self, config):
        return 2

    def hold_cycles(self, config):
        return HOLD


def test_owner():
    dut, rng = Owner(replace(TINY, link=Hosts())), random.Random(1)
    seen = set()

    async def bench(ctx):
        owner, heard, now = None, 0, 0
        for number in range(3000):
            peer = number if number < 8 else rng.randrange(8)
            ctx.set(dut.next_peer, peer)
            gap = rng.choice([2, 3, 9, HOLD - 3, HOLD, HOLD + 5])
            await ctx.tick().repeat(gap)
            now += gap
            ctx.set(dut.took_header, 1)
            await ctx.tick()
            now += 1
            ctx.set(dut.took_header, 0)
            ctx.set(dut.peer, peer)
            ctx.set(dut.next_peer, rng.randrange(8))
            stranger = peer != owner
            other_host = owner is None or peer >> 1 != owner >> 1
            barred = owner is not None and stranger and other_host and now - heard <= HOLD
            assert (ctx.get(dut.stranger), ctx.get(dut.barred)) == (stranger, barred)
            seen.add((stranger, other_host, barred))
            if not stranger:
                heard = now
            if number >= 8 and not barred and rng.random() < 0.3:
                ctx.set(dut.new_session, 1)
                await ctx.tick()
                now += 1
                ctx.set(dut.new_session, 0)
                owner, heard = peer, now
                assert not ctx.get(dut.stranger)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == {
        (False, False, False),
        (True, False, False),
        (True, True, True),
        (True, True, False),
    }
