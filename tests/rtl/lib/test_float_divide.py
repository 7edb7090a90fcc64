# amaranth: UnusedElaboratable=no
"""Quotients, roots and reciprocals against their twins; those that are hardest to round."""

import numpy as np
import pytest

from tests.support import quick_first
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
    measured_latencies,
    run_pipeline,
    run_stream,
)
from tritloom.rtl.lib.float_divide import FloatDivide, FloatRescale
from tritloom.rtl.spec import float_units
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.float_units import FloatFormat
from tritloom.sim.conformance.streams import FLOWS

KINDS = ("quotient", "root", "long")


def run_divide(dut, kind, a, b, idle=0.0, pause=0.0):
    """Results of one kind: patterns, or long reciprocals."""
    flags = {"root": np.full(len(a), kind == "root"), "long": np.full(len(a), kind == "long")}
    flags = {name: flag.astype(int) for name, flag in flags.items()}
    words = run_stream(dut, idle, pause, a=a, b=b, **flags)
    bits = dut.form.bits
    return np.array([w >> bits if kind == "long" else w & ((1 << bits) - 1) for w in words], object)


def expected_of(kind, a, b, form=FLOAT32):
    match kind:
        case "quotient":
            return float_units.divide(a, b, form)
        case "root":
            return float_units.root(a, form)
    return float_units.reciprocal(b, form)


@pytest.mark.parametrize("kind", KINDS)
@quick_first("digits", [1, 2, 3, 4])
def test_small_formats(kind, digits):
    """Half of the operands of 6 bits, or some; all roots and reciprocals of 8 bits."""
    a, b = (column[:: 2 if digits == 1 else 13] for column in all_pairs(QUICK))
    if kind != "quotient":
        a = b = np.arange(1 << SMALL.bits, dtype=np.uint32)
    form = QUICK if kind == "quotient" else SMALL
    results = run_divide(FloatDivide(form, digits=digits), kind, a, b)
    assert_same(results, expected_of(kind, a, b, form), a, b)


@pytest.mark.sim
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("digits", [1, 3])
def test_float32(kind, digits):
    pairs = [float_pairs(digits, 90), [column[digits::41] for column in edge_pairs()]]
    pairs.append([as_patterns(column) for column in hard_quotients(digits, 60)])
    a, b = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
    if kind == "root":
        a[::3] &= 0x7FFFFFFF
    results = run_divide(FloatDivide(digits=digits), kind, a, b)
    assert_same(results, expected_of(kind, a, b), a, b)


@quick_first(("root", "long"), [(True, False), (False, True), (False, False)])
def test_parts_that_are_left_out(root, long):
    """The others still work, and a flag of what is left out does not count."""
    a, b = (column[::211] for column in all_pairs(SMALL))
    dut = FloatDivide(SMALL, digits=2, root=root, long=long)
    for kind, there in (("root", root), ("long", long)):
        results = run_divide(dut, kind, a, b)
        if there:
            assert_same(results, expected_of(kind, a, b, SMALL), a, b)
        elif kind == "root":
            assert_same(results, expected_of("quotient", a, b, SMALL), a, b)
    results = run_divide(dut, "quotient", a, b)
    assert_same(results, expected_of("quotient", a, b, SMALL), a, b)


@pytest.mark.parametrize(("idle", "pause"), FLOWS)
def test_waits(idle, pause):
    """Kinds in turn; results stay while the sink pauses."""
    a, b = float_pairs(4, 30)
    turn = np.arange(30) % 3
    flags = {"root": (turn == 1).astype(int), "long": (turn == 2).astype(int)}
    results = run_stream(FloatDivide(digits=4), idle, pause, a=a, b=b, **flags)
    for place, kind in enumerate(KINDS):
        words = results[place::3]
        values = [w >> 32 if kind == "long" else w & 0xFFFFFFFF for w in words]
        assert_same(np.array(values, object), expected_of(kind, a, b)[place::3])


@pytest.mark.parametrize(
    ("digits", "latency", "long_latency"), [(1, 28, 53), (2, 15, 28), (4, 9, 15)]
)
def test_latency(digits, latency, long_latency):
    dut = FloatDivide(digits=digits)
    assert (dut.latency, dut.long_latency) == (latency, long_latency)
    ones = np.full(3, 0x3F800000)
    operands = {"a": ones, "b": ones}
    for root, long in ((0, 0), (1, 0), (0, 1)):
        flags = {"root": np.full(3, root), "long": np.full(3, long)}
        found = measured_latencies(FloatDivide(digits=digits), **operands, **flags)
        assert found == [long_latency if long else latency] * 3


def run_rescale(dut, batches):
    """Quotients of batches of integers by one divisor each, and what is expected."""
    form, results, expected = dut.form, [], []
    columns = {"i": [], "d": [], "reciprocal": []}
    counts = np.zeros(0, bool)
    for divisor, integers in batches:
        # The divisor stands still until the last result is out.
        padded = np.concatenate([integers, np.zeros(dut.latency, np.int64)])
        columns["i"].append(padded & ((1 << dut.bits) - 1))
        columns["d"].append(np.full(len(padded), divisor))
        longs = float_units.reciprocal(divisor, form)
        columns["reciprocal"].append(np.full(len(padded), longs))
        counts = np.concatenate([counts, np.arange(len(padded)) < len(integers)])
        expected.append(float_units.rescale(integers, divisor, form))
    inputs = {name: np.concatenate(parts) for name, parts in columns.items()}
    results = run_pipeline(dut, **inputs)[counts]
    assert_same(results, np.concatenate(expected), inputs["i"][counts], inputs["d"][counts])
    return len(results)


@pytest.mark.sim
@pytest.mark.parametrize("form", [QUICK, FloatFormat(5, 4)])
def test_rescale_of_a_small_format(form):
    """All integers by all divisors, zero and those that are not finite too."""
    bits = min(form.precision + 1, form.not_finite - form.bias - 1)
    integers = np.arange(-(1 << (bits - 1)), 1 << (bits - 1))
    divisors = range(0, 1 << form.bits, 1 if form == QUICK else 5)
    run_rescale(FloatRescale(bits, form, a_bits=2, b_bits=5), [(d, integers) for d in divisors])


@pytest.mark.sim
@pytest.mark.parametrize(("bits", "pieces"), [(18, (18, 18)), (20, (18, 18)), (25, (24, 17))])
def test_rescale(bits, pieces):
    """The hardest quotients, ends of the range, and any others."""
    rng = np.random.default_rng(bits)
    top = 1 << (bits - 1)
    batches = []
    hard = hard_quotients(bits, 40)
    for a, d in zip(*(column.tolist() for column in hard), strict=True):
        # Multiples and parts of the hard numerator that fit, and others.
        near = np.array([a, -a, a >> 1, a + 1, a - 1, a >> (24 - bits + 1) if bits < 25 else a])
        near = near[(near >= -top) & (near < top)]
        others = rng.integers(-top, top, 12) >> rng.integers(0, bits, 12)
        ends = np.array([0, 1, -1, top - 1, -top])
        scaled = np.float32(d) * np.float32(2.0) ** rng.integers(-60, 60).astype(np.float32)
        divisor = int(np.float32(scaled).view(np.uint32)) | int(rng.integers(0, 2)) << 31
        batches.append((divisor, np.concatenate([near, others, ends])))
    dut = FloatRescale(bits, a_bits=pieces[0], b_bits=pieces[1])
    assert dut.latency == 8
    assert run_rescale(dut, batches) > 600
    with pytest.raises(ConfigError, match=r"^bits must be 2 to 25, not 26$"):
        FloatRescale(26)
