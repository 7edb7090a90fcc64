"""Properties of the partial sums: every total is exact."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from amaranth.hdl import Cat, Mux, Signal, signed

from tritloom.rtl.core.partial_sums import ADD_CYCLES, FETCH_CYCLES
from tritloom.rtl.lib.block_ram import ReadPort
from tritloom.rtl.spec.config import PARTIAL_SUM_CYCLES, PARTIAL_SUM_READ_CYCLES
from tritloom.sim.proof.formal import Bench, Inside
from tritloom.sim.proof.streams import implies

__all__ = ["partial_sums_total"]


def partial_sums_total(component: Any) -> Bench:
    """A row group's total in `PartialSums` is the exact sum of its sums since the layer began.

    The proof follows one row group, `tracked`, which is any of them, of any bank. Assumed: the row
    groups come in the order of a layer, whose shape is in range; `tracked` does not come again
    within `PARTIAL_SUM_CYCLES`; a sum is at most that of `lanes` extreme terms. With two banks,
    row groups of either bank are fetched at any time; the total of `tracked` must come if no layer
    ran in its bank since it was fetched, up to the cycle of `done`.
    """
    config = component.config
    parts = _Parts(component)
    inside = parts.inside
    driven = ("i_valid", "i_row_group", "i_running", "i_first", "i_last")
    bench = Bench(component, inside, driven=driven)
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
    bank = bench.free("bank")  # of the layer's sums
    tracked_bank = bench.constant("tracked_bank", 1)
    here = Signal()  # the layer that runs has its sums in the bank of `tracked`
    written = PARTIAL_SUM_READ_CYCLES + ADD_CYCLES
    extreme = config.lanes << (config.act_bits - 1)

    hit, last = Signal(), Signal()
    m.d.comb += [
        here.eq(bank == tracked_bank),
        hit.eq(given & (group == tracked) & here),
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
    if config.banks > 1:
        m.d.comb += component.i_running.eq(running << bank)
    with m.If(hit):
        m.d.sync += terms.eq(Mux(tile == 0, 0, terms) + 1)
    first = bench.was(tile == 0, PARTIAL_SUM_READ_CYCLES)
    addend = Mux(component.i_negative[0], -component.i_sums[0], component.i_sums[0])
    with m.If(bench.was(hit, PARTIAL_SUM_READ_CYCLES)):
        m.d.sync += total.eq(Mux(first, 0, total) + addend)
        m.d.sync += added.eq(Mux(first, 0, added) + 1)
    hits = [bench.was(hit, n) for n in range(1, written + 1)]
    lasts = [bench.was(last, n) for n in range(1, written + 1)]
    turns = [bench.was(given, n) for n in range(1, written + 1)]
    holding = bench.was(running) & running
    bench.assume(implies(holding, (groups == bench.was(groups)) & (tiles == bench.was(tiles))))
    bench.assume(implies(holding, bank == bench.was(bank)))
    bench.assume(implies(running, (groups >= 1) & (groups <= config.max_row_groups)))
    bench.assume(implies(running, (tiles >= 1) & (tiles <= config.max_tiles)))
    bench.assume(~start | ~running)
    bench.assume(~given | (running & ~complete))
    bench.assume(wanted < config.max_row_groups)
    bench.assume((component.i_sums[0] <= extreme) & (component.i_sums[0] >= -extreme))
    bench.assume(~hit | ~Cat(hits[: PARTIAL_SUM_CYCLES - 1]).any())
    bench.assume(tracked < config.max_row_groups)
    bench.assume((bank < config.banks) & (tracked_bank < config.banks))

    if config.banks == 1:
        asked = bench.was(component.i_row_group == tracked, FETCH_CYCLES)
        ran = Cat(bench.was(running, n) for n in range(FETCH_CYCLES + 1))
        named = Signal()
        m.d.comb += named.eq(asked & ~ran.any())
    else:
        named = _fetched(bench, component, parts, running & here, tracked, tracked_bank, total)
        bench.cover("other_runs", named & running & ~here & (total != 0))
    bench.check("total", implies(named, component.o[0] == total))
    bench.check("done", component.done == lasts[-1])
    bench.check("no_overflow", (total <= added * extreme) & (total >= -1 * added * extreme))

    bench.check("terms", terms <= config.max_tiles)
    bench.check("added", added == bench.was(terms, PARTIAL_SUM_READ_CYCLES))
    begun = (tile != 0) | (group > tracked)
    bench.check(
        "terms_of_tracked",
        implies(running & here & begun & (tracked < groups), terms == tile + (tracked < group)),
    )
    words = [inside.word(bench, name, tracked)[0] for name in parts.memories]
    word = Mux(tracked_bank, words[-1], words[0])
    bench.check("memory", hits[-1] | (word == total))
    bench.check("here", implies(Cat(hits).any(), here))
    bench.check("in_group", implies(running, group < groups))
    bench.check(
        "in_tile", implies(running, Mux(complete, (tile == tiles) & (group == 0), tile < tiles))
    )
    bench.check("quiet", implies(Cat(turns).any() | Cat(lasts).any(), running))
    bench.check("ends", implies(running & complete, Cat(lasts).any()))
    bench.cover("lowest", named & (total == -3 * extreme))
    bench.cover(
        "full_rate", bench.was(given, 4) & bench.was(given, 3) & bench.was(given, 1) & given
    )
    bench.cover("first_tile_again", hit & (tile == 0) & (total == 77) & (terms == 2))
    return bench


class _Parts:
    """A `PartialSums` taken apart.

    Members
    -------
    inside : its logic
    memories : name of the memory of each bank
    reads : read port of the memory of each bank
    """

    def __init__(self, component: Any) -> None:
        banks = component.config.banks
        self.memories = ["totals"] if banks == 1 else [f"totals_{bank}" for bank in range(banks)]
        created: list[ReadPort] = []

        class Watched(ReadPort):
            def __init__(self, m: Any, memory: Any) -> None:
                super().__init__(m, memory)
                created.append(self)

        with patch.dict(type(component).elaborate.__globals__, ReadPort=Watched):
            self.inside = Inside(component, **dict.fromkeys(self.memories, 1))
        # `Inside` elaborates the component twice, and takes the second one.
        self.reads = created[-banks:]


def _fetched(
    bench: Bench,
    component: Any,
    parts: _Parts,
    runs: Any,
    tracked: Any,
    tracked_bank: Any,
    total: Any,
) -> Signal:
    """Whether `o` must be the total of a row group, with two banks.

    Parameters
    ----------
    bench : bench that the invariants of the stages between `i_fetch` and `o` are added to
    component : the `PartialSums`, and `parts` of it
    runs : a layer runs in the bank of the row group
    tracked, tracked_bank, total : the row group, its bank, and its total in the model
    """
    m, fetch = bench.m, component.i_fetch
    stages = [bench.state(f"fetched_{stage}") for stage in range(FETCH_CYCLES)]
    named = (fetch.row_group == tracked) & (fetch.bank == tracked_bank)
    # A layer in the bank may write the row group again. At `done` it has written its last sum.
    spoils = runs & ~component.done
    for before, stage in zip([named, *stages], stages, strict=False):
        m.d.sync += stage.eq(Mux(component.i_advance, before, stage) & ~spoils)

    # Invariants: where the row group or its total is in each stage.
    inside, reads = parts.inside, parts.reads
    old = [inside.signal(f"old_{bank}") for bank in range(len(reads))]
    places = [
        inside.signal("fetch") == Cat(tracked, tracked_bank),
        Mux(tracked_bank, reads[1].addr, reads[0].addr) == tracked,
        Mux(tracked_bank, reads[1].data[0], reads[0].data[0]) == total,
        Mux(tracked_bank, old[1].as_signed(), old[0].as_signed()) == total,
    ]
    for number, (stage, right) in enumerate(zip(stages, places, strict=True)):
        bank = inside.signal(f"bank_{number}")
        bench.check(f"fetched_{number}", implies(stage, right & (bank == tracked_bank)))
    return stages[-1]
