"""Who uses which bank: the layer that runs, and the RESULTS that are still to be copied."""

from typing import Any

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.core.core import run_layout
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["Banks", "results_layout"]


def results_layout(config: AcceleratorConfig) -> data.StructLayout:
    """What is known of a result bank.

    Members
    -------
    present : a RUN of this session wrote the bank, or writes it
    last_group : the last row group of sums of its last RUN
    cycles : cycles that this RUN took, once it is done
    void : it took a void word, so there are no results; only if the memory can fail
    """
    of_failure = {"void": 1} if config.memory.can_fail else {}
    return data.StructLayout(
        {"present": 1, "last_group": range(config.result_row_groups), "cycles": 32, **of_failure}
    )


class Banks(wiring.Component):
    """Keeps commands apart that would use a bank at the same time.

    A layer runs from the cycle after `start` until `done`. It owns its activation bank and its
    result bank until then.

    Members
    -------
    start : in, 1 bit
        The core takes `run`. Only while `may_run` is set.
    run : in, `run_layout`
        The layer that starts.
    done : in, 1 bit
        The core has completed the layer.
    void : in, 1 bit
        The layer that runs takes a void word. Only if the memory can fail.
    busy : out, 1 bit
        A layer runs; the RUN counts these cycles.
    activation_bank, result_bank : in, number
        The banks that the next command names.
    may_load : out, 1 bit
        No layer runs that reads `activation_bank`.
    may_run : out, 1 bit
        No layer runs, and all RESULTS of `result_bank` have been copied.
    results : out, `results_layout`
        Of `result_bank`.
    enqueue : in, 1 bit
        A RESULTS of `result_bank` is accepted.
    copy_bank : in, number
        The bank that the next RESULTS in order reads.
    may_copy : out, 1 bit
        No layer runs that writes `copy_bank`.
    copy_results : out, `results_layout`
        Of `copy_bank`.
    copied : in, 1 bit
        The RESULTS of `copy_bank` has been copied.
    forget : in, 1 bit
        A session starts: there are no results.
    """

    start: Signal
    run: data.View
    done: Signal
    busy: Signal
    activation_bank: Signal
    result_bank: Signal
    may_load: Signal
    may_run: Signal
    results: data.View
    enqueue: Signal
    copy_bank: Signal
    may_copy: Signal
    copy_results: data.View
    copied: Signal
    forget: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        bank = range(config.banks)
        super().__init__(
            {
                "start": In(1),
                "run": In(run_layout(config)),
                "done": In(1),
                "busy": Out(1),
                "activation_bank": In(bank),
                "result_bank": In(bank),
                "may_load": Out(1),
                "may_run": Out(1),
                "results": Out(results_layout(config)),
                "enqueue": In(1),
                "copy_bank": In(bank),
                "may_copy": Out(1),
                "copy_results": Out(results_layout(config)),
                "copied": In(1),
                "forget": In(1),
                **({"void": In(1)} if config.memory.can_fail else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        void: Any = getattr(self, "void", None)  # a member if the memory can fail
        cycles = Signal(32)  # of the layer that runs or ran last, this one not counted
        of_run = Signal.like(self.run, reset_less=True)
        banks = Array(
            Signal(results_layout(config), name=f"results_{n}") for n in range(config.banks)
        )
        # RESULTS of each bank that are accepted and not yet copied; a response slot holds each.
        uncopied = Array(
            Signal(bits_for(config.slots), name=f"uncopied_{n}") for n in range(config.banks)
        )
        m.d.comb += [
            self.may_load.eq(~(self.busy & (of_run.activation_bank == self.activation_bank))),
            self.may_run.eq(~self.busy & (uncopied[self.result_bank] == 0)),
            self.may_copy.eq(~(self.busy & (of_run.result_bank == self.copy_bank))),
            self.results.eq(banks[self.result_bank]),
            self.copy_results.eq(banks[self.copy_bank]),
        ]
        if config.banks == 1:  # the counter stands still from `done` until the next layer starts
            m.d.comb += [self.results.cycles.eq(cycles), self.copy_results.cycles.eq(cycles)]
        for number, count in enumerate(uncopied):
            more = self.enqueue & (self.result_bank == number)
            less = self.copied & (self.copy_bank == number)
            with m.If(more & ~less):
                m.d.sync += count.eq(count + 1)
            with m.Elif(less & ~more):
                m.d.sync += count.eq(count - 1)
        with m.If(self.busy):
            m.d.sync += cycles.eq(cycles + 1)
        with m.If(self.busy & self.done):
            m.d.sync += [self.busy.eq(0), banks[of_run.result_bank].cycles.eq(cycles + 1)]
        if config.memory.can_fail:
            with m.If(self.busy & void):
                m.d.sync += banks[of_run.result_bank].void.eq(1)
        with m.If(self.start):
            started = banks[self.run.result_bank]
            last = self.run.last_result if config.max_group_sums else self.run.last_group
            m.d.sync += [
                self.busy.eq(1),
                cycles.eq(0),
                of_run.eq(self.run),
                started.present.eq(1),
                started.last_group.eq(last),
            ]
            if config.memory.can_fail:
                m.d.sync += started.void.eq(0)
        with m.If(self.forget):
            m.d.sync += [results.present.eq(0) for results in banks]
        return m
