"""Properties of the float blocks: results are the nearest numbers, by integers without rounding."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.floats import (
    ROUND_PRODUCT_CYCLES,
    exponent_shape,
    float_layout,
    is_finite,
    round_product,
    significand,
)
from tritloom.rtl.spec.float_units import FLOAT32, FloatFormat
from tritloom.sim.proof.formal import Bench, Inside
from tritloom.sim.proof.streams import implies, stream_rules

__all__ = [
    "RoundProduct",
    "absmax_contract",
    "add_nearest",
    "division_digits",
    "from_int_nearest",
    "narrow_nearest",
    "product_nearest",
    "root_digits",
    "serial_rules",
    "to_int_nearest",
]


def operand(bench: Bench, component: Any, name: str) -> Any:
    """A component's input that takes any value, and keeps it."""
    port = Value.cast(getattr(component, name))
    value = bench.constant(name, len(port))
    bench.m.d.comb += port.eq(value)
    return value


def after_latency(bench: Bench, component: Any) -> Signal:
    """Set in the cycle in which a pipeline's result is that of the first cycle's operands."""
    count = bench.state("count", range(component.latency + 2))
    bench.m.d.sync += count.eq(Mux(count > component.latency, count, count + 1))
    now = Signal()
    bench.m.d.comb += now.eq(count == component.latency)
    return now


def nearest(exact: Any, result: Any, unit: Any, even: Any) -> Any:
    """Whether `result`, a multiple of `unit`, is the one nearest to `exact`, or of two equally near
    ones the even one."""
    twice = (exact - result) * 2
    return ((twice < unit) & (twice > -unit)) | (((twice == unit) | (twice == -unit)) & even)


def from_int_nearest(component: Any) -> Bench:
    """`IntToFloat` gives the nearest number of its integer."""
    form, bits = component.form, component.bits
    bench = Bench(component, driven=("i",))
    now = after_latency(bench, component)
    i = operand(bench, component, "i").as_signed()
    p, o = form.precision, component.o
    size, digits = Signal(bits), significand(o)
    bench.m.d.comb += size.eq(Mux(i < 0, -i, i))
    unit_field = form.bias + form.fraction_bits  # of numbers whose last place is 1
    up, down = Signal(range(p)), Signal(range(max(2, bits - p + 1)))
    bench.m.d.comb += [up.eq(unit_field - o.exponent), down.eq(o.exponent - unit_field)]
    exact = (o.exponent <= unit_field) & (o.exponent > unit_field - p) & (size << up == digits)
    large = (o.exponent > unit_field) & (o.exponent <= unit_field + max(0, bits - p))
    unit = Const(1, 2) << down
    rounded = large & nearest(size, digits << down, unit, ~digits[0])
    right = digits[-1] & (o.sign == (i < 0)) & (exact | rounded)
    zero = (size == 0) & (o.as_value() == 0)
    bench.check("nearest", implies(now, Mux(size == 0, zero, right)))
    bench.cover("lowest", now & (i == -(1 << (bits - 1))) & o.sign)
    if component.rounds:
        tie = large & ((size - (digits << down)) * 2 == unit)
        bench.cover("tie", now & tie)
        bench.cover("carry", now & large & (o.fraction == 0) & (size < digits << down))
    return bench


def to_int_nearest(component: Any) -> Bench:
    """`FloatToInt` gives the nearest integer of its number, or the limit of its sign."""
    form, bits = component.form, component.bits
    bench = Bench(component, driven=("i",))
    now = after_latency(bench, component)
    x = float_layout(form)(operand(bench, component, "i"))
    p, o = form.precision, component.o
    half_field, top_field = form.bias - 1, form.bias + bits - 2  # of 1/2, and below the limit
    size, shift = Signal(bits), Signal(range(bits))
    bench.m.d.comb += [size.eq(Mux(o < 0, -o, o)), shift.eq(x.exponent - half_field)]
    exact = significand(x) << shift  # in units of 2^-p
    limit = (1 << (bits - 1)) - 1 + x.sign
    over = exact >= ((1 << bits) - 1) << (p - 1)  # at least half a unit beyond the highest integer
    within = nearest(exact, size << p, 1 << p, ~size[0]) | (~x.sign & over & (size == limit))
    right = Mux(
        x.exponent < half_field, size == 0, Mux(x.exponent > top_field, size == limit, within)
    )
    bench.check("nearest", implies(now, right))
    bench.check("sign", implies(now & (size != 0), (o < 0) == x.sign))
    bench.cover("tie", now & (exact == 5 << (p - 1)) & (x.exponent == half_field + 2))
    if bits <= p + 1:  # else no number lies between the highest integer and its limit
        bench.cover("lowest", now & (o == -(1 << (bits - 1))) & (x.exponent == top_field))
        bench.cover("saturated", now & (size == limit) & (x.exponent == top_field) & over & ~x.sign)
    return bench


def narrow_nearest(component: Any) -> Bench:
    """`FloatNarrow` gives the nearest number of fewer bits.

    Patterns of numbers are as far apart as the numbers, up to the next power of two; so the nearest
    pattern is the nearest number.
    """
    form, dropped = component.form, component.form.fraction_bits - component.fraction_bits
    bench = Bench(component, driven=("i",))
    now = after_latency(bench, component)
    x, o = operand(bench, component, "i"), component.o.as_value()
    size, result = x[:-1], o[:-1]
    finite = ~x[form.fraction_bits : -1].all()
    right = nearest(size, result, 1 << dropped, ~o[dropped])
    same = result[dropped:] == size[dropped:]
    bench.check("nearest", implies(now, Mux(finite, right, same)))
    bench.check("bits", implies(now, (o[:dropped] == 0) & (o[-1] == x[-1])))
    bench.cover("tie", now & (size - result == 1 << (dropped - 1)))
    bench.cover("carry", now & finite & (result == form.not_finite << form.fraction_bits))
    bench.cover("not_finite", now & ~finite & x[: form.fraction_bits].all())
    return bench


class RoundProduct(wiring.Component):
    """`round_product` as a component: product, exponent and marks in, pattern out."""

    latency = ROUND_PRODUCT_CYCLES

    def __init__(self, form: FloatFormat = FLOAT32) -> None:
        self.form = form
        super().__init__(
            {
                "product": In(2 * form.precision),
                "exponent": In(form.exponent_bits + 3),
                "finite": In(1),
                "o": Out(float_layout(form)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        exponent = Signal(exponent_shape(self.form))
        m.d.comb += exponent.eq(self.exponent)
        pattern = round_product(m, self.form, self.product, exponent, Const(0, 1), self.finite)
        m.d.comb += self.o.as_value().eq(pattern)
        return m


def product_nearest(component: RoundProduct) -> Bench:
    """A product of two significands with any exponent is rounded to the nearest number, as if the
    exponent had no limit; then it is flushed to zero, or infinity.

    Assumed: the top bit of the product, or the bit below it, is set; the exponent is not so near to
    the end of its range that one more would leave it.
    """
    form = component.form
    bench = Bench(component, driven=("product", "exponent", "finite"))
    now = after_latency(bench, component)
    exact = operand(bench, component, "product")
    field = operand(bench, component, "exponent").as_signed()
    finite = operand(bench, component, "finite")
    p, o = form.precision, component.o
    bench.assume(exact[-1] | exact[-2])
    bench.assume(field < (1 << (form.exponent_bits + 2)) - 2)
    # The last place of a result whose field is `field` has the weight 2^(p − 1) of the product's.
    top, digits = exact[-1], significand(o)
    ones = Mux(top, exact[-p - 1 :].all(), exact[-p - 2 : -1].all())
    final = Signal(exponent_shape(form))
    bench.m.d.comb += final.eq(field + top + ones)
    unit = Mux(top ^ ones, 1 << p, 1 << (p - 1))
    unit = Mux(top & ones, 1 << (p + 1), unit)
    result = Mux(top ^ ones, digits << p, digits << (p - 1))
    result = Mux(top & ones, digits << (p + 1), result)
    right = digits[-1] & (o.exponent == final[: form.exponent_bits])
    right &= nearest(exact, result, unit, ~digits[0])
    infinite = form.not_finite << form.fraction_bits
    ranged = Mux(
        final <= 0,
        o.as_value() == 0,
        Mux(final >= form.not_finite, o.as_value() == infinite, right),
    )
    bench.check("nearest", implies(now & finite, ranged))
    bench.check("not_finite", implies(now & ~finite, o.as_value() == infinite))
    bench.cover("tie", now & finite & right & ((exact - result) * 2 == unit))
    bench.cover("rounds_to_normal", now & finite & (field == 0) & ~top & (o.exponent == 1))
    bench.cover("rounds_to_infinity", now & finite & ones & (final == form.not_finite))
    return bench


def add_nearest(component: Any) -> Bench:
    """`FloatAdd` gives the nearest number of the exact sum, for all operands of a small format."""
    form = component.form
    bench = Bench(component, driven=("i_a", "i_b"))
    m, layout = bench.m, float_layout(form)
    now = after_latency(bench, component)
    a, b = (layout(operand(bench, component, name)) for name in ("i_a", "i_b"))
    p, o, last = form.precision, component.o, form.not_finite - 1
    # In units of the last place of the smallest normal number.
    width = p + last
    terms = []
    for x in (a, b):
        term, place = Signal(width), Signal(form.exponent_bits)
        m.d.comb += [
            place.eq(Mux(x.exponent == 0, 0, x.exponent - 1)),
            term.eq(significand(x) << place),
        ]
        terms.append(Mux(x.sign, -term, term))
    total = terms[0] + terms[1]
    size = Signal(width + 1)
    back, unit = Signal(width), Signal(width)
    m.d.comb += size.eq(Mux(total < 0, -total, total))
    below = (o.exponent - 1)[: form.exponent_bits]
    m.d.comb += [back.eq(significand(o) << below), unit.eq(Const(1, 1) << below)]
    # Below a power of two, numbers are twice as dense.
    dense = (o.fraction == 0) & (size < back)
    right = nearest(size, back, unit, ~o.fraction[0]) & (~dense | ((back - size) * 4 <= unit))
    highest = ((1 << (p + 1)) - 1) << (last - 1)  # twice the middle of the largest and infinity
    finite = ~a.exponent.all() & ~b.exponent.all()
    infinite = o.exponent.all() & (o.fraction == 0)
    nothing = (o.exponent == 0) & (o.fraction == 0)
    ranged = Mux(
        o.exponent.all(),
        infinite & (size * 2 >= highest),
        Mux(o.exponent == 0, nothing & (size < 1 << (p - 1)), right & (size * 2 < highest)),
    )
    bench.check("nearest", implies(now & finite, ranged))
    bench.check("sign", implies(now & finite & (total != 0), o.sign == (total < 0)))
    bench.check("zero", implies(now & finite & (total == 0), o.sign == (a.sign & b.sign)))
    bench.check("not_finite", implies(now & ~finite, infinite))
    bench.cover("tie", now & finite & ((size - back) * 2 == unit) & (a.sign != b.sign))
    bench.cover("cancelled", now & finite & nothing & (total != 0))
    bench.cover("overflow", now & finite & infinite)
    return bench


class _Digits:
    """A `FloatDivide` taken apart, that makes one digit a cycle; and how many it has made."""

    def __init__(self, component: Any, kind: str) -> None:
        self.inside = inside = Inside(component)
        self.bench = bench = Bench(component, inside)
        i, self.p = component.i, component.form.precision
        self.starts = i.valid & i.ready
        self.cycles = component.long_cycles if kind == "long" else component.cycles
        self.made = Signal(range(self.cycles + 1))
        self.busy, self.rest, self.result = (inside[name] for name in ("busy", "rest", "result"))
        bench.assume(i.payload.root == (kind == "root"))
        bench.assume(i.payload.long == (kind == "long"))
        bench.m.d.comb += self.made.eq(self.cycles - 1 - inside["count"])
        bench.check("count", implies(self.busy, inside["count"] < self.cycles))
        bench.check("kind", implies(self.busy, inside["is_root"] == (kind == "root")))


def division_digits(component: Any, kind: str) -> Bench:
    """The digits of a quotient, or of a long reciprocal, whose dividend is 1.0.

    After n digits, dividend · 2^n = 2 · digits · b + rest, with rest < 2 · b, on significands. The
    product of digits and b is kept by adding b, digit for digit. `kind`: "quotient" or "long".
    """
    parts = _Digits(component, kind)
    bench, p = parts.bench, parts.p
    width = p + parts.cycles + 1
    divisor, rest = parts.inside["divisor"], parts.rest
    multiple, dividend = bench.state("multiple", width), bench.state("dividend", width)
    i = component.i.payload
    new_digit = rest >= divisor
    with bench.m.If(parts.starts):
        first = Const(1 << (p - 1), p) if kind == "long" else Cat(i.a.fraction, 1)
        bench.m.d.sync += [multiple.eq(0), dividend.eq(first)]
    with bench.m.Elif(parts.busy):
        bench.m.d.sync += [
            multiple.eq((multiple + Mux(new_digit, divisor, 0)) * 2),
            dividend.eq(dividend * 2),
        ]
    bench.check("equation", implies(parts.busy, dividend == multiple + rest))
    bench.check("rest", implies(parts.busy, rest < divisor * 2))
    bench.check("divisor", implies(parts.busy, divisor[-1]))
    bench.check("size", implies(parts.busy, dividend < (Const(1, p + 1) << (parts.made + p))))
    newest = implies(bench.was(parts.busy), parts.result[0] == bench.was(new_digit))
    bench.check("digit", newest)
    bench.cover("last", parts.busy & (parts.made == parts.cycles - 1))
    return bench


def root_digits(component: Any) -> Bench:
    """After n digits of a root, the first 2 · n + 2 digits of the radicand are 4 · digits² + rest,
    and rest is at most 8 · digits + 3.

    The square of the digits is kept by adding: (2 · digits + 1)² = 4 · digits² + 4 · digits + 1.
    """
    parts = _Digits(component, "root")
    bench, p = parts.bench, parts.p
    width = 2 * p + 6
    pairs, rest, result = parts.inside["pairs"], parts.rest, parts.result
    square, radicand = bench.state("square", width), bench.state("radicand", width)
    counts = parts.busy & (parts.made < p + 1)
    a = component.i.payload.a
    first = Mux(a.exponent[0], 1, Cat(a.fraction[-1], 1))
    with bench.m.If(parts.starts):
        bench.m.d.sync += [square.eq(0), radicand.eq(first)]
    with bench.m.Elif(parts.busy):
        one = rest >= result * 4 + 1
        bench.m.d.sync += [
            square.eq(square * 4 + Mux(one, result * 4 + 1, 0)),
            radicand.eq(Cat(pairs[-2:], radicand)),
        ]
    bench.check("equation", implies(counts, radicand == (square * 4 + rest)[:width]))
    bench.check("rest", implies(counts, rest <= result * 8 + 3))
    bench.check("size", implies(counts, result < (Const(1, 1) << parts.made)))
    bench.cover("last", parts.busy & (parts.made == p))
    return bench


def absmax_contract(component: Any) -> Bench:
    """`FloatAbsMax` shows a magnitude of the vector that none of it exceeds.

    The proof follows one magnitude, which is any. Assumed: a vector has begun.
    """
    bench = Bench(component)
    m, x, o = bench.m, component.i, component.o
    tracked = bench.constant("tracked", len(o))
    size = Cat(x.fraction, x.exponent)
    begun, came, finite = (bench.state(name) for name in ("begun", "came", "finite"))
    before = component.i_first | ~begun
    bench.assume(implies(component.i_valid & ~begun, component.i_first))
    with m.If(component.i_valid):
        m.d.sync += [
            begun.eq(1),
            came.eq((size == tracked) | (came & ~before)),
            finite.eq(~x.exponent.all() & (finite | before)),
        ]
    bench.check("greatest", implies(begun & came, o >= tracked))
    bench.check("of_the_vector", implies(begun & (o == tracked), came))
    bench.check("finite", implies(begun, component.o_finite == finite))
    bench.cover("earlier", begun & came & (o != size) & ~component.i_valid & (tracked == o))
    bench.cover("not_finite", begun & ~finite & bench.was(component.i_valid & is_finite(x)))
    return bench


def serial_rules(component: Any, marks: str) -> Bench:
    """`stream_rules` of a block that works on one result at a time.

    `marks`: the variable of the block that is set after `busy`, until the result is valid.
    """
    inside = Inside(component)
    bench = stream_rules(component, inside=inside)
    works = inside["busy"] | Value.cast(inside[marks]).any()
    bench.check("idle", implies(component.o.valid, ~works))
    bench.check("one", ~(inside["busy"] & Value.cast(inside[marks]).any()))
    bench.cover("full_rate", component.o.valid & component.i.valid & component.i.ready)
    return bench
