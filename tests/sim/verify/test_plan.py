"""The plan of layer shapes: the edges of the geometry, within the design and the budget."""

import pytest

from tests.sim.verify.test_boundaries import CONFIGS
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.sim.verify.plan import edge_shapes, fitted, layer_cycles, plan

PATTERNS = {"none": (0.0, 0), "light": (0.2, 2), "heavy": (0.4, 7)}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_shape_fits(name):
    config = CONFIGS[name]
    planned = plan(config, PATTERNS, budget_cycles=2000, seed=1)
    assert len(planned) == 9
    for shapes in planned.values():
        assert shapes
        for out_features, in_features in shapes:
            assert 1 <= out_features <= config.max_out_features
            assert 1 <= in_features <= config.max_in_features
            words = LayerShape.of(config, out_features, in_features).words
            assert words <= config.memory_words


@pytest.mark.parametrize("name", CONFIGS)
def test_the_edges_are_among_them(name):
    config = CONFIGS[name]
    planned = plan(config, PATTERNS, budget_cycles=2000, seed=1)
    shapes = {shape for pair in planned.values() for shape in pair}
    assert {fitted(config, shape, 9 * 2000 // 5) for shape in edge_shapes(config)} <= shapes


def test_it_repeats_from_its_seed():
    config = CONFIGS["wide"]
    plans = [plan(config, PATTERNS, budget_cycles=2000, seed=seed) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


def test_a_larger_layer_takes_more_cycles():
    config = CONFIGS["wide"]
    cycles = [layer_cycles(config, 3 * n, 10 * n) for n in range(1, 4)]
    assert cycles == sorted(set(cycles))
