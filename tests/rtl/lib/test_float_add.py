"""Sums of floats against their twin: all operands of small formats, hard ones of float32."""

import numpy as np

from tests.support import quick_first
from tests.support.float_blocks import (
    FLOAT32,
    QUICK,
    SMALL,
    all_pairs,
    assert_same,
    edge_pairs,
    float_pairs,
    run_pipeline,
)
from tritloom.rtl.lib.float_add import FloatAdd
from tritloom.rtl.spec import float_units
from tritloom.rtl.spec.float_units import FloatFormat

FAR = FloatFormat(5, 1)
"""Of few bits, but exponents that differ by more than its shifter's range."""


def every_gap(seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Float32 whose exponents differ by 0 to 31, with fractions of zeros, ones and single bits."""
    rng = np.random.default_rng(seed)
    gaps = np.repeat(np.arange(32), 60)
    fractions = np.array([0, 1, 2, 3, 0x7FFFFF, 0x7FFFFE, 0x400000, 0x3FFFFF, 0x555555])
    fraction = [rng.choice(fractions, len(gaps)) for _ in range(2)]
    sign = [rng.integers(0, 2, len(gaps)) for _ in range(2)]
    a = sign[0] << 31 | 127 << 23 | fraction[0]
    b = sign[1] << 31 | (127 - gaps) << 23 | fraction[1]
    order = rng.integers(0, 2, len(gaps)).astype(bool)
    return tuple(np.where(o, a, b).astype(np.uint32) for o in (order, ~order))


VECTORS = {
    "all of 6 bits": (QUICK, all_pairs(QUICK)),
    "7 bits, far apart": (FAR, [column[::3] for column in all_pairs(FAR)]),
    "8 bits": (SMALL, [column[::5] for column in all_pairs(SMALL)]),
    "edges": (FLOAT32, edge_pairs()),
    "every gap": (FLOAT32, every_gap()),
    "float32": (FLOAT32, float_pairs(1, 4000)),
}


@quick_first("name", VECTORS)
def test_pipeline(name):
    form, (a, b) = VECTORS[name]
    assert FloatAdd.latency == 8
    results = run_pipeline(FloatAdd(form), i_a=a, i_b=b)
    assert_same(results, float_units.add(a, b, form), a, b)
