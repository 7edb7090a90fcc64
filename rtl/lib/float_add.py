"""The sum of two floats."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.adder_tree import add_under, delay
from tritloom.rtl.lib.floats import (
    PACK_CYCLES,
    exponent_shape,
    float_layout,
    is_finite,
    normalize,
    pack,
    register,
    shift_right_sticky,
    shift_steps,
    significand,
)
from tritloom.rtl.spec.float_units import FLOAT32, FloatFormat

__all__ = ["FloatAdd"]

EXTRA_BITS = 3
"""Bits of the smaller number below the last place of the larger one: two, and one that is set if
any lower bit is. If the exponents differ by two or more, a difference loses at most one bit at the
top. So the place below its last one, and whether anything lies below that, are always known."""


class FloatAdd(wiring.Component):
    """The sum of two numbers in each cycle: `float_units.add`.

    Parameters
    ----------
    form : of all numbers

    Members
    -------
    i_a, i_b : in, numbers
        Operands, new ones in each cycle.
    o : out, number
        The sum, `latency` cycles after its operands.
    """

    i_a: Any
    i_b: Any
    o: Any
    latency = 7 + PACK_CYCLES
    """Cycles from operands to result: compare, exchange, align, add, normalize in three steps,
    round."""

    def __init__(self, form: FloatFormat = FLOAT32) -> None:
        self.form = form
        number = float_layout(form)
        super().__init__({"i_a": In(number), "i_b": In(number), "o": Out(number)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        form, p = self.form, self.form.precision
        a, b = (Signal(float_layout(form), reset_less=True, name=name) for name in ("a", "b"))
        large, small = (Signal(float_layout(form), name=name) for name in ("large", "small"))
        sizes = [Cat(x.fraction, x.exponent) for x in (self.i_a, self.i_b)]
        exchange = register(m, sizes[0] < sizes[1])
        m.d.sync += [a.eq(self.i_a), b.eq(self.i_b)]
        m.d.comb += [large.eq(Mux(exchange, b, a)), small.eq(Mux(exchange, a, b))]

        high, low = register(m, significand(large)), register(m, significand(small))
        gap = register(m, large.exponent - small.exponent, form.exponent_bits)
        less = register(m, a.sign ^ b.sign)
        # Delayed to where the sum is packed: after aligning, adding and normalizing.
        later = 5
        exponent = delay(m, register(m, large.exponent), later - 1, reset_less=True)
        marks = register(m, Cat(large.sign, a.sign & b.sign, is_finite(large)))
        sign, zero_sign, finite = delay(m, marks, later, reset_less=True)

        width = p + EXTRA_BITS
        near_bits = min(width.bit_length(), form.exponent_bits)
        wide = Cat(Const(0, EXTRA_BITS), low)
        aligned = shift_right_sticky(m, wide, gap[:near_bits], "align")
        far = gap[near_bits:].any()
        # What is that far below cannot change how the larger number is rounded.
        aligned = register(m, aligned & ~far.replicate(width), width)
        high, less = register(m, high), register(m, less)

        total = add_under(
            Cat(Const(0, EXTRA_BITS), high, Const(0, 1)), Cat(aligned, Const(0, 1)), less
        )
        total = register(m, total)
        steps = shift_steps(len(total))
        first, second = len(steps) // 3, 2 * len(steps) // 3
        coarse, made_first = normalize(m, total, steps[:first], "coarse")
        coarse, made_first = register(m, coarse), register(m, made_first)
        middle, made = normalize(m, coarse, steps[first:second], "middle")
        middle, made = register(m, middle), register(m, Cat(made, made_first))
        zero = register(m, ~middle.any())
        normal, made_last = normalize(m, middle, steps[second:], "fine")
        # The top bit has twice the weight of the larger number's leading one.
        field = register(m, exponent + 1 - Cat(made_last, made), exponent_shape(form))
        normal = register(m, normal)
        kept, guard, rest = normal[-p:], normal[-p - 1], normal[: -p - 1].any()
        pattern = pack(
            m,
            form,
            kept,
            up=guard & (rest | kept[0]),
            exponent=field,
            sign=Mux(zero & finite, zero_sign, sign),
            zero=zero,
            finite=finite,
        )
        m.d.comb += self.o.as_value().eq(pattern)
        return m
