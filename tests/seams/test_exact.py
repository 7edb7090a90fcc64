"""Random layers of every shape on the simulated FPGA: each sum equals the golden model's."""

import numpy as np
import pytest

from tritloom.boards.ulx3s import ULX3S_85F
from tritloom.host import Device, TernaryLayer, connect
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig

pytestmark = pytest.mark.sim

LAYERS = 400
GEOMETRIES = {
    "20x4": AcceleratorConfig(
        lanes=20,
        rows=4,
        fill=4,
        memory=BlockRam(words=4500),
        max_in_features=600,
        max_out_features=600,
    ),
    "10x8x2": AcceleratorConfig(
        lanes=10,
        rows=8,
        tokens=2,
        fill=5,
        memory=BlockRam(words=4500),
        max_in_features=600,
        max_out_features=600,
        slots=8,
    ),
    "ulx3s-85f": ULX3S_85F.config,
}


def activations(random: np.random.Generator, tokens: int, in_features: int) -> np.ndarray:
    codes = random.integers(-128, 128, (tokens, in_features)).astype(np.int8)
    extremes = (-128, 127, 0)
    for token in range(tokens):
        if (kind := int(random.integers(0, 9))) < len(extremes):
            codes[token] = extremes[kind]
    return codes


def weights(random: np.random.Generator, out_features: int, in_features: int) -> np.ndarray:
    trits = random.integers(-1, 2, (out_features, in_features)).astype(np.int8)
    trits[0], trits[-1] = -1, 1
    return trits


def check(device: Device, random: np.random.Generator, out: int, into: int, tokens: int) -> None:
    trits, codes = weights(random, out, into), activations(random, tokens, into)
    handle = device.load(TernaryLayer.from_trits(trits, 1.0))
    sums = device.matmul(handle, codes)
    device.unload(handle)
    assert np.array_equal(sums, numerics.matmul(trits, codes)), (out, into, tokens)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_random_layers_are_exact(name: str) -> None:
    random = np.random.default_rng(sum(name.encode()))
    with connect("sim", config=GEOMETRIES[name]) as device:
        for _ in range(LAYERS):
            out, into = random.integers(1, 601, 2).tolist()
            check(device, random, out, into, int(random.integers(1, 6)))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_few_rows_are_exact(name: str) -> None:
    """Row groups from 1 to twice the pipeline's length, each cut to its first and last row."""
    config = GEOMETRIES[name]
    random = np.random.default_rng(1)
    with connect("sim", config=config) as device:
        for groups in range(1, 2 * config.engine_latency + 1):
            into = int(random.integers(1, 4 * config.lanes))
            for out in {(groups - 1) * config.rows + 1, groups * config.rows}:
                check(device, random, out, into, 2)
