"""Packets in and out: checksum, length, receive buffer, responses stored for replay."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.crc import CRC32
from tritloom.rtl.lib.streams import PACKET, StreamRegister, bits_for, stream_from_memory
from tritloom.rtl.spec.commands import CRC_BYTES, OVERHEAD_BYTES
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


class PacketSender(wiring.Component):
    """Stores `slots` responses and sends one on request, followed by its checksum.

    The first two bytes of a response are its length, checksum included. Another slot may be written
    while one is sent.

    Members
    -------
    address : in, number
        Slot × `packet_bytes` + place of the byte in its packet.
    byte : in, 8 bits
        A byte of a response's header or payload.
    write : in, 1 bit
        `byte` is stored at `address` at the end of this cycle.
    i : in, stream of slot numbers
        The response to send. Ready while nothing is sent.
    o : out, stream of `PACKET`
        The packets, checksum included, up to one byte a cycle.
    """

    address: Signal
    byte: Signal
    write: Signal
    i: stream.Interface
    o: stream.Interface

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "address": In(range(config.slots * config.packet_bytes)),
                "byte": In(8),
                "write": In(1),
                "i": In(stream.Signature(range(config.slots))),
                "o": Out(stream.Signature(PACKET)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        packet_bytes = self.config.packet_bytes
        m.submodules.crc = crc = CRC32.create()
        m.submodules.stored = stored = block_ram(8, self.config.slots * packet_bytes)
        write = stored.write_port()
        read = ReadPort(m, stored)
        offset = Signal(range(packet_bytes))  # place in the slot
        m.d.comb += [
            offset.eq(self.address[: len(offset)]),
            write.addr.eq(self.address),
            write.data.eq(self.byte),
            write.en.eq(self.write),
        ]

        slot = Signal(range(self.config.slots))
        fetched = Signal(bits_for(packet_bytes))  # bytes read from the memory
        sent = Signal(bits_for(packet_bytes))  # bytes sent, the checksum not counted
        length = Signal(16)
        tail = Signal(range(CRC_BYTES))  # bytes of the checksum sent
        # The block RAM's output comes late in a cycle; this register gives the checksum's logic a
        # cycle of its own.
        m.submodules.body = body = StreamRegister(8)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.i.ready.eq(1), crc.start.eq(1)]
                with m.If(self.i.valid):
                    m.d.sync += [
                        slot.eq(self.i.payload),
                        fetched.eq(0),
                        sent.eq(0),
                        tail.eq(0),
                        length.eq(~0),
                    ]
                    m.next = "BODY"
            with m.State("BODY"):
                # `length` starts at its highest value, so that nothing ends before it is known: it
                # is in the first two bytes, and no packet ends before byte OVERHEAD_BYTES.
                m.d.comb += [
                    read.addr.eq(Cat(fetched[: len(offset)], slot)),
                    self.o.payload.data.eq(body.o.payload),
                    self.o.valid.eq(body.o.valid),
                    body.o.ready.eq(self.o.ready),
                    crc.data.eq(body.o.payload),
                    crc.valid.eq(body.o.valid & self.o.ready),
                ]
                with m.If(stream_from_memory(m, read, body.i, fetched + CRC_BYTES != length)):
                    m.d.sync += fetched.eq(fetched + 1)
                with m.If(body.o.valid & self.o.ready):
                    m.d.sync += sent.eq(sent + 1)
                    with m.If(sent < 2):
                        m.d.sync += length.eq(Cat(length[8:], body.o.payload))
                    with m.If(sent + CRC_BYTES + 1 == length):
                        m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [
                    self.o.valid.eq(1),
                    self.o.payload.data.eq(crc.crc.word_select(tail, 8)),
                    self.o.payload.last.eq(tail == CRC_BYTES - 1),
                ]
                with m.If(self.o.ready):
                    m.d.sync += tail.eq(tail + 1)
                    with m.If(self.o.payload.last):
                        m.next = "IDLE"
        return m
