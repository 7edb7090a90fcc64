"""The decoder of `base3x5` codes."""

from typing import ClassVar

from amaranth.hdl import Array, Const, Module, Signal

from tritloom.rtl.engines.contract import TritDecoder

__all__ = ["Base3x5Decoder"]


class Base3x5Decoder(TritDecoder):
    """Decodes a byte Σ (tᵢ+1)·3^i, which holds five trits tᵢ.

    The first two stages find the two highest digits by comparison and subtract them. The rest is
    less than 27, five bits; the third stage looks up its three digits in tables of one LUT a bit.

    The trits of a byte above 242, which is no code, are unspecified. Members: see `TritDecoder`.
    """

    CYCLES: ClassVar[int] = 3
    """Cycles from a code to its trits."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rest: Signal = self.i
        high_digits: list[Signal] = []  # lower digit first
        for weight in (81, 27):
            digit = Signal(2, reset_less=True)
            remainder = Signal(range(weight), reset_less=True)
            with m.If(rest >= 2 * weight):
                m.d.sync += [digit.eq(2), remainder.eq(rest - 2 * weight)]
            with m.Elif(rest >= weight):
                m.d.sync += [digit.eq(1), remainder.eq(rest - weight)]
            with m.Else():
                m.d.sync += [digit.eq(0), remainder.eq(rest)]
            # A digit of an earlier stage waits for this one.
            delayed = [Signal(2, name="delayed", reset_less=True) for _ in high_digits]
            m.d.sync += [late.eq(early) for late, early in zip(delayed, high_digits, strict=True)]
            high_digits, rest = [digit, *delayed], remainder

        for position, digit in enumerate(high_digits, start=3):
            m.d.sync += [
                self.nonzero[position].eq(digit != 1),
                self.negative[position].eq(digit == 0),
            ]
        for position in range(3):
            digits = [value // 3**position % 3 for value in range(27)] + [1] * 5
            m.d.sync += [
                self.nonzero[position].eq(Array(Const(d != 1, 1) for d in digits)[rest]),
                self.negative[position].eq(Array(Const(d == 0, 1) for d in digits)[rest]),
            ]
        return m
