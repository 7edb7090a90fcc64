"""Properties of the packet receiver: it passes on the right packets and nothing else."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from amaranth.hdl import Elaboratable, Module, Mux, Signal

from tritloom.rtl.spec.commands import CRC_BYTES, OVERHEAD_BYTES
from tritloom.sim.proof.formal import Bench, Inside
from tritloom.sim.proof.streams import implies

__all__ = ["receiver_contract"]


class AnyChecksum(Elaboratable):
    """Replaces the CRC block: the bench drives `match_detected`."""

    def __init__(self) -> None:
        self.start, self.valid, self.match_detected = Signal(), Signal(), Signal()
        self.data = Signal(8)

    create: Any = classmethod(lambda cls: cls())

    def elaborate(self, platform: object) -> Module:
        return Module()


def receiver_contract(component: Any) -> Bench:
    """A `PacketReceiver` gives header and payload of the right packets, in order, and nothing else.

    A packet is right if the CRC block, fed with exactly the bytes of the packet, reports a match;
    its first two bytes state its length; the length is not too small or too great; the link did not
    abort it. A right packet is left out only if the buffer was full at one of its bytes, or if
    `crowded` is set when it is checked; then it is reported as `dropped`. The CRC block itself is
    cut away: it may report a match after any bytes, so the proof holds for any checksum.

    The proof follows one byte of the output, the one with the number `index`, and one place of the
    buffer, `spot`. Both are any numbers.
    """
    config = component.config
    with patch.dict(type(component).elaborate.__globals__, CRC32=AnyChecksum):
        inside = Inside(component, buffer=1)
    bench = Bench(component, inside)
    m, i, o = bench.m, component.i, component.o
    m.d.comb += inside["crc"].match_detected.eq(bench.free("match"))
    depth, longest = config.slots * config.packet_bytes, config.packet_bytes
    bits = depth.bit_length() + 1
    index = bench.constant("index", bits)
    accepted, delivered = bench.state("accepted", bits), bench.state("delivered", bits)
    count = bench.state("count", range(longest + 2))  # longest + 1: too many
    stored = bench.state("stored", range(depth))  # bytes of the packet in the buffer
    length, full, ended = bench.state("length", 16), bench.state("full"), bench.state("ended")
    aborted, crc = bench.state("aborted"), inside["crc"]
    maybe, tracked = bench.state("maybe", 8), bench.state("tracked", 8)
    # The byte with the number `index` is `maybe` until its packet is checked, then `tracked`.
    taken = i.valid & i.ready
    byte = i.payload.data
    head, limit, tail = inside["head"], inside["limit"], inside["tail"]
    place = len(head)
    maybe_at, tracked_at = bench.state("maybe_at", place), bench.state("tracked_at", place)
    spot, at_spot = bench.constant("spot", place), bench.state("at_spot", 8)

    sound = Signal()
    m.d.comb += sound.eq(
        crc.match_detected
        & (length == count)
        & (count >= OVERHEAD_BYTES)
        & (count <= longest)
        & ~aborted
    )

    room = ~full & ~component.crowded
    waiting, used, new = Signal(bits), Signal(bits), Signal(bits)
    m.d.comb += [
        waiting.eq(accepted - delivered),
        used.eq(waiting - o.valid + stored),
        new.eq(index - accepted),
    ]
    m.d.sync += ended.eq(taken & i.payload.last)
    with m.If(taken):
        with m.If(count <= longest):
            m.d.sync += count.eq(count + 1)
        with m.If(count == 0):
            m.d.sync += length[:8].eq(byte)
        with m.If(count == 1):
            m.d.sync += length[8:].eq(byte)
        with m.If(component.abort):
            m.d.sync += aborted.eq(1)
        with m.If(used == depth - 1):
            m.d.sync += full.eq(1)
        with m.Else():
            m.d.sync += stored.eq(stored + 1)
            with m.If(head == spot):
                m.d.sync += at_spot.eq(byte)
            with m.If(new == stored):
                m.d.sync += [maybe.eq(byte), maybe_at.eq(head)]
    with m.If(ended):
        m.d.sync += [count.eq(0), stored.eq(0), full.eq(0), aborted.eq(0)]
        with m.If(sound & room):
            m.d.sync += accepted.eq(accepted + count - CRC_BYTES)
            with m.If(new < count - CRC_BYTES):
                m.d.sync += [tracked.eq(maybe), tracked_at.eq(maybe_at)]
    with m.If(o.valid & o.ready):
        m.d.sync += delivered.eq(delivered + 1)

    distance = Signal(bits)
    m.d.comb += distance.eq(index - delivered)
    bench.check("none_invented", implies(o.valid, waiting != 0))
    bench.check("none_late", implies(delivered != bench.was(accepted), o.valid))
    tracks = tracked_at == spot
    bench.check("order", implies(o.valid & (distance == 0) & tracks, o.payload == tracked))
    bench.check("good", component.good == (ended & sound & room))
    bench.check("bad", component.bad == (ended & ~sound))
    bench.check("dropped", component.dropped == (ended & sound & ~room))
    bench.check("link_never_waits", i.ready == ~ended)

    # Invariants.
    bench.check("head", head == (limit + stored)[:place])
    bench.check("live", (limit - tail)[:place] == waiting - o.valid)
    bench.check("room", (used < depth) & (waiting - o.valid < depth))
    bench.check("count", inside["count"] == Mux(count > longest, longest, count))
    bench.check("wrong", inside["wrong"] == (aborted | (count > longest)))
    bench.check("all_stored", full | (count > longest) | (stored == count))
    bench.check("full", inside["full"] == full)
    bench.check("ended", inside["check"] == ended)
    bench.check("length", implies(count >= 2, inside["length"] == length))
    bench.check("length_low", implies(count == 1, inside["length"][8:] == length[:8]))
    bench.check("checksum_begins", crc.start == ended)
    bench.check("checksum_bytes", (crc.valid == taken) & implies(taken, crc.data == byte))
    bench.check("memory", inside.word(bench, "buffer", spot) == at_spot)
    buffered = (distance < waiting) & (distance >= o.valid)
    behind = (tracked_at - tail)[:place] == distance - o.valid
    bench.check("buffered_at", implies(buffered, behind))
    bench.check("buffered", implies(buffered & (tracked_at == spot), at_spot == tracked))
    may = (new < stored) & ~full
    bench.check("candidate_at", implies(may, (maybe_at - limit)[:place] == new))
    bench.check("candidate", implies(may & (maybe_at == spot), at_spot == maybe))
    bench.cover("fetched", o.valid & (distance == 0) & (index == 3))
    return bench
