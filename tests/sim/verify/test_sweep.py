"""Random valid configurations of every engine and encoding pass `verify`."""

import random
from dataclasses import replace

import pytest

from tests.support.geometries import KINDS, random_config
from tests.support.layers import GROUPS
from tritloom.gen.emit.verilog import emit
from tritloom.rtl.spec.config import TINY
from tritloom.sim.verify.run import verify_design

SEEDS = range(3)
SAMPLE = [(("table", "base3x5"), 2)]


def run(kind, seed):
    config = random_config(random.Random(f"{kind} {seed}"), *kind)
    result = verify_design(emit(config), config, seed=seed)
    assert [(bench.name, bench.message) for bench in result.benches if not bench.ok] == [], config
    assert result.ok


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_random_configurations(kind, seed):
    run(kind, seed)


@pytest.mark.sim
@pytest.mark.parametrize(("kind", "seed"), SAMPLE, ids=lambda value: str(value))
def test_sample(kind, seed):
    run(kind, seed)


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("banks", [2, 1])
def test_groups(banks):
    """Groups of inputs: random layers with and without, and the bounds of DEFINE."""
    config = replace(GROUPS, banks=banks)
    assert verify_design(emit(config), config, seed=banks).ok


def test_the_sweep_has_every_packet_size():
    """Short weight words with large packets are among the configurations."""
    configs = [
        random_config(random.Random(f"{kind} {seed}"), *kind) for kind in KINDS for seed in SEEDS
    ]
    assert {config.packet_bytes for config in configs} >= {256, 512, 1024, 2048, 4096}
    assert {config.slots for config in configs} >= {2, 4, 8}
    assert any(config.word_bytes <= 4 and config.packet_bytes >= 1024 for config in configs)
    assert {config.banks for config in configs} == {1, 2}
    assert any(config.max_layers == 1 for config in configs)
    assert TINY not in configs
