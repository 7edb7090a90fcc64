"""Finds the clock phase at which the data of an SDRAM is read right."""

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.memories.sdram_facts import PHASES, SCAN_LINES
from tritloom.rtl.memories.sdram_parts import BURST, SdramPart

__all__ = ["PATTERN", "PhaseScan", "pattern_word"]

PATTERN = 0b1111_0101_1001_0000
"""A sequence of De Bruijn, column 0 lowest: moved by 1 to 15 columns it is another one."""
PATTERN_COLUMNS = 16


def pattern_word(place: Value, bits: int) -> Value:
    """The pattern's word in a column: the bits alternate, and the sequence inverts all of them.

    Parameters
    ----------
    place : number of the column, counted over the lines
    bits : of a column
    """
    place = place[: (PATTERN_COLUMNS - 1).bit_length()]
    inverted = Const(PATTERN, PATTERN_COLUMNS).bit_select(place, 1)
    return Cat(inverted ^ (bit & 1) for bit in range(bits))


class PhaseScan(wiring.Component):
    """Writes a pattern after power-up, and reads it at each phase until it has found the right one.

    The pattern fills `SCAN_LINES` lines from line 0 on, and is read in one range. The first phase
    at which all columns are right begins the window. The window's last phase is kept: data is valid
    for less than a cycle, so the window has one phase or two. Of two, the later one has at least
    half a cycle before it, in which data may become later as the chips grow warm.

    The pattern tells columns that are a cycle early or late from the right ones, so phases that are
    whole cycles apart cannot both be right.

    Parameters
    ----------
    part : the chip

    Members
    -------
    busy : out, 1 bit; the scan goes on, and the store has its requests from here alone
    failed : out, 1 bit; the scan has ended, and no phase was right
    phase : out, from 0 to `PHASES` - 1; the half cycles by which data is taken later than at the
        first phase
    writes : out, 1 bit; a line of the pattern is to be written
    wrote : in, 1 bit; it has been
    reads : out, 1 bit; the lines are to be read
    accepted : in, 1 bit; the range has been taken
    line : out; the line to write, 0 for the range
    word : out; the pattern's word in column `column` of `line`
    column : in; of the line that is written
    valid, data : in; a column that was read
    """

    busy: Signal
    failed: Signal
    phase: Signal
    writes: Signal
    wrote: Signal
    reads: Signal
    accepted: Signal
    line: Signal
    word: Signal
    column: Signal
    valid: Signal
    data: Signal

    def __init__(self, part: SdramPart) -> None:
        super().__init__(
            {
                "busy": Out(1, init=1),
                "failed": Out(1),
                "phase": Out(range(PHASES)),
                "writes": Out(1),
                "wrote": In(1),
                "reads": Out(1),
                "accepted": In(1),
                "line": Out(range(SCAN_LINES)),
                "word": Out(part.data_bits),
                "column": In(range(BURST)),
                "valid": In(1),
                "data": In(part.data_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line_bits = len(self.line)
        # The columns that were written, or that were read at this phase.
        place = Signal(range(SCAN_LINES * BURST))
        wrong = Signal()  # a column of this phase, or the phase before the first one
        found = Signal()  # the phase before this one was right
        m.d.comb += self.word.eq(pattern_word(Cat(self.column, self.line), len(self.word)))
        expected = pattern_word(place, len(self.data))
        differs = Signal()
        m.d.sync += differs.eq(self.valid & (self.data != expected))
        last = place == SCAN_LINES * BURST - 1
        with m.FSM():
            with m.State("WRITE"):
                m.d.comb += [self.writes.eq(1), self.line.eq(place[-line_bits:])]
                with m.If(self.wrote):
                    m.d.sync += place.eq(place + BURST)
                    with m.If(self.line == SCAN_LINES - 1):
                        m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += self.reads.eq(1)
                m.d.sync += wrong.eq(0)
                with m.If(self.accepted):
                    m.next = "READ"
            with m.State("READ"):
                with m.If(differs):
                    m.d.sync += wrong.eq(1)
                with m.If(self.valid):
                    m.d.sync += place.eq(place + 1)
                    with m.If(last):
                        m.next = "LAST"
            with m.State("LAST"):
                with m.If(differs):
                    m.d.sync += wrong.eq(1)
                m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.sync += found.eq(~wrong)
                m.next = "ASK"
                with m.If(wrong & found):  # the phase before was the window's last one
                    m.d.sync += self.phase.eq(self.phase - 1)
                    m.next = "DONE"
                with m.Elif(self.phase == PHASES - 1):
                    m.d.sync += self.failed.eq(wrong)
                    m.next = "DONE"
                with m.Else():
                    m.d.sync += self.phase.eq(self.phase + 1)
            with m.State("DONE"):
                m.d.sync += self.busy.eq(0)
        return m
