"""Partial sums: added up exactly at full width, groups as close as ``PARTIAL_SUM_CYCLES`` allow."""

import random
from collections import deque

import numpy as np
import pytest

from tests.bench import plain, simulate
from tritloom.rtl.config import PARTIAL_SUM_CYCLES, PARTIAL_SUM_READ_CYCLES, AcceleratorConfig
from tritloom.rtl.partial_sums import PartialSums


def config_of(rows: int, tokens: int) -> AcceleratorConfig:
    return AcceleratorConfig(
        lanes=5,
        rows=rows,
        tokens=tokens,
        memory_words=16,
        max_in_features=40,
        max_out_features=12 * rows,
    )


ORDER = ("valid", "first_group", "first_tile", "last")
SHAPES = [(1, 1), (1, 2), (8, 1), (8, 2), (7, 3), (5, 4), (4, 5), (3, 12)]


async def fetch(ctx, dut, order, pause, chance):
    """The totals of groups; asked for with pauses, taken with pauses, held until then."""
    asked, totals, held = 0, [], None
    while len(totals) < len(order):
        ask = asked < len(order) and (held is not None or chance.random() < 0.7)
        take = held is not None if pause == 1.0 else chance.random() >= pause
        ctx.set(dut.i_fetch.valid, ask)
        ctx.set(dut.i_fetch.payload, order[asked] if ask else 0)
        ctx.set(dut.o.ready, take)
        *_, went, valid, total = await ctx.tick().sample(
            dut.i_fetch.valid & dut.i_fetch.ready, dut.o.valid, dut.o.payload
        )
        asked += went
        assert held is None or (valid and held == plain(total))
        held = plain(total) if valid and not take else None
        if valid and take:
            totals.append(plain(total))
    ctx.set(dut.i_fetch.valid, 0)
    ctx.set(dut.o.ready, 0)
    return totals


@pytest.mark.parametrize("pause", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("geometry", [(1, 1), (2, 3), (3, 2)])
def test_sums(geometry, pause):
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
            if order is None:
                order = {name: chance.getrandbits(1) for name in ORDER} | {"valid": 0}
            ctx.set(dut.i_order, order)
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
                    order = {
                        "valid": 1,
                        "first_group": group == 0,
                        "first_tile": tile == 0,
                        "last": (tile, group) == (tiles - 1, groups - 1),
                    }
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
            totals = await fetch(ctx, dut, order, pause, chance)
            assert totals == sums.sum(0)[order].tolist()

    simulate(dut, bench)
    assert done_after == [PARTIAL_SUM_READ_CYCLES + 1] * len(layers)


def test_first_read_after_done_sees_the_last_sum():
    config = config_of(1, 1)
    dut = PartialSums(config)
    received: list[list[int]] = []

    async def bench(ctx):
        ctx.set(dut.i_fetch.payload, 0)
        for total in (77, -5):
            ctx.set(dut.i_order, {"valid": 1, "first_group": 1, "first_tile": 1, "last": 1})
            await ctx.tick()
            ctx.set(dut.i_order, dict.fromkeys(ORDER, 0))
            await ctx.tick().repeat(PARTIAL_SUM_READ_CYCLES - 1)
            ctx.set(dut.i_sums, [total])
            await ctx.tick()
            ctx.set(dut.i_sums, [99])
            await ctx.tick().until(dut.done)
            ctx.set(dut.i_fetch.valid, 1)
            await ctx.tick().until(dut.i_fetch.ready)
            ctx.set(dut.i_fetch.valid, 0)
            ctx.set(dut.o.ready, 1)
            received.append((await ctx.tick().sample(dut.o.payload[0]).until(dut.o.valid))[0])
            ctx.set(dut.o.ready, 0)

    simulate(dut, bench)
    assert received == [77, -5]
