"""Random operands: the extreme ones are among them."""

import numpy as np

from tritloom.sim.conformance.operands import random_act_scales, random_scales


def test_scales_are_finite_and_extreme():
    rng = np.random.default_rng(61)
    scales = np.concatenate([random_scales(rng, (4, 6)).ravel() for _ in range(60)])
    values = scales.view(np.float16)
    assert np.isfinite(values).all()
    assert {0x0000, 0x8000, 0x0001, 0x7BFF, 0xFBFF} <= set(scales.tolist())


def test_scales_of_activations_are_of_every_kind():
    """Some arrays have usual numbers only, some only finite ones, and some have all kinds."""
    rng = np.random.default_rng(62)
    arrays = [random_act_scales(rng, (3, 8)) for _ in range(60)]
    values = [array.view(np.float32) for array in arrays]
    usual = [bool((np.abs(array) < 8).all() and (np.abs(array) > 1e-4).all()) for array in values]
    finite = [bool(np.isfinite(array).all()) for array in values]
    assert sum(usual) > 5 and sum(finite) > sum(usual) + 5 and not all(finite)
    patterns = set(np.concatenate([array.ravel() for array in arrays]).tolist())
    zeros, subnormal, largest = {0x00000000, 0x80000000}, {0x00000001, 0x007FFFFF}, {0x7F7FFFFF}
    not_finite = {0x7F800000, 0xFF800000, 0x7FC00000}
    assert zeros | subnormal | largest | not_finite <= patterns
