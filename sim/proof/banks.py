"""Who uses which bank, by the streams between the command processor and the core."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Mux, Signal

from tritloom.rtl.core.partial_sums import FETCH_CYCLES
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.sim.proof.formal import Bench

__all__ = ["BankUse"]


class BankUse:
    """A model that watches these streams, and the rules that keep their users apart.

    The command processor is proven to keep `rules`, whatever a core does that keeps `results`. The
    core is proven to keep `results` while its user keeps `rules`. No rule for a cycle needs the
    other side's rule for a later one, so both hold.

    Parameters
    ----------
    bench : bench that the model is added to
    config : the accelerator's configuration
    load, run, fetch, result : the streams of activations, layers, row groups and totals
    scale : the stream of scales of activations, if there is one
    done : the core has completed the layer

    Members
    -------
    starts : a layer starts in this cycle
    running : a layer runs
    banks : its banks: of activations, of results
    length : row groups that are fetched and whose totals are not taken
    waiting : their banks, that of the first one in the lowest bit
    rules : name → what the command processor must keep
    results : name → what the core must keep
    """

    def __init__(
        self,
        bench: Bench,
        config: AcceleratorConfig,
        *,
        load: Any,
        run: Any,
        fetch: Any,
        result: Any,
        done: Any,
        scale: Any = None,
    ) -> None:
        m, layer = bench.m, run.payload
        most = FETCH_CYCLES if config.banks > 1 else 1
        self.running, self.banks = bench.state("running"), bench.state("banks", 2)
        self.length = bench.state("length", range(FETCH_CYCLES + 2))
        self.waiting = bench.state("waiting", FETCH_CYCLES)
        self.starts = Signal(name="starts")
        fetches, taken = Signal(name="fetches"), Signal(name="taken")
        left, rest = Signal.like(self.length, name="left"), Signal(FETCH_CYCLES, name="rest")
        m.d.comb += [
            self.starts.eq(run.valid & run.ready),
            fetches.eq(fetch.valid & fetch.ready),
            taken.eq(result.valid & result.ready),
            left.eq(self.length - taken),
            rest.eq(Mux(taken, self.waiting >> 1, self.waiting)),
        ]
        m.d.sync += [self.length.eq(left + fetches), self.waiting.eq(rest)]
        with m.If(fetches):
            m.d.sync += self.waiting.bit_select(left, 1).eq(fetch.payload.bank)
        with m.If(self.starts):
            m.d.sync += [
                self.running.eq(1),
                self.banks[0].eq(layer.activation_bank),
                self.banks[1].eq(layer.result_bank),
            ]
        with m.Elif(done):
            m.d.sync += self.running.eq(0)

        self.taken = taken
        self.runs = self.running & ~done
        asked = Cat(self.length > n for n in range(FETCH_CYCLES))
        of_bank = asked & Mux(layer.result_bank, self.waiting, ~self.waiting)[:FETCH_CYCLES]
        same_result = fetch.payload.bank == layer.result_bank
        self.rules = {
            "fetch": ~(fetch.valid & self.runs & (fetch.payload.bank == self.banks[1])),
            "run_before_results": ~(run.valid & of_bank.any()),
            "run_at_fetch": ~(run.valid & fetch.valid & same_result),
        }
        for name, store in (("load", load), ("scale", scale)):
            if store is None:
                continue
            bank = store.payload.bank
            self.rules[name] = ~(store.valid & self.runs & (bank == self.banks[0]))
            at_start = ~(store.valid & run.valid & (bank == layer.activation_bank))
            self.rules[f"{name}_at_start"] = at_start
        self.results = {
            "none_invented": ~result.valid | (self.length != 0),
            "none_lost": self.length <= most,
        }
