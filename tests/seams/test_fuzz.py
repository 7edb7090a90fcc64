"""Fuzzing: random geometries of every engine and encoding, every result exact, every cycle told."""

import random

import numpy as np
import pytest

from tests.support import quick_first
from tests.support.core import check_core, run_core
from tests.support.geometries import KINDS, extreme_vectors, geometry, random_vectors, two_codes
from tritloom.host import TernaryLayer, connect
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import act_limits
from tritloom.sim.conformance.operands import random_codes, random_trits
from tritloom.sim.device.core import CoreSimulation


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def drawn(rng: random.Random, engine: str, encoding: str, macs: int) -> AcceleratorConfig:
    """A random geometry of at most about `macs` multiply-accumulates a cycle."""
    group = encodings[encoding].trits_per_code
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


@quick_first("seed", range(3))
@quick_first(("engine", "encoding"), KINDS[::-1])
def test_small_cores(engine, encoding, seed):
    rng = random.Random(f"{engine} {encoding} {seed}")
    config = drawn(rng, engine, encoding, 40)
    groups = [1, config.max_row_groups, rng.randint(1, config.max_row_groups)]
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
    shapes = [
        LayerShape(rng.randint(1, config.max_tiles), n + 1) for n in range(config.max_row_groups)
    ]
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
    core = CoreSimulation(config)
    numpy = np.random.default_rng(seed)
    for _ in range(4):
        shape = rng.randint(1, config.max_out_features), rng.randint(1, config.max_in_features)
        codes = random_codes(config, numpy, (rng.randint(1, 9), shape[1]))
        check_core(core, random_trits(config, numpy, shape), codes)


WIDTHS = [8, pytest.param(4, marks=pytest.mark.slow)]


@pytest.mark.sim
@pytest.mark.parametrize("act_bits", WIDTHS)
@pytest.mark.parametrize(("engine", "encoding"), KINDS)
def test_random_vectors(engine, encoding, act_bits):
    core = CoreSimulation(two_codes(engine, encoding, act_bits))
    check_core(core, *random_vectors(core.config, seed=act_bits))


@pytest.mark.sim
@pytest.mark.parametrize("act_bits", WIDTHS)
@pytest.mark.parametrize(("engine", "encoding"), KINDS)
def test_all_extreme_vectors(engine, encoding, act_bits):
    core = CoreSimulation(two_codes(engine, encoding, act_bits))
    for trits, codes in extreme_vectors(core.config):
        check_core(core, trits, codes)


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize(("engine", "encoding"), KINDS)
def test_simulated_devices(engine, encoding):
    """The whole device, packets and driver included, for row groups 1 to twice the latency."""
    rng = random.Random(f"device {engine} {encoding}")
    config = drawn(rng, engine, encoding, 120)
    numpy = np.random.default_rng(5)
    with connect("sim", config=config) as device:
        for groups in range(1, config.max_row_groups + 1):
            shape = (
                (groups - 1) * config.rows + rng.randint(1, config.rows),
                rng.randint(1, config.max_in_features),
            )
            trits = random_trits(config, numpy, shape)
            codes = random_codes(config, numpy, (rng.randint(1, 5), shape[1]))
            if groups % 4 == 0:
                trits[:], codes[:] = -1, act_limits(config)[0]
            handle = device.load(TernaryLayer.from_trits(trits, 1.0))
            sums = device.matmul(handle, codes)
            device.unload(handle)
            assert np.array_equal(sums, numerics.matmul(trits, codes)), (config, shape)
