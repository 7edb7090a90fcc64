"""Fuzzing: random geometries of every engine and encoding, every result exact, every cycle told."""

import random
from itertools import product

import numpy as np
import pytest

from tests.bench import random_codes, random_trits, run_core
from tritloom.host import TernaryLayer, connect
from tritloom.rtl.builtin import SELECT, TABLE
from tritloom.rtl.config import AcceleratorConfig
from tritloom.rtl.packing import ALPHABETS, LayerShape, act_limits, encodings
from tritloom.sim import golden
from tritloom.sim.core import CoreSimulation

KINDS = [(engine.name, name) for engine in (SELECT, TABLE) for name in engine.encodings]
VECTORS = 10_000


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def drawn(rng: random.Random, engine: str, encoding: str, macs: int) -> AcceleratorConfig:
    """A random geometry of at most about so many multiply-accumulates a cycle."""
    group = encodings[encoding].group
    codes = rng.randint(1, max(1, min(macs // group, 9)))
    lanes = group * codes
    rows = rng.randint(1, max(1, min(macs // lanes, 5)))
    tokens = rng.randint(1, max(1, min(macs // lanes // rows, 4)))
    fill = rng.choice(divisors(codes if engine == "table" else lanes))
    draft = geometry(engine, encoding, lanes, rows, tokens, fill, rng.choice((4, 8)), 1)
    groups = 2 * draft.engine_latency
    tiles = rng.randint(1, 4)
    return geometry(
        engine, encoding, lanes, rows, tokens, fill, draft.act_bits, groups, tiles * lanes
    )


def geometry(
    engine: str,
    encoding: str,
    lanes: int,
    rows: int,
    tokens: int,
    fill: int,
    act_bits: int,
    groups: int,
    inputs: int | None = None,
) -> AcceleratorConfig:
    inputs = inputs or lanes
    return AcceleratorConfig(
        engine=engine,
        encoding=encoding,
        alphabet=encodings[encoding].alphabet,
        lanes=lanes,
        rows=rows,
        tokens=tokens,
        fill=fill,
        act_bits=act_bits,
        memory_words=groups * (inputs // lanes),
        max_in_features=inputs,
        max_out_features=groups * rows,
    )


def check_cycles(config: AcceleratorConfig, trits: np.ndarray, codes: np.ndarray) -> None:
    """A layer on the compiled core: each sum exact, each run of the formula's cycles."""
    cycles = config.run_cycles(LayerShape.of(config, *trits.shape))
    expected = golden.matmul(trits, codes)
    done = 0
    for found, took in CoreSimulation(config).layer(trits, codes):
        assert took == cycles, config
        assert np.array_equal(found, expected[done : done + len(found)]), (config, done)
        done += len(found)
    assert done == len(codes)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("engine", "encoding"), KINDS)
def test_small_cores(engine, encoding, seed):
    rng = random.Random(f"{engine} {encoding} {seed}")
    config = drawn(rng, engine, encoding, 40)
    groups = [1, config.max_groups, rng.randint(1, config.max_groups)]
    shapes = [LayerShape(rng.randint(1, config.max_tiles), n) for n in groups]
    shapes[0] = LayerShape(config.max_tiles, 1)
    idle, pause = rng.choice([(0.0, 0.0), (0.0, 0.5), (0.3, 0.3)])
    took, stalls = run_core(config, shapes, idle=idle, pause=pause, seed=seed)
    if not idle:
        assert took == [config.run_cycles(shape) for shape in shapes], config
        assert not any(stalls)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("engine", "encoding"), KINDS)
def test_row_groups(engine, encoding, seed):
    """From 1 to twice the engine's latency, in a random geometry."""
    rng = random.Random(f"row groups of {engine} {encoding} {seed}")
    config = drawn(rng, engine, encoding, 60)
    shapes = [LayerShape(rng.randint(1, config.max_tiles), n + 1) for n in range(config.max_groups)]
    took, stalls = run_core(config, shapes, seed=seed)
    assert took == [config.run_cycles(shape) for shape in shapes], config
    assert not any(stalls)


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("engine", "encoding"), KINDS)
def test_compiled_cores(engine, encoding, seed):
    """Larger ones: layers of every size, more tokens than the core takes at once."""
    rng = random.Random(f"compiled {engine} {encoding} {seed}")
    config = drawn(rng, engine, encoding, 200)
    numpy = np.random.default_rng(seed)
    for _ in range(4):
        shape = rng.randint(1, config.max_out_features), rng.randint(1, config.max_in_features)
        codes = random_codes(config, numpy, (rng.randint(1, 9), shape[1]))
        check_cycles(config, random_trits(config, numpy, shape), codes)


def two_codes(engine: str, encoding: str, act_bits: int) -> AcceleratorConfig:
    """Two codes in a row, two tiles, and outputs for every weight of one code, twice."""
    group = encodings[encoding].group
    groups = len(ALPHABETS[encodings[encoding].alphabet]) ** group
    return geometry(engine, encoding, 2 * group, 2, 4, 2, act_bits, groups, 4 * group)


WIDTHS = [8, pytest.param(4, marks=pytest.mark.slow)]


@pytest.mark.sim
@pytest.mark.parametrize("act_bits", WIDTHS)
@pytest.mark.parametrize(("engine", "encoding"), KINDS)
def test_random_vectors(engine, encoding, act_bits):
    """Ten thousand vectors of activations, each with four rows of weights."""
    config = two_codes(engine, encoding, act_bits)
    rng = np.random.default_rng(act_bits)
    codes = random_codes(config, rng, (VECTORS, config.max_in_features))
    check_cycles(config, random_trits(config, rng, (4, config.max_in_features)), codes)


@pytest.mark.sim
@pytest.mark.parametrize("act_bits", WIDTHS)
@pytest.mark.parametrize(("engine", "encoding"), KINDS)
def test_all_extreme_vectors(engine, encoding, act_bits):
    """Every weight of one code by all extreme activations, the other code at its extremes."""
    config, group = two_codes(engine, encoding, act_bits), encodings[encoding].group

    def every(values: tuple[int, ...], first: int, second: int) -> np.ndarray:
        of_one = np.array(list(product(values, repeat=group)))
        other = np.tile([[first], [second]], (len(of_one), group))
        return np.concatenate([np.repeat(of_one, 2, axis=0), other], axis=1).astype(np.int8)

    trits = every(ALPHABETS[config.alphabet], -1, 1)
    codes = every(act_limits(config), *act_limits(config))
    check_cycles(config, trits, codes)
    check_cycles(config, trits[:, ::-1].copy(), codes[:, ::-1].copy())


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize(("engine", "encoding"), KINDS)
def test_simulated_devices(engine, encoding):
    """The whole device, packets and driver included, for row groups 1 to twice the latency."""
    rng = random.Random(f"device {engine} {encoding}")
    config = drawn(rng, engine, encoding, 120)
    numpy = np.random.default_rng(5)
    with connect("sim", config=config) as device:
        for groups in range(1, config.max_groups + 1):
            shape = (
                (groups - 1) * config.rows + rng.randint(1, config.rows),
                rng.randint(1, config.max_in_features),
            )
            trits = random_trits(config, numpy, shape)
            codes = random_codes(config, numpy, (rng.randint(1, 5), shape[1]))
            if groups % 4 == 0:
                trits[:], codes[:] = -1, act_limits(config)[0]
            handle = device.load(TernaryLayer.from_trits(trits, 1.0))
            found = device.matmul(handle, codes)
            device.unload(handle)
            assert np.array_equal(found, golden.matmul(trits, codes)), (config, shape)
