"""The select engine: exact sums in order, at the cycles that its plug-in states."""

import pytest

from tests.bench import check_engine, simulate
from tritloom.rtl.config import AcceleratorConfig
from tritloom.rtl.engine import create_engine
from tritloom.rtl.plugins import engines, load_component
from tritloom.rtl.select import SelectEngine

GEOMETRIES = [
    (5, 1, 1, 1),
    (5, 2, 1, 5),
    (10, 1, 2, 2),
    (15, 3, 1, 3),
    (20, 2, 3, 4),
    (35, 1, 1, 7),
]
LATENCIES = {5: 7, 10: 8, 15: 8, 20: 9, 35: 10}


def config_of(lanes: int, rows: int, tokens: int, fill: int) -> AcceleratorConfig:
    return AcceleratorConfig(
        lanes=lanes,
        rows=rows,
        tokens=tokens,
        fill=fill,
        memory_words=16,
        max_in_features=4 * lanes,
        max_out_features=8,
    )


@pytest.mark.parametrize("groups", [1, 2, 5])
@pytest.mark.parametrize("idle", [0.0, 0.3])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_engine(geometry, idle, groups):
    check_engine(config_of(*geometry), groups=groups, idle=idle, seed=GEOMETRIES.index(geometry))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_latency(geometry):
    config = config_of(*geometry)
    assert load_component(engines[config.engine].component) is SelectEngine
    assert config.engine_latency == LATENCIES[config.lanes]


def test_swap_only_after_the_words_before():
    """Words of a tile that are still in the decoder meet their own activations."""
    config = config_of(5, 1, 1, 5)
    dut = create_engine(config)
    ones = sum(2 * 3**k for k in range(5))
    sums: list[int] = []

    async def bench(ctx):
        for tile in (1, 2, 3):
            ctx.set(dut.i_act.payload, [tile] * 5)
            ctx.set(dut.i_act.valid, 1)
            await ctx.tick().until(dut.i_act.ready)
            ctx.set(dut.i_act.valid, 0)
            await ctx.tick().until(dut.ready)
            for swap in (1, 0, 0, 0):
                ctx.set(dut.i_word, ones)
                ctx.set(dut.i_valid, 1)
                ctx.set(dut.i_swap, swap)
                await ctx.tick()
            ctx.set(dut.i_valid, 0)

    async def watch(ctx):
        while len(sums) < 12:
            *_, valid, total = await ctx.tick().sample(dut.o_valid, dut.o_sums[0])
            sums.extend([total] * valid)

    simulate(dut, bench, watch)
    assert sums == [5] * 4 + [10] * 4 + [15] * 4
