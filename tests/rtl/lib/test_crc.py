"""`WideCrc32` against zlib: beats of every width, cut short or not, with pauses."""

import random
import zlib

import pytest
from amaranth.sim import Simulator

from tritloom.rtl.lib.crc import WideCrc32


@pytest.mark.parametrize("beat_bytes", [1, 2, 4, 8])
def test_against_zlib(beat_bytes):
    dut = WideCrc32(beat_bytes)
    rng = random.Random(beat_bytes)

    async def bench(ctx):
        for _ in range(40):
            expected = 0
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            assert ctx.get(dut.crc) == 0
            for _ in range(rng.randrange(1, 12)):
                data = rng.randbytes(beat_bytes)
                size = rng.randint(1, beat_bytes)
                valid = rng.random() < 0.7
                ctx.set(dut.data, int.from_bytes(data, "little"))
                ctx.set(dut.size, size)
                ctx.set(dut.valid, valid)
                await ctx.tick()
                if valid:
                    expected = zlib.crc32(data[:size], expected)
                assert ctx.get(dut.crc) == expected
            ctx.set(dut.valid, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
