"""The golden model's float operations against torch and transformers as they are installed here."""

import numpy as np
import pytest
import torch
from transformers.integrations.bitnet import ActQuant

from tests.support.floats import KINDS, check, different, make_hf_floats
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.rounding import ORDER_FEATURES, sum_in_order

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]

COUNT = 550_000
"""Numbers a case; each kind compares more than a million."""


@pytest.fixture(scope="module")
def arrays():
    given = make_hf_floats.inputs(seed=7, count=COUNT)
    return given | make_hf_floats.outputs(given)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_library(arrays, kind):
    compared = sum(
        check(kind, name, case) for name, case in make_hf_floats.cases(arrays, kind).items()
    )
    assert compared > 1_000_000


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("features", [1536, 2560, 4096, 6912, 8200, 14_336, ORDER_FEATURES])
def test_order_of_long_sums(features, threads):
    """Models' widths, and all levels of the cascade; one thread or more give the same sum."""
    rng = np.random.default_rng(features)
    x = rng.standard_normal((20, features)).astype(np.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for rows in (x, x[:1]):
            assert different(sum_in_order(rows), torch.from_numpy(rows).sum(-1).numpy()) == 0
    finally:
        torch.set_num_threads(before)


def test_order_of_every_short_sum():
    rng = np.random.default_rng(5)
    for features in range(1, 200):
        x = rng.standard_normal((50, features)).astype(np.float32)
        assert different(sum_in_order(x), torch.from_numpy(x).sum(-1).numpy()) == 0, features


@pytest.mark.parametrize("outs", [1, 2, 3, 5, 16, 64, 257])
@pytest.mark.parametrize("tokens", [1, 2, 3, 16, 65])
def test_sign_of_zero_of_one_feature(outs, tokens):
    """In a layer of one feature, a product of two matrices has the sign of its only term."""
    rng = np.random.default_rng(outs)
    for features in (1, 2, 3, 9):
        trits = rng.integers(-1, 2, (outs, features)).astype(np.int8)
        codes = rng.choice(np.array([-5, 0, 9], np.int8), (tokens, features))
        for dtype in (torch.float32, torch.bfloat16):
            left, right = (torch.from_numpy(array).to(dtype) for array in (codes, trits))
            expected = torch.nn.functional.linear(left, right).float().numpy()
            acc = numerics.matmul(trits, codes)
            y = numerics.sums_as_floats(acc, trits, codes, dtype == torch.bfloat16)
            assert different(y, expected) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_of_the_multiplying_convention(dtype):
    """`AutoBitLinear` quantizes in float32, whatever the model's dtype: codes / s, then rounded."""
    rng = np.random.default_rng(3)
    spread = np.exp2(rng.uniform(-20, 20, (400, 1)))
    x = torch.from_numpy((rng.standard_normal((400, 256)) * spread).astype(np.float32)).to(dtype)
    expected = ActQuant.apply(x).float().numpy()
    codes, s = numerics.absmax_quantize(x.float().numpy())
    y = codes.astype(np.float32) / s
    # Codes that are zero have no sign, and the library's have that of the activation.
    y = np.copysign(y, x.float().numpy())
    assert different(numerics.to_bfloat16(y) if dtype == torch.bfloat16 else y, expected) == 0
