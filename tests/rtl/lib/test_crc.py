"""The checksum of beats against `zlib`."""

import random
import zlib

from tests.support import quick_first
from tritloom.rtl.lib.crc import WideCrc32
from tritloom.sim.conformance.streams import simulate


@quick_first("beat_bytes", [2, 1, 4, 8])
def test_crc(beat_bytes):
    """Any number of whole beats and a last one of every size; the bytes above it do not count."""
    rng = random.Random(beat_bytes)
    dut = WideCrc32(beat_bytes)

    async def bench(ctx):
        for beats in (0, 1, 2, 9):
            for size in range(1, beat_bytes + 1):
                data = rng.randbytes(beats * beat_bytes + size)
                assert ctx.get(dut.crc) == 0, "the checksum of nothing"
                for start in range(0, len(data), beat_bytes):
                    part = data[start : start + beat_bytes]
                    noise = rng.randbytes(beat_bytes - len(part))
                    ctx.set(dut.data, int.from_bytes(part + noise, "little"))
                    ctx.set(dut.size, len(part))
                    ctx.set(dut.valid, 1)
                    await ctx.tick()
                    ctx.set(dut.valid, 0)
                    assert ctx.get(dut.crc) == zlib.crc32(data[: start + beat_bytes])
                    ctx.set(dut.data, rng.getrandbits(8 * beat_bytes))
                    if rng.random() < 0.3:
                        await ctx.tick()
                        assert ctx.get(dut.crc) == zlib.crc32(data[: start + beat_bytes])
                ctx.set(dut.start, 1)
                await ctx.tick()
                ctx.set(dut.start, 0)

    simulate(dut, bench)
