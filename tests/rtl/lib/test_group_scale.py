# amaranth: UnusedElaboratable=no
"""Scaling units of group sums against their twins, and the twins against exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from tests.support.float_blocks import EDGES, any_floats, assert_same, near_floats, run_pipeline
from tritloom.rtl.lib.group_scale import FixedToFloat, GroupFixed, GroupFloat
from tritloom.rtl.spec import groups
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.scale_facts import fixed_bits
from tritloom.sim.device.vectors import run_vectors

COUNT = 1_000_000
LONG_RUN = 100_000_000
CHUNK = 4_000_000
HALVES = [0, 1, 2, 0x3FF, 0x400, 0x401, 0x7FF, 0x800, 0x3C00, 0x3C01, 0x7800, 0x7BFE, 0x7BFF]
"""Ends of the ranges of half precision: zero, subnormal, normal, and the largest ones."""


def halves(rng, shape):
    """Patterns of finite scales: any, and ends of the ranges, of both signs."""
    any_ = rng.integers(0, 0x7C00, shape)
    edges = rng.choice(np.array(HALVES), shape)
    size = np.where(rng.random(shape) < 0.3, edges, any_)
    return (size | rng.integers(0, 2, shape) << 15).astype(np.uint16)


def sums_of(rng, shape, bits):
    """Sums of any size, and the ends of the range."""
    top = 1 << (bits - 1)
    values = rng.integers(-top, top, shape) >> rng.integers(0, bits, shape)
    ends = rng.choice(np.array([-top, top - 1, 0, 1, -1]), shape)
    return np.where(rng.random(shape) < 0.2, ends, values)


def acts_of(rng, shape):
    """Scales of activations: around 1, any at all, and ends of the ranges."""
    count = int(np.prod(shape))
    patterns = np.where(rng.random(count) < 0.9, near_floats(rng, count, 6), any_floats(rng, count))
    edges = rng.choice(np.array(EDGES, np.uint32), count)
    return np.where(rng.random(count) < 0.02, edges, patterns).astype(np.uint32).reshape(shape)


def in_turn(rows, **columns):
    """What a unit takes for rows of groups, group after group of all rows: [rows, groups] each."""
    number, count = next(iter(columns.values())).shape
    first = np.zeros((count, number), int)
    first[0] = 1
    return {
        **{name: column.T.ravel() for name, column in columns.items()},
        "row": np.tile(rows, count),
        "first": first.ravel(),
        "enable": np.ones(count * number, int),
    }


def masked(sums, bits):
    return sums & ((1 << bits) - 1)


def as_ints(high, low):
    return [int(h) * (1 << 32) + int(lo) for h, lo in zip(high.ravel(), low.ravel(), strict=True)]


def fixed_case(seed, rows, count, bits=17, most=4096):
    rng = np.random.default_rng(seed)
    sums, scales = sums_of(rng, (rows, count), bits), halves(rng, (rows, count))
    if rows > 1:  # a row of the largest products of one sign
        sums[0], scales[0] = -(1 << (bits - 1)), 0x7BFF
        sums[1], scales[1] = -(1 << (bits - 1)), 0xFBFF
    numbers = np.sort(rng.choice(most, rows, replace=False))
    return sums, scales, numbers


class TestTwins:
    def test_fixed_totals_are_exact(self):
        sums, scales, _ = fixed_case(1, 40, 256)
        high, low = groups.fixed_totals(sums, scales)
        values = scales.view(np.float16).astype(np.float64)
        for row in range(40):
            total = Fraction(0)
            for group in range(256):
                total += int(sums[row, group]) * Fraction(values[row, group])
                exact = int(high[row, group]) * (1 << 32) + int(low[row, group])
                assert Fraction(exact, 1 << 24) == total
                assert abs(exact) < 1 << fixed_bits(17, 256) - 1

    def test_fixed_to_float_rounds_once(self):
        rng = np.random.default_rng(2)
        totals = [0, 1, -1, (1 << 64) - 1, -(1 << 64), 1 << 40, (1 << 40) - 1]
        for power in range(64):
            base = (1 << power) + int(rng.integers(0, 1 << 20))
            tie = (2 * int(rng.integers(1 << 23, 1 << 24)) + 1) << max(0, power - 25)
            totals += [base, -base, tie, -tie, tie + 1, tie - 1, 1 - tie]
        high = np.array([total >> 32 for total in totals])
        low = np.array([total & 0xFFFFFFFF for total in totals], np.uint32)
        found = groups.fixed_to_float(high, low).view(np.float32)
        for total, number in zip(totals, found, strict=True):
            assert float(number) == nearest(Fraction(total, 1 << 24))

    def test_float_totals_are_plain_c(self):
        """NumPy's float32 rounds each operation, as plain C does where nothing is subnormal."""
        rng = np.random.default_rng(3)
        sums, scales = sums_of(rng, (200, 20), 17), halves(rng, (200, 20))
        acts = near_floats(rng, 4000, 6).reshape(200, 20)
        totals = groups.float_totals(sums, scales, acts).view(np.float32)
        total = np.zeros(200, np.float32)
        for group in range(20):
            d = acts[:, group].view(np.float32) * scales[:, group].view(np.float16).astype("f4")
            total = total + sums[:, group].astype(np.float32) * d
            assert np.array_equal(totals[:, group], total)


def nearest(value):
    """The nearest float32 of a fraction, ties to even, without a limit of the exponent."""
    if value == 0:
        return 0.0
    size, power = abs(value), 0
    while size >= 1 << 24:
        size, power = size / 2, power + 1
    while size < 1 << 23:
        size, power = size * 2, power - 1
    return float(round(size) * Fraction(2) ** power) * (1 if value > 0 else -1)


@pytest.mark.parametrize("bits", [17, 9])
def test_fixed(bits):
    dut = GroupFixed(bits, rows=64, groups=8)
    sums, scales, numbers = fixed_case(bits, dut.again, 8, bits, 64)
    taken = in_turn(numbers, sum=masked(sums, bits), scale=scales)
    found = run_pipeline(dut, **taken)
    high, low = groups.fixed_totals(sums, scales)
    expected = [total % (1 << dut.bits) for total in as_ints(high.T, low.T)]
    assert found.tolist() == expected


def test_float():
    dut = GroupFloat(17, rows=64)
    rng = np.random.default_rng(4)
    shape = (dut.again, 12)
    sums, scales, acts = sums_of(rng, shape, 17), halves(rng, shape), acts_of(rng, shape)
    numbers = rng.choice(64, dut.again, replace=False)
    taken = in_turn(numbers, sum=masked(sums, 17), scale=scales, act=acts)
    assert_same(run_pipeline(dut, **taken), groups.float_totals(sums, scales, acts).T.ravel())


@pytest.mark.parametrize("unit", [GroupFixed, GroupFloat])
def test_what_is_not_enabled_is_not_kept(unit):
    """Of two sums of a row the second one is added to nothing but the first one."""
    dut = unit(17, rows=32)
    wait = dut.again
    scales = np.full(3 * wait, 0x3C00)
    fields = {"sum": np.arange(1, 3 * wait + 1), "scale": scales, "row": np.arange(3 * wait) % wait}
    fields["first"] = np.arange(3 * wait) < wait
    fields["enable"] = (np.arange(3 * wait) < wait) | (np.arange(3 * wait) >= 2 * wait)
    if unit is GroupFloat:
        fields["act"] = np.full(3 * wait, 0x3F800000)
    found = run_pipeline(dut, **{name: np.asarray(c, np.int64) for name, c in fields.items()})
    expected = fields["sum"].copy()
    expected[wait:] += expected[:wait].repeat(2).reshape(-1, 2).T.ravel()
    if unit is GroupFixed:
        assert (found == expected << 24).all()
    else:
        assert found.tolist() == expected.astype(np.float32).view(np.uint32).tolist()


@pytest.mark.parametrize("unit", [GroupFixed, GroupFloat])
def test_a_scale_of_zero(unit):
    """Nothing is added, whatever the sum is, and the total is +0."""
    dut = unit(17, rows=32)
    sums = np.full((dut.again, 3), 65535)
    scales = np.full(sums.shape, 0)
    more = {"act": np.full(sums.shape, 0x7F000000)} if unit is GroupFloat else {}
    taken = in_turn(np.arange(dut.again), sum=sums, scale=scales, **more)
    assert not run_pipeline(dut, **taken).any()


def test_scales_that_are_not_finite():
    """`GroupFixed` says so; the total of `GroupFloat` stays infinite."""
    dut = GroupFixed(17, rows=32)
    scales = np.array([0x7BFF, 0x7C00, 0xFC00, 0x7E01, 0x3C00])
    taken = in_turn(np.array([3]), sum=np.ones((1, 5), int), scale=scales[None])
    dut.o = dut.bad
    assert run_pipeline(dut, **taken).tolist() == [0, 1, 1, 1, 0]
    dut = GroupFloat(17, rows=32)
    wait = dut.again
    shape = (wait, 3)
    scales = np.full(shape, 0x3C00)
    scales[5, 1] = 0x7E00
    acts, sums = np.full(shape, 0x3F800000), np.ones(shape, int)
    taken = in_turn(np.arange(wait), sum=sums, scale=scales, act=acts)
    found = run_pipeline(dut, **taken).reshape(3, wait).astype(np.uint32).view(np.float32)
    assert not np.isfinite(found[1:, 5]).any()
    assert np.isfinite(np.delete(found, 5, axis=1)).all() and np.isfinite(found[0]).all()


def test_fixed_to_float():
    rng = np.random.default_rng(5)
    dut = FixedToFloat(65)
    high = rng.integers(-(1 << 32), 1 << 32, 400) >> rng.integers(0, 40, 400)
    low = (rng.integers(0, 1 << 32, 400) >> rng.integers(0, 32, 400)).astype(np.uint32)
    high[:4], low[:4] = [0, 0, -(1 << 32), -1], [0, 1, 0, 0xFFFFFFFF]
    totals = np.array([t % (1 << 65) for t in as_ints(high, low)], object)
    assert_same(run_pipeline(dut, i=totals), groups.fixed_to_float(high, low))


def test_wrong_parameters():
    with pytest.raises(ConfigError, match=r"^sum_bits must be 2 to 17, not 18$"):
        GroupFixed(18)
    with pytest.raises(ConfigError, match=r"^rows must be 2 to 65536, not 1$"):
        GroupFixed(rows=1)
    with pytest.raises(ConfigError, match=r"^groups must be 1 to 4096, not 0$"):
        GroupFixed(groups=0)
    with pytest.raises(ConfigError, match=r"^sum_bits must be 2 to 17, not 1$"):
        GroupFloat(1)
    with pytest.raises(ConfigError, match=r"^rows must be 2 to 65536, not 65537$"):
        GroupFloat(rows=65537)


def check_fixed(seed, count):
    """Rows of 256 groups on CXXRTL."""
    rows = count // 256
    sums, scales, numbers = fixed_case(seed, min(rows, 4000), 256)
    found = run_vectors(
        GroupFixed(), **in_turn(numbers, sum=masked(sums, 17), scale=scales.astype(np.int64))
    )
    high, low = groups.fixed_totals(sums, scales)
    assert np.array_equal(found[:, 0], low.T.ravel())
    words = (found[:, 1].astype(np.int64), found[:, 2].astype(np.int64))
    assert np.array_equal((words[0] | words[1] << 32) << 31 >> 31, high.T.ravel())


def check_float(seed, count):
    rng = np.random.default_rng(seed)
    shape = (min(count // 64, 4000), max(64, count // 4000))
    sums, scales, acts = sums_of(rng, shape, 17), halves(rng, shape), acts_of(rng, shape)
    rare = rng.random(shape[0]) < 0.5  # half of the rows stay finite
    acts[rare] = near_floats(rng, int(rare.sum()) * shape[1], 6).reshape(-1, shape[1])
    numbers = rng.choice(4096, shape[0], replace=False)
    taken = in_turn(numbers, sum=masked(sums, 17), scale=scales.astype(np.int64), act=acts)
    found = run_vectors(GroupFloat(), **taken)[:, 0]
    assert np.array_equal(found, groups.float_totals(sums, scales, acts).T.ravel())


@pytest.mark.sim
@pytest.mark.parametrize("check", [check_fixed, check_float])
def test_many(check):
    check(6, COUNT)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_fixed, check_float])
def test_all(check):
    """A hundred million sums."""
    per_call = 1_024_000 if check is check_fixed else CHUNK
    for seed in range(-(-LONG_RUN // per_call)):
        check(100 + seed, per_call)
