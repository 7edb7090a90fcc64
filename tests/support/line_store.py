"""A memory of lines for tests: RAM behind the contract of `LineStore`, with seeded pauses.

Importing it registers the memory `test-lines`.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.memory import Memory as Ram

from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.memories.line_contract import LineStore
from tritloom.rtl.memories.line_facts import LineFormat, LineRecord
from tritloom.rtl.memories.lines import LineMemory
from tritloom.rtl.spec.plugins import LAYOUT, Config, memories

PAUSE_BITS = 16


class RamStore(LineStore):
    """Lines in RAM, a beat a cycle from the cycle after a range, or with pauses on every stream.

    A line is void from the line `fails_at` on, if that is not None.
    """

    LATENCY = 1

    def __init__(self, line_format: LineFormat, pauses: bool, fails_at: int | None) -> None:
        self.pauses, self.fails_at = pauses, fails_at
        super().__init__(line_format)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sizes = self.format
        m.submodules.ram = ram = Ram(shape=sizes.line_bits, depth=sizes.lines, init=())
        write, read = ram.write_port(), ram.read_port(domain="comb")
        # A register of Galois form; three of its bits pause the three streams.
        noise = Signal(PAUSE_BITS, init=1)
        m.d.sync += noise.eq(Cat(noise[1:], 0) ^ (noise[0].replicate(PAUSE_BITS) & 0xB400))
        awake = Signal(3, init=7)
        m.d.comb += awake.eq(Cat(noise[0], noise[5], noise[9]) if self.pauses else 7)

        line, left = Signal(bits_for(sizes.lines)), Signal(bits_for(sizes.lines))
        beat = Signal(range(sizes.line_beats))
        shown = Signal()  # a beat that was offered stays
        failed = Signal()
        moves = self.o.valid & self.o.ready
        last = beat == sizes.line_beats - 1
        m.d.comb += [
            self.i_write.ready.eq(awake[0]),
            write.en.eq(self.i_write.valid & awake[0]),
            write.addr.eq(self.i_write.payload.line),
            write.data.eq(self.i_write.payload.data),
            self.i_read.ready.eq(awake[1] & ((left == 0) | ((left == 1) & moves & last))),
            read.addr.eq(line),
            self.o.valid.eq((left != 0) & (awake[2] | shown)),
            self.o.payload.data.eq(read.data.word_select(beat, sizes.beat_bits)),
            self.o.payload.error.eq(failed),
        ]
        if self.fails_at is not None:
            m.d.comb += failed.eq(line >= self.fails_at)
        m.d.sync += shown.eq(self.o.valid & ~self.o.ready)
        with m.If(moves):
            m.d.sync += beat.eq(beat + 1)
            with m.If(last):
                m.d.sync += [beat.eq(0), line.eq(line + 1), left.eq(left - 1)]
        with m.If(self.i_read.valid & self.i_read.ready):
            m.d.sync += [line.eq(self.i_read.payload.line), left.eq(self.i_read.payload.count)]
        return m


@dataclass(frozen=True, kw_only=True)
class TestLines(LineRecord):
    """Lines of any size."""

    __test__: ClassVar[bool] = False
    name: ClassVar[str] = "test-lines"
    component: ClassVar[str] = "tests.support.line_store:RamMemory"
    can_fail: ClassVar[bool] = True

    line_bits: int = field(metadata=LAYOUT)
    beat_bits: int
    pauses: bool = False
    fails_at: int | None = None

    def line_sizes(self, config: Config) -> tuple[int, int]:
        return self.line_bits, self.beat_bits


class RamMemory(LineMemory):
    """`LineMemory` before a `RamStore`."""

    def create_store(self) -> RamStore:
        record = self.config.memory
        assert isinstance(record, TestLines)
        return RamStore(self.format, record.pauses, record.fails_at)


memories.add(TestLines)
