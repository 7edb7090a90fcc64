"""UART, 8N1: one start bit, eight data bits low first, one stop bit; the line idles high."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.links.cobs import FrameDecoder, FrameEncoder
from tritloom.rtl.links.contract import PacketLink
from tritloom.rtl.links.uart_facts import BITS_PER_BYTE, Uart
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError


class UartTransmitter(wiring.Component):
    """Sends bytes on the line.

    Parameters
    ----------
    divisor : clock cycles of a bit

    Members
    -------
    i : in, stream of bytes
        Ready while no byte is being sent.
    tx : out, 1 bit
        The line, from a flip-flop; the start bit follows the transfer at `i` by two cycles.
    """

    i: stream.Interface
    tx: Signal

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        timer = Signal(range(self.divisor))
        bits_left = Signal(range(BITS_PER_BYTE + 1))
        shift = Signal(BITS_PER_BYTE, init=(1 << BITS_PER_BYTE) - 1)
        line = Signal(init=1)  # a flip-flop at the pin, so that the line has no glitches
        m.d.sync += line.eq(shift[0])
        m.d.comb += [self.tx.eq(line), self.i.ready.eq(bits_left == 0)]
        with m.If(bits_left == 0):
            with m.If(self.i.valid):
                m.d.sync += [
                    shift.eq(Cat(Const(0, 1), self.i.payload, Const(1, 1))),
                    bits_left.eq(BITS_PER_BYTE),
                    timer.eq(self.divisor - 1),
                ]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [
                shift.eq(Cat(shift[1:], Const(1, 1))),
                bits_left.eq(bits_left - 1),
                timer.eq(self.divisor - 1),
            ]
        return m


class UartReceiver(wiring.Component):
    """Receives bytes from the line; each bit is sampled in its middle.

    A byte whose stop bit is 0 is lost. A start bit that is gone by its middle is a glitch and is
    ignored.

    Parameters
    ----------
    divisor : clock cycles of a bit

    Members
    -------
    rx : in, 1 bit
        The line, asynchronous to the clock.
    o : out, stream of bytes
        Must be transferred within a byte's time; else the next byte takes its place.
    """

    rx: Signal
    o: stream.Interface

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor
        super().__init__({"rx": In(1, init=1), "o": Out(stream.Signature(8))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules += FFSynchronizer(self.rx, line, init=1)
        timer = Signal(range(self.divisor))
        bits_left = Signal(range(BITS_PER_BYTE + 1))
        shift = Signal(8)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(bits_left == 0):
            with m.If(~line):
                m.d.sync += [timer.eq(self.divisor // 2 - 1), bits_left.eq(BITS_PER_BYTE)]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [timer.eq(self.divisor - 1), bits_left.eq(bits_left - 1)]
            with m.If((bits_left == BITS_PER_BYTE) & line):  # a glitch: the start bit is gone
                m.d.sync += bits_left.eq(0)
            with m.Elif(bits_left == 1):
                with m.If(line):
                    m.d.sync += [self.o.payload.eq(shift), self.o.valid.eq(1)]
            with m.Else():
                m.d.sync += shift.eq(Cat(shift[1:], line))
        return m


class UartLink(PacketLink):
    """Carries packets over a UART, framed as `tritloom.rtl.spec.frames` says.

    Each byte of `o_packet` must be transferred within a byte's time on the line.

    Members (beside the contract's)
    -------
    rx : in, 1 bit
        The line from the host, asynchronous to the clock.
    tx : out, 1 bit
        The line to the host.
    """

    rx: Signal
    tx: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        if not isinstance(config.link, Uart):
            raise ConfigError(f"UartLink needs a uart link, not {config.link.name!r}")
        self._divisor = config.link.divisor(config)
        super().__init__(config, {"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(self._divisor)
        m.submodules.transmitter = transmitter = UartTransmitter(self._divisor)
        m.submodules.decoder = decoder = FrameDecoder()
        m.submodules.encoder = encoder = FrameEncoder()
        connect(m, receiver.o, decoder.i)
        connect(m, decoder.o, flipped(self.o_packet))
        connect(m, flipped(self.i_packet), encoder.i)
        connect(m, encoder.o, transmitter.i)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            self.o_abort.eq(decoder.abort),
        ]
        return m
