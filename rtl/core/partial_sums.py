"""Partial sums: each row group's sums, added up over the tiles at full width."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tritloom.rtl.engines.contract import sums_layout
from tritloom.rtl.lib.adder_tree import add_under, delay
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.spec.config import PARTIAL_SUM_READ_CYCLES, AcceleratorConfig

FETCH_CYCLES = 4
"""Cycles from a row group's number to its totals: number, address, memory, register."""
ADD_CYCLES = 1
"""Cycles from the partial sum and its addend to the new sum, which is then written."""


def fetch_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A row group of a result bank."""
    return data.StructLayout(
        {"row_group": range(config.result_row_groups), "bank": range(config.banks)}
    )


class _Write:
    """The write of new sums: when, where and what."""

    def __init__(self, enable: Value, row_group: Value, sums: Any) -> None:
        self.enable = enable
        self.row_group = row_group
        self.sums = sums

    def connect(self, m: Module, totals: Memory, selected: Value | int = 1) -> None:
        """Add the write port of a memory, which is written while it is `selected`."""
        port = totals.write_port()
        m.d.comb += [
            port.en.eq(self.enable & selected),
            port.addr.eq(self.row_group),
            port.data.eq(self.sums),
        ]


class PartialSums(wiring.Component):
    """Reads a row group's partial sums, adds the engine's sums, and writes the result back.

    With two banks, a layer writes one of them while row groups of the other are fetched. With
    scales there is one bank: the sums of one group of inputs, which nobody fetches. It has no
    memory if a group is one tile.

    A row group may come again only after `PARTIAL_SUM_CYCLES`; sooner, it would read a sum that is
    not yet written. In the first tile of a group of inputs the sums are stored as they are. Each
    group has row groups of its own here.

    Members
    -------
    i_valid : in, 1 bit
        A row group's turn; its sums come `PARTIAL_SUM_READ_CYCLES` later.
    i_row_group : in, number
        With `i_valid` the row group whose turn it is; else, with one bank, the row group to read.
    i_running : in, one bit a bank; only with two banks
        A layer runs and has its sums in this bank. Set from the layer's start until `done`.
    i_fetch : in, `fetch_layout`; only with two banks
        The row group to read next, of a bank that is not `i_running`.
    i_advance : in, 1 bit; only with two banks
        The row groups that are fetched, and their totals, move on at the end of this cycle.
    i_first : in, 1 bit
        With `i_valid`: this is the first tile of a group of inputs.
    i_last : in, 1 bit
        With `i_valid`, and only then: this is the last row group of the layer's last tile.
    i_sums : in, `sums_layout`, `sum_bits` signed
        The engine's sums of the row group whose turn was `PARTIAL_SUM_READ_CYCLES` ago.
    i_negative : in, one bit a row
        With `i_sums`: whether the sums of this row are subtracted.
    o_new, o_row_group, o_valid : out; only with scales
        Sums as they are written, of which row group, and whether there are any:
        `PARTIAL_SUM_READ_CYCLES` + `ADD_CYCLES` after its turn.
    done : out, 1 bit
        Set for one cycle, `PARTIAL_SUM_READ_CYCLES` + `ADD_CYCLES` after `i_last`: the last sum is
        written, and a read that starts in this cycle sees it.
    o : out, `sums_layout`, `acc_bits` signed
        With one bank, the totals of the row group that `i_row_group` named `FETCH_CYCLES` ago. With
        two, those of the row group that `i_fetch` named `FETCH_CYCLES` ago, of the cycles with
        `i_advance`.
    """

    i_valid: Signal
    i_row_group: Signal
    i_running: Signal
    i_fetch: data.View
    i_advance: Signal
    i_first: Signal
    i_last: Signal
    i_sums: data.View
    i_negative: Signal
    done: Signal
    o: data.View

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.banks = config.banks if config.scale is None else 1
        banked = {
            "i_running": In(config.banks),
            "i_fetch": In(fetch_layout(config)),
            "i_advance": In(1),
        }
        group = {
            "o_new": Out(sums_layout(config, config.acc_bits)),
            "o_row_group": Out(range(config.result_row_groups)),
            "o_valid": Out(1),
        }
        super().__init__(
            {
                "i_valid": In(1),
                "i_row_group": In(range(config.result_row_groups)),
                **(banked if self.banks > 1 else {}),
                "i_first": In(1),
                "i_last": In(1),
                "i_sums": In(sums_layout(config, config.sum_bits)),
                "i_negative": In(config.rows),
                "done": Out(1),
                "o": Out(sums_layout(config, config.acc_bits)),
                **({} if config.scale is None else group),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        # A register for the number, one for the address, the memory, and one behind the memory.
        valid = delay(m, self.i_valid, 1)
        row_group = delay(m, self.i_row_group, 1, reset_less=True)
        new = Signal(self.o.shape(), reset_less=True)
        # `valid` and `row_group` are a cycle old: this delay ends ADD_CYCLES after the sums came.
        write = _Write(
            delay(m, valid, PARTIAL_SUM_READ_CYCLES),
            delay(m, row_group, PARTIAL_SUM_READ_CYCLES, reset_less=True),
            new,
        )
        # The partial sums before the addition; of a group's first tile they are 0.
        partial_sums = Signal(self.o.shape().size)
        if config.scale is not None:
            ports: Any = self
            m.d.comb += [
                ports.o_new.eq(new),
                ports.o_row_group.eq(write.row_group),
                ports.o_valid.eq(write.enable),
            ]
        if config.scale is not None and config.most_group_tiles == 1:
            m.d.comb += partial_sums.eq(0)
        elif self.banks == 1:
            before = self._one_bank(m, row_group, write)
            first = delay(m, self.i_first, PARTIAL_SUM_READ_CYCLES, reset_less=True)
            m.d.comb += partial_sums.eq(before & ~first.replicate(len(before)))
        else:
            before = self._two_banks(m, row_group, write)
            m.d.comb += partial_sums.eq(before[0] | before[1])
        for n in range(config.tokens * config.rows):
            # No overflow: acc_bits holds the extreme of every lane in every tile.
            addend = self.i_sums[n]
            wide = Cat(addend, addend[-1].replicate(config.acc_bits - len(addend)))
            partial = partial_sums.word_select(n, config.acc_bits)
            m.d.sync += new[n].eq(add_under(partial, wide, self.i_negative[n % config.rows]))
        m.d.comb += self.done.eq(delay(m, self.i_last, PARTIAL_SUM_READ_CYCLES + ADD_CYCLES))
        return m

    def _one_bank(self, m: Module, row_group: Value, write: _Write) -> Value:
        """Add the memory; returns the partial sums of the row group whose sums come."""
        m.submodules.totals = totals = block_ram(self.o.shape(), self.config.result_row_groups)
        write.connect(m, totals)
        read = ReadPort(m, totals)
        old = Signal(self.o.shape(), reset_less=True)
        m.d.sync += [read.addr.eq(row_group), old.eq(read.data)]
        m.d.comb += self.o.eq(old)
        # One register more lets the adder be placed away from the memory.
        return delay(m, old.as_value(), 1, reset_less=True)

    def _two_banks(self, m: Module, row_group: Value, write: _Write) -> list[Value]:
        """Add a memory for each bank; returns the partial sums of each.

        They are 0 in a bank whose layer does not run, and in the first tile of a layer. A register
        that is cleared costs no logic, and neither does the OR of both before the addition.
        """
        config = self.config
        fetch = Signal.like(self.i_fetch, reset_less=True)
        bank = self.i_fetch.bank  # of the totals at `o`
        for stage in range(FETCH_CYCLES):
            late = Signal.like(bank, name=f"bank_{stage}", reset_less=True)
            with m.If(self.i_advance):
                m.d.sync += late.eq(bank)
            bank = late
        with m.If(self.i_advance):
            m.d.sync += fetch.eq(self.i_fetch)
        first = delay(m, self.i_first, PARTIAL_SUM_READ_CYCLES - 1, reset_less=True)
        before: list[Value] = []
        totals_out = []
        for number in range(config.banks):
            m.submodules[f"totals_{number}"] = totals = block_ram(
                self.o.shape(), config.result_row_groups
            )
            read = ReadPort(m, totals)
            runs = self.i_running[number]
            write.connect(m, totals, runs)
            old = Signal(self.o.shape(), name=f"old_{number}", reset_less=True)
            moves = Signal(name=f"moves_{number}")
            m.d.comb += [moves.eq(runs | self.i_advance), read.en.eq(moves)]
            with m.If(moves):
                m.d.sync += [
                    read.addr.eq(Mux(runs, row_group, fetch.row_group)),
                    old.eq(read.data),
                ]
            partial = Signal(self.o.shape().size, name=f"partial_{number}", reset_less=True)
            m.d.sync += partial.eq(Mux(runs & ~first, old, 0))
            before.append(partial)
            totals_out.append(old)
        m.d.comb += self.o.eq(Mux(bank, totals_out[1].as_value(), totals_out[0].as_value()))
        return before
