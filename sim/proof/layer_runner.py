"""Properties of `LayerRunner`: codes, zeros and results come whole and in order."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Mux, Signal, Value, signed

from tritloom.rtl.lib.float_convert import CODE_BITS
from tritloom.sim.proof.formal import Bench
from tritloom.sim.proof.streams import implies, obeys

__all__ = ["MOST_FETCHED", "runner_contract"]

MOST_FETCHED = {1: 4, 2: 8}
"""Row groups that the runner has fetched, and that the core has not given, by lanes."""


def runner_contract(component: Any) -> Bench:
    """Codes, then zeros, fill the bank; results come in order, then zeros.

    The proof follows one code and one result, `tracked_code` and `tracked_sum`, which are any of a
    layer. Of two lanes one or both transfer in a cycle. Assumed: the unit and the core keep the
    stream rule; the core gives the row groups that were fetched and no others; the processor starts
    a layer once, when it is padded, and a program when the runner is not busy.
    """
    bench = Bench(component)
    config = component.config
    idle = ~component.computes
    code, run, result = component.i_code, component.i_run, component.i_result
    load, fetch, sums = component.o_load, component.o_fetch, component.o_sum
    _surroundings(bench, component)

    begins = component.start | (idle & ~component.active)
    _codes(bench, component, begins)
    _sums(bench, component)

    bench.check("codes_wait", implies(code.ready, idle))
    bench.check("load_place", implies(load.valid, load.payload.address < config.activation_words))
    bench.check("load_bank", implies(load.valid, load.payload.bank == component.activation_bank))
    bench.check("fetch_bank", implies(fetch.valid, fetch.payload.bank == component.result_bank))
    bench.check("fetch_active", implies(fetch.valid, component.active & idle))
    # A result that waits stays, until the unit asks for another layer or the program ends.
    stays = bench.was(component.active & ~(run.valid & run.ready)) & component.active
    for name, flow in (("sum", sums), ("fetch", fetch)):
        waits = bench.was(flow.valid & ~flow.ready) & stays
        payload = Value.cast(flow.payload)
        if name == "sum" and config.vector.lanes > 1:  # the other lane shows anything
            payload = Cat(sums.payload[0], Mux(component.sum_last == 1, sums.payload[1], 0))
        kept = flow.valid & (payload == bench.was(payload))
        bench.check(f"{name}_holds", implies(waits, kept))
    if config.vector.lanes == 1:
        bench.cover("result", sums.valid & sums.ready & (sums.payload == -3))
    else:
        last = sums.valid & sums.ready & (component.sum_last == 1)
        bench.cover("result", last & (sums.payload[0] == -3) & (sums.payload[1] == 2))
        # The unit asks for another number of results only when it got those that it waits for.
        asks = bench.was(sums.valid & ~sums.ready)
        bench.assume(implies(asks, component.sum_last == bench.was(component.sum_last)))
    bench.cover("waits", bench.was(result.valid & ~result.ready) & result.valid & result.ready)
    return bench


def _surroundings(bench: Bench, component: Any) -> None:
    """Assume what the unit, the core and the processor do."""
    m, config = bench.m, component.config
    fetch, result = component.o_fetch, component.i_result
    ran = bench.was(component.active | component.busy)
    for bank in (component.activation_bank, component.result_bank):
        bench.assume(implies(ran, bank == bench.was(bank)))
    bench.assume(implies(bench.was(component.computes), component.active))
    bench.assume(implies(component.active & ~bench.was(component.active), ~component.busy))
    bench.assume(implies(component.i_code.valid | component.i_run.valid, component.active))
    bench.assume(~(component.i_code.valid & component.i_run.valid))
    bench.assume(component.o_load.ready)
    obeys(bench, component.i_code)
    obeys(bench, component.i_run)
    obeys(bench, result)

    bench.assume(component.last_tile < config.max_tiles)
    bench.assume(component.last_group < config.max_row_groups)
    bench.assume(implies(component.pad, component.wants))
    bench.assume(
        implies(bench.was(component.wants), component.last_tile == bench.was(component.last_tile))
    )
    bench.assume(implies(component.start, component.wants & bench.was(component.padded)))
    bench.assume(implies(component.start, bench.was(component.pad)))
    started = bench.state("started")
    with m.If(component.start):
        m.d.sync += started.eq(1)
    with m.If(component.done):
        m.d.sync += started.eq(0)
    bench.assume(implies(component.done, started))

    outstanding = bench.state("outstanding", 5)
    fetches, arrives = Signal(), Signal()
    m.d.comb += [
        fetches.eq(fetch.valid & fetch.ready),
        arrives.eq(result.valid & result.ready),
    ]
    m.d.sync += outstanding.eq(outstanding + fetches - arrives)
    bench.assume(implies(result.valid, outstanding != 0))
    bench.check("outstanding", outstanding <= MOST_FETCHED[config.vector.lanes])
    bench.check("start_alone", implies(component.start, outstanding == 0))


def _codes(bench: Bench, component: Any, begins: Any) -> None:
    """Every word that is loaded holds the codes of its place, and zeros where none came."""
    m, config = bench.m, component.config
    code, load = component.i_code, component.o_load
    most = config.max_tiles * config.lanes
    tracked = bench.constant("tracked_code", range(most))
    bench.assume(tracked < most)
    count, came = bench.state("codes", range(2 * most)), bench.state("code_came")
    several = config.vector.lanes > 1
    more = code.payload.last if several else Const(0)
    codes = list(code.payload.codes) if several else [code.payload]
    kept = bench.state("code", CODE_BITS)
    loads = bench.state("loads", range(config.activation_words + 1))
    with m.If(code.valid & code.ready):
        m.d.sync += count.eq(Mux(count >= 2 * most - 2, count, count + 1 + more))
        for lane, each in enumerate(codes):
            with m.If((count + lane == tracked) & (lane <= more)):
                m.d.sync += [kept.eq(each), came.eq(1)]
    with m.If(load.valid):
        m.d.sync += loads.eq(loads + 1)
    with m.If(begins):
        m.d.sync += [count.eq(0), came.eq(0), loads.eq(0)]
    place = tracked // config.fill
    word = Value.cast(load.payload.word)
    piece = word.word_select(tracked % config.fill, config.act_bits)
    here = load.valid & (load.payload.address == place)
    bench.check("code", implies(here, piece == Mux(came, kept.as_unsigned(), 0)))
    bench.check("load_order", implies(load.valid, load.payload.address == loads))
    padded = bench.was(component.padded & component.pad)
    words = config.lanes // config.fill
    all_loaded = loads >= (component.last_tile + 1) * words
    bench.check("padded", implies(padded & component.wants, all_loaded))
    bench.cover("code", here & came & (kept == 0x85))
    bench.cover("zero", here & ~came)


def _sums(bench: Bench, component: Any) -> None:
    """The results of a layer come in the order of its rows, and zeros behind them."""
    m, config = bench.m, component.config
    result, sums, fetch = component.i_result, component.o_sum, component.o_fetch
    most = config.max_row_groups * config.rows
    tracked = bench.constant("tracked_sum", range(most))
    bench.assume(tracked < most)
    taken, arrived = bench.state("taken", range(most + 3)), bench.state("arrived", 8)
    fetched = bench.state("fetched", 8)
    groups, kept = bench.state("groups", 8), bench.state("sum", signed(config.acc_bits))
    several = config.vector.lanes > 1
    more = component.sum_last if several else Const(0)
    numbers = list(sums.payload) if several else [sums.payload]
    has_layer = bench.state("has_layer")  # a layer of this program is computed
    with m.If(component.start):
        m.d.sync += groups.eq(component.last_group + 1)
    with m.If(component.done):
        m.d.sync += [taken.eq(0), arrived.eq(0), fetched.eq(0), has_layer.eq(1)]
    with m.If(sums.valid & sums.ready):
        m.d.sync += taken.eq(Mux(taken > most, taken, taken + 1 + more))
    with m.If(fetch.valid & fetch.ready):
        m.d.sync += fetched.eq(fetched + 1)
    with m.If(result.valid & result.ready):
        m.d.sync += arrived.eq(arrived + 1)
        with m.If(arrived == tracked // config.rows):
            packed = Value.cast(result.payload)
            m.d.sync += kept.eq(packed.word_select(tracked % config.rows, config.acc_bits))
    with m.If(~component.active):
        m.d.sync += has_layer.eq(0)
    inside = tracked < groups * config.rows
    for lane, number in enumerate(numbers):
        name = f"_{lane}" * several
        here = sums.valid & has_layer & component.active & (taken + lane == tracked)
        shown = here & (lane <= more)
        bench.check(f"sum{name}", implies(shown, number == Mux(inside, kept, 0)))
        none = sums.valid & component.active & ~has_layer
        bench.check(f"no_sum{name}", implies(none, number == 0))
        bench.cover(f"zero_sum{name}", shown & ~inside & sums.ready)
    bench.check("fetches_layer", implies(fetch.valid, has_layer & (fetched < groups)))
    bench.check("fetch_order", implies(fetch.valid, fetch.payload.row_group == fetched))
