"""Partial sums: each row group's sums, added up over the tiles at full width."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.block_ram import ReadPort, block_ram
from tritloom.rtl.config import PARTIAL_SUM_CYCLES, AcceleratorConfig
from tritloom.rtl.engine import sums_layout
from tritloom.rtl.streams import bits_for, stream_from_memory


class PartialSums(wiring.Component):
    """Read, add, write, ``PARTIAL_SUM_CYCLES`` in all; a group must not come again any sooner.

    Sums come tile by tile, in a tile group by group. The first tile's are stored as they are.

    Members
    -------
    start, groups, tiles : a layer begins; the counts hold until ``done``
    i_valid, i_sums : an engine's sums of one group
    done : strobe, the last sum is written
    i_fetch : stream of groups to read, while no layer runs
    o : stream of that group's totals, one for each token and row, ``acc_bits`` signed
    """

    start: Signal
    groups: Signal
    tiles: Signal
    i_valid: Signal
    i_sums: data.View
    done: Signal
    i_fetch: stream.Interface
    o: stream.Interface

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "groups": In(bits_for(config.max_groups)),
                "tiles": In(bits_for(config.max_tiles)),
                "i_valid": In(1),
                "i_sums": In(sums_layout(config, config.sum_bits)),
                "done": Out(1),
                "i_fetch": In(stream.Signature(range(config.max_groups))),
                "o": Out(stream.Signature(sums_layout(config, config.acc_bits))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = self.o.payload.shape()
        m.submodules.totals = totals = block_ram(layout, self.config.max_groups)
        write = totals.write_port()
        read = ReadPort(m, totals)

        group = Signal(range(self.config.max_groups))
        tile = Signal(bits_for(self.config.max_tiles))
        last_group = Signal()
        m.d.comb += last_group.eq(group + 1 == self.groups)
        with m.If(self.start):
            m.d.sync += [group.eq(0), tile.eq(0)]
        with m.Elif(self.i_valid):
            m.d.sync += group.eq(Mux(last_group, 0, group + 1))
            with m.If(last_group):
                m.d.sync += tile.eq(tile + 1)

        with m.If(self.i_valid):
            m.d.comb += [read.addr.eq(group), read.en.eq(1)]
        with m.Else():
            fetch = stream_from_memory(m, read, self.o, self.i_fetch.valid)
            m.d.comb += [read.addr.eq(self.i_fetch.payload), self.i_fetch.ready.eq(fetch)]

        # Stage 0 is the cycle of i_valid, in which the old total's address is given.
        stages = PARTIAL_SUM_CYCLES
        valid = [self.i_valid, *(Signal(name=f"valid_{n}") for n in range(1, stages))]
        address = [group, *(Signal.like(group, name=f"address_{n}") for n in range(1, stages))]
        final = [Signal(name=f"final_{n}") for n in range(stages)]
        m.d.comb += final[0].eq(self.i_valid & last_group & (tile + 1 == self.tiles))
        for n in range(1, stages):
            m.d.sync += [
                valid[n].eq(valid[n - 1]),
                address[n].eq(address[n - 1]),
                final[n].eq(final[n - 1]),
            ]
        first = Signal()
        sums = [Signal(self.i_sums.shape(), name=f"sums_{n}", reset_less=True) for n in (1, 2)]
        old = Signal(layout, reset_less=True)
        new = Signal(layout, reset_less=True)
        m.d.sync += [first.eq(tile == 0), sums[0].eq(self.i_sums), sums[1].eq(sums[0])]
        m.d.sync += old.eq(Mux(first, 0, Cat(*read.data)))
        for n in range(self.config.tokens * self.config.rows):
            # Fits: acc_bits holds every lane of every tile at its extreme.
            m.d.sync += new[n].eq(old[n] + sums[1][n])
        m.d.comb += [
            write.en.eq(valid[-1]),
            write.addr.eq(address[-1]),
            write.data.eq(new),
            self.done.eq(final[-1]),
        ]
        return m
