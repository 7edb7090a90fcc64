"""Partial sums: each row group's sums, added up over the tiles at full width."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.engines.contract import sums_layout
from tritloom.rtl.lib.adder_tree import add_under, delay
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.spec.config import PARTIAL_SUM_READ_CYCLES, AcceleratorConfig

FETCH_CYCLES = 4
"""Cycles from a row group's number to its totals: number, address, memory, register."""
ADD_CYCLES = 1
"""Cycles from the partial sum and its addend to the new sum, which is then written."""


class PartialSums(wiring.Component):
    """Reads a row group's partial sums, adds the engine's sums, and writes the result back.

    A row group may come again only after `PARTIAL_SUM_CYCLES`; sooner, it would read a sum that is
    not yet written. In the first tile of a layer the sums are stored as they are.

    Members
    -------
    i_valid : in, 1 bit
        A row group's turn; its sums come `PARTIAL_SUM_READ_CYCLES` later.
    i_row_group : in, number
        With `i_valid` the row group whose turn it is; else the row group to read.
    i_first : in, 1 bit
        With `i_valid`: this is the layer's first tile.
    i_last : in, 1 bit
        With `i_valid`, and only then: this is the last row group of the layer's last tile.
    i_sums : in, `sums_layout`, `sum_bits` signed
        The engine's sums of the row group whose turn was `PARTIAL_SUM_READ_CYCLES` ago.
    i_negative : in, one bit a row
        With `i_sums`: whether the sums of this row are subtracted.
    done : out, 1 bit
        Set for one cycle, `PARTIAL_SUM_READ_CYCLES` + `ADD_CYCLES` after `i_last`: the last sum is
        written, and a read that starts in this cycle sees it.
    o : out, `sums_layout`, `acc_bits` signed
        The totals of the row group that `i_row_group` named `FETCH_CYCLES` ago.
    """

    i_valid: Signal
    i_row_group: Signal
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
                "i_row_group": In(range(config.max_row_groups)),
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

        # A register for the number, one for the address, the memory, and one behind the memory.
        valid = delay(m, self.i_valid, 1)
        row_group = delay(m, self.i_row_group, 1, reset_less=True)
        old = Signal(layout, reset_less=True)
        m.d.sync += [read.addr.eq(row_group), old.eq(read.data)]
        m.d.comb += self.o.eq(old)
        # One register more lets the adder be placed away from the memory.
        before = delay(m, old.as_value(), 1, reset_less=True)
        first = delay(m, self.i_first, PARTIAL_SUM_READ_CYCLES, reset_less=True)
        new = Signal(layout, reset_less=True)
        for n in range(config.tokens * config.rows):
            # No overflow: acc_bits holds the extreme of every lane in every tile.
            addend = self.i_sums[n]
            wide = Cat(addend, addend[-1].replicate(config.acc_bits - len(addend)))
            partial = before.word_select(n, config.acc_bits) & ~first.replicate(config.acc_bits)
            m.d.sync += new[n].eq(add_under(partial, wide, self.i_negative[n % config.rows]))
        # `valid` and `row_group` are a cycle old: this delay ends ADD_CYCLES after the sums came.
        m.d.comb += [
            write.en.eq(delay(m, valid, PARTIAL_SUM_READ_CYCLES)),
            write.addr.eq(delay(m, row_group, PARTIAL_SUM_READ_CYCLES, reset_less=True)),
            write.data.eq(new),
            self.done.eq(delay(m, self.i_last, PARTIAL_SUM_READ_CYCLES + ADD_CYCLES)),
        ]
        return m
