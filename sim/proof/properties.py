"""Properties of the components, as benches for `tritloom.sim.proof.formal.verify`.

A contract is shown for one item that no one chose: its index is a `Bench.constant`, so what holds
for it holds for every item. Indexes count modulo a power of two above all that is under way.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from unittest.mock import patch

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import stream
from amaranth.lib.wiring import Out

from tritloom.rtl.core.partial_sums import FETCH_CYCLES
from tritloom.rtl.engines.contract import ACT_LATENCY
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import CRC_BYTES, OVERHEAD_BYTES
from tritloom.rtl.spec.config import PARTIAL_SUM_CYCLES, PARTIAL_SUM_READ_CYCLES
from tritloom.rtl.spec.encodings import encodings
from tritloom.sim.proof.formal import Bench, Inside

__all__ = [
    "accelerator_rules",
    "core_rules",
    "decoder_inverse",
    "engine_product",
    "memory_contract",
    "partial_sums_total",
    "processor_rules",
    "receiver_contract",
    "register_contract",
    "stream_rules",
]


def holds(bench: Bench, name: str, flow: Any, cover: bool = True) -> None:
    """Stream rule of an output: valid and payload hold until the transfer."""
    waits = bench.was(flow.valid & ~flow.ready)
    payload = Value.cast(flow.payload)
    bench.check(f"{name}_valid", ~waits | flow.valid)
    bench.check(f"{name}_payload", ~waits | (payload == bench.was(payload)))
    if cover:
        bench.cover(f"{name}_waits", waits & flow.valid & flow.ready)


def obeys(bench: Bench, flow: Any) -> None:
    """An input keeps that rule too."""
    waits = bench.was(flow.valid & ~flow.ready)
    payload = Value.cast(flow.payload)
    bench.assume(~waits | (flow.valid & (payload == bench.was(payload))))


def implies(condition: Any, result: Any) -> Any:
    return ~Value.cast(condition).bool() | result


def stream_rules(component: Any, covered: Collection[str] | None = None) -> Bench:
    """The stream rule of every output stream of ``component``, whatever its inputs do.

    ``covered``: the outputs that wait in a cover; all of them unless given.
    """
    bench = Bench(component)
    for name, member in component.signature.members.items():
        is_stream = member.is_signature and isinstance(member.signature, stream.Signature)
        if is_stream and member.flow == Out:
            cover = covered is None or name in covered
            holds(bench, name, getattr(component, name), cover)
    return bench


def processor_rules(component: Any) -> Bench:
    """``stream_rules`` of a `CommandProcessor`; weight words obey them, none is left at ``done``.

    Covered are the streams that the first command can use; the others need several.
    """
    bench = stream_rules(component, covered=("o_send", "o_load"))
    obeys(bench, component.i_word)
    bench.assume(~(component.done & component.i_word.valid))
    return bench


def core_rules(component: Any) -> Bench:
    """``stream_rules`` of a `Core`; results are asked for, and taken, while no layer runs."""
    bench = stream_rules(component)
    shape, config = component.i_run.payload, component.config
    running, waits = bench.state("running"), bench.state("waits")
    with bench.m.If(component.i_fetch.valid & component.i_fetch.ready):
        bench.m.d.sync += waits.eq(1)
    with bench.m.Elif(component.o.valid & component.o.ready):
        bench.m.d.sync += waits.eq(0)
    with bench.m.If(component.i_run.valid & component.i_run.ready):
        bench.m.d.sync += running.eq(1)
    with bench.m.Elif(component.done):
        bench.m.d.sync += running.eq(0)
    bench.assume((shape.last_tile < config.max_tiles) & (shape.last_group < config.max_row_groups))
    bench.assume(~(component.i_fetch.valid & (running | component.i_run.valid)))
    bench.assume(~(component.i_run.valid & waits))
    bench.cover("result", component.o.valid & (Value.cast(component.o.payload) != 0))
    return bench


def _register(inside: Any) -> tuple[Value, Value, Value]:
    """Of a `StreamRegister`: whether a second word waits, which one, and whose turn it is holds."""
    full, filling, sending = inside["full"], inside["filling"], inside["sending"]
    first, second = (Value.cast(entry) for entry in inside["entries"])
    one = full == Mux(sending, 2, 1)
    return (
        full.all(),
        Mux(sending, first, second),
        Mux(filling == sending, full.all() | ~full.any(), one),
    )


def register_contract(component: Any) -> Bench:
    """A `StreamRegister`: what comes out is what went in, in order, none lost or invented."""
    inside = Inside(component)
    bench = Bench(component, inside)
    i, o, m = component.i, component.o, bench.m
    spare, value, sound = _register(inside)
    index = bench.constant("index", 4)
    accepted, delivered = bench.state("accepted", 4), bench.state("delivered", 4)
    tracked = bench.state("tracked", len(i.payload))
    with m.If(i.valid & i.ready):
        m.d.sync += accepted.eq(accepted + 1)
        with m.If(accepted == index):
            m.d.sync += tracked.eq(i.payload)
    with m.If(o.valid & o.ready):
        m.d.sync += delivered.eq(delivered + 1)
    held = (accepted - delivered)[:4]
    bench.check("count", held == o.valid + spare)
    bench.check("turns", sound)
    bench.check("spare", implies(spare & (index == (delivered + 1)[:4]), value == tracked))
    bench.check("order", implies(o.valid & (delivered == index), o.payload == tracked))
    bench.cover("both", spare & (o.payload == 7))
    bench.cover("third", o.valid & o.ready & (delivered == 2) & (o.payload == 7))
    bench.cover("full_rate", o.valid & bench.was(o.valid & o.ready) & bench.was(o.valid, 2))
    return bench


def memory_contract(component: Any) -> Bench:
    """A `BlockRamMemory`: just the words of the ranges, in order, as they were written last.

    They come ``LATENCY`` cycles after the range and without a pause. Assumed: ranges are not empty
    and lie in the memory; nothing reads and writes at the same time.
    """
    config, inside = component.config, Inside(component, words_0=1)
    assert config.memory_words <= BlockRam.BANK_WORDS, "the invariants know one bank"
    bench = Bench(component, inside)
    m, o, ask, write = bench.m, component.o, component.i_read, component.i_write
    words = config.memory_words
    bits = (2 * words + 4).bit_length()  # a range, the next one, and what the registers hold
    index, place = bench.constant("index", bits), bench.constant("place", range(words))
    demanded, delivered = bench.state("demanded", bits), bench.state("delivered", bits)
    source, stored = bench.state("source", range(words)), bench.state("stored", config.word_bits)
    waiting = Signal(bits)
    m.d.comb += waiting.eq(demanded - delivered)
    asked = ask.valid & ask.ready
    bench.assume((ask.payload.count >= 1) & (ask.payload.address + ask.payload.count <= words))
    bench.assume(~write.valid | ((waiting == 0) & ~ask.valid))
    bench.assume((write.payload.address < words) & (place < words))

    ahead = Signal(bits)  # words before the tracked one, from where the next range begins
    m.d.comb += ahead.eq(index - demanded)
    with m.If(asked):
        m.d.sync += demanded.eq(demanded + ask.payload.count)
        with m.If(ahead < ask.payload.count):
            m.d.sync += source.eq(ask.payload.address + ahead)
    with m.If(o.valid & o.ready):
        m.d.sync += delivered.eq(delivered + 1)
    with m.If(write.valid & write.ready & (write.payload.address == place)):
        m.d.sync += stored.eq(write.payload.word)

    distance = Signal(bits)
    m.d.comb += distance.eq(index - delivered)
    tracked = (distance < waiting) & (source == place)
    old = bench.was(demanded, component.LATENCY - 1)  # by ranges LATENCY cycles ago or more
    bench.check("none_invented", implies(o.valid, waiting != 0))
    bench.check("in_time", implies(delivered != old, o.valid))
    bench.check("order", implies(tracked & o.valid & (distance == 0), o.payload == stored))

    left, address = inside["left"], inside["address"]
    read, kept = inside["valid"][0], inside["valid"][1]
    output = inside.within(inside["output"])
    spare, value, sound = _register(output)
    behind = Signal(bits)
    m.d.comb += behind.eq(distance - o.valid - spare - kept - read)
    bench.check("none_lost", waiting == left + read + kept + spare + o.valid)
    bench.check("more", inside["more"] == (left != 0))
    bench.check("in_range", implies(left != 0, address + left <= words))
    late = inside["write"]  # a write on its way
    held = Mux(
        inside["writing"][0] & (late.address == place),
        late.word,
        inside.word(bench, "words_0", place),
    )
    bench.check("written", implies(inside["writing"], waiting == 0))
    bench.check("memory", held == stored)
    data, register = inside["read_port"].data, inside["register"]
    bench.check("turns", sound)
    for name, there, before, word in (
        ("spare", spare, o.valid, value),
        ("kept", kept, spare + o.valid, register),
        ("read", read, kept + spare + o.valid, data),
    ):
        bench.check(name, implies(tracked & there & (distance == before), word == stored))
    bench.check(
        "source",
        implies(
            (distance < waiting) & (distance >= read + kept + spare + o.valid),
            source == address + behind,
        ),
    )
    bench.cover("second_range", tracked & o.valid & o.ready & (delivered == 3) & (stored == 7))
    bench.cover("overlap", asked & (waiting > 2))
    return bench


def decoder_inverse(component: Any) -> Bench:
    """A `Base3x5Decoder`: Σ (tᵢ+1)·3^i of its trits is the code, for every code up to 242."""
    bench = Bench(component)
    bench.assume(component.i <= 242)
    trits = [Mux(component.nonzero[n], Mux(component.negative[n], -1, 1), 0) for n in range(5)]
    started = bench.was(Const(1), component.CYCLES)
    again = sum((trit + 1) * 3**n for n, trit in enumerate(trits))
    bench.check("inverse", implies(started, again == bench.was(component.i, component.CYCLES)))
    bench.check(
        "negative_is_nonzero", implies(started, (component.negative & ~component.nonzero) == 0)
    )
    bench.cover("low", started & (again == 0))
    bench.cover("high", started & (again == 242))
    return bench


def engine_product(component: Any) -> Bench:
    """A `SelectEngine`: each sum is Σ tᵢ·xᵢ by multiplication, over the tile that was loaded.

    Every trit and activation takes every value; words come with or without pauses, tiles change at
    any time that the protocol allows. A tile is the words that ``i_act`` holds ``ACT_LATENCY``
    cycles after their addresses, which count up from 0. Assumed: ``i_more`` rises after
    ``i_start``, falls after ``i_swap``.
    """
    config, inside = component.config, Inside(component)
    encoding = encodings[config.encoding]
    bench = Bench(component, inside, driven=("i_word", "i_swap"))
    m, more, latency = bench.m, component.i_more, config.engine_latency
    loads, bits = config.lanes // config.fill, config.lanes * config.act_bits

    trits = [bench.free(f"trit_{k}", signed(2)) for k in range(config.rows * config.lanes)]
    for trit in trits:
        bench.assume(trit != -2)
    signs, codes = _signs_and_codes(config, trits)
    m.d.comb += component.i_word.eq(Cat(Value.cast(code)[: encoding.code_bits] for code in codes))
    swap = bench.free("swap")
    m.d.comb += component.i_swap.eq(swap & component.i_valid & component.ready)
    bench.assume(~component.i_start | ~more)
    change = Mux(more, bench.was(component.i_start), bench.was(component.i_swap))
    bench.assume((more == bench.was(more)) | change)

    # A tile's words: asked for in cycles with run, arriving later.
    run, arrives = inside["run"], Signal()
    asked, count = (bench.state(n, range(loads + 1)) for n in ("asked", "count"))
    address = bench.state("address", len(component.act_address))
    tile, used, current = (bench.state(n, bits) for n in ("tile", "used", "current"))
    m.d.comb += [
        arrives.eq(bench.was(run, ACT_LATENCY)),
        current.eq(Mux(component.i_swap, tile, used)),
    ]
    m.d.sync += used.eq(current)
    with m.If(run):
        m.d.sync += [address.eq(address + 1), asked.eq(asked + 1)]
    with m.If(component.i_start):
        m.d.sync += address.eq(0)
    with m.If(arrives):
        m.d.sync += [
            tile.eq(Cat(tile, Value.cast(component.i_act))[-bits:]),
            count.eq(count + 1),
        ]
    with m.If(component.i_swap):
        m.d.sync += [asked.eq(0), count.eq(0)]

    due = bench.was(component.i_valid, latency)
    for row in range(config.rows):
        terms: list[Any] = []
        for lane in range(config.lanes):
            trit = trits[row * config.lanes + lane]
            x = current.word_select(lane, config.act_bits).as_signed()
            # The solver does better with a selection, shown equal to the product by itself.
            term = Signal(signed(config.act_bits + 1), name=f"term_{row}_{lane}")
            m.d.comb += term.eq(Mux(trit == 1, x, Mux(trit == -1, -x, 0)))
            bench.check(f"product_{row}_{lane}", term == trit * x)
            terms.append(term)
        while len(terms) > 1:  # in pairs, as the solver finds that simpler
            terms = [sum(terms[k : k + 2]) for k in range(0, len(terms), 2)]
        total = Signal(signed(config.sum_bits + 1), name=f"total_{row}")
        m.d.comb += total.eq(terms[0])
        late = bench.was(total, latency)
        found = Mux(component.o_negative[row], -component.o_sums[row], component.o_sums[row])
        bench.check(f"sum_{row}", implies(due, found == late))
        lowest = config.lanes << (config.act_bits - 1)
        bench.cover(f"sum_{row}_highest", due & (found == lowest))

    # Of row 0, whose lanes' bits these are.
    decoded = bench.was(component.i_valid, encoding.decoder_cycles)
    zeros, nonzeros = inside["zeros"], inside["nonzeros"]
    for k, trit in enumerate(trits[: config.lanes]):
        late, sign = (bench.was(value, encoding.decoder_cycles) for value in (trit, signs[k]))
        if k:
            sign = sign ^ bench.was(signs[k & (k - 1)], encoding.decoder_cycles)
        nonzero = nonzeros[k // 2] if k % 2 else ~zeros[k // 2]
        right = (nonzero == (late != 0)) & (inside["relatives"][k] == sign)
        bench.check(f"decoded_{k}", implies(decoded, right))
    recent = [bench.was(component.i_swap, n) for n in range(1, encoding.decoder_cycles)]
    pending = Cat(recent).any()
    full = count == loads
    bench.check("ready", component.ready == full)
    bench.check("address", component.act_address == address)
    bench.check("loads", run == (more & (asked != loads) & ~pending))
    bench.check("no_overwrite", ~arrives | ~(full | pending))
    bench.check("arrives", inside["arriving"][-1] == arrives)
    under_way = [bench.was(run, n) for n in range(1, ACT_LATENCY + 1)]
    bench.check("asked", (asked == count + sum(under_way)) & (asked <= loads))

    loaded, held = Value.cast(inside["loaded"]), Value.cast(inside["current"])
    bench.check("loaded", loaded == tile)
    bench.check("current", Mux(pending, loaded, held) == used)
    bench.check("pending", inside["pending"] == pending)
    bench.check("words", inside["words"] == Mux(pending, loads, asked))
    bench.check("one_swap", implies(pending, asked == 0))
    bench.cover("swap_under_way", due & bench.was(component.i_swap, 2))
    bench.cover("second_tile", component.ready & (address == 2 * loads))
    return bench


def _signs_and_codes(config: Any, trits: list[Any]) -> tuple[list[Any], list[Any]]:
    """For each trit whether it is negative, as its encoding has it for 0; the codes of a word."""
    if config.encoding == "base3x5":
        groups = [trits[k : k + 5] for k in range(0, len(trits), 5)]
        codes = [sum((trit + 1) * 3**n for n, trit in enumerate(group)) for group in groups]
        return [trit == -1 for trit in trits], codes
    assert config.encoding == "diff2" and config.rows == 1
    signs: list[Any] = []
    for first, second in zip(trits[::2], trits[1::2], strict=True):
        negative = (first == -1) | ((first == 0) & (second == -1))
        signs += [negative, negative ^ ((first != 0) & (second != 0) & (first != second))]
    codes = []
    for n in range(0, len(trits), 2):
        relative = signs[n] ^ signs[n & (n - 2)] if n else signs[0]
        codes.append(Cat(trits[n] == 0, trits[n + 1] != 0, signs[n] ^ signs[n + 1], relative))
    return signs, codes


def partial_sums_total(component: Any) -> Bench:
    """`PartialSums`: a group's total is the exact sum of what it was given since its layer began.

    Assumed: the order of a layer, whose shape is in range; a group not again within
    ``PARTIAL_SUM_CYCLES`` (of the tracked group alone), sums of at most ``lanes`` extreme terms.
    """
    config, inside = component.config, Inside(component, totals=1)
    bench = Bench(component, inside, driven=("i_valid", "i_row_group", "i_first", "i_last"))
    m = bench.m
    given, start = bench.free("given"), bench.free("start")
    groups = bench.free("groups", range(config.max_row_groups + 1))
    tiles = bench.free("tiles", range(config.max_tiles + 1))
    running, complete = bench.state("running"), bench.state("complete")
    group, tile = (
        bench.state("group", range(config.max_row_groups)),
        bench.state("tile", len(tiles)),
    )
    tracked = bench.constant("tracked", range(config.max_row_groups))
    total = bench.state("total", signed(config.acc_bits + 4))
    terms, added = bench.state("terms", len(tiles)), bench.state("added", len(tiles))
    wanted = bench.free("wanted", len(group))  # while no group comes
    written = PARTIAL_SUM_READ_CYCLES + 1
    extreme = config.lanes << (config.act_bits - 1)

    hit, last = Signal(), Signal()
    m.d.comb += [
        hit.eq(given & (group == tracked)),
        last.eq(given & (group + 1 == groups) & (tile + 1 == tiles)),
        component.i_valid.eq(given),
        component.i_row_group.eq(Mux(given, group, wanted)),
        component.i_first.eq(tile == 0),
        component.i_last.eq(last),
    ]
    with m.If(start):
        m.d.sync += [running.eq(1), complete.eq(0), group.eq(0), tile.eq(0)]
    with m.Elif(given):
        m.d.sync += group.eq(group + 1)
        with m.If(group + 1 == groups):
            m.d.sync += [group.eq(0), tile.eq(tile + 1), complete.eq(tile + 1 == tiles)]
    with m.If(component.done):
        m.d.sync += running.eq(0)
    with m.If(hit):
        m.d.sync += terms.eq(Mux(tile == 0, 0, terms) + 1)
    first = bench.was(tile == 0, PARTIAL_SUM_READ_CYCLES)
    addend = Mux(component.i_negative[0], -component.i_sums[0], component.i_sums[0])
    with m.If(bench.was(hit, PARTIAL_SUM_READ_CYCLES)):
        m.d.sync += total.eq(Mux(first, 0, total) + addend)
        m.d.sync += added.eq(Mux(first, 0, added) + 1)
    hits = [bench.was(hit, n) for n in range(1, written + 1)]
    lasts = [bench.was(last, n) for n in range(1, written + 1)]
    holding = bench.was(running) & running
    bench.assume(implies(holding, (groups == bench.was(groups)) & (tiles == bench.was(tiles))))
    bench.assume(implies(running, (groups >= 1) & (groups <= config.max_row_groups)))
    bench.assume(implies(running, (tiles >= 1) & (tiles <= config.max_tiles)))
    bench.assume(~start | ~running)
    bench.assume(~given | (running & ~complete))
    bench.assume(wanted < config.max_row_groups)
    bench.assume((component.i_sums[0] <= extreme) & (component.i_sums[0] >= -extreme))
    bench.assume(~hit | ~Cat(hits[: PARTIAL_SUM_CYCLES - 1]).any())
    bench.assume(tracked < config.max_row_groups)

    asked = bench.was(component.i_row_group == tracked, FETCH_CYCLES)
    ran = Cat(bench.was(running, n) for n in range(FETCH_CYCLES + 1))
    bench.check("total", implies(asked & ~ran.any(), component.o[0] == total))
    bench.check("done", component.done == lasts[-1])
    bench.check("no_overflow", (total <= added * extreme) & (total >= -1 * added * extreme))

    bench.check("terms", terms <= config.max_tiles)
    bench.check("added", added == bench.was(terms, PARTIAL_SUM_READ_CYCLES))
    begun = (tile != 0) | (group > tracked)
    bench.check(
        "terms_of_tracked",
        implies(running & begun & (tracked < groups), terms == tile + (tracked < group)),
    )
    bench.check("memory", hits[-1] | (inside.word(bench, "totals", tracked)[0] == total))
    bench.check("in_group", implies(running, group < groups))
    bench.check(
        "in_tile", implies(running, Mux(complete, (tile == tiles) & (group == 0), tile < tiles))
    )
    bench.check("quiet", implies(Cat(hits).any() | Cat(lasts).any(), running))
    bench.check("ends", implies(running & complete, Cat(lasts).any()))
    bench.cover("lowest", asked & ~ran.any() & (total == -3 * extreme))
    bench.cover(
        "full_rate", bench.was(given, 4) & bench.was(given, 3) & bench.was(given, 1) & given
    )
    bench.cover("first_tile_again", hit & (tile == 0) & (total == 77) & (terms == 2))
    return bench


class AnyChecksum(Elaboratable):
    """In the place of the CRC block: ``match_detected`` is what the bench says."""

    def __init__(self) -> None:
        self.start, self.valid, self.match_detected = Signal(), Signal(), Signal()
        self.data = Signal(8)

    create: Any = classmethod(lambda cls: cls())

    def elaborate(self, platform: object) -> Module:
        return Module()


def receiver_contract(component: Any) -> Bench:
    """`PacketReceiver`: its output is the header and payload of the sound packets, in order.

    Sound: the CRC block, given just the bytes of the packet, reports a match; the first two bytes
    are the number of bytes, which is not too small or too great; no abort. One is left out only if
    the buffer was full at one of its bytes, and is reported as ``dropped``. The CRC block itself is
    cut away: it may report a match after any bytes, so the rest holds for any checksum.
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
        with m.If(sound & ~full):
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
    bench.check("good", component.good == (ended & sound & ~full))
    bench.check("bad", component.bad == (ended & ~sound))
    bench.check("dropped", component.dropped == (ended & sound & full))
    bench.check("link_never_waits", i.ready == ~ended)

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
    kept = (distance < waiting) & (distance >= o.valid)
    behind = (tracked_at - tail)[:place] == distance - o.valid
    bench.check("kept_at", implies(kept, behind))
    bench.check("kept", implies(kept & (tracked_at == spot), at_spot == tracked))
    may = (new < stored) & ~full
    bench.check("candidate_at", implies(may, (maybe_at - limit)[:place] == new))
    bench.check("candidate", implies(may & (maybe_at == spot), at_spot == maybe))
    bench.cover("fetched", o.valid & (distance == 0) & (index == 3))
    return bench


def accelerator_rules(component: Any) -> Bench:
    """``stream_rules`` of an `Accelerator`. An answer is too far for a cover: that its output waits
    is covered in `PacketSender`, here that a packet is checked."""
    bench = stream_rules(component, covered=())
    bench.cover("checks", component.i.valid & ~component.i.ready)
    return bench
