"""Properties of the AXI ports that read and write."""

from __future__ import annotations

from amaranth.hdl import Array, Mux, Signal

from tritloom.rtl.memories.axi_reader import AxiReader
from tritloom.rtl.memories.axi_writer import MOST_UNANSWERED, AxiWriter
from tritloom.sim.proof.formal import Bench, Inside
from tritloom.sim.proof.streams import implies

__all__ = ["axi_reader_contract", "axi_writer_contract"]

OPEN_BURSTS = 2
"""Bursts that the bench's memory takes ahead; a power of two."""
COUNT_BITS = 8
"""Bits of the numbers of beats; more beats do not come in a proof or a simulation."""
QUIET_CYCLES = 6
"""Cycles without anything to do after which nothing is on its way inside the port."""


def axi_reader_contract(component: AxiReader, most_beats: int = 3) -> Bench:
    """An `AxiReader` gives exactly the beats of its ranges, in order.

    The memory takes an address in any cycle, and gives the next beat in any cycle; so its latency
    is anything, and it may be silent for longer than the time-out. A beat's content is its own
    number. Assumed: ranges have 1 to `most_beats` beats.

    The proof follows one beat: that with the number `index` among all that were asked for. It must
    come in its place, and must be void or what the range asked for. A beat may be void only if the
    memory was silent or answered with an error.
    """
    inside = Inside(component)
    inputs = ("arready", "rid", "rdata", "rresp", "rlast", "rvalid")
    bench = Bench(component, inside, driven=inputs)
    m, ask, o = bench.m, component.i_read, component.o
    record = component.record
    shift = (record.beat_bytes - 1).bit_length()

    # The memory: bursts in a queue, each with its first beat and how many there are.
    first = Array(bench.state(f"first_{n}", len(ask.payload.beat)) for n in range(OPEN_BURSTS))
    length = Array(bench.state(f"length_{n}", 9) for n in range(OPEN_BURSTS))
    bits = OPEN_BURSTS.bit_length()
    head, tail, given = (
        bench.state("head", bits),
        bench.state("tail", bits),
        bench.state("given", 9),
    )
    queued = Signal(bits)
    place = Signal(bits - 1)
    number = Signal(len(ask.payload.beat))  # of the beat that comes
    m.d.comb += [
        queued.eq(head - tail),
        place.eq(tail),
        number.eq(first[place] + given),
        component.arready.eq(bench.free("takes") & (queued != OPEN_BURSTS)),
        component.rvalid.eq(bench.free("gives") & (head != tail)),
        component.rdata.eq(number),
        component.rresp.eq(Mux(bench.free("fails"), 2, 0)),
        component.rlast.eq(given == length[place]),
    ]
    with m.If(component.arvalid & component.arready):
        m.d.sync += [
            first[head[: bits - 1]].eq(component.araddr >> shift),
            length[head[: bits - 1]].eq(component.arlen),
            head.eq(head + 1),
        ]
    with m.If(component.rvalid):
        m.d.sync += given.eq(given + 1)
        with m.If(component.rlast):
            m.d.sync += [given.eq(0), tail.eq(tail + 1)]

    count = bench.constant("index", COUNT_BITS)
    demanded, delivered = bench.state("demanded", COUNT_BITS), bench.state("delivered", COUNT_BITS)
    source = bench.state("source", len(ask.payload.beat))
    bench.assume((ask.payload.count >= 1) & (ask.payload.count <= most_beats) & ~ask.payload.void)
    ahead = Signal(COUNT_BITS)
    m.d.comb += ahead.eq(count - demanded)
    with m.If(ask.valid & ask.ready):
        m.d.sync += demanded.eq(demanded + ask.payload.count)
        with m.If(ahead < ask.payload.count):
            m.d.sync += source.eq(ask.payload.beat + ahead)
    with m.If(o.valid & o.ready):
        m.d.sync += delivered.eq(delivered + 1)
    waiting = Signal(COUNT_BITS)
    m.d.comb += waiting.eq(demanded - delivered)
    tracked = (count == delivered) & (waiting != 0) & o.valid
    excuse = bench.state("excuse")  # the memory failed at least once
    fails = inside["fails"]
    with m.If((component.rvalid & component.rresp[1]) | fails):
        m.d.sync += excuse.eq(1)

    bench.check("none_invented", implies(o.valid, waiting != 0))
    bench.check("order", implies(tracked & ~o.payload.error, o.payload.data == source))
    bench.check("void", implies(o.valid & o.payload.error, excuse))
    burst_bytes = record.burst_beats * record.beat_bytes
    last = (component.araddr & (burst_bytes - 1)) + (component.arlen << shift)
    bench.check("page", implies(component.arvalid, last < burst_bytes))
    bench.check(
        "stable",
        implies(
            bench.was(component.arvalid & ~component.arready),
            component.arvalid
            & (component.araddr == bench.was(component.araddr))
            & (component.arlen == bench.was(component.arlen)),
        ),
    )
    queue = inside.within(inside["queue"])
    filled = Signal(len(queue["head"]))
    m.d.comb += filled.eq(queue["head"] - queue["tail"])
    bench.check("room", filled <= record.depth)
    # Each place of the queue is free, promised to a beat on its way, or taken.
    bench.check("credits", inside["free"] + inside["flying"] + filled == record.depth)

    # Nothing is lost: when the memory has given all, the beats that were asked for have all left.
    idle = ~component.arvalid & (head == tail) & ~o.valid & ~ask.valid
    quiet = Signal(range(QUIET_CYCLES + 1))
    with m.If(idle & (quiet != QUIET_CYCLES)):
        m.d.sync += quiet.eq(quiet + 1)
    with m.Elif(~idle):
        m.d.sync += quiet.eq(0)
    bench.check("none_lost", implies(quiet == QUIET_CYCLES, waiting == 0))

    bench.cover("second_range", tracked & ~o.payload.error & (count >= most_beats))
    drops = component.rvalid & (inside["late"] != 0)
    dropped = bench.state("dropped")
    with m.If(drops):
        m.d.sync += dropped.eq(1)
    bench.cover("late_beat", drops)
    bench.cover("exact_again", dropped & tracked & ~o.payload.error)
    return bench


def axi_writer_contract(component: AxiWriter) -> Bench:
    """An `AxiWriter` writes each word that it takes once, at its address, in order.

    The memory takes addresses and words in any cycles, and answers a write in any cycle after both;
    so it may be silent for longer than the time-out. Then words are dropped, and `failed` says so.

    The proof follows one word: that with the number `index` among all that were taken.
    """
    inside = Inside(component)
    bench = Bench(component, inside)
    m, write, pads = bench.m, component.i_write, component
    record = component.record
    shift = (record.beat_bytes - 1).bit_length()
    takes, stuck = inside["takes"], inside["stuck"]
    names = ("taken", "addressed", "sent", "answered")
    taken, addressed, sent, answered = (bench.state(name, COUNT_BITS) for name in names)
    index = bench.constant("index", COUNT_BITS)
    beat = bench.state("beat", len(write.payload.beat))
    data = bench.state("data", len(write.payload.data))

    def difference(one: Signal, other: Signal) -> Signal:
        result = Signal(COUNT_BITS)
        m.d.comb += result.eq(one - other)
        return result

    open_addresses, open_words = difference(addressed, answered), difference(sent, answered)
    waiting = difference(taken, answered)
    bench.assume(implies(pads.bvalid, (open_addresses != 0) & (open_words != 0)))
    for count, moves in (
        (taken, takes),
        (addressed, pads.awvalid & pads.awready),
        (sent, pads.wvalid & pads.wready),
        (answered, pads.bvalid & pads.bready),
    ):
        with m.If(moves):
            m.d.sync += count.eq(count + 1)
    with m.If(takes & (taken == index)):
        m.d.sync += [beat.eq(write.payload.beat), data.eq(write.payload.data)]

    # Nothing is lost or invented: a channel has a word exactly if one more was taken than has left.
    bench.check("each_address_once", difference(taken, addressed) == pads.awvalid)
    bench.check("each_word_once", difference(taken, sent) == pads.wvalid)
    bench.check(
        "address", implies(pads.awvalid & (addressed == index), pads.awaddr == beat << shift)
    )
    bench.check("word", implies(pads.wvalid & (sent == index), pads.wdata == data))
    whole = pads.wlast & pads.wstrb.all() & (pads.awlen == 0)
    bench.check("whole_beats", implies(pads.wvalid, whole))
    for channel, payload in (("aw", pads.awaddr), ("w", pads.wdata)):
        valid, ready = getattr(pads, f"{channel}valid"), getattr(pads, f"{channel}ready")
        holds = valid & (payload == bench.was(payload))
        bench.check(f"{channel}_stable", implies(bench.was(valid & ~ready), holds))
    bench.check("unanswered", inside["unanswered"] == waiting)
    bench.check("few", waiting <= MOST_UNANSWERED)
    bench.check("unfinished", implies(pads.awvalid | pads.wvalid, waiting != 0))
    bench.check("idle", implies(component.idle & ~stuck, waiting == 0))

    dropped = write.valid & write.ready & ~takes
    bench.check("dropped_only_if_stuck", implies(dropped, stuck))
    refused = pads.bvalid & pads.bresp[1]
    failure = bench.state("failure")
    with m.If(component.clear):
        m.d.sync += failure.eq(0)
    with m.If(refused | dropped):
        m.d.sync += failure.eq(1)
    bench.check("failure_is_told", implies(failure, component.failed))

    bench.cover("address_first", pads.wvalid & ~pads.awvalid & (sent == index) & (index != 0))
    bench.cover("word_first", pads.awvalid & ~pads.wvalid & (addressed == index) & (index != 0))
    bench.cover("refused", failure & component.idle & ~stuck)
    bench.cover("dropped", dropped)
    was_stuck = bench.state("was_stuck")
    with m.If(stuck):
        m.d.sync += was_stuck.eq(1)
    bench.cover("again", was_stuck & takes & ~component.failed)
    return bench
