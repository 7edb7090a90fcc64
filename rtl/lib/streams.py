"""Stream helpers: the payload of packet streams, a memory read as a stream, a register stage."""

from typing import Any

from amaranth.hdl import Module, Mux, Shape, Signal, Value, ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.block_ram import ReadPort


def packet_layout(beat_bytes: int) -> data.StructLayout:
    """Payload of a packet stream: a beat of 1, 2, 4 or 8 bytes, the first one lowest.

    A packet begins with the lowest byte of a beat. `last` marks its last beat. The bytes of that
    beat after the packet's length can be anything.
    """
    return data.StructLayout({"data": 8 * beat_bytes, "last": 1})


PACKET = packet_layout(1)
"""Payload of a packet stream of bytes."""


def stream_from_memory(m: Module, port: ReadPort, o: Any, more: ValueLike) -> Signal:
    """Connect a memory's read port to a stream; one word a cycle while `more` is set.

    Parameters
    ----------
    m : module that the logic is added to
    port : read port; this function drives `en`, the caller drives `addr`
    o : stream that the words are sent to
    more : whether `port.addr` is the address of a word that shall be sent

    Returns
    -------
    `fetch`: set in each cycle in which the memory reads `port.addr`. The caller then moves the
    address on. The word is in `o.payload` from the next cycle until it is transferred.
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
    """A register stage of a stream, in both directions: no combinational path leads through it.

    A ping-pong of two entries. An empty entry loads the input in every cycle, valid or not, so its
    enable depends on one local flip-flop and never on the sink's `ready`. Behind a wide payload the
    wire of `ready` would be the critical path.

    Latency: one cycle. Throughput: one word a cycle.

    Parameters
    ----------
    shape : shape of the payload

    Members
    -------
    i : in, stream of `shape`
        `ready` is set while at least one entry is empty.
    o : out, stream of `shape`
        `valid` is set from the cycle after the transfer at `i`.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape: Any) -> None:
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entries = [
            Signal.like(self.i.payload, name=f"entry_{number}", reset_less=True)
            for number in range(2)
        ]
        full = Signal(2)  # one bit an entry
        filling = Signal()  # number of the entry that the next word from `i` fills
        sending = Signal()  # number of the entry whose word is sent next
        first, second = (Value.cast(entry) for entry in entries)
        m.d.comb += [
            self.i.ready.eq(~full.all()),
            self.o.valid.eq(full.bit_select(sending, 1)),
            self.o.payload.eq(Mux(sending, second, first)),
        ]
        for entry, is_full in zip(entries, full, strict=True):
            with m.If(~is_full):
                m.d.sync += entry.eq(self.i.payload)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [full.bit_select(filling, 1).eq(1), filling.eq(~filling)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [full.bit_select(sending, 1).eq(0), sending.eq(~sending)]
        return m


class StreamSwitch(wiring.Component):
    """Sends the words of one stream to one of two others. No registers.

    Parameters
    ----------
    shape : shape of the payload

    Members
    -------
    i : in, stream of `shape`
    second : in, 1 bit
        Which output gets the words. Must not change while a word waits at `i`.
    o_first : out, stream of `shape`
        The words while `second` is not set, in the same cycle.
    o_second : out, stream of `shape`
        The words while `second` is set, in the same cycle.
    """

    i: stream.Interface
    second: Signal
    o_first: stream.Interface
    o_second: stream.Interface

    def __init__(self, shape: Any) -> None:
        signature = stream.Signature(shape)
        super().__init__(
            {
                "i": In(signature),
                "second": In(1),
                "o_first": Out(signature),
                "o_second": Out(signature),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += [
            self.i.ready.eq(Mux(self.second, self.o_second.ready, self.o_first.ready)),
            self.o_first.valid.eq(self.i.valid & ~self.second),
            self.o_first.payload.eq(self.i.payload),
            self.o_second.valid.eq(self.i.valid & self.second),
            self.o_second.payload.eq(self.i.payload),
        ]
        return m


def bits_for(limit: int) -> Shape:
    """Unsigned shape that holds 0 to `limit`."""
    return Shape(max(1, limit.bit_length()))
