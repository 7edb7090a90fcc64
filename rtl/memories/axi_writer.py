"""An AXI port that writes single beats."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.memories.axi_pads import (
    INCREMENTING,
    NORMAL_BUFFERABLE,
    RESPONSE_ERROR,
    write_members,
)

__all__ = ["MOST_UNANSWERED", "AxiWriter", "beat_write_layout"]

MOST_UNANSWERED = 15
"""Writes without a response; the weights come from a packet, so few are on their way."""


def beat_write_layout(record: Axi) -> data.StructLayout:
    """A whole beat of a port, and its number, counted from address 0."""
    return data.StructLayout(
        {
            "beat": record.address_bits - (record.beat_bytes - 1).bit_length(),
            "data": record.width,
        }
    )


class AxiWriter(wiring.Component):
    """Writes whole beats, one a burst.

    If the memory takes no address or word, or gives no response, for `timeout_cycles` cycles, it
    is said to be `stuck`: words are taken and dropped, so that no command waits for ever, until it
    has answered all that it was sent.

    Members
    -------
    i_write : stream in of `beat_write_layout`
    idle : out, 1 bit
        Every word that was taken is answered, or the memory is stuck.
    failed : out, 1 bit
        A word was answered with SLVERR or DECERR, or was dropped, since `clear`.
    clear : in, 1 bit
        `failed` is forgotten, unless the memory is stuck.
    the signals of `write_members`
    """

    i_write: stream.Interface
    idle: Signal
    failed: Signal
    clear: Signal

    def __init__(self, record: Axi) -> None:
        self.record = record
        super().__init__(
            {
                "i_write": In(stream.Signature(beat_write_layout(record))),
                "idle": Out(1),
                "failed": Out(1),
                "clear": In(1),
                **write_members(record),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        record = self.record
        pads: Any = self
        beat_bits = (record.beat_bytes - 1).bit_length()
        unanswered = Signal(range(MOST_UNANSWERED + 1))
        stuck = Signal()
        free = Signal()  # both channels take the next word
        takes = Signal()
        answered = Signal()
        waited = Signal(range(record.timeout_cycles + 1))
        m.d.comb += [
            pads.awsize.eq(beat_bits),
            pads.awburst.eq(INCREMENTING),
            pads.awcache.eq(NORMAL_BUFFERABLE),
            pads.wstrb.eq(~0),
            pads.wlast.eq(1),
            pads.bready.eq(1),
            free.eq(
                (~pads.awvalid | pads.awready)
                & (~pads.wvalid | pads.wready)
                & (unanswered != MOST_UNANSWERED)
            ),
            self.i_write.ready.eq(free | stuck),
            takes.eq(self.i_write.valid & free & ~stuck),
            answered.eq(pads.bvalid & (unanswered != 0)),
            self.idle.eq((unanswered == 0) | stuck),
        ]
        with m.If(pads.awready):
            m.d.sync += pads.awvalid.eq(0)
        with m.If(pads.wready):
            m.d.sync += pads.wvalid.eq(0)
        with m.If(takes):
            m.d.sync += [
                pads.awvalid.eq(1),
                pads.awaddr.eq(self.i_write.payload.beat << beat_bits),
                pads.wvalid.eq(1),
                pads.wdata.eq(self.i_write.payload.data),
            ]
        m.d.sync += unanswered.eq(unanswered + takes - answered)

        waits = (unanswered != 0) & ~answered & ~stuck
        m.d.sync += waited.eq(Mux(waits, waited + 1, 0))
        with m.If(waits & (waited == record.timeout_cycles)):
            m.d.sync += [stuck.eq(1), waited.eq(0)]
        with m.Elif(unanswered == 0):
            m.d.sync += stuck.eq(0)
        with m.If(self.clear):
            m.d.sync += self.failed.eq(0)
        with m.If(stuck | (answered & pads.bresp[RESPONSE_ERROR])):
            m.d.sync += self.failed.eq(1)
        return m
