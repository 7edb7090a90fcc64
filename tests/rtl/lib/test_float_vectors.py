"""The float blocks against their twins, with many vectors on CXXRTL."""

import numpy as np
import pytest
from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tests.support.float_blocks import (
    FLOAT32,
    as_patterns,
    assert_same,
    float_pairs,
    float_patterns,
    hard_quotients,
    integers,
    tokens,
)
from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.lib.float_add import FloatAdd
from tritloom.rtl.lib.float_convert import FloatNarrow, FloatQuantize, FloatToInt, IntToFloat
from tritloom.rtl.lib.float_divide import FloatDivide, FloatRescale
from tritloom.rtl.lib.float_multiply import FloatMultiply, SerialFloatMultiply
from tritloom.rtl.lib.float_scale import FloatScale
from tritloom.rtl.lib.floats import float_layout
from tritloom.rtl.spec import float_units
from tritloom.sim.device.vectors import run_vectors

pytestmark = pytest.mark.sim

COUNT = 1_000_000
SERIAL_COUNT = 100_000
LONG_RUN = 1_000_000_000
"""Vectors of each unit whose product or sum no proof covers at full width; for `make test` a tenth
of the products."""
CHUNK = 4_000_000


def check(block, expected, cycles_each=1, words=slice(0, 1), **fields):
    """Compare `words` of each result, one or two, with an expected number."""
    results = run_vectors(block, cycles_each=cycles_each, **fields)[:, words]
    results = np.pad(results, ((0, 0), (0, 2 - results.shape[1]))).copy().view(np.uint64)[:, 0]
    expected = np.asarray(expected, np.uint64)
    if not np.array_equal(results, expected):
        assert_same(results.astype(object), expected, *fields.values())


def quotients(seed, count):
    """Pairs of numbers, half of them with quotients that are hardest to round."""
    hard = [as_patterns(column) for column in hard_quotients(seed, count // 2)]
    others = float_pairs(seed, count - count // 2)
    return [np.concatenate(columns) for columns in zip(hard, others, strict=True)]


@pytest.mark.parametrize(
    ("block", "twin"),
    [
        (FloatMultiply, float_units.multiply),
        (lambda: FloatMultiply(a_bits=24, b_bits=16), float_units.multiply),
        (FloatAdd, float_units.add),
    ],
    ids=["multiply", "multiply in other pieces", "add"],
)
def test_pairs(block, twin):
    a, b = float_pairs(11, COUNT)
    check(block(), twin(a, b), i_a=a, i_b=b)


@pytest.mark.parametrize("digits", [1, 2, 4])
def test_serial_products(digits):
    a, b = float_pairs(digits, SERIAL_COUNT)
    dut = SerialFloatMultiply(digits=digits)
    check(dut, float_units.multiply(a, b), dut.latency, a=a, b=b)


@pytest.mark.parametrize("bits", [18, 20, 25, 32])
def test_integers(bits):
    numbers = integers(bits, COUNT)
    check(IntToFloat(bits), float_units.from_int(numbers), i=numbers & ((1 << bits) - 1))


@pytest.mark.parametrize("bits", [8, 32])
def test_to_integers(bits):
    patterns = float_patterns(bits, COUNT // 2)
    expected = float_units.to_int(patterns, bits) & ((1 << bits) - 1)
    check(FloatToInt(bits), expected, i=patterns)


def test_bfloat16():
    patterns = float_patterns(16, COUNT // 2)
    patterns[::3] &= np.uint32(0xFFFF8000)
    check(FloatNarrow(), float_units.narrow(patterns, 7), i=patterns)


def test_codes():
    x, s = tokens(7, COUNT // 32)
    check(FloatQuantize(), float_units.quantize(x, s) & 255, i_a=x, i_b=s)


@pytest.mark.parametrize("kind", ["quotient", "root", "long"])
@pytest.mark.parametrize("digits", [1, 2, 4])
def test_division(digits, kind):
    a, b = quotients(digits, SERIAL_COUNT)
    flags = {name: np.full(len(a), name == kind) for name in ("root", "long")}
    dut = FloatDivide(digits=digits)
    fields = {"a": a, "b": b} | flags
    if kind == "long":
        layout = dut.o.payload.shape()
        assert layout["reciprocal"].offset == 32
        check(dut, float_units.reciprocal(b), dut.long_latency, slice(1, 3), **fields)
    else:
        expected = float_units.root(a) if kind == "root" else float_units.divide(a, b)
        check(dut, expected, dut.latency, **fields)


class MovingRescale(wiring.Component):
    """A `FloatRescale` whose divisor comes with its integer: delayed to the stages that use it."""

    latency = FloatRescale.latency

    def __init__(self, bits: int) -> None:
        self.rescale = FloatRescale(bits)
        number, longs = float_layout(FLOAT32), FLOAT32.reciprocal_bits
        super().__init__(
            {"i": In(signed(bits)), "d": In(number), "reciprocal": In(longs), "o": Out(number)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rescale = rescale = self.rescale
        converted = 3
        m.d.comb += [
            rescale.i.eq(self.i),
            rescale.d.as_value().eq(delay(m, self.d.as_value(), converted)),
            rescale.reciprocal.eq(delay(m, self.reciprocal, converted + 1)),
            self.o.eq(rescale.o),
        ]
        return m


@pytest.mark.parametrize("bits", [18, 20, 25])
def test_rescale(bits):
    """Integers of any size by any numbers, and the quotients that are hardest to round."""
    rng = np.random.default_rng(bits)
    top = 1 << (bits - 1)
    a, d = hard_quotients(bits, SERIAL_COUNT)
    a = a >> rng.integers(max(0, 25 - bits), 25, len(a)) if bits < 25 else a
    a = np.where(rng.random(len(a)) < 0.5, a, -a)
    numbers = integers(bits, COUNT)
    divisors = float_pairs(bits, len(numbers))[1]
    numbers = np.concatenate([a, numbers])
    divisors = np.concatenate([as_patterns(d), divisors])
    assert numbers.min() >= -top
    assert numbers.max() < top
    check(
        MovingRescale(bits),
        float_units.rescale(numbers, divisors),
        i=numbers & ((1 << bits) - 1),
        d=divisors,
        reciprocal=float_units.reciprocal(divisors),
    )


def long_run(block, twin, count):
    for seed in range(count // CHUNK):
        a, b = float_pairs(1000 + seed, CHUNK)
        check(block(), twin(a, b), i_a=a, i_b=b)


def long_run_of_scale(count):
    """Products and quotients in turn, of the multiplier that the vector unit has."""
    for seed in range(count // CHUNK):
        a, b = float_pairs(2000 + seed, CHUNK)
        divide = np.random.default_rng(seed).random(CHUNK) < 0.5
        expected = float_units.multiply(a, b)
        expected[divide] = float_units.divide(a[divide], b[divide])
        reciprocal = float_units.reciprocal(b)
        check(FloatScale(), expected, i_a=a, i_b=b, divide=divide, reciprocal=reciprocal)


def test_a_tenth_of_the_long_run():
    long_run(FloatMultiply, float_units.multiply, LONG_RUN // 10)


@pytest.mark.slow
def test_long_run_of_scale():
    long_run_of_scale(LONG_RUN)


def test_scale():
    long_run_of_scale(CHUNK)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "twin"),
    [
        (FloatMultiply, float_units.multiply),
        (lambda: FloatMultiply(a_bits=24, b_bits=16), float_units.multiply),
        (FloatAdd, float_units.add),
    ],
    ids=["multiply", "multiply in other pieces", "add"],
)
def test_long_run(block, twin):
    long_run(block, twin, LONG_RUN)
