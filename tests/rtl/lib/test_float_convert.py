# amaranth: UnusedElaboratable=no
"""Conversions against their twins: all of small formats, ties and ends of the range of float32."""

import numpy as np
import pytest

from tests.support.float_blocks import (
    EDGES,
    FLOAT32,
    SMALL,
    any_floats,
    assert_same,
    edge_pairs,
    near_floats,
    run_pipeline,
)
from tritloom.rtl.lib.float_convert import FloatNarrow, FloatQuantize, FloatToInt, IntToFloat
from tritloom.rtl.spec import float_units
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.float_units import FloatFormat

WIDE = FloatFormat(5, 4)
"""Of ten bits: all patterns, and all integers of up to twelve bits."""


def float_patterns(seed: int, count: int) -> np.ndarray:
    """Any float32, and numbers around 1."""
    rng = np.random.default_rng(seed)
    edges = np.array(EDGES, np.uint32)
    return np.concatenate(
        [edges, edges | 0x80000000, any_floats(rng, count), near_floats(rng, count)]
    )


def integers(bits: int, count: int) -> np.ndarray:
    """Ends of the range, ties of 24 bits, and others of any size."""
    rng = np.random.default_rng(bits)
    top = 1 << (bits - 1)
    numbers = rng.integers(-top, top, count) >> rng.integers(0, bits, count)
    ties = (rng.integers(1 << 23, 1 << 24, 200) << 1 | 1) << rng.integers(0, 8, 200)
    ties = np.concatenate([ties, -ties, ties + 1, ties - 1])
    ends = [0, 1, -1, top - 1, -top, 1 - top, top >> 1, -(top >> 1)]
    numbers = np.concatenate([ends, numbers, ties])
    return numbers[(numbers >= -top) & (numbers < top)]


@pytest.mark.parametrize(
    ("bits", "form", "latency"),
    [(2, WIDE, 3), (5, WIDE, 3), (6, WIDE, 3), (7, WIDE, 4), (12, WIDE, 4)],
)
def test_all_integers(bits, form, latency):
    every = np.arange(-(1 << (bits - 1)), 1 << (bits - 1))
    dut = IntToFloat(bits, form)
    assert dut.latency == latency
    results = run_pipeline(dut, i=every & ((1 << bits) - 1))
    assert_same(results, float_units.from_int(every, form), every)


@pytest.mark.parametrize(("bits", "latency"), [(8, 3), (20, 3), (25, 3), (26, 4), (32, 4)])
def test_integers(bits, latency):
    numbers = integers(bits, 1500)
    dut = IntToFloat(bits)
    assert dut.latency == latency
    results = run_pipeline(dut, i=numbers & ((1 << bits) - 1))
    assert_same(results, float_units.from_int(numbers), numbers)


def test_integers_that_do_not_fit_are_refused():
    for bits in (1, 16):
        with pytest.raises(
            ConfigError, match=f"^bits must be 2 to 15 for this format, not {bits}$"
        ):
            IntToFloat(bits, WIDE)


@pytest.mark.parametrize("bits", [2, 3, 6, 8, 16])
@pytest.mark.parametrize("form", [WIDE, FloatFormat(5, 1)])
def test_all_to_int(bits, form):
    every = np.arange(1 << form.bits)
    results = run_pipeline(FloatToInt(bits, form), i=every)
    expected = float_units.to_int(every, bits, form) & ((1 << bits) - 1)
    assert_same(results, expected, every)


def test_to_int_of_a_format_without_small_numbers():
    form = FloatFormat(2, 3)
    every = np.arange(1 << form.bits)
    results = run_pipeline(FloatToInt(3, form), i=every)
    assert_same(results, float_units.to_int(every, 3, form) & 7, every)
    with pytest.raises(ConfigError, match=r"^bits must be 2 to 3 for this format, not 4$"):
        FloatToInt(4, form)


@pytest.mark.parametrize("bits", [8, 24, 32])
def test_to_int(bits):
    quarters = (np.arange(-1040, 1040) / 4).astype(np.float32).view(np.uint32)
    patterns = np.concatenate([quarters, float_patterns(bits, 1000)])
    results = run_pipeline(FloatToInt(bits), i=patterns)
    expected = float_units.to_int(patterns, bits) & ((1 << bits) - 1)
    assert_same(results, expected, patterns)


@pytest.mark.parametrize(("form", "kept"), [(WIDE, 3), (WIDE, 2), (WIDE, 1), (SMALL, 2)])
def test_narrow_all(form, kept):
    every = np.arange(1 << form.bits)
    results = run_pipeline(FloatNarrow(kept, form), i=every)
    assert_same(results, float_units.narrow(every, kept, form), every)


def test_bfloat16():
    patterns = float_patterns(5, 2000)
    patterns = np.concatenate([patterns, patterns & 0xFFFF8000, patterns & 0xFFFF8000 | 0x8000])
    results = run_pipeline(FloatNarrow(), i=patterns)
    assert_same(results, float_units.narrow(patterns, 7), patterns)
    with pytest.raises(ConfigError, match=r"^fraction_bits must be 1 to 22, not 23$"):
        FloatNarrow(23)


def tokens(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Activations and the scale of their token; a third of the tokens have codes that tie."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 32)) * np.exp2(rng.uniform(-30, 30, (count, 1)))
    third = count // 3
    x[:third] = rng.integers(-254, 255, (third, 32)) / 2
    x[:third, 0] = 127
    x = (x * np.exp2(rng.integers(-6, 6, (count, 1)))).astype(np.float32)
    s = np.float32(127) * (np.float32(1) / np.abs(x).max(axis=1, keepdims=True))
    return x.ravel().view(np.uint32), np.repeat(s.ravel(), 32).view(np.uint32)


def test_quantize():
    """The codes of the golden model, and of all pairs of edges."""
    x, s = tokens(1, 90)
    results = run_pipeline(FloatQuantize(), i_a=x, i_b=s)
    with np.errstate(under="ignore"):
        golden = np.rint(x.view(np.float32) * s.view(np.float32)).astype(np.int64)
    assert (np.abs(golden) <= 127).all()
    assert_same(results, golden & 255, x, s)
    assert_same(results, float_units.quantize(x, s) & 255, x, s)
    a, b = edge_pairs()
    results = run_pipeline(FloatQuantize(a_bits=12, b_bits=24), i_a=a, i_b=b)
    assert_same(results, float_units.quantize(a, b) & 255, a, b)
    assert FloatQuantize.latency == 7


@pytest.mark.slow
def test_many():
    patterns = float_patterns(6, 100_000)
    for dut, expected in (
        (FloatToInt(8), float_units.to_int(patterns, 8) & 255),
        (FloatToInt(32), float_units.to_int(patterns, 32) & 0xFFFFFFFF),
        (FloatNarrow(), float_units.narrow(patterns, 7)),
    ):
        assert dut.form == FLOAT32
        assert_same(run_pipeline(dut, i=patterns), expected, patterns)
    for bits in (20, 32):
        numbers = integers(bits, 100_000)
        results = run_pipeline(IntToFloat(bits), i=numbers & ((1 << bits) - 1))
        assert_same(results, float_units.from_int(numbers), numbers)
    x, s = tokens(2, 4000)
    results = run_pipeline(FloatQuantize(), i_a=x, i_b=s)
    assert_same(results, float_units.quantize(x, s) & 255, x, s)
