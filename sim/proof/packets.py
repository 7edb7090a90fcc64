"""Properties of what receives and sends packets: right ones pass whole, and nothing else does."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal

from tritloom.rtl.spec.commands import CRC_BYTES, OVERHEAD_BYTES
from tritloom.sim.proof.formal import Bench, Inside
from tritloom.sim.proof.streams import RegisterState, holds, implies, obeys

__all__ = ["narrower_contract", "receiver_contract", "sender_contract"]


class AnyChecksum(Elaboratable):
    """Replaces the CRC block of the receiver: the bench drives `match_detected`."""

    def __init__(self) -> None:
        self.start, self.valid, self.match_detected = Signal(), Signal(), Signal()
        self.data = Signal(8)

    create: Any = classmethod(lambda cls: cls())

    def elaborate(self, platform: object) -> Module:
        return Module()


class AnyWideChecksum(Elaboratable):
    """Replaces the CRC block of the sender: the bench drives `crc`."""

    def __init__(self, beat_bytes: int) -> None:
        self.start, self.valid = Signal(), Signal()
        self.data, self.size = Signal(8 * beat_bytes), Signal(range(beat_bytes + 1))
        self.crc = Signal(32)

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


def narrower_contract(component: Any) -> Bench:
    """A `PacketNarrower` gives the bytes of each beat in order, and none after the packet's length.

    Only a packet that is longer than its length has beats after it; of each of these the first byte
    comes, so the receiver sees that the packet is wrong. `last` comes once, with the last byte of
    the last beat, and `o_abort` only together with the last byte of a beat.

    Assumed: the input obeys the stream rule, and no packet has 2^16 beats.
    """
    inside = Inside(component)
    bench = Bench(component, inside)
    i, o, size, m = component.i, component.o, component.beat_bytes, bench.m
    obeys(bench, i)
    waits = bench.was(i.valid & ~i.ready)
    bench.assume(~waits | (component.i_abort == bench.was(component.i_abort)))
    holds(bench, "o", o)
    beats = bench.state("beats", 17)  # of the packet, before this one
    sent = bench.state("sent", range(size))  # bytes of this beat
    known, length = bench.state("length", 16), Signal(16, name="length_now")
    before, rest, final = Signal(21, name="before"), Signal(22, name="rest"), Signal(name="final")
    m.d.comb += [
        length.eq(Mux(beats == 0, i.payload.data[:16], known)),
        before.eq(beats * size),
        rest.eq(Mux(length > before, length - before, 0)),
        final.eq(Mux(i.payload.last & (rest <= size), sent + 1 >= rest, sent == size - 1)),
    ]
    bench.assume(beats < 1 << 16)
    with m.If(o.valid & o.ready):
        m.d.sync += [sent.eq(Mux(final, 0, sent + 1)), known.eq(length)]
        with m.If(final):
            m.d.sync += beats.eq(Mux(i.payload.last, 0, beats + 1))
    bench.check("byte", implies(o.valid, o.payload.data == i.payload.data.word_select(sent, 8)))
    bench.check("none_lost_or_invented", (o.valid == i.valid) & (i.ready == (o.ready & final)))
    bench.check("last", implies(o.valid, o.payload.last == (final & i.payload.last)))
    bench.check("abort", implies(o.valid, component.o_abort == (final & component.i_abort)))
    beyond = before + sent >= length
    ends = o.valid & i.payload.last
    bench.check("none_after_length", implies(ends & beyond, sent == 0))
    whole = ends & o.payload.last & (length > before)
    bench.check("ends_at_length", implies(whole & (rest <= size), before + sent + 1 == length))

    goes_on = ~i.payload.last | (sent < rest)
    bench.check("in_beat", implies(sent != 0, i.valid & goes_on))
    bench.check("begins", inside["begins"] == (beats == 0))
    bench.check("place", inside["place"] == sent)
    bench.check("left", implies(beats != 0, inside["left_later"] == rest))
    bench.cover("cut_short", whole & (sent == 0) & (beats == 2))
    bench.cover("second_packet", i.valid & (beats == 0) & bench.was(whole & o.ready))
    bench.cover("too_long", o.valid & beyond)
    return bench


def sender_contract(component: Any) -> Bench:
    """A `PacketSender` sends the stored bytes of the response, then their CRC-32, and nothing else.

    The CRC block is cut away, so the proof holds for any checksum: the block gets exactly the bytes
    of header and payload, in order, and what it then says is sent behind them.

    Assumed: the checksum changes only after a byte or `start`. The length that the first two bytes
    state is that of a header and a checksum at least, and `packet_bytes` at most. Nothing is
    written to the slot that is sent.
    """
    config, size = component.config, component.beat_bytes
    with patch.dict(type(component).elaborate.__globals__, WideCrc32=AnyWideChecksum):
        inside = Inside(component, stored=9)
    bench = Bench(component, inside)
    i, o, m = component.i, component.o, bench.m
    per_slot = config.packet_bytes // size
    place_bits = (per_slot - 1).bit_length()
    number = range(per_slot + 4)
    sending, slot = bench.state("sending"), bench.state("slot", range(config.slots))
    sent, summed = bench.state("sent", number), bench.state("summed", number)
    crc, checksum = inside["crc"], bench.free("checksum", 32)
    m.d.comb += crc.crc.eq(checksum)
    changes = bench.was(crc.start | crc.valid)
    bench.assume(changes | (checksum == bench.was(checksum)))

    def stored(beat: Any, name: str) -> Signal:
        """A beat of the response, as it is stored."""
        place = Signal(place_bits, name=f"place_{name}")
        word = Signal(8 * size, name=f"stored_{name}")
        m.d.comb += place.eq(beat)
        m.d.comb += word.eq(inside.word(bench, "stored", Cat(place, slot)))
        return word

    length, body = Signal(16, name="length_stored"), Signal(16, name="body_bytes")
    head = stored(0, "first")[:16] if size > 1 else Cat(stored(0, "first"), stored(1, "second"))
    m.d.comb += [length.eq(head), body.eq(length - CRC_BYTES)]
    bench.assume(~sending | ((length >= OVERHEAD_BYTES) & (length <= config.packet_bytes)))
    written_slot = component.address >> place_bits
    bench.assume(~(component.write & sending & (written_slot == slot)))

    # What is stored: one beat is followed, `spot`, which is any.
    spot = bench.constant("spot", len(component.address))
    at_spot = bench.state("at_spot", 8 * size)
    for byte in range(size):
        hit = component.write & component.mask[byte] & (component.address == spot)
        with m.If(hit):
            m.d.sync += at_spot.word_select(byte, 8).eq(component.data.word_select(byte, 8))
    bench.check("stores", inside.word(bench, "stored", spot) == at_spot)

    # The checksum belongs to the first `summed` beats of the body.
    out, takes, machine = inside["body"].o, Signal(name="takes"), inside.machine()
    m.d.comb += takes.eq((machine.state == machine.encoding["BODY"]) & out.valid & out.ready)
    with m.If(takes):
        m.d.sync += summed.eq(summed + 1)
    with m.If(i.valid & i.ready):
        m.d.sync += [sending.eq(1), slot.eq(i.payload), sent.eq(0), summed.eq(0)]
    with m.If(o.valid & o.ready):
        m.d.sync += sent.eq(sent + 1)
        with m.If(o.payload.last):
            m.d.sync += sending.eq(0)

    holds(bench, "o", o)
    bench.check("one_at_a_time", i.ready == ~sending)
    bench.check("none_invented", implies(o.valid, sending))
    rest = Signal(16, name="bytes_left")
    m.d.comb += rest.eq(body - summed * size)
    bench.check("checksum_begins", implies(i.valid & i.ready, crc.start))
    bench.check("checksum_goes_on", implies(sending, ~crc.start))
    bench.check("checksum_takes", crc.valid == takes)
    right_bytes = (crc.size == Mux(rest < size, rest, size)) & (rest <= body) & (rest != 0)
    bench.check("checksum_size", implies(takes, right_bytes))
    bench.check("checksum_data", implies(takes, crc.data == stored(summed, "summed")))
    all_summed = summed * size >= body
    word = stored(sent, "sent")
    for byte in range(size):
        place = Signal(17, name=f"byte_{byte}")
        m.d.comb += place.eq(sent * size + byte)
        data = o.payload.data.word_select(byte, 8)
        is_body, is_checksum = place < body, (place >= body) & (place < length)
        right = all_summed & (data == checksum.word_select((place - body)[:2], 8))
        bench.check(f"body_{byte}", implies(o.valid & is_body, data == word.word_select(byte, 8)))
        bench.check(f"checksum_{byte}", implies(o.valid & is_checksum, right))
    ends = (sent + 1) * size >= length
    bench.check("last", implies(o.valid, o.payload.last == ends))

    model = (sending, slot, sent, summed, length)
    _sender_invariants(bench, inside, component, stored, model)
    bench.cover("second_byte", o.valid & (sent == 1))
    bench.cover("waits", bench.was(o.valid & ~o.ready) & o.valid & (o.payload.data != 0))
    return bench


def _sender_invariants(
    bench: Bench, inside: Inside, component: Any, stored: Any, model: tuple[Any, ...]
) -> None:
    """Where each beat is on its way from the memory to the output."""
    sending, slot, sent, summed, length = model
    size, body = component.beat_bytes, inside["body"]
    machine = inside.machine()
    idle, moves, tail = (machine.state == machine.encoding[n] for n in ("IDLE", "BODY", "TAIL"))
    register = RegisterState.of(inside.within(body))
    fetched, taken, known = inside["fetched"], inside["taken"], inside["length"]
    beats = (length - CRC_BYTES + size - 1) >> (size.bit_length() - 1)
    bench.check("state", idle | moves | tail)
    bench.check("sending", sending == ~idle)
    bench.check("slot", ~sending | (inside["slot"] == slot))
    bench.check("turns", register.in_turn)
    inner = body.o.valid + register.second + body.i.valid
    bench.check("fetched", implies(moves, (fetched == taken + inner) & (fetched <= beats)))
    bench.check("taken", implies(sending, taken == summed))
    bench.check("body", implies(moves, (sent == taken) & (taken < beats) & (inside["tail"] == 0)))
    in_tail = (taken == beats) & (sent == taken - 1 + inside["tail"])
    bench.check("tail", implies(tail, in_tail & (sent * size < length)))
    bench.check("empty", implies(~moves, inner == 0))
    bench.check("length_0", implies(moves & (taken == 0), known.all()))
    if size == 1:
        bench.check(
            "length_1", implies(moves & (taken == 1), known == Cat(Const(-1, 8), length[:8]))
        )
    enough = taken >= (2 if size == 1 else 1)
    bench.check("length", implies(sending & enough, known == length))
    at_output = moves & body.o.valid
    bench.check("output", implies(at_output, body.o.payload == stored(taken, "output")))
    behind = stored(taken + 1, "behind")
    bench.check("second", implies(moves & register.second, register.second_word == behind))
    newest = stored(fetched - 1, "newest")
    bench.check("newest", implies(moves & body.i.valid, inside["read"].data == newest))
    bench.check("rest", implies(tail, inside["rest"] == stored(taken - 1, "rest")))
