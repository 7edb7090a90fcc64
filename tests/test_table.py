"""The table engine: exact sums in order, at the cycles that its plug-in states, in block RAM."""

import dataclasses
import json

import numpy as np
import pytest
from amaranth.back import rtlil

from tests.bench import Traffic, assert_answers, check_engine, run_packets, simulate
from tritloom.host import TernaryLayer, connect
from tritloom.rtl.builtin import TABLE
from tritloom.rtl.config import TINY, AcceleratorConfig
from tritloom.rtl.engine import create_engine
from tritloom.rtl.errors import ConfigError
from tritloom.rtl.packing import BASE3X5, LayerShape
from tritloom.rtl.plugins import engines, load_component
from tritloom.rtl.table import GrayWalk, TableEngine
from tritloom.rtl.top import Accelerator
from tritloom.sim.tools import run_yosys

GEOMETRIES = [
    (5, 1, 1, 5),
    (5, 2, 2, 5),
    (10, 1, 1, 5),
    (10, 2, 3, 10),
    (15, 3, 1, 15),
    (20, 1, 2, 10),
    (35, 2, 1, 35),
]
LATENCIES = {5: 3, 10: 4, 15: 5, 20: 5, 35: 6, 80: 7}


def config_of(lanes: int, rows: int, tokens: int, fill: int) -> AcceleratorConfig:
    return AcceleratorConfig(
        lanes=lanes,
        rows=rows,
        tokens=tokens,
        fill=fill,
        engine="table",
        memory_words=16,
        max_in_features=4 * lanes,
        max_out_features=8,
    )


def test_what_ships():
    assert engines["table"] is TABLE
    assert load_component(TABLE.component) is TableEngine


@pytest.mark.parametrize("fill", [1, 2, 4])
def test_fill_of_parts_of_a_code(fill):
    with pytest.raises(ConfigError) as raised:
        config_of(20, 1, 1, fill)
    message = f"fill of the table engine must be a multiple of 5, not {fill}"
    assert str(raised.value) == message


@pytest.mark.parametrize(("lanes", "fill"), [(5, 5), (10, 5), (15, 15), (20, 10), (80, 5)])
def test_cycles(lanes, fill):
    config = config_of(lanes, 1, 1, fill)
    assert config.engine_latency == LATENCIES[lanes]
    assert TABLE.fill_cycles(config) == 243 * (lanes // fill) + 3
    assert TABLE.tile_cycles(config) == 243 * (lanes // fill) + 4


@pytest.mark.parametrize("group", [1, 2, 5, 6])
def test_walk(group):
    """Each code comes once; trits and number follow the digit and its step."""
    dut = GrayWalk(group)
    codes: list[int] = []
    lasts: list[int] = []

    async def bench(ctx):
        for again in (0, 1, 1, 0):
            if not again:
                await ctx.tick().repeat(3)
                ctx.set(dut.start, 1)
                *_, active = await ctx.tick().sample(dut.active)
                assert not active
            trits = [0] * group
            for entry in range(3**group):
                ctx.set(dut.start, entry == 3**group - 1 and len(codes) // 3**group in (0, 1))
                *_, active, first, last, changed, double = await ctx.tick().sample(
                    dut.active, dut.first, dut.last, dut.changed, dut.double
                )
                assert active and first == (entry == 0)
                if not first:
                    assert changed.bit_count() == 1
                    trits[changed.bit_length() - 1] += -2 if double else 1
                assert set(trits) <= {-1, 0, 1}
                codes.append(sum((trit + 1) * 3**k for k, trit in enumerate(trits)))
                lasts.append(last)
        *_, active = await ctx.tick().sample(dut.active)
        assert not active

    simulate(dut, bench)
    for walk in range(4):
        found = slice(walk * 3**group, (walk + 1) * 3**group)
        assert sorted(codes[found]) == list(range(3**group))
        assert lasts[found] == [0] * (3**group - 1) + [1]


@pytest.mark.parametrize("groups", [1, 2, 5])
@pytest.mark.parametrize("idle", [0.0, 0.3])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_engine(geometry, idle, groups):
    check_engine(config_of(*geometry), groups=groups, idle=idle, seed=GEOMETRIES.index(geometry))


@pytest.mark.parametrize("groups", [246, 247, 248, 300])
def test_words_hide_the_filling(groups):
    """Around the cycles of a fill: the next tile may begin at once, or waits the rest."""
    check_engine(
        dataclasses.replace(config_of(5, 1, 1, 5), max_out_features=groups),
        groups=groups,
        idle=0.0,
        seed=groups,
    )


@pytest.mark.parametrize("fill", [5, 10])
def test_every_entry(fill):
    """All codes of a tile while the next is filled: extremes, single activations, random ones."""
    config = config_of(10, 2, 2, fill)
    dut = create_engine(config)
    rng = np.random.default_rng(24)
    tiles = [np.full((2, 10), value) for value in (-128, 127, 0)]
    tiles += [np.eye(10, dtype=int)[[k, 9 - k]] * -128 for k in range(10)]
    tiles += [rng.integers(-128, 128, (2, 10)) for _ in range(6)]
    trits = BASE3X5.decode(np.arange(243, dtype=np.uint32)).astype(int)
    # Each port sees every code: those of row 0 rise in one group and fall in the other.
    codes = [(n, 242 - n, (7 * n + 3) % 243, (5 * n) % 243) for n in range(243)]
    found: list[list[int]] = []

    async def load(ctx):
        ctx.set(dut.i_act.valid, 1)
        for tile in tiles:
            for part in np.split(tile, 10 // fill, axis=1):
                ctx.set(dut.i_act.payload, part.reshape(-1).tolist())
                await ctx.tick().until(dut.i_act.ready)
        ctx.set(dut.i_act.valid, 0)

    async def words(ctx):
        for _ in tiles:
            while not ctx.get(dut.ready):
                await ctx.tick()
            for n, word in enumerate(codes):
                ctx.set(dut.i_word, int.from_bytes(bytes(word), "little"))
                ctx.set(dut.i_valid, 1)
                ctx.set(dut.i_swap, n == 0)
                await ctx.tick()
            ctx.set(dut.i_valid, 0)
            ctx.set(dut.i_swap, 0)

    async def watch(ctx):
        while len(found) < len(tiles) * len(codes):
            *_, valid, sums = await ctx.tick().sample(dut.o_valid, dut.o_sums)
            if valid:
                found.append([sums[k] for k in range(4)])

    simulate(dut, load, words, watch)
    rows = trits[np.array(codes)].reshape(-1, 2, 10)
    expected = np.einsum("ktl,nrl->knrt", np.array(tiles), rows).transpose(0, 1, 3, 2)
    assert found == expected.reshape(-1, 4).tolist()


def test_words_before_a_swap_keep_their_tile():
    """The last word of a tile, just before the first of the next one, and that filled at once."""
    config = config_of(5, 1, 1, 5)
    dut = create_engine(config)
    ones = sum(2 * 3**k for k in range(5))
    sums: list[int] = []

    async def load(ctx):
        for tile in range(1, 6):
            ctx.set(dut.i_act.payload, [tile] * 5)
            ctx.set(dut.i_act.valid, 1)
            await ctx.tick().until(dut.i_act.ready)
        ctx.set(dut.i_act.valid, 0)

    async def bench(ctx):
        ctx.set(dut.i_word, ones)
        for _ in range(5):
            # Words of the tile before come until the very cycle before the next.
            while not ctx.get(dut.ready):
                await ctx.tick()
            ctx.set(dut.i_valid, 1)
            ctx.set(dut.i_swap, 1)
            await ctx.tick()
            ctx.set(dut.i_swap, 0)
        await ctx.tick()
        ctx.set(dut.i_valid, 0)

    async def watch(ctx):
        while not sums or sums[-1] < 25 or len(sums) < 4 * 247 + 2:
            *_, valid, total = await ctx.tick().sample(dut.o_valid, dut.o_sums[0])
            sums.extend([total] * valid)

    simulate(dut, load, bench, watch)
    assert sums == [5] * 247 + [10] * 247 + [15] * 247 + [20] * 247 + [25] * 2


CONFIGS = {
    "tiny": dataclasses.replace(TINY, engine="table", fill=5),
    "20 x 3, two tokens": AcceleratorConfig(
        lanes=20,
        rows=3,
        tokens=2,
        fill=10,
        engine="table",
        memory_words=600,
        max_in_features=90,
        max_out_features=300,
        max_layers=5,
        packet_bytes=256,
        slots=4,
    ),
}
"""The second has layers with more words a tile than a fill takes."""

COMPILED = ["tiny", pytest.param("20 x 3, two tokens", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("idle", "pause"), [(0.0, 0.0), (0.4, 0.4)])
@pytest.mark.parametrize("name", CONFIGS)
def test_top(name, idle, pause):
    config = CONFIGS[name]
    traffic = Traffic(config, 25)
    traffic.reset(3)
    shape = LayerShape(min(3, config.max_tiles), min(5, config.max_groups))
    traffic.product(0, 2, shape.tiles, shape.groups)
    traffic.random(25)
    answers = run_packets(Accelerator(config), config, traffic.packets, idle=idle, pause=pause)
    assert_answers(config, traffic.packets, answers)


def products(device, config, count):
    """Random layers of every shape, extreme ones among them."""
    rng = np.random.default_rng(26)
    for number in range(count):
        rows = int(rng.integers(1, config.max_out_features + 4))
        columns = int(rng.integers(1, config.max_in_features + 1))
        trits = rng.integers(-1, 2, (rows, columns)).astype(np.int8)
        codes = rng.integers(-128, 128, (int(rng.integers(1, 4)), columns)).astype(np.int8)
        if number % 4 == 0:
            trits[:], codes[:] = -1, -128
        handle = device.load(TernaryLayer.from_trits(trits, 1.0))
        sums = device.matmul(handle, codes)
        device.unload(handle)
        assert (sums == codes.astype(np.int64) @ trits.T.astype(np.int64)).all()
    assert device.selftest().ok


@pytest.mark.parametrize("name", CONFIGS)
def test_golden_device(name):
    with connect("golden", config=CONFIGS[name]) as device:
        products(device, CONFIGS[name], 12)


@pytest.mark.sim
@pytest.mark.parametrize("name", COMPILED)
def test_simulated_device(name):
    with connect("sim", config=CONFIGS[name]) as device:
        assert device.info.config == CONFIGS[name]
        products(device, CONFIGS[name], 300)


@pytest.mark.sim
@pytest.mark.parametrize("name", COMPILED)
def test_verilog(name, tmp_path):
    from tritloom.gen.generate import generate
    from tritloom.sim.verify import verify

    generate(CONFIGS[name], tmp_path)
    result = verify(tmp_path)
    assert result.ok, [bench for bench in result.benches if not bench.ok]


@pytest.mark.sim
@pytest.mark.parametrize(
    ("family", "cell", "tokens", "cells"),
    [("ecp5", "DP16KD", 1, 1), ("ecp5", "DP16KD", 3, 1), ("ice40", "SB_RAM40_4K", 1, 2)],
)
def test_tables_are_block_ram(family, cell, tokens, cells, tmp_path):
    """Nothing but what it is made of: no distributed RAM, no logic for reads of what is written."""

    def mapped(rows):
        config = config_of(20, rows, tokens, 10)
        (tmp_path / "in.il").write_text(rtlil.convert(create_engine(config), emit_src=False))
        steps = f"synth_{family} -top top -run begin:map_gates; tee -q -o out.json stat -json"
        run_yosys(["-q", "-p", f"read_rtlil in.il; {steps}"], tmp_path)
        stat = json.loads((tmp_path / "out.json").read_text())["design"]
        return stat["num_cells_by_type"]

    one, three = mapped(1), mapped(3)
    groups = 20 // 5
    assert (one[cell], three[cell]) == (groups * cells, 3 * groups * cells)
    for counts in (one, three):
        assert not [name for name in counts if name.startswith(("TRELLIS_", "$mem", "SB_DFF"))]
    # A comparison of addresses or a choice of outputs would come with each memory.
    assert one["$eq"] == three["$eq"] and one["$mux"] == three["$mux"]
