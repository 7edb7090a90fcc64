"""Properties of the partial sums: every total is exact."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Mux, Signal, signed

from tritloom.rtl.core.partial_sums import ADD_CYCLES, FETCH_CYCLES
from tritloom.rtl.spec.config import PARTIAL_SUM_CYCLES, PARTIAL_SUM_READ_CYCLES
from tritloom.sim.proof.formal import Bench, Inside
from tritloom.sim.proof.streams import implies

__all__ = ["partial_sums_total"]


def partial_sums_total(component: Any) -> Bench:
    """A row group's total in `PartialSums` is the exact sum of its sums since the layer began.

    The proof follows one row group, `tracked`, which is any of them. Assumed: the row groups come
    in the order of a layer, whose shape is in range; `tracked` does not come again within
    `PARTIAL_SUM_CYCLES`; a sum is at most that of `lanes` extreme terms.
    """
    config, inside = component.config, Inside(component, totals=1)
    bench = Bench(component, inside, driven=("i_valid", "i_row_group", "i_first", "i_last"))
    m = bench.m
    # `given`: a row group's turn.
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
    written = PARTIAL_SUM_READ_CYCLES + ADD_CYCLES
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
