"""Encoder and decoder of the frames of `tritloom.rtl.spec.frames`."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.crc import CRC32
from tritloom.rtl.lib.streams import PACKET
from tritloom.rtl.spec.frames import BLOCK_BYTES, CHECK_BYTES


class FrameEncoder(wiring.Component):
    """Encodes packets as frames.

    A COBS block begins with its length, so the encoder collects a whole block before it sends it.
    The input waits while a block is sent.

    Members
    -------
    i : in, stream of `PACKET`
        Ready while a block is collected.
    o : out, stream of bytes
        The frames.
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
        # The block RAM's output comes late in a cycle, so the byte gets a cycle of its own.
        fetched = Signal(8, reset_less=True)
        size = Signal(8)  # bytes of the block, its length byte not counted
        sent = Signal(8)
        final = Signal()  # the block holds the packet's last byte
        zero_last = Signal()  # the packet's last byte is 0
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
                with m.Elif(zero_last):  # a packet that ends in 0 ends in an empty block
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
            with m.State("NEXT"):  # `read.data` becomes the byte at the new address
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
    """Decodes frames to packets.

    Members
    -------
    i : in, stream of bytes
        The frames.
    o : out, stream of `PACKET`
        The packets' bytes. A byte leaves when the next one is known, the last byte when the end of
        the frame has come.
    abort : out, 1 bit
        With the last byte of a packet at `o`: the frame did not come whole, drop the packet.
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
        # The last CHECK_BYTES before the end of a frame are its check. Which bytes these are shows
        # only at the end, so that many bytes are always held back.
        window = Signal(8 * CHECK_BYTES)
        window_count = Signal(range(CHECK_BYTES + 1))
        oldest = window[:8]
        left = Signal(8)  # bytes of the COBS block that are still to come
        implied = Signal()  # a 0 follows the block, unless the frame ends with it
        out = Signal(8)  # a decoded byte, held back until it shows whether it is the last
        has_out = Signal()
        wrong = Signal()  # the frame that has ended was not whole
        body = Signal(8)  # the byte that left `window`
        end = Signal()

        check = Cat(window.word_select(n, 8)[:7] for n in range(CHECK_BYTES))
        marks = Cat(window.word_select(n, 8)[7] for n in range(CHECK_BYTES))
        whole = Signal()
        m.d.comb += [
            crc.data.eq(oldest),
            end.eq(self.i.payload == 0),
            whole.eq(
                ~wrong
                & (left == 0)
                & (window_count == CHECK_BYTES)
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
                        m.d.sync += [
                            window.eq(Cat(window[8:], self.i.payload)),
                            body.eq(oldest),
                        ]
                        with m.If(window_count != CHECK_BYTES):
                            m.d.sync += window_count.eq(window_count + 1)
                        with m.Else():
                            m.d.comb += crc.valid.eq(1)
                            m.next = "DECODE"
            with m.State("DECODE"):
                # `body` is the length of the next COBS block or, while `left` counts, one of its
                # bytes. A length decodes to the 0 that the previous block implies.
                m.d.comb += [
                    has_decoded.eq((left != 0) | implied),
                    decoded.eq(0),
                    self.o.payload.data.eq(out),
                    self.o.valid.eq(has_decoded & has_out),
                ]
                with m.If(left != 0):
                    m.d.comb += decoded.eq(body)
                with m.If(~self.o.valid | self.o.ready):
                    with m.If(has_decoded):
                        m.d.sync += [out.eq(decoded), has_out.eq(1)]
                    with m.If(left != 0):
                        m.d.sync += left.eq(left - 1)
                    with m.Else():
                        m.d.sync += [left.eq(body - 1), implied.eq(body != BLOCK_BYTES + 1)]
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
                        window_count.eq(0),
                        left.eq(0),
                        implied.eq(0),
                        has_out.eq(0),
                        wrong.eq(0),
                    ]
                    m.next = "TAKE"
        return m
