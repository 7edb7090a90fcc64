"""The `base3x5` decoder, and the contract of every decoder of weight codes to trits.

An engine that selects by trit has one decoder for each code of a weight word. A decoder takes a
code at `i` in every cycle. `Encoding.decoder_cycles` (at least 1) later, `nonzero` and `negative`
hold one bit for each of its trits. It has no state but its pipeline.
"""

from amaranth.hdl import Array, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Base3x5Decoder(wiring.Component):
    """Decodes `base3x5`: a byte Σ (tᵢ+1)·3^i holds five trits tᵢ.

    The first two stages find the two highest digits by comparison and subtract them. The rest is
    less than 27, five bits; the third stage looks up its three digits in tables of one LUT a bit.

    A byte above 242 is no code; its trits are unspecified.

    Members
    -------
    i : in, 8 bits
        A code.
    nonzero : out, 5 bits
        Which trits are not 0, trit 0 in bit 0, `CYCLES` after the code.
    negative : out, 5 bits
        Which trits are −1, in the same cycle.
    """

    CYCLES = 3
    """Cycles from a code to its trits."""

    i: Signal
    nonzero: Signal
    negative: Signal

    def __init__(self) -> None:
        super().__init__({"i": In(8), "nonzero": Out(5), "negative": Out(5)})

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
