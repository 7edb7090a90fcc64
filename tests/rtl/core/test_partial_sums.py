"""Partial sums: added up exactly at full width, groups as close as `PARTIAL_SUM_CYCLES` allow."""

import random
from collections import deque

import numpy as np
import pytest

from tritloom.rtl.core.partial_sums import FETCH_CYCLES, PartialSums
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import PARTIAL_SUM_CYCLES, PARTIAL_SUM_READ_CYCLES, AcceleratorConfig
from tritloom.sim.conformance.streams import plain, simulate


def config_of(rows: int, tokens: int) -> AcceleratorConfig:
    return AcceleratorConfig(
        lanes=5,
        rows=rows,
        tokens=tokens,
        memory=BlockRam(words=16),
        max_in_features=40,
        max_out_features=12 * rows,
    )


SHAPES = [(1, 1), (1, 2), (8, 1), (8, 2), (7, 3), (5, 4), (4, 5), (3, 12)]


async def fetch(ctx, dut, groups):
    """The totals of groups, one asked for in each cycle."""
    totals = []
    for cycle in range(len(groups) + FETCH_CYCLES):
        ctx.set(dut.i_row_group, groups[min(cycle, len(groups) - 1)])
        if cycle >= FETCH_CYCLES:
            totals.append(plain(ctx.get(dut.o)))
        await ctx.tick()
    return totals


@pytest.mark.parametrize("geometry", [(1, 1), (2, 3), (3, 2)])
def test_sums(geometry):
    """One layer after the other, with and without pauses, extreme sums in all of them."""
    config = config_of(*geometry)
    rng = np.random.default_rng(12)
    chance = random.Random(13)
    extreme = config.lanes << config.act_bits - 1
    dut = PartialSums(config)
    results = config.tokens * config.rows
    layers = []
    for tiles, groups in SHAPES:
        sums = rng.integers(-extreme, extreme + 1, (tiles, groups, results))
        sums[:, 0] = chance.choice((extreme, -extreme))
        layers.append(sums)
    done_after: list[int] = []

    async def bench(ctx):
        coming = deque([None] * PARTIAL_SUM_READ_CYCLES)

        async def step(order=None, sums=None):
            """A cycle: what comes, and the sums of what came; noise where there is none."""
            coming.append(sums)
            now = coming.popleft()
            noise = (0, chance.randrange(config.max_row_groups), chance.getrandbits(1), 0)
            valid, group, first, last = order or noise
            ctx.set(dut.i_valid, valid)
            ctx.set(dut.i_row_group, group)
            ctx.set(dut.i_first, first)
            ctx.set(dut.i_last, last)
            negative = chance.getrandbits(config.rows)
            signs = [1 - 2 * (negative >> row & 1) for row in range(config.rows)] * config.tokens
            if now is None:
                now = [chance.choice((extreme, -extreme)) for _ in signs]
            ctx.set(dut.i_sums, (np.array(now) * signs).tolist())
            ctx.set(dut.i_negative, negative)
            await ctx.tick()

        for number, sums in enumerate(layers):
            tiles, groups, _ = sums.shape
            for tile in range(tiles):
                for group in range(groups):
                    while number % 2 and chance.random() < 0.3:
                        assert not ctx.get(dut.done)
                        await step()
                    order = 1, group, tile == 0, (tile, group) == (tiles - 1, groups - 1)
                    assert not ctx.get(dut.done)
                    await step(order, sums[tile, group].tolist())
                if tile < tiles - 1:
                    for _ in range(PARTIAL_SUM_CYCLES - groups):
                        assert not ctx.get(dut.done)
                        await step()
            cycles = 1
            while not ctx.get(dut.done):
                cycles += 1
                await step()
            done_after.append(cycles)
            await step()
            assert not ctx.get(dut.done)
            order = chance.sample(range(groups), groups)
            totals = await fetch(ctx, dut, order)
            assert totals == sums.sum(0)[order].tolist()

    simulate(dut, bench)
    assert done_after == [PARTIAL_SUM_READ_CYCLES + 1] * len(layers)


def test_first_read_after_done_sees_the_last_sum():
    config = config_of(1, 1)
    dut = PartialSums(config)
    received: list[list[int]] = []

    async def bench(ctx):
        for total in (77, -5):
            for name, value in (("valid", 1), ("row_group", 3), ("first", 1), ("last", 1)):
                ctx.set(getattr(dut, f"i_{name}"), value)
            await ctx.tick()
            ctx.set(dut.i_valid, 0)
            ctx.set(dut.i_last, 0)
            ctx.set(dut.i_row_group, 0)
            await ctx.tick().repeat(PARTIAL_SUM_READ_CYCLES - 1)
            ctx.set(dut.i_sums, [total])
            await ctx.tick()
            ctx.set(dut.i_sums, [99])
            while not ctx.get(dut.done):
                await ctx.tick()
            received.extend(await fetch(ctx, dut, [3]))

    simulate(dut, bench)
    assert received == [[77], [-5]]
