"""A queue of stream payloads between two clock domains."""

from math import ceil
from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Module, Shape, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import AsyncFIFOBuffered
from amaranth.lib.wiring import In, Out

__all__ = ["RESET_CYCLES", "LongReset", "StreamCrossing"]

RESET_CYCLES = 5
"""A reset must last so many cycles of both clocks: two synchronising registers in a row, and one
cycle for the phase."""


class LongReset(wiring.Component):
    """Makes a short reset so long that two clock domains can be reset by it.

    Its own registers are in a domain without a reset, on the clock of `sync`.

    Parameters
    ----------
    clock_hz : of `sync`
    other_hz : of the other domain

    Members
    -------
    i : in, 1 bit
        The reset, high for a cycle of `sync` or longer.
    o : out, 1 bit
        High with `i`, and then for `RESET_CYCLES` of the slower clock.
    """

    i: Signal
    o: Signal

    def __init__(self, clock_hz: int, other_hz: int) -> None:
        self.cycles = ceil(RESET_CYCLES * max(1, clock_hz / other_hz))
        super().__init__({"i": In(1), "o": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.always = ClockDomain(reset_less=True, local=True)
        m.d.comb += ClockSignal("always").eq(ClockSignal("sync"))
        left = Signal(range(self.cycles + 1))
        m.d.comb += self.o.eq(self.i | (left != 0))
        with m.If(self.i):
            m.d.always += left.eq(self.cycles)
        with m.Elif(left != 0):
            m.d.always += left.eq(left - 1)
        return m


class StreamCrossing(wiring.Component):
    """Takes payloads in one clock domain and gives them in another one, in order.

    The clocks may have any ratio and phase. The counters cross as Gray codes, so a counter that is
    read while it changes is the old one or the new one. For that, the wires of a counter may differ
    by less than a cycle of the faster clock; a build checks that (`crossing_ns` in its report). A
    payload lies in the RAM for two cycles of the reader before it is read.

    A reset empties the queue. Both domains must be reset together, for at least `RESET_CYCLES` of
    the slower clock: the counters must cross while nothing else moves them.

    Latency: from a transfer at `i` to `o.valid`, one cycle of the source and up to four of the
    reader. Throughput: a payload a cycle of the slower clock, if `depth` is at least 16.

    Parameters
    ----------
    shape : shape of a payload
    depth : payloads that the RAM holds, a power of two; `o` holds another one
    source, reader : names of the clock domains

    Members
    -------
    i : in, stream of `shape`, in the domain `source`
    o : out, stream of `shape`, in the domain `reader`
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape: Any, depth: int, source: str, reader: str) -> None:
        self._bits = Shape.cast(shape).width
        self._depth = depth
        self._source, self._reader = source, reader
        signature = stream.Signature(shape)
        super().__init__({"i": In(signature), "o": Out(signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = AsyncFIFOBuffered(
            width=self._bits,
            depth=self._depth + 1,
            r_domain=self._reader,
            w_domain=self._source,
        )
        m.d.comb += [
            queue.w_data.eq(self.i.payload),
            queue.w_en.eq(self.i.valid),
            self.i.ready.eq(queue.w_rdy),
            self.o.payload.eq(queue.r_data),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
        ]
        return m
