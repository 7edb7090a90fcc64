"""The layer table: entries of layers, their bounds, and the words that are added up."""

from dataclasses import replace

import pytest
from amaranth.sim import Simulator

from tritloom.rtl.control.layer_table import LayerTable
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.scale_facts import ScaleConfig

LARGE = replace(TINY, max_layers=65)
"""More layers than a table without an output register has."""


def run(bench, config=TINY):
    dut = LayerTable(config)
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)

    async def start(ctx):
        await bench(ctx, dut)

    simulator.add_testbench(start)
    simulator.run()


async def strobe(ctx, port):
    ctx.set(port, 1)
    await ctx.tick()
    ctx.set(port, 0)


def describe(ctx, dut, base, tiles, row_groups, group_tiles=None):
    if group_tiles is not None:
        ctx.set(dut.group_tiles, group_tiles)
    ctx.set(dut.definition.as_value(), base | tiles << 32 | row_groups << 48)


async def entry(ctx, dut, index):
    ctx.set(dut.index, index)
    for _ in range(dut.config.entry_cycles):
        await ctx.tick()
    value = ctx.get(dut.entry)
    names = ("base", "words", "last_tile", "last_group", "defined", "committed")
    return tuple(value[name] for name in names)


@pytest.mark.parametrize("config", [TINY, LARGE])
def test_a_layer_lives(config):
    assert config.entry_cycles == (2 if config is LARGE else 1)

    async def bench(ctx, dut):
        for index in range(config.max_layers):
            ctx.set(dut.index, index)
            await strobe(ctx, dut.forget)
        for index, shape in ((1, (5, 3, 4)), (3, (40, 4, 6))):
            ctx.set(dut.index, index)
            describe(ctx, dut, *shape)
            await strobe(ctx, dut.begin)
            for _ in range(shape[1]):
                assert not ctx.get(dut.beyond)
                await strobe(ctx, dut.add)
            await strobe(ctx, dut.define)
        assert await entry(ctx, dut, 1) == (5, 12, 2, 3, 1, 0)
        assert await entry(ctx, dut, 3) == (40, 24, 3, 5, 1, 0)
        await strobe(ctx, dut.commit)
        assert await entry(ctx, dut, 3) == (40, 24, 3, 5, 1, 1)
        assert await entry(ctx, dut, 1) == (5, 12, 2, 3, 1, 0)
        await strobe(ctx, dut.forget)
        assert await entry(ctx, dut, 1) == (0, 0, 0, 0, 0, 0)
        assert await entry(ctx, dut, 0) == (0, 0, 0, 0, 0, 0)

    run(bench, config)


@pytest.mark.parametrize(
    ("base", "tiles", "row_groups", "wrong"),
    [
        (0, 1, 1, 0),
        (TINY.memory_words, 1, 1, 0),
        (TINY.memory_words + 1, 1, 1, 1),
        (1 << 31, 1, 1, 1),
        (0, 0, 1, 1),
        (0, TINY.max_tiles, TINY.max_row_groups, 0),
        (0, TINY.max_tiles + 1, 1, 1),
        (0, 1 << 15, 1, 1),
        (0, 1, 0, 1),
        (0, 1, TINY.max_row_groups + 1, 1),
        (0, 1, 1 << 15, 1),
    ],
)
def test_wrong_shape(base, tiles, row_groups, wrong):
    async def bench(ctx, dut):
        describe(ctx, dut, base, tiles, row_groups)
        assert ctx.get(dut.wrong_shape) == wrong
        await ctx.tick()

    run(bench)


def test_beyond_the_end():
    """A layer may end where the memory ends, not one word later."""

    async def bench(ctx, dut):
        for base, beyond in ((TINY.memory_words - 8, 0), (TINY.memory_words - 7, 1)):
            describe(ctx, dut, base, 1, 8)
            await strobe(ctx, dut.begin)
            assert not ctx.get(dut.beyond)
            await strobe(ctx, dut.add)
            assert ctx.get(dut.beyond) == beyond

    run(bench)


@pytest.mark.parametrize(
    ("tiles", "row_groups", "group_tiles", "last_of_group", "last_result"),
    [
        (4, 8, 0, 3, 7),  # one group: only the layer's last tile may have this number
        (3, 8, 0, 3, 7),
        (4, 4, 1, 0, 15),
        (4, 8, 2, 1, 15),
        (3, 5, 2, 1, 9),  # the last group has one tile
        (1, 3, 4, 3, 2),
        (4, 5, 1, 0, None),  # 20 row groups of sums, of 16
        (3, 8, 2, 1, 15),
        (3, 8, 1, 0, None),
    ],
)
def test_sums_of_groups(tiles, row_groups, group_tiles, last_of_group, last_result):
    """A result bank of 16 row groups; a layer that exceeds it is found before it is defined."""
    config = replace(TINY, max_group_sums=32)

    async def bench(ctx, dut):
        ctx.set(dut.index, 2)
        for _ in range(2):  # the second time as the first
            describe(ctx, dut, 8, tiles, row_groups, group_tiles)
            await strobe(ctx, dut.begin)
            added = 0
            while added < tiles and not ctx.get(dut.beyond):
                await strobe(ctx, dut.add)
                added += 1
            assert ctx.get(dut.beyond) == (last_result is None)
            if last_result is None:
                continue
            await strobe(ctx, dut.define)
            await ctx.tick()
            found = ctx.get(dut.entry)
            assert found["last_of_group"] == last_of_group
            assert found["last_result"] == last_result
            assert (found["last_tile"], found["last_group"]) == (tiles - 1, row_groups - 1)

    run(bench, config)


@pytest.mark.parametrize(("group_tiles", "last_of_group"), [(0, 1), (1, 0), (2, 1)])
def test_groups_with_scales(group_tiles, last_of_group):
    """0 stands for the longest group. A bank holds one total a row, so no layer exceeds it."""

    async def bench(ctx, dut):
        ctx.set(dut.index, 1)
        describe(ctx, dut, 0, 4, 8, group_tiles)
        await strobe(ctx, dut.begin)
        for _ in range(4):
            assert not ctx.get(dut.beyond)
            await strobe(ctx, dut.add)
        assert not ctx.get(dut.beyond)
        await strobe(ctx, dut.define)
        await ctx.tick()
        found = ctx.get(dut.entry)
        assert found["last_of_group"] == last_of_group
        assert (found["last_tile"], found["last_group"], found["words"]) == (3, 7, 32)

    run(bench, replace(TINY, scale=ScaleConfig(group=10)))
