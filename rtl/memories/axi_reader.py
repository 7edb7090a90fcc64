"""An AXI port that reads ranges of beats."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.lib.block_fifo import BlockFifo
from tritloom.rtl.lib.streams import StreamRegister, bits_for
from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.memories.axi_pads import (
    INCREMENTING,
    NORMAL_BUFFERABLE,
    RESPONSE_ERROR,
    read_members,
)

__all__ = ["AxiReader", "beat_range_layout", "port_beat_layout"]


def beat_range_layout(record: Axi, beats: int) -> data.StructLayout:
    """A range of beats of a port.

    Members
    -------
    beat : the first one, counted from address 0
    count : how many, at least 1
    void : all of them are void
    """
    return data.StructLayout(
        {
            "beat": record.address_bits - (record.beat_bytes - 1).bit_length(),
            "count": bits_for(beats),
            "void": 1,
        }
    )


def port_beat_layout(record: Axi) -> data.StructLayout:
    """A beat of a port, and whether it is void."""
    return data.StructLayout({"data": record.width, "error": 1})


class AxiReader(wiring.Component):
    """Reads ranges of beats, strictly forward, in bursts of one ID.

    Bursts end at multiples of their greatest length, so none crosses 4 KiB. A burst's address is
    sent only if the queue has room for all its beats. So whatever comes can be taken at once:
    `rready` is always 1, and no port waits for another.

    A beat with SLVERR or DECERR is void, and so are all later beats of its range. If beats are
    expected and none comes for `timeout_cycles` cycles, all ranges that were accepted get void
    beats for what is missing. The beats that still come for them are counted and dropped, and no
    later range sends an address before the last of these has come.

    Parameters
    ----------
    record : the port's width, bursts and queue
    beats : most beats of a range

    Members
    -------
    i_read : stream in of `beat_range_layout`
        May be accepted while the beats of ranges before are still to come.
    o : stream out of `port_beat_layout`
    the signals of `read_members`
    """

    i_read: stream.Interface
    o: stream.Interface

    def __init__(self, record: Axi, beats: int) -> None:
        self.record = record
        self.beats = beats
        super().__init__(
            {
                "i_read": In(stream.Signature(beat_range_layout(record, beats))),
                "o": Out(stream.Signature(port_beat_layout(record))),
                **read_members(record),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        record, depth = self.record, self.record.depth
        pads: Any = self
        layout = beat_range_layout(record, self.beats)
        m.submodules.queue = queue = BlockFifo(port_beat_layout(record), depth)
        # Ranges whose beats are still to come, but for that whose beats come now.
        m.submodules.ranges = ranges = StreamRegister(layout)
        connect(m, queue.o, flipped(self.o))
        fails = Signal()  # no beat has come for too long
        voids = Signal()  # void beats are made for all accepted ranges
        free = Signal(range(depth + 1), init=depth)  # places that no beat on its way will take
        flying = Signal(range(depth + 1))  # beats that were asked for and are still to come
        late = Signal(range(depth + 1))  # beats that are still to come and will be dropped
        asked = Signal(range(record.burst_beats + 1))  # beats that are asked for in this cycle
        room = Signal()  # a whole burst has a place
        stops = Signal()  # no range is accepted, and no address sent
        m.d.comb += stops.eq(fails | voids)
        m.d.sync += room.eq(free >= record.burst_beats)
        self._send_addresses(m, ranges.i, asked, stops, room & (late == 0))

        current = Signal(layout)  # the range whose beats come; `count` is what is missing
        active = Signal()
        last = Signal()  # the next beat is its last one
        comes = Signal()  # a beat comes that is not dropped
        puts = Signal()
        error = pads.rresp[RESPONSE_ERROR]
        m.d.comb += [
            pads.rready.eq(1),
            comes.eq(pads.rvalid & (late == 0)),
            puts.eq(comes | (voids & active & (free != 0))),
            queue.put.eq(puts),
            queue.word.data.eq(pads.rdata),
            queue.word.error.eq(voids | current.void | error),
            ranges.o.ready.eq(~active | (puts & last)),
        ]
        with m.If(puts):
            m.d.sync += [
                current.count.eq(current.count - 1),
                current.void.eq(current.void | error),
                last.eq(current.count == 2),
            ]
        with m.If(ranges.o.ready):
            m.d.sync += [
                active.eq(ranges.o.valid),
                current.eq(ranges.o.payload),
                last.eq(ranges.o.payload.count == 1),
            ]

        # A beat that is given up gives its place back. A void one takes a place when it is made.
        given_up = Mux(fails, flying, 0)
        made = puts & ~comes
        m.d.sync += [
            free.eq(free + queue.freed + given_up - asked - made),
            flying.eq(flying + asked - comes - given_up),
            late.eq(late + given_up - (pads.rvalid & (late != 0))),
        ]
        with m.If(fails):
            m.d.sync += voids.eq(1)
        with m.Elif(~active & ~ranges.o.valid):
            m.d.sync += voids.eq(0)

        waited = Signal(range(record.timeout_cycles + 1))
        waits = Signal()
        m.d.comb += [
            waits.eq(((flying != 0) | (active & (late != 0))) & ~voids & ~pads.rvalid),
            fails.eq(waits & (waited == record.timeout_cycles)),
        ]
        m.d.sync += waited.eq(Mux(waits, waited + 1, 0))
        with m.If(fails):
            m.d.sync += waited.eq(0)
        return m

    def _send_addresses(
        self, m: Module, ranges: stream.Interface, asked: Signal, stops: Signal, may: Value
    ) -> None:
        """Accept ranges, and send an address for each of their bursts.

        A burst takes two cycles: its length, then its address.
        """
        pads: Any = self
        record = self.record
        bits = (record.burst_beats - 1).bit_length()  # of a beat's place in its burst
        beat = Signal.like(self.i_read.payload.beat, reset_less=True)  # the next one
        left = Signal.like(self.i_read.payload.count, reset_less=True)
        more = Signal()  # `left` is not 0
        known = Signal()  # what follows is valid
        to_end = Signal(bits + 1, reset_less=True)  # beats to the end of a whole burst
        last = Signal()  # the next burst is the range's last one
        rest = record.burst_beats - beat[:bits]
        sends = Signal()
        m.d.comb += [
            pads.arsize.eq((record.beat_bytes - 1).bit_length()),
            pads.arburst.eq(INCREMENTING),
            pads.arcache.eq(NORMAL_BUFFERABLE),
            self.i_read.ready.eq(~more & ranges.ready & ~stops),
            ranges.valid.eq(self.i_read.valid & ~more & ~stops),
            ranges.payload.eq(self.i_read.payload),
            sends.eq(known & may & ~stops & (~pads.arvalid | pads.arready)),
        ]
        with m.If(self.i_read.valid & self.i_read.ready):
            m.d.sync += [
                more.eq(1),
                beat.eq(self.i_read.payload.beat),
                left.eq(self.i_read.payload.count),
            ]
        with m.If(more & ~known):
            m.d.sync += [known.eq(1), to_end.eq(rest), last.eq(left <= rest)]
        with m.If(pads.arready):
            m.d.sync += pads.arvalid.eq(0)
        with m.If(sends):
            length = Mux(last, left[: bits + 1], to_end)
            m.d.comb += asked.eq(length)
            m.d.sync += [
                pads.arvalid.eq(1),
                pads.araddr.eq(Cat(Const(0, (record.beat_bytes - 1).bit_length()), beat)),
                pads.arlen.eq(length - 1),
                known.eq(0),
                more.eq(~last),
                beat.eq((beat[bits:] + 1) << bits),
                left.eq(left - to_end),
            ]
        with m.If(stops):
            m.d.sync += [more.eq(0), known.eq(0)]
