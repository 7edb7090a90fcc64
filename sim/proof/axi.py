"""Properties of the AXI port that reads."""

from __future__ import annotations

from amaranth.hdl import Array, Mux, Signal

from tritloom.rtl.memories.axi_reader import AxiReader
from tritloom.sim.proof.formal import Bench, Inside
from tritloom.sim.proof.streams import implies

__all__ = ["axi_reader_contract"]

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
