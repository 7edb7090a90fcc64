"""Products and quotients of floats by one multiplier."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.lib.floats import (
    PRODUCT_CYCLES,
    ROUND_PRODUCT_CYCLES,
    exponent_shape,
    float_layout,
    is_finite,
    product,
    register,
    round_product,
    significand,
)
from tritloom.rtl.spec.float_units import FLOAT32, FloatFormat

__all__ = ["FloatScale"]


class FloatScale(wiring.Component):
    """A product or a quotient in each cycle: `float_units.multiply` or `float_units.divide`.

    A quotient is a product by the long reciprocal of the divisor, which the user has made before.
    It is long enough for each quotient to be rounded correctly; the proof is that of
    `FloatFormat.reciprocal_shift`.

    Parameters
    ----------
    form : of all numbers
    a_bits, b_bits : widths of the pieces of `i_a` and of the other factor that are multiplied; not
        wider than the family's multipliers, if it has them

    Members
    -------
    i_a, i_b : in, numbers
        Operands, new ones in each cycle.
    divide : in, 1 bit
        The result is i_a / i_b; else i_a · i_b.
    reciprocal : in, bits
        With `divide`: the long reciprocal of `i_b`, as `FloatDivide` makes it.
    o : out, number
        The result, `latency` cycles after its operands; not finite if the divisor is zero.
    """

    i_a: Any
    i_b: Any
    divide: Signal
    reciprocal: Signal
    o: Any
    latency = 1 + PRODUCT_CYCLES + ROUND_PRODUCT_CYCLES
    """Cycles from operands to result: pick factors, multiply, round."""

    def __init__(self, form: FloatFormat = FLOAT32, *, a_bits: int = 18, b_bits: int = 18) -> None:
        self.form, self.a_bits, self.b_bits = form, a_bits, b_bits
        number = float_layout(form)
        super().__init__(
            {
                "i_a": In(number),
                "i_b": In(number),
                "divide": In(1),
                "reciprocal": In(form.reciprocal_bits),
                "o": Out(number),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a, b, form = self.i_a, self.i_b, self.form
        # The product by a significand gets the place of one by a reciprocal: the top bit is zero,
        # and one of the next two bits is the leading one.
        below = form.reciprocal_bits - form.precision - 1
        factor = Mux(self.divide, self.reciprocal, Cat(Const(0, below), significand(b)))
        x = register(m, significand(a))
        y = register(m, factor, form.reciprocal_bits)
        exact = product(m, x, y, self.a_bits, self.b_bits)

        # A quotient's exponent is a − b + bias − 1, where −b is ~b + 1 less a power of two.
        other = b.exponent ^ self.divide.replicate(form.exponent_bits)
        divides = register(m, self.divide)
        total = register(m, a.exponent + other)
        offset = Mux(divides, form.bias - (1 << form.exponent_bits), -form.bias)
        exponent = register(m, total + offset, exponent_shape(form))
        exponent = delay(m, exponent, PRODUCT_CYCLES - 1, reset_less=True)

        finite = is_finite(a) & is_finite(b) & (b.exponent.any() | ~self.divide)
        marks = register(m, Cat(a.sign ^ b.sign, finite))
        sign, finite = delay(m, marks, PRODUCT_CYCLES, reset_less=True)
        pattern = round_product(m, form, exact[:-1], exponent, sign, finite)
        m.d.comb += self.o.as_value().eq(pattern)
        return m
