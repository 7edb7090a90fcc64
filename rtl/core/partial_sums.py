"""Partial sums: each row group's sums, added up over the tiles at full width."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.engines.contract import sums_layout
from tritloom.rtl.lib.adder_tree import add_under, delay
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.spec.config import PARTIAL_SUM_READ_CYCLES, AcceleratorConfig

FETCH_CYCLES = 4
"""Cycles from a group's number to its total: a step on the way, address, memory, register."""


class PartialSums(wiring.Component):
    """Read, add, write, ``PARTIAL_SUM_CYCLES`` in all; a group must not come again any sooner.

    The first tile's sums are stored as they are.

    Members
    -------
    i_valid : the sums of a group come ``PARTIAL_SUM_READ_CYCLES`` later
    i_group : its number
    i_first, i_last : it is of the first tile; it is the last of all, only if ``i_valid``
    i_sums, i_negative : an engine's sums of one group, and whether to subtract them
    done : strobe, the last sum is written
    o : the total for each token and row, ``acc_bits`` signed, of the group that ``i_group`` was
        ``FETCH_CYCLES`` ago
    """

    i_valid: Signal
    i_group: Signal
    i_first: Signal
    i_last: Signal
    i_sums: data.View
    i_negative: Signal
    done: Signal
    o: data.View

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "i_valid": In(1),
                "i_group": In(range(config.max_row_groups)),
                "i_first": In(1),
                "i_last": In(1),
                "i_sums": In(sums_layout(config, config.sum_bits)),
                "i_negative": In(config.rows),
                "done": Out(1),
                "o": Out(sums_layout(config, config.acc_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        layout = self.o.shape()
        m.submodules.totals = totals = block_ram(layout, config.max_row_groups)
        write = totals.write_port()
        read = ReadPort(m, totals)

        # The group's number, its address, then two steps: the memory, and a register of its own.
        valid = delay(m, self.i_valid, 1)
        group = delay(m, self.i_group, 1, reset_less=True)
        old = Signal(layout, reset_less=True)
        m.d.sync += [read.addr.eq(group), old.eq(read.data)]
        m.d.comb += self.o.eq(old)
        before = delay(m, old.as_value(), 1, reset_less=True)
        first = delay(m, self.i_first, PARTIAL_SUM_READ_CYCLES, reset_less=True)
        new = Signal(layout, reset_less=True)
        for n in range(config.tokens * config.rows):
            # Fits: acc_bits holds every lane of every tile at its extreme.
            addend = self.i_sums[n]
            wide = Cat(addend, addend[-1].replicate(config.acc_bits - len(addend)))
            kept = before.word_select(n, config.acc_bits) & ~first.replicate(config.acc_bits)
            m.d.sync += new[n].eq(add_under(kept, wide, self.i_negative[n % config.rows]))
        m.d.comb += [
            write.en.eq(delay(m, valid, PARTIAL_SUM_READ_CYCLES)),
            write.addr.eq(delay(m, group, PARTIAL_SUM_READ_CYCLES, reset_less=True)),
            write.data.eq(new),
            self.done.eq(delay(m, self.i_last, PARTIAL_SUM_READ_CYCLES + 1)),
        ]
        return m
