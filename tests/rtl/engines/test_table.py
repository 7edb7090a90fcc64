"""The table engine: exact sums in order, at the cycles that its plug-in states, in block RAM."""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
from amaranth.back import rtlil

from tests.support import quick_first
from tests.support.packets import assert_responses, run_packets
from tritloom.host import TernaryLayer, connect
from tritloom.rtl.engines.contract import create_engine
from tritloom.rtl.engines.table import TableEngine, walk
from tritloom.rtl.engines.table_facts import TABLE
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import engines
from tritloom.rtl.spec.registry import load_component
from tritloom.rtl.top import Accelerator
from tritloom.sim.conformance.engine import check_engine, run_words
from tritloom.sim.conformance.operands import weight_words
from tritloom.sim.device.core import CoreSimulation
from tritloom.sim.tools import run_yosys
from tritloom.sim.verify.traffic import Traffic

GEOMETRIES = [
    ("base3x5", 5, 1, 1, 1),
    ("base3x5", 10, 2, 2, 2),
    ("base3x5", 15, 3, 1, 3),
    ("base3x5", 20, 1, 3, 2),
    ("base3x5", 35, 2, 1, 7),
    ("sym6x10", 6, 2, 2, 1),
    ("sym6x10", 12, 1, 3, 1),
    ("sym6x10", 18, 3, 1, 3),
    ("sym6x10", 42, 1, 1, 7),
]
ENCODINGS = ("base3x5", "sym6x10")
ENTRIES = {"base3x5": 248, "sym6x10": 365}
"""Steps in which a table is written: sym6x10 writes each entry once, base3x5 five again."""
WAY = 10
"""Cycles of the last entry's way into its table, and of the beginning."""
LATENCIES = {1: 3, 2: 4, 3: 5, 4: 5, 6: 6, 8: 6, 16: 7, 17: 12, 32: 12, 33: 13}
"""By codes of a row."""


def config_of(encoding: str, lanes: int, rows: int, tokens: int, fill: int) -> AcceleratorConfig:
    return AcceleratorConfig(
        lanes=lanes,
        rows=rows,
        tokens=tokens,
        fill=fill,
        engine="table",
        encoding=encoding,
        memory=BlockRam(words=16),
        max_in_features=4 * lanes,
        max_out_features=8,
    )


def all_groups(group: int) -> np.ndarray:
    digits = np.arange(3**group)[:, None] // 3 ** np.arange(group) % 3
    return (digits - 1).astype(np.int8)


def test_what_ships():
    assert engines["table"] is TABLE
    assert load_component(TABLE.component) is TableEngine


@pytest.mark.parametrize(
    ("encoding", "lanes", "group", "fill"),
    [("base3x5", 20, 5, 5), ("base3x5", 40, 5, 5), ("sym6x10", 24, 6, 3), ("sym6x10", 60, 6, 4)],
)
def test_fill_that_does_not_divide(encoding, lanes, group, fill):
    with pytest.raises(ConfigError) as raised:
        config_of(encoding, lanes, 1, 1, fill)
    codes = lanes // group
    message = f"fill of the table engine must divide lanes / {group} = {codes}, not {fill}"
    assert str(raised.value) == message


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("codes", "fill"), [(1, 1), (2, 1), (3, 3), (4, 2), (16, 4), (17, 1), (32, 8), (33, 3)]
)
def test_cycles(encoding, codes, fill):
    group = encodings[encoding].trits_per_code
    config = config_of(encoding, codes * group, 1, 1, fill)
    assert config.engine_latency == LATENCIES[codes]
    assert TABLE.fill_cycles(config) == ENTRIES[encoding] * (codes // fill) + WAY
    assert TABLE.tile_cycles(config) == ENTRIES[encoding] * (codes // fill) + WAY + 1
    assert TABLE.code_stride(config) == fill


@pytest.mark.sim
@pytest.mark.parametrize(("codes", "rows", "fill"), [(1, 2, 1), (8, 4, 4), (6, 1, 2)])
def test_lut_ram(codes: int, rows: int, fill: int) -> None:
    """Whole layers, of few groups and of more than a fill takes: exact, as long as it is said."""
    config = dataclasses.replace(
        config_of("sym3x5", 3 * codes, rows, 2, fill), max_in_features=60, max_out_features=160
    )
    assert config.engine_latency == LATENCIES[codes] - 2
    rng = np.random.default_rng(codes)
    for outputs, inputs in ((rows, 60), (3 * rows, 31), (160, 60)):
        trits = rng.integers(-1, 2, (outputs, inputs)).astype(np.int8)
        tokens = rng.integers(-128, 128, (4, inputs)).astype(np.int8)
        tokens[0] = -128
        results, cycles = zip(*CoreSimulation(config).layer(trits, tokens), strict=True)
        assert (np.concatenate(results) == numerics.matmul(trits, tokens)).all()
        assert set(cycles) == {config.run_cycles(LayerShape.of(config, outputs, inputs))}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("group", [1, 2, 3, 5, 6])
def test_walk(group, half):
    path = walk(group, half)
    assert path[0] == (0,) * group
    for before, after in pairwise(path):
        assert sorted(abs(b - a) for a, b in zip(before, after, strict=True)) == [
            *[0] * (group - 1),
            1,
        ]
    every = {tuple(trits) for trits in all_groups(group).tolist()}
    if half:
        # Each once, and of each and its negative just the one that sym6x10 calls positive.
        assert len(path) == len(set(path)) == 3**group // 2 + 1
        numbers = [sum(trit * 3**k for k, trit in enumerate(trits)) for trits in path]
        assert sorted(numbers) == list(range(3**group // 2 + 1))
    else:
        # All, the last 3^group each once: those before are written again.
        assert len(path) == 3**group + group
        assert set(path) == set(path[group:]) == every


@pytest.mark.parametrize("groups", [1, 2, 5])
@pytest.mark.parametrize("idle", [0.0, 0.3])
@quick_first("geometry", GEOMETRIES)
def test_engine(geometry, idle, groups):
    check_engine(
        config_of(*geometry), row_groups=groups, idle=idle, seed=GEOMETRIES.index(geometry)
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
@quick_first("more", [0, -1, 1, 40])
def test_words_hide_the_filling(encoding, more):
    """Around the cycles of a fill: the next tile may begin at once, or waits the rest."""
    config = config_of(encoding, encodings[encoding].trits_per_code, 1, 1, 1)
    groups = TABLE.tile_cycles(config) + more
    config = dataclasses.replace(config, max_out_features=groups)
    check_engine(config, row_groups=groups, idle=0.0, seed=groups)


@pytest.mark.sim
@pytest.mark.parametrize("fill", [1, 2])
@pytest.mark.parametrize("encoding", ["base3x5", "sym6x10"])
def test_every_entry(encoding, fill):
    """All codes of a tile while the next is filled: extremes, single activations, random ones."""
    group = encodings[encoding].trits_per_code
    lanes, count = 2 * group, 3**group
    config = dataclasses.replace(config_of(encoding, lanes, 2, 2, fill), max_in_features=20 * lanes)
    rng = np.random.default_rng(24)
    tiles = [np.full((2, lanes), value) for value in (-128, 127, 0)]
    tiles += [np.eye(lanes, dtype=int)[[k, lanes - 1 - k]] * -128 for k in range(lanes)]
    tiles += [rng.integers(-128, 128, (2, lanes)) for _ in range(3)]
    # Each port sees every code: those of row 0 rise in one group and fall in the other.
    n = np.arange(count)
    codes = np.stack([n, count - 1 - n, (7 * n + 3) % count, 5 * n % count], axis=-1)
    rows = all_groups(group)[codes].reshape(count, 2, 2, group)
    # Inputs of codes that are written at once take turns.
    rows = rows.transpose(0, 1, 3, 2) if fill == 2 else rows
    rows = rows.reshape(count, 2, lanes)
    words = weight_words(config, rows.reshape(count * 2, lanes))
    acts = np.concatenate(tiles, axis=1).astype(np.int8)
    sums = run_words(config, [words] * len(tiles), acts)
    expected = np.einsum("ktl,nrl->kntr", np.array(tiles), rows.astype(int))
    assert sums == expected.reshape(-1, 4).tolist()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_words_before_a_swap_keep_their_tile(encoding):
    """The last word of a tile, just before the first of the next one, and that filled at once."""
    group = encodings[encoding].trits_per_code
    config = config_of(encoding, group, 1, 1, 1)
    words = weight_words(config, np.ones((TABLE.tile_cycles(config), group), np.int8))
    acts = np.repeat(np.arange(1, 6, dtype=np.int8), group)[None]
    sums = run_words(config, [words] * 5, acts)
    assert sums == [[tile * group] for tile in range(1, 6) for _ in words]


CONFIGS = {
    "tiny": dataclasses.replace(TINY, engine="table"),
    "six": dataclasses.replace(TINY, lanes=6, engine="table", encoding="sym6x10"),
    "20 x 3, two tokens": AcceleratorConfig(
        lanes=20,
        rows=3,
        tokens=2,
        fill=4,
        engine="table",
        memory=BlockRam(words=1320),
        max_in_features=90,
        max_out_features=780,
        max_layers=5,
        packet_bytes=256,
        slots=4,
    ),
    "24 x 2, three tokens": AcceleratorConfig(
        lanes=24,
        rows=2,
        tokens=3,
        fill=4,
        engine="table",
        encoding="sym6x10",
        memory=BlockRam(words=1600),
        max_in_features=90,
        max_out_features=760,
        max_layers=5,
        packet_bytes=256,
        slots=4,
    ),
}
"""The last two have layers with more words a tile than a fill takes."""

COMPILED = [
    *("tiny", "six"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in list(CONFIGS)[2:]),
]


@pytest.mark.sim
@pytest.mark.parametrize(("idle", "pause"), [(0.4, 0.4), (0.0, 0.0)])
@pytest.mark.parametrize("name", CONFIGS)
def test_top(name, idle, pause):
    config = CONFIGS[name]
    traffic = Traffic(config, 25)
    traffic.reset(3)
    shape = LayerShape(min(3, config.max_tiles), min(5, config.max_row_groups))
    traffic.product(0, 2, shape.tiles, shape.row_groups)
    traffic.random(25)
    responses = run_packets(Accelerator(config), config, traffic.packets, idle=idle, pause=pause)
    assert_responses(config, traffic.packets, responses)


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
@pytest.mark.parametrize(
    "name", ["tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in list(CONFIGS)[1:])]
)
def test_verilog(name, tmp_path):
    from tritloom.gen.emit.generate import generate
    from tritloom.sim.verify.run import verify

    generate(CONFIGS[name], tmp_path)
    result = verify(tmp_path)
    assert result.ok, [bench for bench in result.benches if not bench.ok]


@pytest.mark.sim
@pytest.mark.parametrize(
    ("encoding", "family", "cell", "tokens", "cells", "steps"),
    [
        ("base3x5", "ecp5", "DP16KD", 1, 1, 1),
        ("base3x5", "ecp5", "DP16KD", 3, 1, 1),
        ("sym6x10", "ecp5", "DP16KD", 1, 1, 1),
        ("sym6x10", "ecp5", "DP16KD", 2, 2, 1),
        ("base3x5", "ice40", "SB_RAM40_4K", 1, 2, 1),
        ("sym6x10", "ice40", "SB_RAM40_4K", 1, 3, 2),
    ],
)
def test_tables_are_block_ram(encoding, family, cell, tokens, cells, steps, tmp_path):
    """Nothing but what it is made of: no distributed RAM, no logic for reads of what is written."""
    codes = 4

    def mapped(rows):
        config = config_of(encoding, codes * encodings[encoding].trits_per_code, rows, tokens, 2)
        (tmp_path / "in.il").write_text(rtlil.convert(create_engine(config), emit_src=False))
        steps = f"synth_{family} -top top -run begin:map_gates; tee -q -o out.json stat -json"
        run_yosys(["-q", "-p", f"read_rtlil in.il; {steps}"], tmp_path)
        stat = json.loads((tmp_path / "out.json").read_text())["design"]
        return stat["num_cells_by_type"]

    one, three = mapped(1), mapped(3)
    assert (one[cell], three[cell]) == (codes * cells + steps, 3 * codes * cells + steps)
    for counts in (one, three):
        assert not [name for name in counts if name.startswith(("TRELLIS_", "$mem", "SB_DFF"))]
    # With each memory come its output's register and an adder; a comparison of addresses or a
    # choice of outputs would be more.
    adding = {"$alu", "$dff", "$sdff", "$not", "$xor", cell}
    assert {name for name in {*one, *three} if one.get(name) != three.get(name)} <= adding
