"""Scaled sums: the sums of groups of inputs times their scales, added up to a row's total."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.core.partial_sums import FETCH_CYCLES, fetch_layout
from tritloom.rtl.engines.contract import sums_layout
from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.group_scale import GroupFixed, GroupFloat
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES, SCALE_BITS, SLICE_BITS

__all__ = ["ScaledSums"]


class ScaledSums(wiring.Component):
    """A unit for each row and token, and the memory of the totals that are ready to be fetched.

    A row group may come again only after `AcceleratorConfig.again_cycles`.

    Members
    -------
    i_valid : in, 1 bit
        The sums of a group of inputs come.
    i_row_group : in, number
        Of which row group.
    i_sums : in, `sums_layout`, `acc_bits` signed
    i_scales : in, `SCALE_BITS` for each row
    i_acts : in, a float32 pattern of each token; only if activations have scales on the device
        The scales of the group's activations.
    i_first : in, 1 bit
        This is the layer's first group.
    i_bank : in, number
        The result bank of the layer. Must not change until `ScaleUnit.cycles` after its last sums.
    i_end : in, 1 bit
        With the last row group of the last group.
    done : out, 1 bit
        `ScaleUnit.cycles` after `i_end`: the last total is written, and a fetch that starts in this
        cycle sees it.
    i_fetch : in, `fetch_layout`
    i_advance : in, 1 bit
        The row groups that are fetched, and their totals, move on at the end of this cycle.
    o : out, `sums_layout`, `result_bits` signed
        The totals of the row group that `i_fetch` named `FETCH_CYCLES` ago, of the cycles with
        `i_advance`.
    """

    i_valid: Signal
    i_row_group: Signal
    i_sums: data.View
    i_scales: Signal
    i_first: Signal
    i_bank: Signal
    i_end: Signal
    done: Signal
    i_fetch: data.View
    i_advance: Signal
    o: data.View

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        of_acts = {}
        if config.scales_activations:
            of_acts["i_acts"] = In(data.ArrayLayout(8 * FLOAT_BYTES, config.tokens))
        super().__init__(
            {
                "i_valid": In(1),
                "i_row_group": In(range(config.result_row_groups)),
                "i_sums": In(sums_layout(config, config.acc_bits)),
                "i_scales": In(config.rows * SCALE_BITS),
                "i_first": In(1),
                "i_bank": In(range(config.banks)),
                "i_end": In(1),
                "done": Out(1),
                "i_fetch": In(fetch_layout(config)),
                "i_advance": In(1),
                "o": Out(sums_layout(config, config.result_bits)),
                **of_acts,
            }
        )

    def _unit(self, m: Module, token: int) -> GroupFixed | GroupFloat:
        """A unit for a row of a token, of the configured kind."""
        config = self.config
        rows = max(2, config.max_row_groups)
        if not config.scales_activations:
            return GroupFixed(config.acc_bits, rows, config.max_tiles, checked=False)
        ports: Any = self
        unit = GroupFloat(config.acc_bits, rows)
        m.d.comb += unit.act.eq(ports.i_acts[token])
        return unit

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        assert config.scale is not None
        cycles, again = config.scale.unit.cycles, config.scale.unit.again
        totals = []
        for n in range(config.tokens * config.rows):
            unit = self._unit(m, n // config.rows)
            m.submodules[f"unit_{n}"] = unit
            assert (unit.latency, unit.again) == (cycles, again)
            m.d.comb += [
                unit.sum.eq(self.i_sums[n]),
                unit.scale.eq(self.i_scales.word_select(n % config.rows, SCALE_BITS)),
                unit.row.eq(self.i_row_group),
                unit.first.eq(self.i_first),
                unit.enable.eq(self.i_valid),
            ]
            totals.append(Value.cast(unit.o))
        # The totals also go to a memory of their own: that of a unit is busy with the next layer
        # while the results are fetched. A bank begins at a power of two.
        low = (config.max_row_groups - 1).bit_length()
        row_group = delay(m, self.i_row_group, cycles, reset_less=True)[:low]
        write_address = Cat(row_group, self.i_bank if config.banks > 1 else ())
        fetch = Signal(self.i_fetch.shape(), reset_less=True)
        with m.If(self.i_advance):
            m.d.sync += fetch.eq(self.i_fetch)
        address = Cat(fetch.row_group[:low], fetch.bank if config.banks > 1 else ())
        written = delay(m, self.i_valid, cycles)
        depth = ((config.banks - 1) << low) + config.max_row_groups
        new = Cat(totals)
        words = []
        for start in range(0, len(new), SLICE_BITS):
            part = new[start : start + SLICE_BITS]
            m.submodules[f"results_{start}"] = memory = block_ram(len(part), depth)
            write, read = memory.write_port(), ReadPort(m, memory)
            old = Signal(len(part), name=f"result_{start}", reset_less=True)
            m.d.comb += [
                write.addr.eq(write_address),
                write.data.eq(part),
                write.en.eq(written),
                read.en.eq(self.i_advance),
            ]
            with m.If(self.i_advance):
                m.d.sync += [read.addr.eq(address), old.eq(read.data)]
            words.append(old)
        assert FETCH_CYCLES == 4  # number, address, memory, register
        m.d.comb += [
            self.o.eq(Cat(words)),
            self.done.eq(delay(m, self.i_end, cycles)),
        ]
        return m
