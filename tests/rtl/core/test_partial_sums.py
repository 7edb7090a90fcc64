"""Partial sums: added up exactly at full width, groups as close as `PARTIAL_SUM_CYCLES` allow."""

import random
from collections import deque

import numpy as np
import pytest

from tritloom.rtl.core.partial_sums import FETCH_CYCLES, PartialSums
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import PARTIAL_SUM_CYCLES, PARTIAL_SUM_READ_CYCLES, AcceleratorConfig
from tritloom.sim.conformance.streams import plain, simulate


def config_of(rows: int, tokens: int, banks: int) -> AcceleratorConfig:
    return AcceleratorConfig(
        banks=banks,
        lanes=5,
        rows=rows,
        tokens=tokens,
        memory=BlockRam(words=16),
        max_in_features=40,
        max_out_features=12 * rows,
    )


SHAPES = [(1, 1), (1, 2), (8, 1), (8, 2), (7, 3), (5, 4), (4, 5), (3, 12)]


async def fetch(ctx, dut, groups, bank=0):
    """The totals of groups, one asked for in each cycle."""
    totals = []
    for cycle in range(len(groups) + FETCH_CYCLES):
        group = groups[min(cycle, len(groups) - 1)]
        if dut.config.banks == 1:
            ctx.set(dut.i_row_group, group)
        else:
            ctx.set(dut.i_fetch, {"row_group": group, "bank": bank})
            ctx.set(dut.i_advance, 1)
        if cycle >= FETCH_CYCLES:
            totals.append(plain(ctx.get(dut.o)))
        await ctx.tick()
    return totals


class Fetches:
    """Fetches at random from the bank whose layer does not run, and knows what must come.

    Members
    -------
    kept : the totals in each bank, by row group
    compared : totals that came and were compared
    """

    def __init__(self, config, chance):
        self.kept, self.compared = {}, 0
        self._config, self._chance = config, chance
        self._stages = [None] * FETCH_CYCLES  # the totals that must come, or None for any

    def run(self, bank):
        """A layer begins, whose sums go to a bank: what is fetched from it is not known."""
        self.kept.pop(bank, None)
        self._stages = [None] * FETCH_CYCLES

    def cycle(self, ctx, dut):
        """Set the inputs of a cycle, and compare the totals at `o`."""
        if self._config.banks == 1:
            return
        chance = self._chance
        if self._stages[-1] is not None:
            assert plain(ctx.get(dut.o)) == self._stages[-1]
            self.compared += 1
        bank = chance.choice([*self.kept, 1])
        group = chance.randrange(self._config.max_row_groups)
        totals = self.kept.get(bank)
        named = totals[group] if totals is not None and group < len(totals) else None
        advances = chance.random() < 0.7
        ctx.set(dut.i_fetch, {"row_group": group, "bank": bank})
        ctx.set(dut.i_advance, advances)
        if advances:
            self._stages = [named, *self._stages[:-1]]


@pytest.mark.parametrize("banks", [2, 1])
@pytest.mark.parametrize("geometry", [(1, 1), (2, 3), (3, 2)])
def test_sums(geometry, banks):
    """One layer after the other, with and without pauses, extreme sums in all of them.

    While a layer has its sums in one bank, those of the other bank are fetched.
    """
    config = config_of(*geometry, banks)
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

    fetches = Fetches(config, chance)

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
            fetches.cycle(ctx, dut)
            await ctx.tick()

        for number, sums in enumerate(layers):
            tiles, groups, _ = sums.shape
            bank = chance.randrange(config.banks)
            fetches.run(bank)
            if banks > 1:
                ctx.set(dut.i_running, 1 << bank)
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
            if banks > 1:
                ctx.set(dut.i_running, 0)
            order = chance.sample(range(groups), groups)
            totals = await fetch(ctx, dut, order, bank)
            assert totals == sums.sum(0)[order].tolist()
            fetches.run(bank)
            fetches.kept[bank] = sums.sum(0).tolist()

    simulate(dut, bench)
    assert done_after == [PARTIAL_SUM_READ_CYCLES + 1] * len(layers)
    assert banks == 1 or fetches.compared > 20


@pytest.mark.parametrize("banks", [2, 1])
def test_first_read_after_done_sees_the_last_sum(banks):
    config = config_of(1, 1, banks)
    dut = PartialSums(config)
    received: list[list[int]] = []

    async def bench(ctx):
        for total in (77, -5):
            if banks > 1:
                ctx.set(dut.i_running, 0b10)
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
            if banks > 1:  # the number of a row group is taken while `done` is set
                ctx.set(dut.i_fetch, {"row_group": 3, "bank": 1})
                ctx.set(dut.i_advance, 1)
                await ctx.tick()
                ctx.set(dut.i_running, 0)
                ctx.set(dut.i_fetch, {"row_group": 0, "bank": 0})
                await ctx.tick().repeat(FETCH_CYCLES - 1)
                received.append(plain(ctx.get(dut.o)))
            else:
                received.extend(await fetch(ctx, dut, [3]))

    simulate(dut, bench)
    assert received == [[77], [-5]]
