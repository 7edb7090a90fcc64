"""Packets in and out: checksum, length, receive buffer, answers kept for replay."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.crc import CRC32
from tritloom.rtl.lib.streams import PACKET, StreamRegister, bits_for, stream_from_memory
from tritloom.rtl.spec.commands import CRC_BYTES, OVERHEAD_BYTES
from tritloom.rtl.spec.config import AcceleratorConfig


class PacketReceiver(wiring.Component):
    """Keeps each packet until its checksum and length are found right; drops the others.

    Never makes the link wait but for the one cycle after a packet in which it is checked.

    Members
    -------
    i : stream of PACKET; whole packets, checksum included
    abort : with the last byte: the link knows that the packet is wrong
    crowded : nothing can remember the sender of one more packet: drop it
    o : stream of bytes; header and payload of the packets that are right
    good, bad, dropped : strobes, one for a packet: taken; wrong; right, but the buffer was full
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

        head = Signal(range(depth))  # next byte to write
        limit = Signal(range(depth))  # end of the packets found right
        tail = Signal(range(depth))  # next byte to read
        count = Signal(bits_for(packet_bytes))
        length = Signal(16)
        wrong = Signal()
        full = Signal()
        check = Signal()
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
    """Keeps ``slots`` answers and sends one when asked, with its checksum behind it.

    Members
    -------
    address, byte, write : header and payload are written here, at slot × packet_bytes
    i : stream of slot numbers to send; ready while nothing is being sent
    o : stream of PACKET
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
        m.submodules.kept = kept = block_ram(8, self.config.slots * packet_bytes)
        write = kept.write_port()
        read = ReadPort(m, kept)
        offset = Signal(range(packet_bytes))  # in its slot; a port of this name in the Verilog
        m.d.comb += [
            offset.eq(self.address[: len(offset)]),
            write.addr.eq(self.address),
            write.data.eq(self.byte),
            write.en.eq(self.write),
        ]

        slot = Signal(range(self.config.slots))
        fetched = Signal(bits_for(packet_bytes))
        sent = Signal(bits_for(packet_bytes))
        length = Signal(16)
        tail = Signal(range(CRC_BYTES))
        # The block RAM answers late in a cycle; the checksum begins a new one.
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
                # The first two bytes are the length, long read when it is needed.
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
