"""Products of floats: a pipeline of multipliers, and a serial one without any."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import data, stream, wiring
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
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.float_units import FLOAT32, FloatFormat

__all__ = ["FloatMultiply", "SerialFloatMultiply"]


class FloatMultiply(wiring.Component):
    """The product of two numbers in each cycle: `float_units.multiply`.

    Parameters
    ----------
    form : of all numbers
    a_bits, b_bits : widths of the pieces of the significands that are multiplied; not wider than
        the family's multipliers, if it has them
    b_precision : bits of `i_b`'s significand from the top that may be set; by default all

    Members
    -------
    i_a, i_b : in, numbers
        Operands, new ones in each cycle.
    o : out, number
        The product, `latency` cycles after its operands.
    """

    i_a: Any
    i_b: Any
    o: Any
    latency = 1 + PRODUCT_CYCLES + ROUND_PRODUCT_CYCLES
    """Cycles from operands to result."""

    def __init__(
        self,
        form: FloatFormat = FLOAT32,
        *,
        a_bits: int = 18,
        b_bits: int = 18,
        b_precision: int | None = None,
    ) -> None:
        self.form, self.a_bits, self.b_bits = form, a_bits, b_bits
        self.b_precision = form.precision if b_precision is None else b_precision
        if not 1 <= self.b_precision <= form.precision:
            raise ConfigError(f"b_precision must be 1 to {form.precision}, not {b_precision}")
        number = float_layout(form)
        super().__init__({"i_a": In(number), "i_b": In(number), "o": Out(number)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a, b, form = self.i_a, self.i_b, self.form
        unset = form.precision - self.b_precision
        x, y = register(m, significand(a)), register(m, significand(b)[unset:])
        exponent = register(m, a.exponent + b.exponent - form.bias, exponent_shape(form))
        marks = register(m, Cat(a.sign ^ b.sign, is_finite(a) & is_finite(b)))
        exact = product(m, x, y, self.a_bits, self.b_bits)
        exact_bits = exact if unset == 0 else Cat(Const(0, unset), exact)
        exponent = delay(m, exponent, PRODUCT_CYCLES, reset_less=True)
        sign, finite = delay(m, marks, PRODUCT_CYCLES, reset_less=True)
        rounded = round_product(m, form, exact_bits, exponent, sign, finite)
        m.d.comb += self.o.as_value().eq(rounded)
        return m


class SerialFloatMultiply(wiring.Component):
    """One product at a time, by adding: as small without multipliers as the pipeline is with them.

    Parameters
    ----------
    form : of all numbers
    digits : bits of `b` that are multiplied in a cycle

    Members
    -------
    i : in, stream of `a` and `b`
        Operands. `ready` is set if no product is under way, or if it leaves in this cycle.
    o : out, stream of numbers
        The product, first valid `latency` cycles after the transfer of its operands.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, form: FloatFormat = FLOAT32, *, digits: int = 2) -> None:
        self.form, self.digits = form, digits
        number = float_layout(form)
        operands = data.StructLayout({"a": number, "b": number})
        super().__init__({"i": In(stream.Signature(operands)), "o": Out(stream.Signature(number))})

    @property
    def cycles(self) -> int:
        """Cycles in which the product is made."""
        return -(-self.form.precision // self.digits)

    @property
    def latency(self) -> int:
        """Cycles from the transfer of the operands to the first cycle with the result."""
        return 1 + self.cycles + ROUND_PRODUCT_CYCLES

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i, form, digits = self.i.payload, self.form, self.digits
        p, low_bits = form.precision, self.cycles * digits
        count = Signal(range(self.cycles))
        busy = Signal()
        waiting = Signal(ROUND_PRODUCT_CYCLES)  # the product is being rounded
        factor = Signal(p, reset_less=True)
        # The sum so far lies above the digits of `b` to come. Both move down, so that the digits of
        # the product take the room of those of `b`.
        word = Signal(p + low_bits, reset_less=True)
        exponent = Signal(exponent_shape(form), reset_less=True)
        sign, finite = Signal(reset_less=True), Signal(reset_less=True)
        m.d.comb += self.i.ready.eq(~busy & ~waiting.any() & (~self.o.valid | self.o.ready))
        total: Value = word[low_bits:]
        for digit in range(digits):
            total = total + Cat(Const(0, digit), factor & word[digit].replicate(p))
        last = busy & (count == 0)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(waiting[-1]):
            m.d.sync += self.o.valid.eq(1)
        m.d.sync += waiting.eq(Cat(last, waiting[:-1]))
        with m.If(busy):
            m.d.sync += [
                word.eq(Cat(word[digits:low_bits], total[: p + digits])),
                count.eq(count - 1),
                busy.eq(~last),
            ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                busy.eq(1),
                count.eq(self.cycles - 1),
                factor.eq(significand(i.a)),
                word.eq(significand(i.b)),
                exponent.eq(i.a.exponent + i.b.exponent - form.bias),
                sign.eq(i.a.sign ^ i.b.sign),
                finite.eq(is_finite(i.a) & is_finite(i.b)),
            ]
        pattern = round_product(m, form, word[: 2 * p], exponent, sign, finite)
        m.d.comb += self.o.payload.as_value().eq(pattern)
        return m
