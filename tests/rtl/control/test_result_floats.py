"""Results of a device with scales: float32 of the rows that are wanted, one in each cycle."""

from dataclasses import replace

import numpy as np
import pytest

from tritloom.rtl.control.result_floats import ResultFloats
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.groups import fixed_to_float
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.sim.conformance.streams import simulate, sink, source

CONFIG = AcceleratorConfig(
    lanes=10,
    rows=3,
    tokens=2,
    memory=BlockRam(words=64),
    max_in_features=40,
    max_out_features=30,
    scale=ScaleConfig(group=20),
)
FLOAT = replace(CONFIG, scale=ScaleConfig(kind="float", group=20))


def patterns(totals: np.ndarray) -> list[int]:
    """float32 of Python's integers in units of 2^-24."""
    high = np.array([total >> 32 for total in totals], np.int64)
    low = np.array([total & 0xFFFFFFFF for total in totals], np.uint32)
    return fixed_to_float(high, low).tolist()


@pytest.mark.parametrize(("idle", "pause"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.7), (0.3, 0.3)])
@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, rows=1, tokens=1), FLOAT])
def test_floats_of_the_wanted_rows(config, idle, pause):
    """Tasks of any number of results; the rest of the last row group is dropped."""
    rng = np.random.default_rng(5)
    dut = ResultFloats(config)
    bits, rows = config.result_bits, config.rows
    took = []

    async def bench(ctx):
        for task, count in enumerate((1, rows, rows + 1, 7 * rows, 3 * rows - 1, 2)):
            groups = -(-count // rows)
            size = (groups, config.tokens, rows)
            wide = [int(each) << 32 for each in rng.integers(-(1 << 31), 1 << 31, size).flat]
            shifts = rng.integers(64 - bits, 64, len(wide)).tolist()
            totals = np.array([each >> n for each, n in zip(wide, shifts, strict=True)], object)
            totals[rng.random(len(totals)) < 0.2] = rng.choice([0, -1, 1])
            totals[0], totals[-1] = -(1 << bits - 1), (1 << bits - 1) - 1
            if config.scales_activations:  # the totals are patterns already
                totals = rng.integers(-(1 << 31), 1 << 31, len(totals)).astype(object)
            totals = totals.reshape(size)
            token = task % config.tokens
            ctx.set(dut.token, token)
            ctx.set(dut.count, count)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            chosen = totals[:, token].reshape(-1)[:count]
            wanted = [total % (1 << 32) for total in chosen]
            if not config.scales_activations:
                wanted = patterns(chosen)
            items = [group.reshape(-1).tolist() for group in totals]
            received: list[int] = []
            ctx.set(dut.i.valid, 0)
            began = took_cycles[0]
            feeds.append((items, idle, task))
            await sink(dut.o, count, received, pause, task)(ctx)
            took.append((count, took_cycles[0] - began))
            assert received == wanted
            while feeds:  # its last row group is taken in any case
                await ctx.tick()
        ended.append(True)

    feeds: list = []
    ended: list = []
    took_cycles = [0]

    async def feeder(ctx):
        while not ended:
            if not feeds:
                await ctx.tick()
                continue
            await source(dut.i, feeds[0][0], feeds[0][1], feeds[0][2])(ctx)
            feeds.pop()

    async def clock(ctx):
        while not ended:
            await ctx.tick()
            took_cycles[0] += 1

    simulate(dut, bench, feeder, clock, deadline_cycles=5000)
    if not (idle or pause):
        # The sink ends its last cycle, and the first total comes in the cycle after `start`.
        assert {cycles - count for count, cycles in took} == {config.scale.unit.float_cycles}
