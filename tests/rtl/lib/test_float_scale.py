"""Products and quotients by one multiplier against their twins, mixed from cycle to cycle."""

import numpy as np
import pytest

from tests.support.float_blocks import (
    FLOAT32,
    QUICK,
    SMALL,
    all_pairs,
    as_patterns,
    assert_same,
    edge_pairs,
    float_pairs,
    hard_quotients,
    run_pipeline,
)
from tritloom.rtl.lib.float_scale import FloatScale
from tritloom.rtl.spec import float_units

VECTORS = {
    "all of 6 bits": (QUICK, [np.tile(column, 2) for column in all_pairs(QUICK)]),
    "8 bits": (SMALL, [column[::11] for column in all_pairs(SMALL)]),
    "edges": (FLOAT32, [column[::2] for column in edge_pairs()]),
    "float32": (FLOAT32, float_pairs(1, 1500)),
    "hardest quotients": (FLOAT32, [as_patterns(column) for column in hard_quotients(5, 800)]),
}


def check(form, a, b, divide, **pieces):
    reciprocals = float_units.reciprocal(b, form)
    # What no product may depend on.
    reciprocals = np.where(divide, reciprocals, np.uint64(0x5555))
    dut = FloatScale(form, **pieces)
    results = run_pipeline(dut, i_a=a, i_b=b, divide=divide, reciprocal=reciprocals)
    expected = np.where(divide, float_units.divide(a, b, form), float_units.multiply(a, b, form))
    assert_same(results, expected, a, b, divide)


@pytest.mark.parametrize("name", VECTORS)
def test_mixed(name):
    form, (a, b) = VECTORS[name]
    divide = np.random.default_rng(len(a)).random(len(a)) < 0.5
    if form is QUICK:  # each pair is multiplied and divided
        divide[len(a) // 2 :] = ~divide[: len(a) // 2]
    check(form, a, b, divide)


@pytest.mark.parametrize(("a_bits", "b_bits"), [(24, 51), (9, 17), (24, 18)])
def test_pieces(a_bits, b_bits):
    a, b = float_pairs(a_bits, 200)
    check(FLOAT32, a, b, np.arange(len(a)) % 2 == 1, a_bits=a_bits, b_bits=b_bits)


def test_latency():
    assert FloatScale.latency == 5
