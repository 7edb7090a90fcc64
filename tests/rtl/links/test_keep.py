"""TKEEP of packets of all lengths modulo a beat, one behind the other, with pauses."""

import random

import pytest
from amaranth.sim import Simulator

from tests.support.packets import beats_of
from tritloom.rtl.links.keep import KeepMask


@pytest.mark.parametrize("beat_bytes", [2, 4, 8])
def test_the_bytes_of_a_packet_are_marked(beat_bytes):
    dut, rng = KeepMask(beat_bytes), random.Random(beat_bytes)
    sizes = [*range(20, 20 + 2 * beat_bytes), 255, 256, 257, 4096, 2, 3]

    async def bench(ctx):
        for size in rng.sample(sizes, len(sizes)):
            packet = size.to_bytes(2, "little") + rng.randbytes(size - 2)
            left = size
            for beat in beats_of(packet, beat_bytes, rng):
                ctx.set(dut.beat, beat)
                ctx.set(dut.transfer, 0)
                for _ in range(rng.randrange(3)):
                    await ctx.tick()
                assert ctx.get(dut.keep) == (1 << min(left, beat_bytes)) - 1
                ctx.set(dut.transfer, 1)
                await ctx.tick()
                left -= beat_bytes
            assert left <= 0

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
