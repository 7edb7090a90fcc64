"""From weight words that are written to whole lines."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.constant_product import constant_product
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.memories.line_contract import line_write_layout, word_write_layout
from tritloom.rtl.memories.line_facts import LineFormat

__all__ = ["LineWriter"]


class LineWriter(wiring.Component):
    """Gathers weight words into whole lines, so that the memory needs no masks.

    Words that follow each other share lines. The first of them must be the first of a block. A line
    that is not full goes out when a word comes that does not follow, or on `flush`; its rest is 0.

    A word moves into lines `unit` bits a cycle, the greatest common divisor of word and line: one
    shift by a constant instead of a shifter. Words come from a packet at most a byte a cycle, so
    this is as fast wherever a unit has a byte or more.

    Members
    -------
    i : in, stream of `word_write_layout`
    flush : in, 1 bit
        A line that is not full goes out. Stays set until `idle`.
    idle : out, 1 bit
        Every word has left in a line that has been transferred.
    o : out, stream of `line_write_layout`
    """

    i: stream.Interface
    flush: Signal
    idle: Signal
    o: stream.Interface

    def __init__(self, line_format: LineFormat) -> None:
        self.format = line_format
        super().__init__(
            {
                "i": In(stream.Signature(word_write_layout(line_format))),
                "flush": In(1),
                "idle": Out(1),
                "o": Out(stream.Signature(line_write_layout(line_format))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.format.block_words > 1:
            self._gather(m)
        elif self.format.block_lines > 1:
            self._cut(m)
        else:
            word = self.i.payload
            m.d.comb += [
                self.i.ready.eq(self.o.ready),
                self.o.valid.eq(self.i.valid),
                self.o.payload.line.eq(word.address),
                self.o.payload.data.eq(word.word),
                self.idle.eq(1),
            ]
        return m

    def _cut(self, m: Module) -> None:
        """Several lines a word, and none that two words share."""
        sizes = self.format
        word = Signal(sizes.word_bits, reset_less=True)
        lines = Signal(range(sizes.block_lines + 1))  # of the word, not transferred yet
        number = Signal(bits_for(sizes.lines), reset_less=True)  # of the next one
        m.d.comb += [
            self.idle.eq(lines == 0),
            self.i.ready.eq(self.idle),
            self.o.valid.eq(~self.idle),
            self.o.payload.line.eq(number),
            self.o.payload.data.eq(word[: sizes.line_bits]),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                word.eq(self.i.payload.word),
                lines.eq(sizes.block_lines),
                number.eq(constant_product(self.i.payload.address, sizes.block_lines)),
            ]
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += [
                word.eq(word >> sizes.line_bits),
                lines.eq(lines - 1),
                number.eq(number + 1),
            ]

    def _gather(self, m: Module) -> None:
        """Words share lines."""
        sizes = self.format
        unit = sizes.word_bits // sizes.block_lines
        word_units, line_units = sizes.block_lines, sizes.block_words
        address_low = (sizes.block_words - 1).bit_length()

        word = Signal(sizes.word_bits, reset_less=True)
        units = Signal(range(word_units + 1))  # of the word, not in a line yet
        line = Signal(sizes.line_bits, reset_less=True)  # units enter at the top
        filled = Signal(range(line_units + 1))  # units in the line
        number = Signal(bits_for(sizes.lines))  # of the line
        following = Signal(bits_for(sizes.words))  # address of the word that shares the line
        full = Signal()
        rests = Signal()  # no unit of a word waits
        apart = Signal()  # the next word does not follow
        pads = Signal()  # the line is filled up
        moves = Signal()  # a unit enters the line
        address = self.i.payload.address
        m.d.comb += [
            full.eq(filled == line_units),
            rests.eq(units == 0),
            apart.eq(address != following),
            pads.eq(rests & (filled != 0) & ~full & ((self.i.valid & apart) | self.flush)),
            moves.eq(pads | (~rests & (~full | self.o.ready))),
            self.idle.eq(rests & (filled == 0)),
            self.o.valid.eq(full),
            self.o.payload.line.eq(number),
            self.o.payload.data.eq(line),
            # A word that does not follow waits for the line, whose number would change.
            self.i.ready.eq(rests & (~apart | (filled == 0))),
        ]
        with m.If(full & self.o.ready):
            m.d.sync += [filled.eq(moves), number.eq(number + 1)]
        with m.Elif(moves):
            m.d.sync += filled.eq(filled + 1)
        with m.If(moves):
            entering = word[:unit] & ~rests.replicate(unit)
            m.d.sync += [line.eq(Cat(line, entering)[unit:]), word.eq(word >> unit)]
            with m.If(~rests):
                m.d.sync += units.eq(units - 1)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                word.eq(self.i.payload.word),
                units.eq(word_units),
                following.eq(address + 1),
            ]
            with m.If(apart):
                block = address[address_low:]
                m.d.sync += number.eq(constant_product(block, sizes.block_lines))
