"""The twins of the float blocks against exact fractions and against NumPy's own float32."""

from fractions import Fraction
from math import isqrt

import numpy as np
import pytest

from tests.support.float_blocks import (
    QUICK,
    SMALL,
    all_pairs,
    any_floats,
    edge_pairs,
    float_pairs,
    near_floats,
)
from tests.support.floats import different
from tritloom.rtl.spec import float_units, numerics
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.float_units import FLOAT32, FloatFormat
from tritloom.rtl.spec.rounding import to_bfloat16


def value_of(pattern, form):
    """Sign and exact size of a pattern; the size is None if it is not finite."""
    sign = pattern >> (form.bits - 1)
    exponent = pattern >> form.fraction_bits & form.not_finite
    if exponent == form.not_finite:
        return sign, None
    if exponent == 0:
        return sign, Fraction(0)
    digits = (pattern & ((1 << form.fraction_bits) - 1)) + (1 << form.fraction_bits)
    return sign, Fraction(digits) * Fraction(2) ** (exponent - form.bias - form.fraction_bits)


def nearest(sign, size, form):
    """The pattern of an exact size: nearest, half to even, then flushed or infinite."""
    infinite = form.not_finite << form.fraction_bits
    pattern = infinite
    if size is not None:
        exponent = 0
        while size and size >= 2:
            size, exponent = size / 2, exponent + 1
        while size and size < 1:
            size, exponent = size * 2, exponent - 1
        digits = round(size * 2**form.fraction_bits)  # Python rounds half to even
        pattern = (exponent + form.bias - 1 << form.fraction_bits) + digits
        if not digits or pattern < 1 << form.fraction_bits:
            pattern = 0
        pattern = min(pattern, infinite)
    return sign << (form.bits - 1) | pattern


def products(a, b, form):
    (s, x), (t, y) = value_of(a, form), value_of(b, form)
    return nearest(s ^ t, None if x is None or y is None else x * y, form)


def quotients(a, b, form):
    (s, x), (t, y) = value_of(a, form), value_of(b, form)
    return nearest(s ^ t, None if x is None or not y else x / y, form)


def sums(a, b, form):
    (s, x), (t, y) = value_of(a, form), value_of(b, form)
    if x is None or y is None:
        magnitude = (1 << (form.bits - 1)) - 1
        return nearest(s if a & magnitude >= b & magnitude else t, None, form)
    total = (-x if s else x) + (-y if t else y)
    return nearest(int(total < 0) if total else s & t, abs(total), form)


@pytest.mark.parametrize("form", [QUICK, FloatFormat(2, 3)])
@pytest.mark.parametrize(
    ("twin", "exact"),
    [(float_units.multiply, products), (float_units.divide, quotients), (float_units.add, sums)],
)
def test_pairs_of_small_formats(form, twin, exact):
    a, b = all_pairs(form)
    expected = [exact(x, y, form) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert twin(a, b, form).tolist() == expected


def test_root_of_a_small_format():
    """By an integer root of many digits, which tells on which side of a half it lies."""
    for form in (QUICK, SMALL):
        for pattern in range(1 << form.bits):
            sign, size = value_of(pattern, form)
            root = None
            if size is not None and (not sign or not size):
                scale = 1 << 60
                root = Fraction(isqrt(size.numerator * scale**2 // size.denominator), scale)
            assert float_units.root(pattern, form) == nearest(sign, root, form)


def native(patterns):
    """The numbers as NumPy's float32, subnormal ones as zeros."""
    values = np.asarray(patterns, np.uint32).view(np.float32)
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, np.copysign(0, values), values)


@pytest.mark.parametrize("pairs", [edge_pairs(), float_pairs(5, 200_000)])
def test_float32_is_that_of_numpy(pairs):
    """Where operands and result are normal numbers or zero."""
    a, b = pairs
    x, y = (native(operand).astype(np.float32) for operand in pairs)
    tiny = np.finfo(np.float32).tiny
    with np.errstate(all="ignore"):
        for twin, results in (
            (float_units.multiply, x * y),
            (float_units.add, x + y),
            (float_units.divide, x / y),
        ):
            normal = np.isfinite(x) & np.isfinite(y) & (np.isfinite(results))
            normal &= (np.abs(results) > tiny) | (x == 0) | (x + y == 0)
            assert normal.mean() > 0.4
            pattern = twin(a, b)
            assert different(pattern[normal].view(np.float32), results[normal]) == 0
        fine = np.isfinite(x) & (x >= 0)
        roots = float_units.root(a)[fine].view(np.float32)
        assert different(roots, np.sqrt(x[fine])) == 0


def test_rounds_before_it_flushes():
    """2^-126 less a quarter of its last place is a product that rounds up to a normal number."""
    almost = np.uint32(0x3F7FFFFF)  # 1 − 2^-24
    smallest = np.uint32(0x00800000)
    assert float_units.multiply(almost, smallest) == 0
    half = np.uint32(0x3F000001)  # 1/2 + 2^-24
    assert float_units.multiply(half, np.uint32(0x00FFFFFF)) == smallest
    assert float_units.multiply(half, np.uint32(0x80FFFFFE)) in (0x80000000, 0x80800000)


def test_conversions():
    rng = np.random.default_rng(4)
    whole = rng.integers(-(1 << 31), 1 << 31, 100_000) >> rng.integers(0, 32, 100_000)
    assert different(float_units.from_int(whole).view(np.float32), whole.astype(np.float32)) == 0
    patterns = np.concatenate([any_floats(rng, 50_000), near_floats(rng, 50_000)])
    finite = np.isfinite(patterns.view(np.float32))
    sizes = np.where(finite, native(patterns & 0x7FFFFFFF), np.inf).astype(np.float64)
    numbers = np.where(patterns >> 31, -sizes, sizes)
    for bits in (8, 32):
        limits = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        expected = np.clip(np.rint(numbers), *limits).astype(np.int64)
        assert (float_units.to_int(patterns, bits) == expected).all()
    narrowed = float_units.narrow(patterns, 7)
    expected = to_bfloat16(patterns.view(np.float32))
    assert different(narrowed.view(np.float32)[finite], expected[finite]) == 0
    assert (narrowed[~finite] >> 23 & 255 == 255).all()


def test_long_reciprocal_divides():
    """For each significand of small formats, and the hardest of float32: one product is enough."""
    for form in (QUICK, SMALL, FloatFormat(4, 7)):
        p, shift = form.precision, form.reciprocal_shift
        top = np.arange(1 << (p - 1), 1 << p)
        longs = float_units.reciprocal(top & ((1 << (p - 1)) - 1), form).astype(np.int64)
        assert (longs == (1 << shift) // top).all()
        assert longs.max() < 1 << form.reciprocal_bits
        for a in top.tolist():
            big = a >= top
            digits = np.where(big, p, p + 1)  # of the quotient down to the half of its last place
            exact = (a << digits) // top
            by_product = a * longs >> (shift - digits)
            assert (by_product + 1 >> 1 == exact + 1 >> 1).all()
    patterns = any_floats(np.random.default_rng(8), 1000)
    longs = [(1 << 73) // (pattern & 0x7FFFFF | 0x800000) for pattern in patterns.tolist()]
    assert float_units.reciprocal(patterns).tolist() == longs
    assert max(longs).bit_length() <= FLOAT32.reciprocal_bits == 51
    assert float_units.reciprocal(0) == 1 << 50


def test_vectors():
    x = np.array([0x3F800000, 0xC0000000, 0x00000001], np.uint32)
    assert float_units.absmax(x) == (0x40000000, True)
    assert float_units.absmax([0x3F800000, 0xFF800001]) == (0x7F800001, False)
    assert float_units.quantize([0x42FF0000, 0xC3800000], 0x3F800000).tolist() == [127, -128]
    assert float_units.rescale([7, -1], 0x40E00000).tolist() == [0x3F800000, 0xBE124925]


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ((1, 4), "exponent_bits must be 2 to 8, not 1"),
        ((9, 4), "exponent_bits must be 2 to 8, not 9"),
        ((8, 0), "fraction_bits must be 1 to 23, not 0"),
        ((8, 24), "fraction_bits must be 1 to 23, not 24"),
    ],
)
def test_formats_that_are_refused(bits, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        FloatFormat(*bits)


def bits(values):
    return np.array(values, np.float32).view(np.uint32)


class Chain:
    """The operations of a model from those of the blocks, in float32 or with bfloat16 results."""

    def __init__(self, bfloat16):
        self.bfloat16 = bfloat16

    def rounded(self, pattern):
        return float_units.narrow(pattern, 7) if self.bfloat16 else pattern

    def multiply(self, a, b):
        return self.rounded(float_units.multiply(a, b))

    def rms_norm(self, x, weight, eps):
        """For 256 features: 32 sums of eight rows, then as `sum_in_order` ends."""
        squares = float_units.multiply(x, x)
        sums = np.zeros((len(x), 32), np.uint32)
        for row in range(0, 256, 32):
            sums = float_units.add(sums, squares[:, row : row + 32])
        eight = sums[:, :8]
        for vector in range(8, 32, 8):
            eight = float_units.add(eight, sums[:, vector : vector + 8])
        total = np.zeros(len(x), np.uint32)
        for lane in range(8):
            total = float_units.add(total, eight[:, lane])
        mean = float_units.divide(total, bits(256))
        root = float_units.root(float_units.add(mean, bits(eps)))
        r = float_units.divide(bits(1), root)[:, None]
        return self.multiply(weight, self.multiply(x, r))

    def bitlinear(self, x, trits, scale, bias):
        floor = self.rounded(bits(1e-5))
        absmax = np.array([max(float_units.absmax(row)[0], int(floor)) for row in x])
        r = self.rounded(float_units.divide(bits(1), absmax))
        s = self.multiply(bits(127), r)
        codes = float_units.to_int(self.multiply(x, s[:, None]), 8)
        acc = codes @ trits.T.astype(np.int64)
        d = self.multiply(s, bits(scale))[:, None]
        if self.bfloat16:
            sums = self.rounded(float_units.from_int(acc))
            y = self.rounded(float_units.divide(sums, d))
        else:
            y = float_units.rescale(acc, d)
        return self.rounded(float_units.add(y, bits(bias)))

    def feed_forward(self, gate, up, x):
        positive = np.where(gate >> 31, 0, gate).astype(np.uint32)
        product = self.multiply(self.multiply(positive, positive), up)
        return self.rounded(float_units.add(product, x))


@pytest.mark.parametrize("bfloat16", [False, True])
def test_blocks_make_the_golden_model(bfloat16):
    """The operations of a layer, made of the blocks, have the bits of the golden model."""
    rng = np.random.default_rng(6)
    chain = Chain(bfloat16)
    spread = np.exp2(rng.uniform(-12, 12, (40, 1)))
    x = (rng.standard_normal((40, 256)) * spread).astype(np.float32)
    x[0] = 0
    weight, bias = rng.standard_normal(256).astype("f4"), rng.standard_normal(48).astype("f4")
    trits = rng.integers(-1, 2, (48, 256)).astype(np.int8)
    scale = np.float32(17.25)
    if bfloat16:
        x, weight, bias = (to_bfloat16(each) for each in (x, weight, bias))
    y = chain.rms_norm(bits(x), bits(weight), 1e-5).view(np.float32)
    assert different(y, numerics.rms_norm(x, weight, 1e-5, bfloat16)) == 0
    y = chain.bitlinear(bits(x), trits, scale, bias).view(np.float32)
    assert different(y, numerics.bitlinear(x, trits, scale, True, bias, bfloat16)) == 0
    gate, up = x, x[:, ::-1].copy()
    y = chain.feed_forward(bits(gate), bits(up), bits(x)).view(np.float32)
    expected = numerics.add_residual(numerics.relu2_times(gate, up, bfloat16), x, bfloat16)
    assert different(y, expected) == 0
