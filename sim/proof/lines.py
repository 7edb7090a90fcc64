"""Properties of the adapter between weight words and the lines of a memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Member, Out, connect, flipped

from tritloom.rtl.memories.line_contract import (
    LineStore,
    beat_layout,
    line_range_layout,
    line_write_layout,
)
from tritloom.rtl.memories.line_facts import LineFormat, LineRecord
from tritloom.rtl.memories.lines import LineMemory
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.plugins import Config
from tritloom.sim.proof.formal import Bench, Inside
from tritloom.sim.proof.streams import implies

__all__ = ["OpenLines", "OpenRecord", "line_reads_contract", "line_writes_contract"]

OPEN_RANGES = 2
"""Ranges of lines that the bench's memory takes ahead; a power of two."""
COUNT_BITS = 6
"""Bits of the numbers of words; more words do not come in a proof."""
QUIET_CYCLES = 5
"""Cycles without anything to do after which nothing is on its way inside the adapter."""


@dataclass(frozen=True, kw_only=True)
class OpenRecord(LineRecord):
    """A memory whose lines the bench itself moves."""

    name: ClassVar[str] = "open-lines"
    component: ClassVar[str] = "tritloom.sim.proof.lines:OpenLines"

    line_bits: int
    beat_bits: int

    def line_sizes(self, config: Config) -> tuple[int, int]:
        return self.line_bits, self.beat_bits


def _pads(sizes: LineFormat) -> dict[str, Member]:
    """The streams of the lines, from the adapter's side."""
    return {
        "lines": Out(stream.Signature(line_write_layout(sizes))),
        "ranges": Out(stream.Signature(line_range_layout(sizes))),
        "beats": In(stream.Signature(beat_layout(sizes))),
    }


class OpenStore(LineStore):
    """A line store that is not there: its streams are its pads."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pads: Any = self
        connect(m, flipped(self.i_write), flipped(pads.lines))
        connect(m, flipped(self.i_read), flipped(pads.ranges))
        connect(m, flipped(pads.beats), flipped(self.o))
        return m


class OpenLines(LineMemory):
    """The adapter alone, with the streams of the lines as pads."""

    def __init__(self, config: AcceleratorConfig) -> None:
        record = config.memory
        assert isinstance(record, OpenRecord)
        super().__init__(config, _pads(record.line_format(config)))

    def create_store(self) -> LineStore:
        return OpenStore(self.format, _pads(self.format))


def line_reads_contract(component: OpenLines, most_words: int = 3) -> Bench:
    """A `LineMemory` gives exactly the words of its ranges, in order, void where a beat is.

    The memory takes a range in any cycle and gives the next beat in any cycle. What it holds is
    anything, and so is which beats are void. Assumed: nothing is written, and ranges of 1 to
    `most_words` words lie in the memory.

    The proof follows one word: that with the number `index` among all that were asked for.
    """
    sizes = component.format
    inside = Inside(component)
    driven = ("ranges__ready", "beats__valid", "beats__payload", "i_write__valid")
    bench = Bench(component, inside, driven=driven)
    pads: Any = component
    m, ask, o = bench.m, component.i_read, component.o
    beats = sizes.lines * sizes.line_beats
    content = bench.constant("content", sizes.lines * sizes.line_bits)
    void = bench.constant("void", beats)

    # The memory: ranges in a queue, each as its first beat and the one behind it.
    width = beats.bit_length() + 1
    first = Array(bench.state(f"first_{n}", width) for n in range(OPEN_RANGES))
    behind = Array(bench.state(f"behind_{n}", width) for n in range(OPEN_RANGES))
    bits = OPEN_RANGES.bit_length()
    head, tail, given = (
        bench.state("head", bits),
        bench.state("tail", bits),
        bench.state("given", width),
    )
    queued, place, number, last = Signal(bits), Signal(bits - 1), Signal(width), Signal()
    asked = pads.ranges.payload
    m.d.comb += [
        queued.eq(head - tail),
        place.eq(tail),
        number.eq(first[place] + given),
        last.eq(number + 1 == behind[place]),
        pads.ranges.ready.eq(bench.free("takes") & (queued != OPEN_RANGES)),
        pads.beats.valid.eq((bench.free("gives") | bench.was(pads.beats.valid)) & (head != tail)),
        pads.beats.payload.data.eq(content.word_select(number, sizes.beat_bits)),
        pads.beats.payload.error.eq(void.bit_select(number, 1)),
    ]
    with m.If(pads.ranges.valid & pads.ranges.ready):
        m.d.sync += [
            first[head[: bits - 1]].eq(asked.line * sizes.line_beats),
            behind[head[: bits - 1]].eq((asked.line + asked.count) * sizes.line_beats),
            head.eq(head + 1),
        ]
    with m.If(pads.beats.valid & pads.beats.ready):
        m.d.sync += given.eq(Mux(last, 0, given + 1))
        with m.If(last):
            m.d.sync += tail.eq(tail + 1)

    index = bench.constant("index", COUNT_BITS)
    demanded, delivered = bench.state("demanded", COUNT_BITS), bench.state("delivered", COUNT_BITS)
    source = bench.state("source", len(ask.payload.address))
    words = ask.payload
    bench.assume((words.count >= 1) & (words.count <= most_words))
    bench.assume(words.address + words.count <= sizes.words)
    for held in (words.address, words.count):
        # A range waits unchanged until it is taken.
        bench.assume(implies(bench.was(ask.valid & ~ask.ready), held == bench.was(held)))
    bench.assume(implies(bench.was(ask.valid & ~ask.ready), ask.valid))
    ahead, waiting = Signal(COUNT_BITS), Signal(COUNT_BITS)
    m.d.comb += [ahead.eq(index - demanded), waiting.eq(demanded - delivered)]
    with m.If(ask.valid & ask.ready):
        m.d.sync += demanded.eq(demanded + words.count)
        with m.If(ahead < words.count):
            m.d.sync += source.eq(words.address + ahead)
    with m.If(o.valid & o.ready):
        m.d.sync += delivered.eq(delivered + 1)

    right, spoilt = Signal(sizes.word_bits), Signal()
    with m.Switch(source):
        for word in range(sizes.words):
            begin, end = word * sizes.word_bits, (word + 1) * sizes.word_bits
            through = -(-end // sizes.beat_bits)
            with m.Case(word):
                m.d.comb += [
                    right.eq(content[begin:end]),
                    spoilt.eq(void[begin // sizes.beat_bits : through].any()),
                ]
    tracked = o.valid & (index == delivered) & (waiting != 0)
    bench.check("none_invented", implies(o.valid, waiting != 0))
    bench.check("void", implies(tracked, component.error == spoilt))
    bench.check("order", implies(tracked & ~component.error, o.payload == right))
    bench.check("within", implies(pads.ranges.valid, asked.line + asked.count <= sizes.lines))
    bench.check("some", implies(pads.ranges.valid, asked.count != 0))
    idle = ~ask.valid & ~pads.ranges.valid & (head == tail) & ~o.valid
    quiet = Signal(range(QUIET_CYCLES + 1))
    with m.If(idle & (quiet != QUIET_CYCLES)):
        m.d.sync += quiet.eq(quiet + 1)
    with m.Elif(~idle):
        m.d.sync += quiet.eq(0)
    bench.check("none_lost", implies(quiet == QUIET_CYCLES, waiting == 0))

    begun = bench.state("ranges", 2)
    with m.If(ask.valid & ask.ready & (begun != 3)):
        m.d.sync += begun.eq(begun + 1)
    other = bench.state("other")  # a word of the second range is followed
    with m.If(ask.valid & ask.ready & (begun == 1) & (ahead < words.count)):
        m.d.sync += other.eq(1)
    bench.cover("second_range", tracked & other & ~component.error)
    bench.cover("void_word", tracked & component.error & (index != 0))
    return bench


def line_writes_contract(component: OpenLines) -> Bench:
    """A `LineMemory` stores the words that are written: at the end each lies in its lines.

    The memory takes a line in any cycle. Assumed: a word follows the one before it or begins a
    block, and nothing is written while a range waits, as the contract of weight memories has it.

    The proof follows the word at one address, until the beginning of its block is written anew.
    """
    sizes = component.format
    inside = Inside(component)
    bench = Bench(component, inside, driven=("beats__valid",))
    m, write, ask = bench.m, component.i_write, component.i_read
    lines = component.lines
    where = bench.constant("where", len(write.payload.address))
    bench.assume(where < sizes.words)
    previous = bench.state("previous", len(write.payload.address) + 1)
    address = write.payload.address
    begins = (address & (sizes.block_words - 1)) == 0
    began = bench.state("began")
    bench.assume(address < sizes.words)
    bench.assume(begins | (began & (address == previous + 1)))
    bench.assume(~(write.valid & ask.valid))
    for held in (write.valid, address, write.payload.word):
        bench.assume(implies(bench.was(write.valid & ~write.ready), held == bench.was(held)))
    bench.assume(implies(bench.was(ask.valid & ~ask.ready), ask.valid))
    taken = write.valid & write.ready
    written = bench.state("written")
    value = bench.state("value", sizes.word_bits)
    same_block = (address // sizes.block_words) == (where // sizes.block_words)
    with m.If(taken):
        m.d.sync += [previous.eq(address), began.eq(1)]
        with m.If(begins & same_block):
            m.d.sync += written.eq(0)
        with m.If(address == where):
            m.d.sync += [written.eq(1), value.eq(write.payload.word)]

    stored = [bench.state(f"line_{n}", sizes.line_bits) for n in range(sizes.lines)]
    with m.If(lines.valid & lines.ready), m.Switch(lines.payload.line):
        for number, line in enumerate(stored):
            with m.Case(number):
                m.d.sync += line.eq(lines.payload.data)
    content = Cat(stored)
    kept = Signal(sizes.word_bits)
    with m.Switch(where):
        for word in range(sizes.words):
            with m.Case(word):
                m.d.comb += kept.eq(content[word * sizes.word_bits : (word + 1) * sizes.word_bits])
    asks = ask.valid & ask.ready  # the range is accepted: it must see every word
    bench.check("stored", implies(asks & written, kept == value))
    bench.check("within", implies(lines.valid, lines.payload.line < sizes.lines))
    holds = (
        lines.valid
        & (lines.payload.data == bench.was(lines.payload.data))
        & (lines.payload.line == bench.was(lines.payload.line))
    )
    bench.check("stable", implies(bench.was(lines.valid & ~lines.ready), holds))
    bench.cover("first_of_a_block", asks & written & (where % sizes.block_words == 0))
    bench.cover("last_of_a_block", asks & written & (where == sizes.words - 1))
    return bench
