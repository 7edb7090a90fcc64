"""Packets in and out: checksum, length, receive buffer, responses stored for replay."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.crc import CRC32, WideCrc32
from tritloom.rtl.lib.streams import (
    PACKET,
    StreamRegister,
    bits_for,
    packet_layout,
    stream_from_memory,
)
from tritloom.rtl.spec.commands import CRC_BYTES, HEADER_BYTES, OVERHEAD_BYTES
from tritloom.rtl.spec.config import AcceleratorConfig


class PacketReceiver(wiring.Component):
    """Buffers packets, checks them, and passes on the right ones without their checksum.

    A packet is right if its checksum matches, its header states its length, it is at least a header
    and a checksum and at most `packet_bytes` long, and the link did not abort it. The bytes of a
    packet go into the buffer as they come; only when the packet is right are they released to `o`,
    else their room is free again.

    Members
    -------
    i : in, stream of `PACKET`
        Whole packets, checksum included. Not ready in the one cycle after a packet's last byte, in
        which the packet is checked; else always ready.
    abort : in, 1 bit
        With a byte of a packet, usually its last: the link knows that the packet is wrong.
    crowded : in, 1 bit
        Nothing can remember the sender of one more packet: the packet is dropped.
    o : out, stream of bytes
        Header and payload of the right packets, one byte a cycle.
    good, bad, dropped : out, 1 bit each
        Exactly one is set for one cycle after each packet. Good: released to `o`. Bad: not right.
        Dropped: right, but the buffer was full.
    """

    i: stream.Interface
    abort: Signal
    crowded: Signal
    o: stream.Interface
    good: Signal
    bad: Signal
    dropped: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(PACKET)),
                "abort": In(1),
                "crowded": In(1),
                "o": Out(stream.Signature(8)),
                "good": Out(1),
                "bad": Out(1),
                "dropped": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        packet_bytes = self.config.packet_bytes
        depth = self.config.slots * packet_bytes
        m.submodules.crc = crc = CRC32.create()
        m.submodules.buffer = buffer = block_ram(8, depth)
        write = buffer.write_port()
        read = ReadPort(m, buffer)

        head = Signal(range(depth))  # place of the next byte to write
        limit = Signal(range(depth))  # end of the packets that were released
        tail = Signal(range(depth))  # place of the next byte to read
        count = Signal(bits_for(packet_bytes))  # bytes of the packet so far, at most packet_bytes
        length = Signal(16)  # what the header states
        wrong = Signal()  # the packet is too long or was aborted
        full = Signal()  # a byte of the packet found no room
        check = Signal()  # the packet's last byte came in the cycle before
        sound = Signal()

        m.d.comb += [
            self.i.ready.eq(~check),
            write.addr.eq(head),
            write.data.eq(self.i.payload.data),
            crc.data.eq(self.i.payload.data),
            crc.start.eq(check),
            sound.eq(crc.match_detected & (length == count) & (count >= OVERHEAD_BYTES) & ~wrong),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.comb += crc.valid.eq(1)
            with m.If((head + 1)[: len(head)] == tail):
                m.d.sync += full.eq(1)
            with m.Else():
                m.d.comb += write.en.eq(1)
                m.d.sync += head.eq(head + 1)
            with m.If(count == packet_bytes):
                m.d.sync += wrong.eq(1)
            with m.Else():
                m.d.sync += count.eq(count + 1)
            with m.If(count < 2):
                m.d.sync += length.eq(Cat(length[8:], self.i.payload.data))
            with m.If(self.abort):
                m.d.sync += wrong.eq(1)
            m.d.sync += check.eq(self.i.payload.last)
        with m.If(check):
            m.d.sync += [check.eq(0), count.eq(0), wrong.eq(0), full.eq(0), head.eq(limit)]
            m.d.comb += [
                self.good.eq(sound & ~full & ~self.crowded),
                self.bad.eq(~sound),
                self.dropped.eq(sound & (full | self.crowded)),
            ]
            with m.If(self.good):
                m.d.sync += [head.eq(head - CRC_BYTES), limit.eq(head - CRC_BYTES)]

        m.d.comb += read.addr.eq(tail)
        with m.If(stream_from_memory(m, read, self.o, tail != limit)):
            m.d.sync += tail.eq(tail + 1)
        return m


class PacketNarrower(wiring.Component):
    """Makes bytes of a packet's beats, and leaves out those after its length.

    Latency: none. The first two bytes of a packet are its length.

    Parameters
    ----------
    beat_bytes : bytes of a beat: 2, 4 or 8

    Members
    -------
    i : in, stream of `packet_layout`
    i_abort : in, 1 bit
        With the last beat: the link knows that the packet is wrong.
    o : out, stream of `PACKET`
        At least one byte of each beat.
    o_abort : out, 1 bit
        `i_abort`, with the last byte.
    """

    i: stream.Interface
    i_abort: Signal
    o: stream.Interface
    o_abort: Signal

    def __init__(self, beat_bytes: int) -> None:
        self.beat_bytes = beat_bytes
        super().__init__(
            {
                "i": In(stream.Signature(packet_layout(beat_bytes))),
                "i_abort": In(1),
                "o": Out(stream.Signature(PACKET)),
                "o_abort": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = self.i.payload
        place = Signal(range(self.beat_bytes))  # of the byte in its beat
        begins = Signal(init=1)  # the beat is the packet's first
        left = Signal(16)  # bytes of the packet from this beat on, by its length
        left_later = Signal(16)
        ends = Signal()  # the byte is the last one of its beat
        m.d.comb += [
            left.eq(Mux(begins, beat.data[:16], left_later)),
            ends.eq((place == self.beat_bytes - 1) | (beat.last & (place + 1 >= left))),
            self.o.valid.eq(self.i.valid),
            self.o.payload.data.eq(beat.data.word_select(place, 8)),
            self.o.payload.last.eq(beat.last & ends),
            self.o_abort.eq(self.i_abort & ends),
            self.i.ready.eq(self.o.ready & ends),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += place.eq(Mux(ends, 0, place + 1))
            with m.If(ends):
                more = left > self.beat_bytes
                m.d.sync += [
                    begins.eq(beat.last),
                    left_later.eq(Mux(more, left - self.beat_bytes, 0)),
                ]
        return m


class PacketSender(wiring.Component):
    """Stores `slots` responses and sends one on request, followed by its checksum.

    The first two bytes of a response are its length, checksum included. Another slot may be written
    while one is sent.

    Members
    -------
    address : in, number
        Place of a beat: its number among the beats of all slots, `packet_bytes` a slot.
    data : in, 8 × `beat_bytes` bits
        A beat of a response's header or payload.
    mask : in, 1 bit a byte
        The bytes of the beat that are stored; the others stay.
    write : in, 1 bit
        The beat is stored at the end of this cycle.
    i : in, stream of slot numbers
        The response to send. Ready while nothing is sent.
    o : out, stream of `packet_layout`
        The packets, checksum included, up to one beat a cycle.
    """

    address: Signal
    data: Signal
    mask: Signal
    write: Signal
    i: stream.Interface
    o: stream.Interface

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.beat_bytes = config.link.beat_bytes
        super().__init__(
            {
                "address": In(range(config.slots * config.packet_bytes // self.beat_bytes)),
                "data": In(8 * self.beat_bytes),
                "mask": In(self.beat_bytes),
                "write": In(1),
                "i": In(stream.Signature(range(config.slots))),
                "o": Out(stream.Signature(packet_layout(self.beat_bytes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat_bytes = self.beat_bytes
        beats = self.config.packet_bytes // beat_bytes
        m.submodules.crc = crc = WideCrc32(beat_bytes)
        m.submodules.stored = stored = block_ram(8 * beat_bytes, self.config.slots * beats)
        write = stored.write_port(granularity=8)
        read = ReadPort(m, stored)
        m.d.comb += [
            write.addr.eq(self.address),
            write.data.eq(self.data),
            write.en.eq(self.mask & self.write.replicate(beat_bytes)),
        ]

        slot = Signal(range(self.config.slots))
        fetched = Signal(bits_for(beats))  # beats read from the memory
        taken = Signal(bits_for(beats))  # beats of header and payload taken from `body`
        length = Signal(16)
        # `length` starts at its highest value, so that nothing ends before it is known: it is in
        # the first two bytes, and no packet ends before byte OVERHEAD_BYTES.
        body_beats = (length - CRC_BYTES + beat_bytes - 1) >> (beat_bytes.bit_length() - 1)
        more = fetched != body_beats
        if beat_bytes > 2:  # the header's beats are few: they are all read before it is known
            more = Mux(taken == 0, fetched != HEADER_BYTES // beat_bytes, more)
        size = Signal(range(beat_bytes + 1))  # bytes in the last of these beats
        rest = Signal(8 * beat_bytes, reset_less=True)  # that beat
        tail = Signal(range(CRC_BYTES + 1))  # beats sent of `rest` and the checksum
        # The block RAM's output comes late in a cycle; this register gives the checksum's logic a
        # cycle of its own.
        m.submodules.body = body = StreamRegister(8 * beat_bytes)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.i.ready.eq(1), crc.start.eq(1)]
                m.d.sync += [
                    slot.eq(self.i.payload),
                    fetched.eq(0),
                    taken.eq(0),
                    tail.eq(0),
                    length.eq(~0),
                ]
                with m.If(self.i.valid):
                    m.next = "BODY"
            with m.State("BODY"):
                last = Signal()
                m.d.comb += [
                    last.eq(taken + 1 == body_beats),
                    read.addr.eq(Cat(fetched[: (beats - 1).bit_length()], slot)),
                    self.o.payload.data.eq(body.o.payload),
                    self.o.valid.eq(body.o.valid & ~last),
                    body.o.ready.eq(self.o.ready | last),
                    crc.data.eq(body.o.payload),
                    crc.size.eq(Mux(last, size, beat_bytes)),
                    crc.valid.eq(body.o.valid & body.o.ready),
                ]
                with m.If(stream_from_memory(m, read, body.i, more)):
                    m.d.sync += fetched.eq(fetched + 1)
                with m.If(body.o.valid & body.o.ready):
                    m.d.sync += [taken.eq(taken + 1), rest.eq(body.o.payload)]
                    if beat_bytes == 1:
                        with m.If(taken < 2):
                            m.d.sync += length.eq(Cat(length[8:], body.o.payload))
                    else:
                        with m.If(taken == 0):
                            m.d.sync += length.eq(body.o.payload[:16])
                    with m.If(last):
                        m.next = "TAIL"
            with m.State("TAIL"):
                # The last bytes and the checksum behind them, whatever their place in a beat.
                ends = []
                for n in range(1, beat_bytes + 1):
                    end = Signal(8 * (-(-(n + CRC_BYTES) // beat_bytes)) * beat_bytes)
                    m.d.comb += end.eq(Cat(rest[: 8 * n], crc.crc))
                    ends.append(end)
                end = Array(ends)[(size - 1)[: (beat_bytes - 1).bit_length()]]
                m.d.comb += [
                    self.o.valid.eq(1),
                    self.o.payload.data.eq(end.word_select(tail, 8 * beat_bytes)),
                    self.o.payload.last.eq((tail + 1) * beat_bytes >= size + CRC_BYTES),
                ]
                with m.If(self.o.ready):
                    m.d.sync += tail.eq(tail + 1)
                    with m.If(self.o.payload.last):
                        m.next = "IDLE"
        low = (length - CRC_BYTES - 1)[: (beat_bytes - 1).bit_length()]
        m.d.comb += size.eq(low + 1)
        return m
