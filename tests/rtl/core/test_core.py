"""The core alone: products from activations and a stream of weight words, and its cycles."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module

from tests.support import quick_first
from tests.support.core import run_core, run_layer, run_of
from tritloom.rtl.core.core import Core
from tritloom.rtl.engines.contract import DotEngine
from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import PARTIAL_SUM_READ_CYCLES, TINY, AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import Engine, engines
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.sim.conformance.streams import simulate, sink, source

WIDE = AcceleratorConfig(
    lanes=10,
    rows=3,
    tokens=2,
    fill=5,
    memory=BlockRam(words=64),
    max_in_features=40,
    max_out_features=30,
)
LEAST = AcceleratorConfig(
    lanes=5, rows=1, fill=5, memory=BlockRam(words=1), max_in_features=5, max_out_features=1
)
TABLES = AcceleratorConfig(
    lanes=12,
    rows=2,
    tokens=2,
    fill=2,
    engine="table",
    encoding="sym6x10",
    memory=BlockRam(words=64),
    max_in_features=36,
    max_out_features=16,
)
PAIRS = replace(WIDE, lanes=12, fill=6, encoding="diff2", max_in_features=36)
# Its sums come before the partial sums that they are added to.
QUICK = replace(TINY, lanes=2, fill=2, encoding="diff2", max_in_features=8)
CONFIGS = {
    "tiny": TINY,
    "wide": WIDE,
    "least": LEAST,
    "tables": TABLES,
    "pairs": PAIRS,
    "quick": QUICK,
    "one bank": replace(WIDE, banks=1),
    "one bank, quick": replace(QUICK, banks=1),
}
GROUPED = {
    "small": replace(TINY, max_in_features=15, max_out_features=8, max_group_sums=16),
    "tiny": replace(TINY, max_group_sums=32),
    "wide": replace(WIDE, max_group_sums=60),
    "tables": replace(TABLES, max_in_features=60, max_group_sums=79),
    "quick": replace(QUICK, max_group_sums=64),
    "one bank": replace(WIDE, banks=1, max_group_sums=60),
}


SCALED = {
    "tiny": replace(TINY, scale=ScaleConfig(group=10)),
    "one tile": replace(WIDE, tokens=1, scale=ScaleConfig(group=10)),
    "tables": replace(TABLES, tokens=1, scale=ScaleConfig(group=24)),
    "quick, one bank": replace(QUICK, banks=1, scale=ScaleConfig(group=4)),
    "least": replace(LEAST, scale=ScaleConfig()),
}
SCALED |= {
    f"{name}, float": replace(config, scale=replace(config.scale, kind="float"))
    for name, config in SCALED.items()
}
# More row groups than a row of a float unit must wait, as many, and one fewer.
SCALED["many, float"] = replace(
    QUICK, max_out_features=26, scale=ScaleConfig(kind="float", group=4)
)
SCALED["two tokens, float"] = replace(WIDE, scale=ScaleConfig(kind="float", group=20))


class ReadyEngine(DotEngine):
    """As fast as an engine can be: the next tile is always loaded. A sum is the row's bits."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.ready.eq(self.i_more)
        word = delay(m, self.i_word, self.config.engine_latency)
        for row in range(self.config.rows):
            m.d.comb += self.o_sums[row].eq(word.word_select(row, 8).as_signed())
        return m


engines.add(
    Engine(
        name="test-ready",
        component=f"{__name__}:ReadyEngine",
        encodings=("base3x5",),
        latency=lambda config: PARTIAL_SUM_READ_CYCLES + 1,
        fill_cycles=lambda config: 1,
        tile_cycles=lambda config: 1,
    )
)


def shapes_of(config):
    return [
        LayerShape(tiles, groups)
        for tiles in sorted({1, 2, config.max_tiles})
        for groups in sorted({1, 2, 3, 4, 5, config.max_row_groups})
        if tiles <= config.max_tiles and groups <= config.max_row_groups
    ]


@quick_first(("idle", "pause"), [(0.4, 0.4), (0.0, 0.0), (0.8, 1.0)])
@quick_first("name", CONFIGS)
def test_products(name, idle, pause):
    config = CONFIGS[name]
    took, stalls = run_core(config, shapes_of(config), idle=idle, pause=pause, seed=14)
    if not idle:
        assert took == [config.run_cycles(shape) for shape in shapes_of(config)]
        assert not any(stalls)
    else:
        assert any(stalls) or name == "least"


def grouped_shapes(config):
    """Shapes whose last group has as many tiles as the others, or fewer; some with one group."""
    shapes = [
        LayerShape(tiles, row_groups, group_tiles)
        for tiles in sorted({1, 3, config.max_tiles})
        for group_tiles in sorted({0, 1, 2, config.max_tiles})
        for row_groups in sorted({1, 2, 5, config.max_row_groups})
        if row_groups <= config.max_row_groups
    ]
    return [shape for shape in shapes if shape.result_row_groups <= config.result_row_groups]


@quick_first(("idle", "pause"), [(0.4, 0.4), (0.0, 0.0)])
@quick_first("name", GROUPED)
def test_groups(name, idle, pause):
    """A sum for each group, in the cycles of a layer without groups."""
    config = GROUPED[name]
    shapes = grouped_shapes(config)
    assert any(shape.result_row_groups == config.result_row_groups for shape in shapes)
    took, stalls = run_core(config, shapes, idle=idle, pause=pause, seed=15)
    if not idle:
        plain = [LayerShape(shape.tiles, shape.row_groups) for shape in shapes]
        assert took == [config.run_cycles(shape) for shape in plain]
        assert not any(stalls)


def scaled_shapes(config):
    """As `grouped_shapes`, with groups that the configuration allows."""
    shapes = {
        LayerShape(tiles, row_groups, group_tiles)
        for tiles in sorted({1, config.max_tiles})
        for group_tiles in sorted({0, 1, 2})
        for row_groups in sorted({1, 2, 5, 11, 12, 13, min(7, config.max_row_groups)})
        if row_groups <= config.max_row_groups
        and tiles <= config.max_tiles
        and group_tiles <= config.most_group_tiles
    }
    return sorted(shapes, key=lambda shape: (shape.group_tiles, shape.row_groups, shape.tiles))


@quick_first(("idle", "pause"), [(0.4, 0.4), (0.0, 0.0)])
@quick_first("name", SCALED)
def test_scales(name, idle, pause):
    """Exact totals of scaled sums, `ScaleUnit.cycles` later than the sums of a layer."""
    config = SCALED[name]
    shapes = scaled_shapes(config)
    took, stalls = run_core(config, shapes, idle=idle, pause=pause, seed=16)
    if not idle:
        plain = replace(config, scale=None)
        assert took == [config.run_cycles(shape) for shape in shapes]
        for shape, cycles in zip(shapes, took, strict=True):
            later = cycles - plain.run_cycles(shape) - config.scale.unit.cycles
            if shape.row_groups >= config.again_cycles or config.scale.kind == "fixed":
                assert later == 0
            else:  # tiles of few row groups wait for the totals
                rows = shape.row_groups
                waits = config.tile_cycles(rows) - plain.tile_cycles(rows)
                assert later == (shape.tiles - 1) * waits
        assert not any(stalls)


@pytest.mark.parametrize("idle", [0.0, 0.3])
def test_tiles_wait_for_partial_sums(idle):
    """Where an engine never waits: a group's sums are written before they are read again."""
    config = replace(TINY, engine="test-ready", max_in_features=40)
    rng = np.random.default_rng(28)
    dut = Core(config)
    took: list[int] = []
    shapes = [LayerShape(tiles, groups) for tiles in (1, 2, 3, 8) for groups in range(1, 9)]

    async def bench(ctx):
        for number, shape in enumerate(shapes):
            ctx.set(dut.i_run.payload, run_of(config, shape))
            ctx.set(dut.i_run.valid, 1)
            await ctx.tick().until(dut.i_run.ready)
            ctx.set(dut.i_run.valid, 0)
            sums = rng.integers(-128, 128, (shape.tiles, shape.row_groups, 2)).astype(np.int8)
            words = sums.view("<u2")[..., 0].reshape(-1).tolist()
            cycles, _ = await run_layer(ctx, dut, words, idle, number)
            took.append(cycles)
            totals: list[list[int]] = []
            for group in range(shape.row_groups):
                await source(dut.i_fetch, [{"row_group": group}])(ctx)
                await sink(dut.o, group + 1, totals)(ctx)
            assert totals == sums.astype(int).sum(0).tolist()

    simulate(dut, bench)
    if not idle:
        assert took == [config.run_cycles(shape) for shape in shapes]
