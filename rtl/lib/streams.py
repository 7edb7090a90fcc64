"""Stream helpers: the packet byte, a memory read as a stream, a register."""

from typing import Any

from amaranth.hdl import Module, Mux, Shape, Signal, Value, ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.block_ram import ReadPort

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

    Two places in turn. A place takes what is there whenever it is free, whether or not it counts:
    only its own register chooses, not the sink, for which a wide payload would be far.

    Members: ``i``, ``o``: streams of ``shape``.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape: Any) -> None:
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        places = [
            Signal.like(self.i.payload, name=f"place_{number}", reset_less=True)
            for number in range(2)
        ]
        full = Signal(2)
        filling = Signal()  # the place that is filled next
        sending = Signal()  # the one that is sent next
        first, second = (Value.cast(place) for place in places)
        m.d.comb += [
            self.i.ready.eq(~full.all()),
            self.o.valid.eq(full.bit_select(sending, 1)),
            self.o.payload.eq(Mux(sending, second, first)),
        ]
        for place, taken in zip(places, full, strict=True):
            with m.If(~taken):
                m.d.sync += place.eq(self.i.payload)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [full.bit_select(filling, 1).eq(1), filling.eq(~filling)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [full.bit_select(sending, 1).eq(0), sending.eq(~sending)]
        return m


def bits_for(limit: int) -> Shape:
    """Unsigned shape that holds 0 to ``limit``."""
    return Shape(max(1, limit.bit_length()))
