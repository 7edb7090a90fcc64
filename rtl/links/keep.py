"""Which bytes of a packet's beats count, as AXI4-Stream's TKEEP says it."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.streams import packet_layout

__all__ = ["KeepMask"]


class KeepMask(wiring.Component):
    """Marks the bytes of a packet in each of its beats.

    Latency: none. The first two bytes of a packet are its length. All bytes of a beat belong to the
    packet, except in its last beat.

    Parameters
    ----------
    beat_bytes : bytes of a beat: 2, 4 or 8

    Members
    -------
    beat : in, `packet_layout`
        The beat that a stream offers.
    transfer : in, 1 bit
        The beat is transferred at the end of this cycle.
    keep : out, 1 bit a byte
        The bytes of `beat` that belong to the packet.
    """

    beat: data.View
    transfer: Signal
    keep: Signal

    def __init__(self, beat_bytes: int) -> None:
        self.beat_bytes = beat_bytes
        super().__init__(
            {"beat": In(packet_layout(beat_bytes)), "transfer": In(1), "keep": Out(beat_bytes)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        begins = Signal(init=1)  # the beat is the packet's first
        left = Signal(16)  # bytes of the packet from this beat on
        left_later = Signal(16)
        m.d.comb += [
            left.eq(Mux(begins, self.beat.data[:16], left_later)),
            self.keep[0].eq(1),  # no beat is empty
        ]
        for byte in range(1, self.beat_bytes):
            m.d.comb += self.keep[byte].eq(~self.beat.last | (left > byte))
        with m.If(self.transfer):
            m.d.sync += [begins.eq(self.beat.last), left_later.eq(left - self.beat_bytes)]
        return m
