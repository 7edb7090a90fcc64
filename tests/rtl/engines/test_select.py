"""The select engine: exact sums in order, at the cycles that its plug-in states."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support import quick_first
from tritloom.rtl.engines.select import SelectEngine
from tritloom.rtl.engines.select_facts import SELECT
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.plugins import ACT_LATENCY, engines
from tritloom.rtl.spec.registry import load_component
from tritloom.sim.conformance.engine import check_engine, run_words
from tritloom.sim.conformance.operands import weight_words

GEOMETRIES = [
    ("base3x5", 5, 1, 1, 1),
    ("base3x5", 5, 2, 1, 5),
    ("base3x5", 10, 1, 2, 2),
    ("base3x5", 15, 3, 1, 3),
    ("base3x5", 20, 2, 3, 4),
    ("base3x5", 35, 1, 1, 7),
    ("diff2", 2, 2, 1, 1),
    ("diff2", 4, 1, 3, 4),
    ("diff2", 6, 3, 2, 2),
    ("diff2", 16, 1, 1, 1),
    ("diff2", 34, 2, 1, 17),
]
LATENCIES = {
    "base3x5": {5: 7, 10: 8, 15: 8, 20: 9, 35: 10},
    "diff2": {2: 3, 4: 4, 6: 5, 16: 6, 34: 8},
}


def config_of(encoding: str, lanes: int, rows: int, tokens: int, fill: int) -> AcceleratorConfig:
    return AcceleratorConfig(
        lanes=lanes,
        rows=rows,
        tokens=tokens,
        fill=fill,
        encoding=encoding,
        memory=BlockRam(words=16),
        max_in_features=4 * lanes,
        max_out_features=8,
    )


@pytest.mark.parametrize("groups", [1, 2, 5])
@pytest.mark.parametrize("idle", [0.0, 0.3])
@quick_first("geometry", GEOMETRIES)
def test_engine(geometry, idle, groups):
    check_engine(
        config_of(*geometry), row_groups=groups, idle=idle, seed=GEOMETRIES.index(geometry)
    )


@pytest.mark.parametrize("encoding", LATENCIES)
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_words_hide_the_loading(encoding, more):
    """Around the cycles of loading a tile: the next one may begin at once, or waits the rest."""
    config = config_of(encoding, 20, 1, 1, 2)
    groups = SELECT.tile_cycles(config) + more
    check_engine(replace(config, max_out_features=20), row_groups=groups, idle=0.0, seed=groups)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_latency(geometry):
    config = config_of(*geometry)
    assert load_component(engines[config.engine].component) is SelectEngine
    assert config.engine_latency == LATENCIES[config.encoding][config.lanes]
    loads = config.lanes // config.fill
    decoding = {"base3x5": 3, "diff2": 1}[config.encoding]
    assert SELECT.fill_cycles(config) == loads + ACT_LATENCY + 1
    assert SELECT.tile_cycles(config) == decoding + loads + ACT_LATENCY


@quick_first(("encoding", "lanes"), [("base3x5", 5), ("diff2", 2), ("diff2", 6)])
def test_every_trit(encoding, lanes):
    """All trits of all lanes, over extreme and random activations, in a row of each sign."""
    config = config_of(encoding, lanes, 2, 2, lanes)
    digits = np.arange(3**lanes)[:, None] // 3 ** np.arange(lanes) % 3
    trits = (digits - 1).astype(np.int8)
    rows = np.stack([trits, trits[::-1]], axis=1).reshape(-1, lanes)
    rng = np.random.default_rng(27)
    acts = rng.integers(-128, 128, (2, 4 * lanes)).astype(np.int8)
    acts[0, : 2 * lanes] = -128
    acts[1, : 2 * lanes] = [-128, 127] * lanes
    sums = run_words(config, [weight_words(config, rows)] * 4, acts)
    tiles = acts.reshape(2, 4, lanes).astype(int)
    expected = np.einsum("tkl,nrl->kntr", tiles, rows.reshape(-1, 2, lanes).astype(int))
    assert sums == expected.reshape(-1, 4).tolist()


@pytest.mark.parametrize("encoding", LATENCIES)
def test_swap_only_after_the_words_before(encoding):
    """Words of a tile that are still in the decoder meet their own activations."""
    config = config_of(encoding, 10, 1, 1, 10)
    words = weight_words(config, np.ones((4, 10), np.int8))
    acts = np.repeat(np.array([1, 2, 3], np.int8), 10)[None]
    assert run_words(config, [words] * 3, acts) == [[10]] * 4 + [[20]] * 4 + [[30]] * 4
