"""The contract of what moves lines: it writes whole lines, and reads ranges of lines as beats.

A `LineStore` is the part of a weight memory that knows the memory's protocol. A `LineMemory`
(`tritloom.rtl.memories.lines`) stands before it and knows weight words.

* `i_write` takes a whole line a transfer. There are no masks.
* `i_read` takes a range (first line, number of lines ≥ 1). `o` then brings the beats of exactly
  these lines, strictly forward, the lowest bits of a line first. The next range may be accepted
  before the last beat has left.
* Nothing reads and writes at the same time. A range that is accepted after a write sees the line.
"""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Member, Out

from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.memories.line_facts import LineFormat

__all__ = [
    "LineStore",
    "beat_layout",
    "line_members",
    "line_range_layout",
    "line_write_layout",
    "void_word_layout",
    "word_write_layout",
]


def line_range_layout(line_format: LineFormat) -> data.StructLayout:
    """A range of lines: the first one and how many."""
    bits = bits_for(line_format.lines)
    return data.StructLayout({"line": bits, "count": bits})


def line_write_layout(line_format: LineFormat) -> data.StructLayout:
    """A line's number and its bits."""
    return data.StructLayout({"line": bits_for(line_format.lines), "data": line_format.line_bits})


def beat_layout(line_format: LineFormat) -> data.StructLayout:
    """A beat, and whether it is void because the memory failed."""
    return data.StructLayout({"data": line_format.beat_bits, "error": 1})


def word_write_layout(line_format: LineFormat) -> data.StructLayout:
    """A weight word and its address, as `tritloom.rtl.memories.contract` has them."""
    return data.StructLayout(
        {"address": bits_for(line_format.words), "word": line_format.word_bits}
    )


def void_word_layout(line_format: LineFormat) -> data.StructLayout:
    """A weight word, and whether it is void because a beat of it is."""
    return data.StructLayout({"word": line_format.word_bits, "error": 1})


def line_members(line_format: LineFormat) -> dict[str, Member]:
    """The ports of a `LineStore` but for its pads."""
    return {
        "i_write": In(stream.Signature(line_write_layout(line_format))),
        "i_read": In(stream.Signature(line_range_layout(line_format))),
        "o": Out(stream.Signature(beat_layout(line_format))),
    }


class LineStore(wiring.Component):
    """Base of what moves lines; a subclass adds `elaborate`, and pads where it has any.

    Parameters
    ----------
    line_format : sizes of lines, beats and memory
    pads : members beyond the contract; a `LineMemory` forwards them under their own names

    Members
    -------
    i_write : stream in of `line_write_layout`; the line is stored in the cycle of its transfer or
        later, but before any range that is accepted after it
    i_read : stream in of `line_range_layout`; ready when the next range can be accepted
    o : stream out of `beat_layout`; the beats of the accepted ranges in order. A range has all its
        beats, void or not.
    """

    i_write: stream.Interface
    i_read: stream.Interface
    o: stream.Interface

    def __init__(self, line_format: LineFormat, pads: dict[str, Member] | None = None) -> None:
        self.format = line_format
        super().__init__(line_members(line_format) | (pads or {}))
