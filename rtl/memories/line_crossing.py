"""A line store whose logic runs at a clock of its own."""

from amaranth.hdl import Cat, DomainRenamer, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Member, connect, flipped

from tritloom.rtl.lib.crossing import StreamCrossing
from tritloom.rtl.lib.ports import forward_port
from tritloom.rtl.lib.streams import StreamRegister, bits_for
from tritloom.rtl.memories.line_contract import LineStore, beat_layout
from tritloom.rtl.memories.line_facts import LineFormat
from tritloom.rtl.spec.plugins import MEMORY_DOMAIN

__all__ = ["BEATS", "REQUESTS", "CrossedStore", "order_layout"]

REQUESTS = 4
"""Ranges and written lines that wait for the store."""
BEATS = 16
"""Beats that wait for the accelerator: enough for one a cycle."""


def order_layout(line_format: LineFormat) -> data.StructLayout:
    """A range, or a line to write: `value` has the number of lines, or the line's bits."""
    bits = bits_for(line_format.lines)
    return data.StructLayout(
        {"write": 1, "line": bits, "value": max(bits.width, line_format.line_bits)}
    )


class CrossedStore(LineStore):
    """Puts queues between the accelerator and a line store in the domain `MEMORY_DOMAIN`.

    Ranges and written lines go through one queue, so the store gets them in their order. The
    store's beats may be narrower than those of this store: then several of them are joined, so that
    a slower clock can take all that a faster memory brings.

    Parameters
    ----------
    store : the line store, for lines of the same size
    line_format : sizes of lines and of this store's beats
    pads : those of `store`; they stay in the domain `MEMORY_DOMAIN`

    Members: see `LineStore`.
    """

    def __init__(self, store: LineStore, line_format: LineFormat, pads: dict[str, Member]) -> None:
        self._store = store
        self._pads = pads
        super().__init__(line_format, pads)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        store = self._store
        m.submodules.store = DomainRenamer(MEMORY_DOMAIN)(store)
        for name, member in self._pads.items():
            forward_port(m, getattr(self, name), getattr(store, name), member)
        self._cross_orders(m)
        self._cross_beats(m)
        return m

    def _cross_orders(self, m: Module) -> None:
        """Bring ranges and written lines to the store. They never come in the same cycle."""
        store = self._store
        layout = order_layout(self.format)
        m.submodules.orders = orders = StreamCrossing(layout, REQUESTS, "sync", MEMORY_DOMAIN)
        write, read = self.i_write, self.i_read
        order, given = orders.i.payload, orders.o.payload
        m.d.comb += [
            orders.i.valid.eq(write.valid | read.valid),
            order.write.eq(write.valid),
            order.line.eq(Mux(write.valid, write.payload.line, read.payload.line)),
            order.value.eq(Mux(write.valid, write.payload.data, read.payload.count)),
            write.ready.eq(orders.i.ready),
            read.ready.eq(orders.i.ready & ~write.valid),
            store.i_write.valid.eq(orders.o.valid & given.write),
            store.i_write.payload.line.eq(given.line),
            store.i_write.payload.data.eq(given.value),
            store.i_read.valid.eq(orders.o.valid & ~given.write),
            store.i_read.payload.line.eq(given.line),
            store.i_read.payload.count.eq(given.value),
            orders.o.ready.eq(Mux(given.write, store.i_write.ready, store.i_read.ready)),
        ]

    def _cross_beats(self, m: Module) -> None:
        """Join the store's beats, the first one lowest, and bring them to the accelerator."""
        layout = beat_layout(self.format)
        m.submodules.beats = beats = StreamCrossing(layout, BEATS, MEMORY_DOMAIN, "sync")
        connect(m, beats.o, flipped(self.o))
        # Whether the queue has room is known late in a cycle, and the store's own queue must not
        # wait for it.
        whole = StreamRegister(layout)
        m.submodules.whole = DomainRenamer(MEMORY_DOMAIN)(whole)
        connect(m, whole.o, beats.i)
        beat = self._store.o
        joined = self.format.beat_bits // self._store.format.beat_bits
        if joined == 1:
            connect(m, beat, whole.i)
            return
        bits = self._store.format.beat_bits
        kept = Signal(bits * (joined - 1), reset_less=True)  # the beats before the last one
        void = Signal()  # one of them is void
        place = Signal(range(joined))
        last = place == joined - 1
        m.d.comb += [
            beat.ready.eq(whole.i.ready | ~last),
            whole.i.valid.eq(beat.valid & last),
            whole.i.payload.data.eq(Cat(kept, beat.payload.data)),
            whole.i.payload.error.eq(beat.payload.error | void),
        ]
        with m.If(beat.valid & beat.ready):
            m.d[MEMORY_DOMAIN] += [
                place.eq(place + 1),
                kept.eq(Cat(kept, beat.payload.data)[bits:]),
                void.eq((void | beat.payload.error) & ~last),
            ]
