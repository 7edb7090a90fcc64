"""Frames of ``tritloom.rtl.spec.frames`` in hardware."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.crc import CRC32
from tritloom.rtl.lib.streams import PACKET
from tritloom.rtl.spec.frames import BLOCK_BYTES, CHECK_BYTES


class FrameEncoder(wiring.Component):
    """Packets to frames. Collects a COBS block, then sends it; the input waits meanwhile.

    Members
    -------
    i : stream of PACKET
    o : stream of bytes
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(PACKET)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC32.create()
        m.submodules.block = block = block_ram(8, BLOCK_BYTES)
        write = block.write_port()
        read = ReadPort(m, block)
        fetched = Signal(8, reset_less=True)  # the block RAM answers late in a cycle
        size = Signal(8)
        sent = Signal(8)
        final = Signal()
        zero_last = Signal()
        check = Signal(7 * CHECK_BYTES)
        digit = Signal(range(CHECK_BYTES))
        byte = self.i.payload.data
        m.d.comb += [
            write.addr.eq(size),
            write.data.eq(byte),
            read.addr.eq(sent),
            crc.data.eq(self.o.payload),
        ]
        m.d.sync += fetched.eq(read.data)
        with m.FSM():
            with m.State("BEGIN"):
                m.d.comb += [self.o.valid.eq(self.i.valid), crc.start.eq(1)]
                m.d.sync += [size.eq(0), final.eq(0), zero_last.eq(0)]
                with m.If(self.o.valid & self.o.ready):
                    m.next = "COLLECT"
            with m.State("COLLECT"):
                m.d.sync += sent.eq(0)
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += final.eq(self.i.payload.last)
                    with m.If(byte == 0):
                        m.d.sync += zero_last.eq(self.i.payload.last)
                        m.next = "CODE"
                    with m.Else():
                        m.d.comb += write.en.eq(1)
                        m.d.sync += size.eq(size + 1)
                        with m.If(self.i.payload.last | (size == BLOCK_BYTES - 1)):
                            m.next = "CODE"
            with m.State("CODE"):
                m.d.comb += [
                    self.o.payload.eq(size + 1),
                    self.o.valid.eq(1),
                    crc.valid.eq(self.o.ready),
                ]
                with m.If(self.o.ready):
                    m.next = "FETCH"
            with m.State("FETCH"):
                with m.If(sent != size):
                    m.next = "BLOCK"
                with m.Elif(zero_last):  # the packet ends in 0: an empty block behind it
                    m.d.sync += [zero_last.eq(0), size.eq(0), sent.eq(0)]
                    m.next = "CODE"
                with m.Elif(final):
                    m.d.sync += [check.eq(crc.crc), digit.eq(0)]
                    m.next = "CHECK"
                with m.Else():
                    m.d.sync += size.eq(0)
                    m.next = "COLLECT"
            with m.State("BLOCK"):
                m.d.comb += [
                    self.o.payload.eq(fetched),
                    self.o.valid.eq(1),
                    crc.valid.eq(self.o.ready),
                ]
                m.d.comb += read.en.eq(0)
                with m.If(self.o.ready):
                    m.d.sync += sent.eq(sent + 1)
                    m.next = "NEXT"
            with m.State("NEXT"):  # the memory reads at the new address
                m.next = "FETCH"
            with m.State("CHECK"):
                m.d.comb += [self.o.payload.eq(Cat(check[:7], Const(1))), self.o.valid.eq(1)]
                with m.If(self.o.ready):
                    m.d.sync += [check.eq(check >> 7), digit.eq(digit + 1)]
                    with m.If(digit == CHECK_BYTES - 1):
                        m.next = "END"
            with m.State("END"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "BEGIN"
        return m


class FrameDecoder(wiring.Component):
    """Frames to packets; a frame that did not come whole ends with ``abort``.

    Members
    -------
    i : stream of bytes
    o : stream of PACKET; the last byte leaves when the frame's end has come
    abort : with ``o.payload.last``: drop this packet
    """

    i: stream.Interface
    o: stream.Interface
    abort: Signal

    def __init__(self) -> None:
        super().__init__(
            {"i": In(stream.Signature(8)), "o": Out(stream.Signature(PACKET)), "abort": Out(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC32.create()
        # The last bytes before the end are the check; they are held back until it is known.
        held = Signal(8 * CHECK_BYTES)
        held_count = Signal(range(CHECK_BYTES + 1))
        byte = held[:8]
        left = Signal(8)  # of the COBS block; a 0 follows it
        implied = Signal()
        out = Signal(8)  # one decoded byte held back for `last`
        has_out = Signal()
        wrong = Signal()
        taken = Signal(8)
        end = Signal()

        check = Cat(held.word_select(n, 8)[:7] for n in range(CHECK_BYTES))
        marks = Cat(held.word_select(n, 8)[7] for n in range(CHECK_BYTES))
        whole = Signal()
        m.d.comb += [
            crc.data.eq(byte),
            end.eq(self.i.payload == 0),
            whole.eq(
                ~wrong
                & (left == 0)
                & (held_count == CHECK_BYTES)
                & marks.all()
                & (check == crc.crc)
            ),
        ]
        decoded = Signal(8)
        has_decoded = Signal()
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    with m.If(end):
                        m.d.sync += wrong.eq(~whole)
                        m.next = "END"
                    with m.Else():
                        m.d.sync += [held.eq(Cat(held[8:], self.i.payload)), taken.eq(byte)]
                        with m.If(held_count != CHECK_BYTES):
                            m.d.sync += held_count.eq(held_count + 1)
                        with m.Else():
                            m.d.comb += crc.valid.eq(1)
                            m.next = "DECODE"
            with m.State("DECODE"):
                # `taken` is the next byte of the body: a block's length or one of its bytes.
                m.d.comb += [
                    has_decoded.eq((left != 0) | implied),
                    decoded.eq(0),
                    self.o.payload.data.eq(out),
                    self.o.valid.eq(has_decoded & has_out),
                ]
                with m.If(left != 0):
                    m.d.comb += decoded.eq(taken)
                with m.If(~self.o.valid | self.o.ready):
                    with m.If(has_decoded):
                        m.d.sync += [out.eq(decoded), has_out.eq(1)]
                    with m.If(left != 0):
                        m.d.sync += left.eq(left - 1)
                    with m.Else():
                        m.d.sync += [left.eq(taken - 1), implied.eq(taken != BLOCK_BYTES + 1)]
                    m.next = "TAKE"
            with m.State("END"):
                m.d.comb += [
                    self.o.valid.eq(has_out),
                    self.o.payload.data.eq(out),
                    self.o.payload.last.eq(1),
                    self.abort.eq(wrong),
                    crc.start.eq(1),
                ]
                with m.If(~self.o.valid | self.o.ready):
                    m.d.sync += [
                        held_count.eq(0),
                        left.eq(0),
                        implied.eq(0),
                        has_out.eq(0),
                        wrong.eq(0),
                    ]
                    m.next = "TAKE"
        return m
