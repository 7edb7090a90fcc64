"""Quotients, roots and long reciprocals, some digits a cycle; and integers divided by a float."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.lib.float_convert import IntToFloat
from tritloom.rtl.lib.floats import (
    PACK_CYCLES,
    PRODUCT_CYCLES,
    ROUND_PRODUCT_CYCLES,
    exponent_shape,
    float_layout,
    is_finite,
    pack,
    product,
    register,
    round_product,
    significand,
)
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.float_units import FLOAT32, FloatFormat

__all__ = ["FloatDivide", "FloatRescale"]


class FloatDivide(wiring.Component):
    """One quotient, root or long reciprocal at a time, `digits` binary digits a cycle.

    `float_units` has them as `divide`, `root` and `reciprocal`.

    Parameters
    ----------
    form : of all numbers
    digits : digits of the result that are made in a cycle; more take fewer cycles of a longer path
    root, long : whether it computes roots and long reciprocals; without them it is smaller

    Members
    -------
    i : in, stream of
        `a`, `b` : numbers
        `root` : the result is the root of `a`, and `b` does not count
        `long` : the result is the long reciprocal of the significand of `b`; not with `root`, and
            `a` does not count
        `ready` is set if no result is under way, or if it leaves in this cycle.
    o : out, stream of
        `number` : the quotient or root; no meaning with `long`
        `reciprocal` : the long reciprocal; no meaning without `long`
        First valid `latency` cycles after the transfer of its operands, `long_latency` with `long`.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(
        self,
        form: FloatFormat = FLOAT32,
        *,
        digits: int = 1,
        root: bool = True,
        long: bool = True,
    ) -> None:
        self.form, self.digits, self.root, self.long = form, digits, root, long
        number = float_layout(form)
        operands = data.StructLayout({"a": number, "b": number, "root": 1, "long": 1})
        results = data.StructLayout({"number": number, "reciprocal": form.reciprocal_bits})
        super().__init__({"i": In(stream.Signature(operands)), "o": Out(stream.Signature(results))})

    @property
    def cycles(self) -> int:
        """Cycles in which the digits of a quotient or root are made: two more than its bits, since
        the first digit may be zero, and the last one rounds."""
        return -(-(self.form.precision + 2) // self.digits)

    @property
    def long_cycles(self) -> int:
        """Cycles in which the digits of a long reciprocal are made."""
        return -(-self.form.reciprocal_bits // self.digits)

    @property
    def latency(self) -> int:
        """Cycles from the transfer of the operands to the first cycle with the quotient or root."""
        return 1 + self.cycles + PACK_CYCLES

    @property
    def long_latency(self) -> int:
        """Cycles from the transfer of the operands to the first cycle with the reciprocal."""
        return 1 + self.long_cycles + PACK_CYCLES

    def elaborate(self, platform: object) -> Module:
        m = Module()
        form, i = self.form, self.i.payload
        p, bias = form.precision, form.bias
        most = self.long_cycles if self.long else self.cycles
        takes_root = i.root if self.root else Const(0, 1)
        takes_long = i.long if self.long else Const(0, 1)
        count = Signal(range(most))
        busy, done = Signal(), Signal()
        is_root = Signal(reset_less=True)
        divisor = Signal(p, reset_less=True)
        rest = Signal(p + 3, reset_less=True)
        result = Signal(most * self.digits, reset_less=True)  # its digits so far
        pairs = Signal(2 * (p // 2), reset_less=True)  # digits of the radicand to come
        exponent = Signal(exponent_shape(form), reset_less=True)
        sign, zero, finite = (Signal(reset_less=True, name=n) for n in ("sign", "zero", "finite"))

        m.d.comb += self.i.ready.eq(~busy & ~done & (~self.o.valid | self.o.ready))
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(done):
            m.d.sync += self.o.valid.eq(1)
        m.d.sync += done.eq(busy & (count == 0))
        with m.If(busy):
            m.d.sync += [count.eq(count - 1), busy.eq(count != 0)]
            rest_after, result_after, pairs_after = self._digits(
                m, rest, result, pairs, divisor, is_root
            )
            m.d.sync += [rest.eq(rest_after), result.eq(result_after), pairs.eq(pairs_after)]
        with m.If(self.i.valid & self.i.ready):
            a, a_zero, b_zero = Cat(i.a.fraction, 1), ~i.a.exponent.any(), ~i.b.exponent.any()
            # The root's exponent is half of that of a; the digit that is left over makes the
            # radicand 1 to 4. The bias is odd.
            odd = ~i.a.exponent[0]
            radicand = Mux(odd, Cat(Const(0, 1), a), Cat(a, Const(0, 1)))
            pad = len(pairs) + 2 - len(radicand)
            m.d.sync += [
                busy.eq(1),
                count.eq(Mux(takes_long, self.long_cycles - 1, self.cycles - 1)),
                is_root.eq(takes_root),
                divisor.eq(Cat(i.b.fraction, 1)),
                # The first rest of a quotient is a; that of a reciprocal 1.0; that of a root the
                # first two digits of the radicand.
                rest.eq(Mux(takes_root, radicand[-2:], Mux(takes_long, 1 << (p - 1), a))),
                result.eq(0),
                pairs.eq(Cat(Const(0, pad), radicand[:-2])),
                exponent.eq(
                    Mux(
                        takes_root,
                        (i.a.exponent + bias) >> 1,
                        i.a.exponent - i.b.exponent + bias,
                    )
                ),
                sign.eq(i.a.sign ^ (i.b.sign & ~takes_root)),
                zero.eq(a_zero),
                finite.eq(
                    is_finite(i.a) & Mux(takes_root, ~i.a.sign | a_zero, is_finite(i.b) & ~b_zero)
                ),
            ]
        # A quotient is from 1/2 to 2, so its first digit may be zero. No quotient and no root of
        # numbers is halfway between two numbers, so the digit after the last one rounds.
        spare = self.cycles * self.digits - (p + 2)
        digits = result[spare : spare + p + 2]
        top = digits[-1]
        pattern = pack(
            m,
            form,
            Mux(top, digits[2:], digits[1:-1]),
            up=Mux(top, digits[1], digits[0]),
            exponent=(exponent - ~top).as_signed(),
            sign=sign,
            zero=zero,
            finite=finite,
        )
        spare = most * self.digits - form.reciprocal_bits if self.long else 0
        m.d.comb += [
            self.o.payload.number.as_value().eq(pattern),
            self.o.payload.reciprocal.eq(result[spare:] if self.long else 0),
        ]
        return m

    def _digits(
        self, m: Module, rest: Value, result: Value, pairs: Value, divisor: Value, is_root: Value
    ) -> tuple[Value, Value, Value]:
        """State after one cycle: each digit is 1 if what it would take can be subtracted.

        A quotient takes the divisor, and then `rest` moves up by one digit. A root takes
        4 · `result` + 1, and then `rest` moves up by two digits of the radicand. For the p + 1
        digits of a root that count, what is left is at most twice `result`, so p + 1 bits of both
        are enough.
        """
        p = self.form.precision
        for number in range(self.digits):
            taken: Value = Cat(divisor, Const(0, 3))
            if self.root:
                taken = Mux(is_root, Cat(Const(1, 2), result[: p + 1]), taken)
            difference = Signal(signed(p + 4), name=f"difference_{number}")
            left = Signal(p + 3, name=f"left_{number}")
            one = ~difference[-1]
            m.d.comb += [
                difference.eq(rest - taken),
                left.eq(Mux(one, difference[:-1], rest)),
            ]
            moved = Cat(Const(0, 1), left[:-1])
            rest = Mux(is_root, Cat(pairs[-2:], left[: p + 1]), moved) if self.root else moved
            result = Cat(one, result[:-1])
            pairs = Cat(Const(0, 2), pairs[:-2])
        return rest, result, pairs


class FloatRescale(wiring.Component):
    """An integer divided by a number, in each cycle, by one product: `float_units.rescale`.

    The number's long reciprocal is long enough for the quotient to be rounded correctly; the proof
    is that of `FloatFormat.reciprocal_shift`.

    Parameters
    ----------
    bits : width of the integer, at most `precision` + 1
    form : of the number and the result
    a_bits, b_bits : widths of the pieces of the integer's significand and the reciprocal

    Members
    -------
    i : in, signed integer
        A new one in each cycle.
    d : in, number
        The divisor. It and `reciprocal` must not change until the results of all integers are out.
    reciprocal : in, bits
        Its long reciprocal, as `FloatDivide` makes it.
    o : out, number
        The quotient, `latency` cycles after its integer; not finite if `d` is zero or not finite.
    """

    i: Signal
    d: Any
    reciprocal: Signal
    o: Any
    latency = 3 + 1 + PRODUCT_CYCLES + ROUND_PRODUCT_CYCLES
    """Cycles from integer to result: convert, pick operands, multiply, round."""

    def __init__(
        self, bits: int, form: FloatFormat = FLOAT32, *, a_bits: int = 18, b_bits: int = 18
    ) -> None:
        if not 2 <= bits <= form.precision + 1:
            raise ConfigError(f"bits must be 2 to {form.precision + 1}, not {bits}")
        self.bits, self.form, self.a_bits, self.b_bits = bits, form, a_bits, b_bits
        number = float_layout(form)
        super().__init__(
            {
                "i": In(signed(bits)),
                "d": In(number),
                "reciprocal": In(form.reciprocal_bits),
                "o": Out(number),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        form, d = self.form, self.d
        p = form.precision
        m.submodules.convert = convert = IntToFloat(self.bits, form)
        m.d.comb += convert.i.eq(self.i)
        x = convert.o
        # The low bits of the significand of a small integer are zero, and are left out.
        used = min(p, self.bits - 1)
        a = register(m, significand(x)[p - used :])
        exponent = register(m, x.exponent - d.exponent + (form.bias - 1), exponent_shape(form))
        marks = register(m, Cat(x.sign ^ d.sign, is_finite(d) & d.exponent.any()))
        exact = product(m, a, self.reciprocal, self.a_bits, self.b_bits)
        exponent = delay(m, exponent, PRODUCT_CYCLES, reset_less=True)
        sign, finite = delay(m, marks, PRODUCT_CYCLES, reset_less=True)
        # The quotient is less than 2, so the top bit, which has that weight, is always zero.
        pattern = round_product(m, form, exact[:-1], exponent, sign, finite)
        m.d.comb += self.o.as_value().eq(pattern)
        return m
