"""Products of floats against their twin: all operands of small formats, hard ones of float32."""

import pytest

from tests.support import quick_first
from tests.support.float_blocks import (
    FLOAT32,
    QUICK,
    SMALL,
    all_pairs,
    assert_same,
    edge_pairs,
    float_pairs,
    measured_latencies,
    run_pipeline,
    run_stream,
)
from tritloom.rtl.lib.float_multiply import FloatMultiply, SerialFloatMultiply
from tritloom.rtl.spec import float_units
from tritloom.sim.conformance.streams import FLOWS

VECTORS = {
    "all of 6 bits": (QUICK, all_pairs(QUICK)),
    "8 bits": (SMALL, [column[::5] for column in all_pairs(SMALL)]),
    "edges": (FLOAT32, edge_pairs()),
    "float32": (FLOAT32, float_pairs(1, 3000)),
}


@quick_first("name", VECTORS)
def test_pipeline(name):
    form, (a, b) = VECTORS[name]
    results = run_pipeline(FloatMultiply(form), i_a=a, i_b=b)
    assert_same(results, float_units.multiply(a, b, form), a, b)


@pytest.mark.parametrize(("a_bits", "b_bits"), [(24, 24), (18, 16), (9, 12), (7, 5)])
def test_pieces(a_bits, b_bits):
    """Pieces of any width, with a rest or without, add up to the same product."""
    a, b = float_pairs(a_bits, 300)
    dut = FloatMultiply(a_bits=a_bits, b_bits=b_bits)
    assert_same(run_pipeline(dut, i_a=a, i_b=b), float_units.multiply(a, b), a, b)


@pytest.mark.sim
@pytest.mark.parametrize("digits", [1, 2, 3, 5])
def test_serial(digits):
    """Operands of a small format, edges and others of float32, at any number of digits."""
    for form, (a, b) in (
        (QUICK, [column[digits::11] for column in all_pairs(QUICK)]),
        (FLOAT32, [column[digits::17] for column in edge_pairs()]),
        (FLOAT32, float_pairs(digits, 120)),
    ):
        dut = SerialFloatMultiply(form, digits=digits)
        results = run_stream(dut, a=a, b=b)
        assert_same(results, float_units.multiply(a, b, form), a, b)


@pytest.mark.parametrize(("idle", "pause"), FLOWS)
def test_serial_waits(idle, pause):
    """Nothing is lost or changed while the source is idle or the sink pauses."""
    a, b = float_pairs(3, 60)
    results = run_stream(SerialFloatMultiply(), idle, pause, a=a, b=b)
    assert_same(results, float_units.multiply(a, b), a, b)


@pytest.mark.parametrize("digits", [1, 2, 7, 24])
def test_serial_latency(digits):
    """The contract of latency, and a new product in the cycle in which the last one leaves."""
    dut = SerialFloatMultiply(digits=digits)
    assert dut.latency == {1: 27, 2: 15, 7: 7, 24: 4}[digits]
    assert measured_latencies(dut) == [dut.latency] * 3
