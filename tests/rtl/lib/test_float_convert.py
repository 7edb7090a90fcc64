# amaranth: UnusedElaboratable=no
"""Conversions against their twins: all of small formats, ties and ends of the range of float32."""

import numpy as np
import pytest

from tests.support.float_blocks import (
    SMALL,
    assert_same,
    edge_pairs,
    float_patterns,
    integers,
    run_pipeline,
    tokens,
)
from tritloom.rtl.lib.float_convert import FloatNarrow, FloatQuantize, FloatToInt, IntToFloat
from tritloom.rtl.spec import float_units
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.float_units import FloatFormat

WIDE = FloatFormat(5, 4)
"""Of ten bits: all patterns, and all integers of up to twelve bits."""


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


def test_bfloat16_by_choice():
    """Each cycle chooses whether its number is rounded."""
    patterns = float_patterns(6, 600)
    choice = np.random.default_rng(6).integers(0, 2, len(patterns))
    results = run_pipeline(FloatNarrow(optional=True), i=patterns, narrow=choice)
    expected = np.where(choice, float_units.narrow(patterns, 7), patterns)
    assert_same(results, expected, patterns)


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
