"""The greatest magnitude of a vector, and whether all its numbers are finite."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.floats import float_layout, is_finite
from tritloom.rtl.spec.float_units import FLOAT32, FloatFormat

__all__ = ["FloatAbsMax"]


class FloatAbsMax(wiring.Component):
    """Watches the numbers of a vector as they come: `float_units.absmax`.

    Patterns of magnitudes are in the order of the magnitudes, so integers are compared.

    Parameters
    ----------
    form : of the numbers

    Members
    -------
    i : in, number
    i_valid : in, 1 bit
        `i` counts in this cycle.
    i_first : in, 1 bit
        With `i_valid`: a new vector begins with `i`.
    o : out, pattern without its sign
        The greatest magnitude of the vector so far, `latency` cycles after each number.
    o_finite : out, 1 bit
        Whether all its numbers so far are finite.
    """

    i: Any
    i_valid: Signal
    i_first: Signal
    o: Signal
    o_finite: Signal
    latency = 1
    """Cycles from the last number to the result."""

    def __init__(self, form: FloatFormat = FLOAT32) -> None:
        self.form = form
        super().__init__(
            {
                "i": In(float_layout(form)),
                "i_valid": In(1),
                "i_first": In(1),
                "o": Out(form.bits - 1),
                "o_finite": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size = Cat(self.i.fraction, self.i.exponent)
        with m.If(self.i_valid & (self.i_first | (size > self.o))):
            m.d.sync += self.o.eq(size)
        with m.If(self.i_valid):
            m.d.sync += self.o_finite.eq(is_finite(self.i) & (self.i_first | self.o_finite))
        return m
