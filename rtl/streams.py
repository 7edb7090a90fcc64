"""Stream helpers: the packet byte, a memory read as a stream, a register."""

from typing import Any

from amaranth.hdl import Module, Mux, Shape, Signal, Value, ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.block_ram import ReadPort

PACKET = data.StructLayout({"data": 8, "last": 1})
"""Payload of a packet stream: one byte; ``last`` ends the packet."""


def stream_from_memory(m: Module, port: ReadPort, o: Any, more: ValueLike) -> Signal:
    """Send what ``port`` reads to the stream ``o``, one word a cycle, while ``more`` is set.

    Returns ``fetch``: in such a cycle the port's address is taken, and the caller advances it.
    """
    fetch = Signal()
    m.d.comb += [
        fetch.eq(more & (~o.valid | o.ready)),
        port.en.eq(fetch),
        o.payload.eq(port.data),
    ]
    with m.If(fetch):
        m.d.sync += o.valid.eq(1)
    with m.Elif(o.ready):
        m.d.sync += o.valid.eq(0)
    return fetch


class StreamRegister(wiring.Component):
    """Registers in a stream, ``ready`` too: one cycle later, full rate, no path from end to end.

    A second place takes what comes in the cycle in which the sink first stops.

    Members: ``i``, ``o``: streams of ``shape``.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape: Any) -> None:
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spare = Signal.like(self.i.payload, name="spare", reset_less=True)
        full = Signal()
        m.d.comb += self.i.ready.eq(~full)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [
                self.o.valid.eq(full | self.i.valid),
                self.o.payload.eq(Mux(full, Value.cast(spare), Value.cast(self.i.payload))),
                full.eq(0),
            ]
        with m.Elif(self.i.valid & ~full):
            m.d.sync += [spare.eq(self.i.payload), full.eq(1)]
        return m


def bits_for(limit: int) -> Shape:
    """Unsigned shape that holds 0 to ``limit``."""
    return Shape(max(1, limit.bit_length()))
