"""Rounding to bfloat16 and the order of sums, against plain loops."""

import numpy as np
import pytest

from tests.support.floats import different
from tritloom.rtl.spec.rounding import round_to, sum_in_order, to_bfloat16


def test_bfloat16_of_every_kind():
    """Each pair of a bfloat16 and low bits around a tie; the nearest by distance in float64."""
    high = np.arange(0, 1 << 16, dtype=np.uint32)
    high = high[(high >> 7 & 255) != 255][:, None] << 16
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    bits = (high | low).ravel()
    below, above = bits & 0xFFFF0000, (bits & 0xFFFF0000) + 0x10000
    up = (bits & 0xFFFF) > 0x8000 - (below >> 16 & 1)
    expected = np.where(up, above, below).astype(np.uint32).view(np.float32)
    assert different(to_bfloat16(bits.view(np.float32)), expected) == 0
    assert np.isinf(expected).any()


def test_bfloat16_of_what_is_no_number():
    special = np.array([np.inf, -np.inf, np.nan], np.float32)
    assert different(to_bfloat16(special), special) == 0
    all_ones = np.array([0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    assert np.isnan(to_bfloat16(all_ones)).all()
    assert to_bfloat16(np.float32(1 + 2**-8)).shape == ()
    assert round_to(np.float32(1.001), False) == np.float32(1.001)


def in_order(values):
    """The order of the docstring for one row, an addition at a time."""
    f32, features = np.float32, len(values)
    lanes = 8 if features >= 8 else 1
    width = 4 * lanes
    levels = [[f32(0)] * width for _ in range(4)]
    rows = features // width
    for row in range(rows):
        levels[0] = [a + b for a, b in zip(levels[0], values[row * width :], strict=False)]
        for level in range(1, 4):
            if (row + 1) % 16**level:
                break
            levels[level] = [a + b for a, b in zip(levels[level], levels[level - 1], strict=True)]
            levels[level - 1] = [f32(0)] * width
    sums = levels[0]
    for level in levels[1:]:
        sums = [a + b for a, b in zip(sums, level, strict=True)]
    place = rows * width
    while place + lanes <= features:
        sums[:lanes] = [a + b for a, b in zip(sums, values[place : place + lanes], strict=False)]
        place += lanes
    eight = sums[:lanes]
    for vector in range(1, 4):
        eight = [a + b for a, b in zip(eight, sums[vector * lanes :], strict=False)]
    total = f32(0)
    for value in [*values[place:], *eight]:
        total = total + value
    return total


@pytest.mark.parametrize("features", [1, 3, 4, 7, 8, 13, 32, 63, 512, 545, 8192 + 512 + 77])
def test_order(features):
    rng = np.random.default_rng(features)
    x = rng.standard_normal((3, features)).astype(np.float32)
    expected = np.array([in_order(row) for row in x], np.float32)
    assert different(sum_in_order(x), expected) == 0
    if features > 32:
        assert different(sum_in_order(x), x.sum(axis=1, dtype=np.float64).astype("f4")) > 0


def test_sum_keeps_the_leading_shape():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert (sum_in_order(x) == x.sum(axis=-1)).all()
    assert sum_in_order(x[0, 0]).shape == ()
    assert not np.signbit(sum_in_order(np.full(9, -0.0, np.float32)))
