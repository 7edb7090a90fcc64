"""A weight memory that moves lines, behind the contract of weight words."""

from abc import abstractmethod

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Member, connect, flipped

from tritloom.rtl.lib.constant_product import constant_product
from tritloom.rtl.lib.ports import forward_port
from tritloom.rtl.lib.streams import StreamRegister, bits_for
from tritloom.rtl.memories.contract import WeightMemory
from tritloom.rtl.memories.line_contract import LineStore, line_range_layout
from tritloom.rtl.memories.line_facts import LineFormat, LineRecord
from tritloom.rtl.memories.line_reader import LineReader, words_layout
from tritloom.rtl.memories.line_writer import LineWriter
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError

__all__ = ["LineMemory"]


class LineMemory(WeightMemory):
    """Base of the weight memories whose line is not a weight word.

    It turns ranges of words into ranges of lines, beats into words (`LineReader`), and words that
    are written into whole lines (`LineWriter`). Neither loses a cycle in which a beat can come.

    A word that is written must follow the word before it, or be the first of a block. A range waits
    until all lines are written.

    Parameters
    ----------
    config : the accelerator's configuration; its memory is a `LineRecord`
    pads : those of the `LineStore`; they are forwarded

    Members: see `WeightMemory`.
    """

    def __init__(self, config: AcceleratorConfig, pads: dict[str, Member] | None = None) -> None:
        record = config.memory
        if not isinstance(record, LineRecord):
            raise ConfigError(f"memory {record.name!r} is not made from LineRecord")
        self.format: LineFormat = record.line_format(config)
        self._store_pads = pads or {}
        super().__init__(config, pads)

    @abstractmethod
    def create_store(self) -> LineStore:
        """What moves the lines, of the format `self.format`."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.store = store = self.create_store()
        m.submodules.writer = writer = LineWriter(self.format)
        m.submodules.reader = reader = LineReader(self.format)
        for name, member in self._store_pads.items():
            forward_port(m, getattr(self, name), getattr(store, name), member)
        connect(m, flipped(self.i_write), writer.i)
        connect(m, writer.o, store.i_write)
        connect(m, store.o, reader.i)
        m.d.comb += [
            writer.flush.eq(self.i_read.valid),
            self.o.valid.eq(reader.o.valid),
            self.o.payload.eq(reader.o.payload.word),
            self.error.eq(reader.o.payload.error),
            reader.o.ready.eq(self.o.ready),
        ]
        if self.format.block_words == 1:
            self._ask_words(m, writer, store)
        else:
            self._ask_blocks(m, writer, store, reader)
        return m

    def _ask_words(self, m: Module, writer: LineWriter, store: LineStore) -> None:
        """Ask for the lines of whole words."""
        lines = self.format.block_lines
        asked = self.i_read.payload
        m.submodules.ask = ask = StreamRegister(line_range_layout(self.format))
        connect(m, ask.o, store.i_read)
        m.d.comb += [
            ask.i.valid.eq(self.i_read.valid & writer.idle),
            ask.i.payload.line.eq(constant_product(asked.address, lines)),
            ask.i.payload.count.eq(constant_product(asked.count, lines)),
            self.i_read.ready.eq(ask.i.ready & writer.idle),
        ]

    def _ask_blocks(
        self, m: Module, writer: LineWriter, store: LineStore, reader: LineReader
    ) -> None:
        """Ask for the lines from a range's first block to its last word; an addition a cycle."""
        sizes = self.format
        word_bits = (sizes.block_words - 1).bit_length()  # of an address: the word in its block
        asked = self.i_read.payload
        added = Signal()  # `end` and what belongs to it are valid
        # Words from the beginning of the first block to the end of the range.
        end = Signal(bits_for(sizes.words), reset_less=True)
        block = Signal(bits_for(sizes.words // sizes.block_words), reset_less=True)
        skip = Signal(word_bits, reset_less=True)
        words = Signal(bits_for(sizes.words), reset_less=True)
        bits = constant_product(end, sizes.block_lines)
        # The store may take the next range while the reader still takes the beats of others.
        m.submodules.ask = ask = StreamRegister(line_range_layout(sizes))
        m.submodules.ranges = ranges = StreamRegister(words_layout(sizes))
        connect(m, ask.o, store.i_read)
        connect(m, ranges.o, reader.i_range)
        m.d.comb += [
            self.i_read.ready.eq(~added & writer.idle),
            ask.i.valid.eq(added & ranges.i.ready),
            ask.i.payload.line.eq(constant_product(block, sizes.block_lines)),
            ask.i.payload.count.eq((bits + sizes.block_words - 1) >> word_bits),
            ranges.i.valid.eq(added & ask.i.ready),
            ranges.i.payload.skip.eq(skip),
            ranges.i.payload.words.eq(words),
            ranges.i.payload.beats.eq(ask.i.payload.count * sizes.line_beats),
        ]
        with m.If(self.i_read.valid & self.i_read.ready):
            m.d.sync += [
                added.eq(1),
                end.eq(asked.address[:word_bits] + asked.count),
                block.eq(asked.address[word_bits:]),
                skip.eq(asked.address),
                words.eq(asked.count),
            ]
        with m.If(added & ask.i.ready & ranges.i.ready):
            m.d.sync += added.eq(0)
