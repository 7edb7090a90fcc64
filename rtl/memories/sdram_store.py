"""Moves lines to and from a chip of SDR SDRAM."""

from enum import IntEnum
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Member, Out

from tritloom.rtl.memories.line_contract import LineStore
from tritloom.rtl.memories.line_facts import LineFormat
from tritloom.rtl.memories.sdram_facts import FIRST_REFRESHES, PHASE_CYCLES, SCAN_LINES, Sdram
from tritloom.rtl.memories.sdram_pages import PageSplitter, segment_layout
from tritloom.rtl.memories.sdram_parts import BURST, SdramPart
from tritloom.rtl.memories.sdram_scan import PhaseScan
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["ALL_BANKS", "ORDER_CYCLES", "Order", "SdramStore", "sdram_pads"]

ORDER_CYCLES = 2
"""Cycles from the choice of a command to the chip's edge: a register here, and one at the pad."""
DRIVEN_CYCLES = 3
"""Cycles for which the data pins are driven behind a written line, so that the output enable's
register may be later than those of the data."""
ALL_BANKS = 1 << 10
"""The address bit by which PRECHARGE closes all banks."""
QUEUE = 32
"""Beats that wait for the adapter; with one more in the queue's output register."""


class Order(IntEnum):
    """A command of the chip: `ras_n`, `cas_n`, `we_n`, the first one highest."""

    NOTHING = 0b111
    ACTIVE = 0b011
    READ = 0b101
    WRITE = 0b100
    PRECHARGE = 0b010
    REFRESH = 0b001
    MODE = 0b000


def sdram_pads(part: SdramPart) -> dict[str, Member]:
    """The pads, by the names that `Sdram.pins` explains."""
    return {
        "sdram_cke": Out(1),
        "sdram_ras_n": Out(1, init=1),
        "sdram_cas_n": Out(1, init=1),
        "sdram_we_n": Out(1, init=1),
        "sdram_bank": Out(part.bank_bits),
        "sdram_address": Out(max(part.row_bits, ALL_BANKS.bit_length())),
        "sdram_dqm": Out(part.data_bits // 8, init=-1),
        "sdram_dq_i": In(part.data_bits),
        "sdram_dq_i_fall": In(part.data_bits),
        "sdram_dq_o": Out(part.data_bits),
        "sdram_dq_oe": Out(1),
    }


class Timer:
    """Counts cycles down to 0; `ended` is a register, so that a choice may depend on it.

    Parameters
    ----------
    m : module that the counter is added to
    name : name of the signals
    most : the most cycles of `start`
    """

    def __init__(self, m: Module, name: str, most: int) -> None:
        self._value = Signal(range(max(2, most)), name=f"{name}_left", reset_less=True)
        self.ended = Signal(name=f"{name}_ended", init=1)
        with m.If(~self.ended):
            m.d.sync += [self._value.eq(self._value - 1), self.ended.eq(self._value == 1)]

    def start(self, cycles: int) -> list[Any]:
        """Statements of a cycle after which `ended` is 1 again that many cycles later."""
        if cycles <= 1:
            return [self.ended.eq(1)]
        return [self._value.eq(cycles - 1), self.ended.eq(0)]


class SdramStore(LineStore):
    """Streams lines in bursts, and opens the next page behind the current one.

    A *segment* is what a range reads in one page. Two of them are held: `current`, whose page is
    open, and `upcoming`. A READ goes out every 8 cycles, as long as a burst lasts. The cycles
    between serve ACTIVE of `upcoming` and PRECHARGE of the page before, whose bank first is
    `leaving` (its last burst lasts) and then `closing`.

    Each cycle sends at most one command, in this order: READ or WRITE, ACTIVE, PRECHARGE. A
    comparison of banks or rows takes a cycle of its own: `settled` is 0 where its result is not
    known yet. tRC and tRAS need no timers of banks: a burst lies between ACTIVE and PRECHARGE
    (`Sdram.check`).

    AUTO REFRESH comes in groups: `hold` stops the stream after a burst, all banks are closed, and
    the current page is opened again. After power-up the same sequence, with MODE at its end,
    initialises the chip.

    A written line is a segment of one line. It begins only when no beat of a read line is left.

    After power-up a `PhaseScan` writes and reads the chip and chooses at which half cycle data is
    taken. Until then the store takes nothing; if no phase is right, all beats are void.

    Parameters
    ----------
    record : the part, and how it is used
    config : says the clock
    line_format : of the lines

    Members (beside `LineStore`)
    -------
    the pads : see `Sdram.pins`. The chip sees an output a cycle later, from the register at the
        pad; more cycles do no harm, if they are the same for all pads. `sdram_dq_i` is what the
        pads had at the last rising edge but one, `sdram_dq_i_fall` what they had half a cycle
        later; more cycles do no harm here either.
    """

    def __init__(self, record: Sdram, config: AcceleratorConfig, line_format: LineFormat) -> None:
        self.record = record
        self.part = record.chip
        self.cycles = record.cycles(config)
        self.group = record.group(config)
        self.interval = record.interval(config)
        self.scan = PhaseScan(self.part)
        super().__init__(line_format, sdram_pads(self.part))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.sdram_cke.eq(1)
        self._order, self._bank, self._address = (
            Signal(3, name="order", init=Order.NOTHING),
            Signal(self.part.bank_bits, name="bank"),
            Signal(len(self.sdram_address), name="address"),
        )
        m.d.comb += self._order.eq(Order.NOTHING)
        m.d.sync += [
            Cat(self.sdram_we_n, self.sdram_cas_n, self.sdram_ras_n).eq(self._order),
            self.sdram_bank.eq(self._bank),
            self.sdram_address.eq(self._address),
        ]
        m.submodules.scan = self.scan
        sent = Signal()  # a READ or WRITE is chosen in this cycle
        writing = Signal()  # the segments are of a written line
        room, quiet = self._queue_beats(m, sent & ~writing)
        self._put_beats(m, sent & writing, writing)
        segments = self._ask(m, writing, quiet)
        self._schedule(m, segments, sent, writing, room)
        return m

    def _send(self, order: Order, bank: Any = 0, address: Any = 0) -> list[Any]:
        """The statements that choose a command."""
        return [self._order.eq(order), self._bank.eq(bank), self._address.eq(address)]

    def _ask(self, m: Module, writing: Signal, quiet: Value) -> Any:
        """The stream of segments, of ranges and of written lines."""
        m.submodules.pages = pages = PageSplitter(self.part)
        idle = Signal()  # no segment is left
        self._idle = idle
        begins = Signal()
        scan, write, read = self.scan, self.i_write, self.i_read
        m.d.comb += [
            begins.eq(Mux(scan.busy, scan.writes, write.valid) & ~writing & idle & quiet),
            pages.i.valid.eq(Mux(scan.busy, scan.reads, read.valid) & ~writing | begins),
            read.ready.eq(pages.i.ready & ~writing & ~begins & ~scan.busy),
            scan.accepted.eq(pages.i.ready),
            pages.i.payload.line.eq(Mux(begins, write.payload.line, read.payload.line)),
            pages.i.payload.count.eq(Mux(begins, 1, read.payload.count)),
        ]
        with m.If(scan.busy):
            m.d.comb += pages.i.payload.line.eq(scan.line)
            with m.If(~begins):
                m.d.comb += pages.i.payload.count.eq(SCAN_LINES)
        with m.If(begins & pages.i.ready):
            m.d.sync += writing.eq(1)
        self._pages_ready = pages.i.ready
        return pages.o

    def _put_beats(self, m: Module, sent: Value, writing: Signal) -> None:
        """Bring the columns of a written line to the pads, the first one with the command."""
        bits = self.part.data_bits
        scan = self.scan
        beat = Signal(range(BURST))
        driven = Signal(DRIVEN_CYCLES)  # a bit for each cycle since a line was written
        column = self.i_write.payload.data.word_select(beat, bits)
        # Nobody else drives the pins while `writing`: all columns that were asked for have come.
        m.d.sync += [
            self.sdram_dq_o.eq(Mux(scan.busy, scan.word, column)),
            driven.eq(Cat(writing, driven)),
            self.sdram_dq_oe.eq(writing | driven.any()),
        ]
        with m.If(sent | (beat != 0)):
            m.d.sync += beat.eq(beat + 1)
        last = beat == BURST - 1
        m.d.comb += [
            self.i_write.ready.eq(last & ~scan.busy),
            scan.column.eq(beat),
            scan.wrote.eq(last),
        ]
        with m.If(last):
            m.d.sync += writing.eq(0)

    def _queue_beats(self, m: Module, sent: Value) -> tuple[Value, Value]:
        """Take the columns that READs bring.

        Returns
        -------
        `room` : a READ's columns have room; computed a cycle late, as READs are 8 cycles apart
        `quiet` : no column is on its way or waits
        """
        bits = self.part.data_bits
        m.submodules.beats = queue = SyncFIFOBuffered(width=bits, depth=QUEUE + 1)
        free = Signal(range(QUEUE + 1), init=QUEUE)  # columns not promised to a READ
        room, quiet = Signal(), Signal()
        taken = queue.r_en & queue.r_rdy
        m.d.sync += [
            free.eq(free - Mux(sent, BURST, 0) + taken),
            room.eq(free >= BURST),
            quiet.eq((free == QUEUE) & ~sent),
        ]
        # The first column is in the pad's register `delay` cycles after READ was chosen, and the
        # whole cycles of the phase.
        delay = ORDER_CYCLES + self.record.cas + 1
        passed = Signal(delay - 2 + PHASE_CYCLES, reset_less=True)
        left = Signal(range(BURST))
        comes = Signal(reset_less=True)
        scan = self.scan
        m.d.sync += [
            passed.eq(Cat(sent, passed)),
            comes.eq(passed[delay - 2 :].bit_select(scan.phase[1:], 1)),
        ]
        with m.If(comes):
            m.d.sync += left.eq(BURST - 1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        m.d.comb += [
            queue.w_en.eq(comes | (left != 0)),
            queue.w_data.eq(Mux(scan.phase[0], self.sdram_dq_i_fall, self.sdram_dq_i)),
            self.o.valid.eq(queue.r_rdy & ~scan.busy),
            self.o.payload.data.eq(queue.r_data),
            self.o.payload.error.eq(scan.failed),
            queue.r_en.eq(self.o.ready | scan.busy),
            scan.valid.eq(queue.r_rdy & scan.busy),
            scan.data.eq(queue.r_data),
        ]
        return room, quiet

    def _schedule(
        self, m: Module, segments: Any, sent: Signal, writing: Signal, room: Value
    ) -> None:
        """Choose the command of each cycle."""
        t = self.cycles
        layout = segment_layout(self.part)
        hold = Signal(init=1)  # no command but those of `_refresh`
        opening = Timer(m, "opening", t.rcd)  # from ACTIVE, until the page can be read
        open_long = Timer(m, "open_long", t.ras)  # from ACTIVE, until any page can be closed
        burst = Timer(m, "burst", BURST)  # from READ or WRITE
        recovery = Timer(m, "recovery", BURST + t.wr)  # from WRITE, until the page can be closed
        closed = Timer(m, "closed", t.rp)  # from PRECHARGE, until any page can be opened
        current = Signal(layout, reset_less=True)
        upcoming = Signal(layout, reset_less=True)
        has_current, has_upcoming = Signal(), Signal()
        ready = Signal()  # the current page can be read
        last = Signal(reset_less=True)  # one line of `current` is left
        is_open = Signal()  # the page of `upcoming` is open
        leaving, closing = Signal(), Signal()
        leaving_bank = Signal(self.part.bank_bits, reset_less=True)
        closing_bank = Signal(self.part.bank_bits, reset_less=True)
        opens, moves, ends, takes = Signal(), Signal(), Signal(), Signal()
        closes_all, reopens = Signal(), Signal()  # chosen by `_refresh`

        settled, conflict, same_page = Signal(), Signal(), Signal()
        same_bank = current.bank == upcoming.bank
        m.d.sync += [
            settled.eq(~takes & ~moves & ~reopens),
            conflict.eq(
                (has_current & same_bank)
                | (leaving & (leaving_bank == upcoming.bank))
                | (closing & (closing_bank == upcoming.bank))
            ),
            same_page.eq(has_current & same_bank & (current.row == upcoming.row)),
        ]
        continues = has_upcoming & settled & same_page
        m.d.comb += [
            self._idle.eq(~has_current & ~has_upcoming & ~segments.valid & self._pages_ready),
            takes.eq(segments.valid & ~has_upcoming),
            segments.ready.eq(~has_upcoming),
            sent.eq(ready & burst.ended & (room | writing) & ~hold),
            ends.eq(sent & last),
            opens.eq(
                has_upcoming
                & settled
                & ~is_open
                & ~conflict
                & opening.ended
                & closed.ended
                & ~hold
                & ~sent
            ),
            moves.eq((ends & (continues | is_open)) | (opens & ~has_current)),
        ]

        shuts = Signal()
        m.d.comb += shuts.eq(closing & recovery.ended & ~hold & ~sent & ~opens)
        with m.If(shuts):
            m.d.sync += [closing.eq(0), *closed.start(t.rp)]
        with m.If(burst.ended & leaving):
            m.d.sync += [leaving.eq(0), closing.eq(1), closing_bank.eq(leaving_bank)]

        # The segments move up.
        with m.If(has_current & opening.ended & ~hold):
            m.d.sync += ready.eq(1)
        with m.If(takes):
            m.d.sync += [has_upcoming.eq(1), upcoming.eq(segments.payload)]
        with m.If(sent):
            m.d.sync += [
                *burst.start(BURST),
                current.first.eq(current.first + 1),
                current.left.eq(current.left - 1),
                last.eq(current.left == 2),
            ]
            with m.If(writing):
                m.d.sync += recovery.start(BURST - 1 + t.wr)
        with m.If(opens):
            m.d.sync += [*opening.start(t.rcd - 1), *open_long.start(t.ras), is_open.eq(1)]
        with m.If(ends & ~continues):
            m.d.sync += [
                leaving.eq(1),
                leaving_bank.eq(current.bank),
                has_current.eq(is_open),
                ready.eq(is_open & opening.ended),
            ]
        with m.If(moves):
            m.d.sync += [
                has_current.eq(1),
                current.eq(upcoming),
                last.eq(upcoming.left == 1),
                has_upcoming.eq(0),
                is_open.eq(0),
            ]

        # The command.
        column = Cat(Const(0, (BURST - 1).bit_length()), current.first)
        with m.If(sent):
            m.d.comb += self._send(Order.READ, current.bank, column)
            with m.If(writing):
                m.d.comb += self._order.eq(Order.WRITE)
        with m.Elif(opens):
            m.d.comb += self._send(Order.ACTIVE, upcoming.bank, upcoming.row)
        with m.Elif(shuts):
            m.d.comb += self._send(Order.PRECHARGE, closing_bank)

        finished = Signal()
        m.d.comb += finished.eq(burst.ended & recovery.ended & open_long.ended)
        reopens_page = self._refresh(m, hold, finished, closes_all)
        m.d.comb += reopens.eq(reopens_page & has_current)
        with m.If(reopens):
            m.d.comb += self._send(Order.ACTIVE, current.bank, current.row)
        with m.If(closes_all):
            m.d.sync += [ready.eq(0), is_open.eq(0), leaving.eq(0), closing.eq(0)]
        with m.If(reopens):
            m.d.sync += [*opening.start(t.rcd - 1), *open_long.start(t.ras)]

    def _refresh(self, m: Module, hold: Signal, finished: Value, closes_all: Signal) -> Value:
        """Initialise the chip, and refresh it whenever a group is due.

        Parameters
        ----------
        hold : driven here; no other command is sent
        finished : all banks can be closed
        closes_all : driven here; PRECHARGE of all banks is chosen in this cycle

        Returns
        -------
        Whether the last refresh has ended in this cycle: a page can be opened.
        """
        t = self.cycles
        interval = self.interval
        until = Signal(range(max(t.init, interval) + 1), init=t.init)  # cycles to the next group
        due = Signal()
        m.d.sync += [due.eq(until == 1), until.eq(Mux(due, interval - 1, until - 1))]
        count = Signal(range(max(FIRST_REFRESHES, self.group) + 1))
        pause = Timer(m, "pause", max(t.rp, t.rfc, t.mrd))
        initial = Signal(init=1)  # the mode is not set yet
        done = Signal()
        m.d.sync += self.sdram_dqm.eq(initial.replicate(len(self.sdram_dqm)))
        with m.If(due):
            m.d.sync += hold.eq(1)
        with m.FSM():
            with m.State("POWER_UP"), m.If(due):
                m.next = "STREAM"
            with m.State("STREAM"), m.If(hold & finished):
                m.d.comb += [*self._send(Order.PRECHARGE, 0, ALL_BANKS), closes_all.eq(1)]
                m.d.sync += [
                    *pause.start(t.rp),
                    count.eq(Mux(initial, max(FIRST_REFRESHES, self.group), self.group)),
                ]
                m.next = "REFRESH"
            with m.State("REFRESH"), m.If(pause.ended):
                m.d.comb += self._send(Order.REFRESH)
                m.d.sync += [*pause.start(t.rfc), count.eq(count - 1)]
                with m.If(count == 1):
                    m.next = "MODE"
            with m.State("MODE"), m.If(pause.ended):
                # Bursts of 8 in order, written as they are read.
                mode = self.record.cas << 4 | (BURST - 1).bit_length()
                with m.If(initial):
                    m.d.comb += self._send(Order.MODE, 0, mode)
                    m.d.sync += [*pause.start(t.mrd), initial.eq(0)]
                with m.Else():
                    m.d.comb += done.eq(1)
                    m.d.sync += hold.eq(0)
                    m.next = "STREAM"
        return done
