"""Conversions between floats and integers, to int8 codes, and to bfloat16."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.lib.float_multiply import FloatMultiply
from tritloom.rtl.lib.floats import (
    float_layout,
    is_finite,
    normalize,
    register,
    shift_right_sticky,
    shift_steps,
)
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.float_units import FLOAT32, FloatFormat

__all__ = ["FloatNarrow", "FloatQuantize", "FloatToInt", "IntToFloat"]

CODE_BITS = 8
"""Width of an activation code."""
BFLOAT16_FRACTION_BITS = 7


class IntToFloat(wiring.Component):
    """A signed integer as a number, in each cycle: `float_units.from_int`.

    Parameters
    ----------
    bits : width of the integer; one of at most `precision` + 1 bits is converted exactly
    form : of the number; it must hold every such integer

    Members
    -------
    i : in, signed integer
    o : out, number
        `latency` cycles after its integer.
    """

    i: Signal
    o: Any

    def __init__(self, bits: int, form: FloatFormat = FLOAT32) -> None:
        if bits < 2 or form.bias + bits >= form.not_finite:
            raise ConfigError(
                f"bits must be 2 to {form.not_finite - form.bias - 1} for this format, not {bits}"
            )
        self.bits, self.form = bits, form
        super().__init__({"i": In(signed(bits)), "o": Out(float_layout(form))})

    @property
    def rounds(self) -> bool:
        """Whether some integers need a rounding, which takes a cycle. The magnitude of the lowest
        one has a bit more than the others, but it is a power of two."""
        return self.bits - 1 > self.form.precision

    @property
    def latency(self) -> int:
        """Cycles from integer to number: magnitude, normalize twice, and round if need be."""
        return 3 + self.rounds

    def elaborate(self, platform: object) -> Module:
        m = Module()
        form, bits = self.form, self.bits
        p = form.precision
        sign: Value = register(m, self.i[-1])
        size = register(m, Mux(self.i[-1], -self.i, self.i), bits)
        steps = shift_steps(bits)
        half = max(1, len(steps) // 2)
        coarse, made = normalize(m, size, steps[:half], "coarse")
        coarse, made = register(m, coarse), register(m, made)
        normal, made_last = normalize(m, coarse, steps[half:], "fine")
        field = (form.bias + bits - 1 - Cat(made_last, made))[: form.exponent_bits]
        field = field & normal[-1].replicate(form.exponent_bits)
        kept = Cat(Const(0, max(0, p - bits)), normal)[-p:]
        late = 1
        if self.rounds:
            up = register(m, normal[-p - 1] & (normal[: -p - 1].any() | kept[0]))
            kept, field = register(m, kept) + up, register(m, field)
            late = 2
        sign = delay(m, sign, late, reset_less=True)
        rounded = Signal(p + 1)  # the top bit is a carry
        m.d.comb += rounded.eq(kept)
        number = Signal(float_layout(form), reset_less=True, name="number")
        m.d.sync += [
            number.sign.eq(sign),
            number.exponent.eq(field + rounded[p] if self.rounds else field),
            number.fraction.eq(rounded[: p - 1]),
        ]
        m.d.comb += self.o.eq(number)
        return m


class FloatToInt(wiring.Component):
    """A number as the nearest signed integer, in each cycle: `float_units.to_int`.

    Parameters
    ----------
    bits : width of the integer
    form : of the number

    Members
    -------
    i : in, number
    o : out, signed integer
        `latency` cycles after its number; what is too large becomes the nearest integer that fits.
    """

    i: Any
    o: Signal
    latency = 2
    """Cycles from number to integer: shift and round, then saturate and apply the sign."""

    def __init__(self, bits: int = CODE_BITS, form: FloatFormat = FLOAT32) -> None:
        if bits < 2 or form.bias + bits - 1 > form.not_finite:
            raise ConfigError(
                f"bits must be 2 to {form.not_finite - form.bias + 1} for this format, not {bits}"
            )
        self.bits, self.form = bits, form
        super().__init__({"i": In(float_layout(form)), "o": Out(signed(bits))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        x, form, bits = self.i, self.form, self.bits
        # Bits before the point of the largest number that fits, one behind it, and whether any
        # lower bit is set. A number of that size is shifted by 0.
        before = bits - 1
        top_field = form.bias + before - 1
        digits = Cat(x.fraction, Const(1, 1))
        spare = len(digits) - (before + 1)
        if spare > 0:
            point = Cat(digits[:spare].any(), digits[spare:])
        else:
            point = Cat(Const(0, 1 - spare), digits)
        amount = (top_field - x.exponent)[: before.bit_length()]
        shifted = shift_right_sticky(m, point, amount, "point")
        kept, half, rest = shifted[2:], shifted[1], shifted[0]
        size = register(m, kept + (half & (rest | kept[0])), bits)  # at most 2^before
        small = register(m, x.exponent < max(1, form.bias - 1))  # less than a half, or subnormal
        large = register(m, x.exponent > top_field)
        sign = register(m, x.sign)
        limited = Signal(bits)
        m.d.comb += limited.eq(
            Mux(small, 0, Mux(large | size[before], (1 << before) - 1 + sign, size))
        )
        result = register(m, Mux(sign, -limited, limited), bits, "result")
        m.d.comb += self.o.eq(result)
        return m


class FloatQuantize(wiring.Component):
    """An activation code in each cycle: `float_units.quantize`, int8 of RN(x · s).

    Parameters
    ----------
    form : of all numbers
    a_bits, b_bits : as of `FloatMultiply`

    Members
    -------
    i_a, i_b : in, numbers
        x and s.
    o : out, signed 8 bits
        The code, `latency` cycles after its operands.
    """

    i_a: Any
    i_b: Any
    o: Signal
    latency = FloatMultiply.latency + FloatToInt.latency
    """Cycles from operands to code."""

    def __init__(self, form: FloatFormat = FLOAT32, *, a_bits: int = 18, b_bits: int = 18) -> None:
        self.form, self.a_bits, self.b_bits = form, a_bits, b_bits
        number = float_layout(form)
        super().__init__({"i_a": In(number), "i_b": In(number), "o": Out(signed(CODE_BITS))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.multiply = multiply = FloatMultiply(
            self.form, a_bits=self.a_bits, b_bits=self.b_bits
        )
        m.submodules.convert = convert = FloatToInt(CODE_BITS, self.form)
        m.d.comb += [
            multiply.i_a.eq(self.i_a),
            multiply.i_b.eq(self.i_b),
            convert.i.eq(multiply.o),
            self.o.eq(convert.o),
        ]
        return m


class FloatNarrow(wiring.Component):
    """A number rounded to fewer fraction bits, in each cycle: `float_units.narrow`.

    Parameters
    ----------
    fraction_bits : that remain; 7 of float32 are bfloat16
    form : of the number
    optional : whether there is `narrow`; without it every number is rounded

    Members
    -------
    i : in, number
    narrow : in, 1 bit; only with `optional`
        Round the number of this cycle; else it stays as it is.
    o : out, number of the same format
        Its lower fraction bits are zero if it was rounded; `latency` cycles after `i`.
    """

    i: Any
    narrow: Signal
    o: Any
    latency = 1
    """Cycles from operand to result."""

    def __init__(
        self,
        fraction_bits: int = BFLOAT16_FRACTION_BITS,
        form: FloatFormat = FLOAT32,
        *,
        optional: bool = False,
    ) -> None:
        if not 1 <= fraction_bits < form.fraction_bits:
            raise ConfigError(
                f"fraction_bits must be 1 to {form.fraction_bits - 1}, not {fraction_bits}"
            )
        self.fraction_bits, self.form, self.optional = fraction_bits, form, optional
        number = float_layout(form)
        super().__init__(
            {"i": In(number), "o": Out(number), **({"narrow": In(1)} if optional else {})}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        x = self.i.as_value()
        dropped = self.form.fraction_bits - self.fraction_bits
        kept, half = x[dropped:], x[dropped - 1]
        # A carry out of the fraction adds one to the exponent, which is right.
        up = half & (x[: dropped - 1].any() | kept[0]) & is_finite(self.i)
        rest: Value = Const(0, dropped)
        if self.optional:
            up = up & self.narrow
            rest = register(m, Mux(self.narrow, 0, x[:dropped]), dropped)
        rounded = register(m, kept + up, len(kept))
        m.d.comb += self.o.as_value().eq(Cat(rest, rounded))
        return m
