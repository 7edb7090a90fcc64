"""Ranges of lines of an SDRAM, cut at the ends of pages."""

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.memories.sdram_parts import SdramPart

__all__ = ["PageSplitter", "segment_layout", "whole_range_layout"]


def segment_layout(part: SdramPart) -> data.StructLayout:
    """Consecutive lines of one page.

    Members
    -------
    first : number of the first line in the page
    bank, row : the page; pages go round the banks, so that the next one has another bank
    left : number of lines, at least 1
    """
    return data.StructLayout(
        {
            "first": Shape(part.page_bits),
            "bank": Shape(part.bank_bits),
            "row": Shape(part.row_bits),
            "left": Shape(part.page_bits + 1),
        }
    )


def whole_range_layout(part: SdramPart) -> data.StructLayout:
    """A range of lines: the first one and how many, at least 1."""
    bits = part.line_address_bits
    return data.StructLayout({"line": Shape(bits), "count": Shape(bits + 1)})


class PageSplitter(wiring.Component):
    """Cuts ranges of lines into segments, each of which lies in one page.

    A segment comes two cycles after the range or the segment before it: one cycle computes the
    lines to the page's end.

    Parameters
    ----------
    part : the chip

    Members
    -------
    i : in, stream of `whole_range_layout`
    o : out, stream of `segment_layout`
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, part: SdramPart) -> None:
        self._part = part
        super().__init__(
            {
                "i": In(stream.Signature(whole_range_layout(part))),
                "o": Out(stream.Signature(segment_layout(part))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        low = self._part.page_bits
        bits = self._part.line_address_bits
        line = Signal(bits, reset_less=True)
        left = Signal(bits + 1, reset_less=True)
        busy = Signal()
        known = Signal()  # `to_end` and `ends` belong to `line` and `left`
        to_end = Signal(low + 1, reset_less=True)
        ends = Signal(reset_less=True)  # the range ends in this page
        first = line[:low]
        m.d.comb += [
            self.i.ready.eq(~busy),
            self.o.valid.eq(known),
            self.o.payload.first.eq(first),
            self.o.payload.bank.eq(line[low:]),
            self.o.payload.row.eq(line[low + self._part.bank_bits :]),
            self.o.payload.left.eq(Mux(ends, left, to_end)),
        ]
        with m.If(busy & ~known):
            m.d.sync += [
                known.eq(1),
                to_end.eq((1 << low) - first),
                ends.eq(left <= (1 << low) - first),
            ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [
                known.eq(0),
                busy.eq(~ends),
                left.eq(left - to_end),
                line.eq(Cat(Const(0, low), (line[low:] + 1)[: bits - low])),
            ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                busy.eq(1),
                line.eq(self.i.payload.line),
                left.eq(self.i.payload.count),
            ]
        return m
