"""Decoders of weight codes to trits, for engines that select by trit.

Contract: ``i`` is one code; ``nonzero`` and ``negative``, one bit a trit, follow
``Encoding.decoder_cycles`` (at least 1) later. One code in every cycle; no state but the pipeline.
"""

from amaranth.hdl import Array, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Base3x5Decoder(wiring.Component):
    """``base3x5``: byte Σ (tᵢ+1)·3^i → five trits, two digits peeled off by comparison first.

    A byte above 242 is no code; its trits are unspecified.

    Members
    -------
    i : code, 8 bits
    nonzero, negative : 5 bits each, trit 0 in bit 0; ``negative`` only where ``nonzero``
    """

    CYCLES = 3

    i: Signal
    nonzero: Signal
    negative: Signal

    def __init__(self) -> None:
        super().__init__({"i": In(8), "nonzero": Out(5), "negative": Out(5)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Peeling the two high digits leaves 0..26: five bits, one small table for three digits.
        rest: Signal = self.i
        peeled: list[Signal] = []
        for weight in (81, 27):
            digit = Signal(2, reset_less=True)
            remainder = Signal(range(weight), reset_less=True)
            with m.If(rest >= 2 * weight):
                m.d.sync += [digit.eq(2), remainder.eq(rest - 2 * weight)]
            with m.Elif(rest >= weight):
                m.d.sync += [digit.eq(1), remainder.eq(rest - weight)]
            with m.Else():
                m.d.sync += [digit.eq(0), remainder.eq(rest)]
            delayed = [Signal(2, name="delayed", reset_less=True) for _ in peeled]
            m.d.sync += [late.eq(early) for late, early in zip(delayed, peeled, strict=True)]
            peeled, rest = [digit, *delayed], remainder

        for position, digit in enumerate(peeled, start=3):
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
