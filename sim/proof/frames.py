"""Properties of what reads Ethernet frames: nothing of a frame has an effect before its FCS."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from tritloom.sim.proof.formal import Bench, Inside
from tritloom.sim.proof.packets import AnyChecksum
from tritloom.sim.proof.streams import holds, implies, obeys

__all__ = ["gmii_contract", "reader_contract"]


def gmii_contract(component: Any) -> Bench:
    """A `GmiiReceiver` calls a frame right only if its FCS was, and nothing of it is missing.

    The CRC block is cut away: it may report a match after any bytes. It is fed with exactly the
    bytes between the start byte and the carrier's end. Words that find no room may be lost, but not
    the end.
    """
    with patch.dict(type(component).elaborate.__globals__, CRC32=AnyChecksum):
        inside = Inside(component)
    bench = Bench(component, inside)
    m, o = bench.m, component.o
    crc, within, closes = inside["crc"], inside["inside"], inside["closes"]
    m.d.comb += crc.match_detected.eq(bench.free("match"))
    dv, byte, er = bench.was(component.dv), bench.was(component.rx), bench.was(component.er)
    end = o.valid & o.payload.end
    matched = bench.state("matched")  # the FCS was right when the carrier ended
    dirty = bench.state("dirty")  # the frame has an error, or a word of it was lost
    with m.If(within & ~dv):
        m.d.sync += matched.eq(crc.match_detected)
    with m.If(~within & ~closes):
        m.d.sync += dirty.eq(0)
    with m.If(within & ((dv & er) | (o.valid & ~o.ready) | closes)):
        m.d.sync += dirty.eq(1)
    bench.check("right", implies(end & o.payload.data[0], matched & ~dirty))
    bench.check("fed", crc.valid == (within & dv))
    bench.check("byte", implies(crc.valid, crc.data == byte))
    bench.check("begins", implies(~within, crc.start))
    bench.check("end_waits", implies(bench.was(end & ~o.ready), end))
    bench.check("ends_once", implies(bench.was(end & o.ready & ~within), ~end))
    # What follows the induction step by step.
    bench.check("model_matched", implies(closes & inside["whole"], matched))
    bench.check("model_dirty", implies(dirty, inside["wrong"]))
    bench.cover("right", end & o.payload.data[0])
    bench.cover("wrong", end & ~o.payload.data[0] & dirty)
    bench.cover("odd", end & o.payload.data[1])
    return bench


def reader_contract(component: Any) -> Bench:
    """A `FrameReader` does nothing for a frame before its end with the verdict that it is whole.

    No notice, no other address, no packet that is not aborted. A packet that has begun ends with
    its frame, with one last beat. Both outputs keep the rule of streams.

    Assumed: the queue before it keeps the rule, and `judged` comes after a last beat.
    """
    bench = Bench(component)
    m, i, o, notice = bench.m, component.i, component.o, component.o_notice
    obeys(bench, i)
    ended = i.valid & i.ready & i.payload.end
    whole = ended & i.payload.data[0]
    begun = bench.state("begun")  # a beat of this frame has left
    waits = bench.state("waits")  # for what becomes of a packet
    started = bench.state("started")
    moved = o.valid & o.ready
    m.d.sync += started.eq(1)
    with m.If(moved & ~o.payload.last):
        m.d.sync += begun.eq(1)
    with m.If(ended):
        m.d.sync += begun.eq(0)
    with m.If(component.judged):
        m.d.sync += waits.eq(0)
    with m.If(moved & o.payload.last):
        m.d.sync += waits.eq(1)
    bench.assume(implies(component.judged, waits))
    holds(bench, "o", o, cover=False)
    holds(bench, "notice", notice)
    rises = notice.valid & ~bench.was(notice.valid)
    bench.check("notice", implies(rises, bench.was(whole)))
    changes = component.address != bench.was(component.address)
    bench.check("address", implies(started & changes, bench.was(whole)))
    bench.check("last", implies(o.valid, o.payload.last == i.payload.end))
    sound = o.valid & o.payload.last & ~component.abort
    bench.check("sound", implies(sound, i.payload.data[0]))
    bench.check("ends", implies(ended & begun, moved & o.payload.last))
    bench.check("waits", implies(waits, ~i.ready))
    peer = bench.was(component.peer)
    bench.check("peer", implies(waits & bench.was(waits), component.peer == peer))
    bench.cover("arp", notice.valid & (notice.payload.kind == 0))
    return bench
