"""Partial sums: each row group's sums, added up over the tiles at full width."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.adder_tree import add_under, delay
from tritloom.rtl.block_ram import ReadPort, block_ram
from tritloom.rtl.config import PARTIAL_SUM_READ_CYCLES, AcceleratorConfig
from tritloom.rtl.engine import sums_layout


def order_layout() -> data.StructLayout:
    """What a group of sums is: the first of its tile, of the first tile, the last of all."""
    return data.StructLayout({"valid": 1, "first_group": 1, "first_tile": 1, "last": 1})


class PartialSums(wiring.Component):
    """Read, add, write, ``PARTIAL_SUM_CYCLES`` in all; a group must not come again any sooner.

    Sums come tile by tile, in a tile group by group. The first tile's are stored as they are.

    Members
    -------
    i_order : a group comes, ``PARTIAL_SUM_READ_CYCLES`` before its sums
    i_sums, i_negative : an engine's sums of one group, and whether to subtract them
    done : strobe, the last sum is written
    i_fetch : stream of groups to read, while no layer runs
    o : stream of that group's totals, one for each token and row, ``acc_bits`` signed
    """

    i_order: data.View
    i_sums: data.View
    i_negative: Signal
    done: Signal
    i_fetch: stream.Interface
    o: stream.Interface

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "i_order": In(order_layout()),
                "i_sums": In(sums_layout(config, config.sum_bits)),
                "i_negative": In(config.rows),
                "done": Out(1),
                "i_fetch": In(stream.Signature(range(config.max_groups))),
                "o": Out(stream.Signature(sums_layout(config, config.acc_bits))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, order = self.config, self.i_order
        layout = self.o.payload.shape()
        m.submodules.totals = totals = block_ram(layout, config.max_groups)
        write = totals.write_port()
        read = ReadPort(m, totals)

        # The group's number, its address, then two steps: the memory, and a register of its own.
        group = Signal(range(config.max_groups))
        with m.If(order.valid & order.first_group):
            m.d.sync += group.eq(0)
        with m.Elif(order.valid):
            m.d.sync += group.eq(group + 1)
        valid = delay(m, order.valid, 1)
        # A group that is fetched stays addressed until it is taken.
        old = Signal(layout, reset_less=True)
        fetches = Signal()
        busy = Signal()
        m.d.comb += [
            self.i_fetch.ready.eq(~busy),
            fetches.eq(self.i_fetch.valid & self.i_fetch.ready),
            self.o.payload.eq(old),
        ]
        with m.If(valid):
            m.d.sync += read.addr.eq(group)
        with m.Elif(fetches):
            m.d.sync += [read.addr.eq(self.i_fetch.payload), busy.eq(1)]
        m.d.sync += old.eq(read.data)
        arrives = delay(m, fetches, 2)
        with m.If(arrives):
            m.d.sync += self.o.valid.eq(1)
        with m.Elif(self.o.ready & self.o.valid):
            m.d.sync += [self.o.valid.eq(0), busy.eq(0)]
        before = delay(m, old.as_value(), 1, reset_less=True)
        first = delay(m, order.first_tile, PARTIAL_SUM_READ_CYCLES, reset_less=True)
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
            self.done.eq(delay(m, order.valid & order.last, PARTIAL_SUM_READ_CYCLES + 1)),
        ]
        return m
