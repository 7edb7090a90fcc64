"""The `table` engine: memory holds every sum that a code can select; the code is the address.

For each `Encoding.trits_per_code` activations, the trits of one code, there is a table. It has one
entry for each code; where the code ends in a sign, one entry serves a code and its negative. The
tables of the next tile are written while weight words look up in those of the current tile: block
RAM has two banks for that. Small tables lie in LUT RAM, which has one bank; they are written after
the tile's last word. Entries are written in the order of `table_walk.walk`, in which each entry
follows from the previous entry by adding or subtracting one activation.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data

from tritloom.rtl.engines.contract import DotEngine
from tritloom.rtl.engines.table_facts import in_lut_ram, table_registers
from tritloom.rtl.engines.table_walk import walk
from tritloom.rtl.lib.adder_tree import add_under, adder_tree, delay, offset_binary
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.spec.encodings import ALPHABETS, Encoding, encodings
from tritloom.rtl.spec.plugins import ACT_LATENCY

STEP_CYCLES = 3
"""Cycles from the number of a walk step to the step: the ROM and two registers."""
ADDRESS_CYCLES = 1
"""Cycles from a walk step to `act_address`: a register on the way to the activations."""
WRITE_CYCLES = 2
"""Cycles from an activation to the entry that it completes: the adder, a register on the way."""


def _steps(encoding: Encoding) -> list[dict[str, int]]:
    """Contents of the ROM that the walk is read from.

    Each walk step has these fields:

    * `index`: place of its entry in the table. A step whose trits are no code (binary alphabets
      pass through zeros) has the place of the next entry, which then overwrites it.
    * `move`: how far the activation address moves. A trit's activation is the word of its number in
      the fill step, so the address moves where another trit changes than in the step before. The
      first step leads from the last activation of one fill step to the first of the next.
    * `negative`: whether the activation is subtracted.
    """
    path = walk(encoding.trits_per_code, encoding.signed, encoding.alphabet)
    entries = path[-1:]
    for step in reversed(path[:-1]):
        entries.append(step if set(step) <= set(ALPHABETS[encoding.alphabet]) else entries[-1])
    codes = encoding.encode(np.array(entries[::-1], np.int8)).tolist()
    changes = [
        next((k, b[k] < a[k]) for k in range(len(a)) if a[k] != b[k]) for a, b in pairwise(path)
    ]
    trits = [0, *(k for k, _ in changes)]
    moves = [encoding.trits_per_code - trits[-1], *(b - a for a, b in pairwise(trits))]
    negatives = [0, *(int(falls) for _, falls in changes)]
    mask = (1 << encoding.index_bits) - 1
    return [
        {"index": code & mask, "move": move, "negative": negative}
        for code, move, negative in zip(codes, moves, negatives, strict=True)
    ]


class _Filling(NamedTuple):
    """What is written to the tables in a cycle."""

    enables: Value
    """One bit for each fill step: its tables are written."""
    index: Value
    """Place of the entry, the same in all tables that are written."""
    entries: list[Value]
    """For each of the `fill` tables of a fill step: the sums of all tokens."""


class TableEngine(DotEngine):
    """Dot engine of block RAM and one adder a code.

    A memory has one look-up port, so each row has copies of the tables; an entry holds the sums of
    all tokens. `fill` tables of each row are written at a time, by one adder each and token; a tile
    takes `lanes / (fill · trits_per_code)` such fill steps.

    Latency: `table_registers`, one cycle for the memory, and one for each level of the adder tree.

    Members: see `tritloom.rtl.engines.contract`.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        encoding = encodings[self.config.encoding]
        # An entry is a sum of trits_per_code terms, each in ±2^(act_bits-1).
        entry_bits = (encoding.trits_per_code << (self.config.act_bits - 1)).bit_length() + 1
        filling = self._fill(m, encoding, entry_bits)
        self._look_up(m, encoding, entry_bits, filling)
        return m

    def _fill(self, m: Module, encoding: Encoding, entry_bits: int) -> _Filling:
        """Add the logic that walks through the tables' entries and computes them."""
        config = self.config
        tokens, fill = config.tokens, config.fill
        fill_steps = config.lanes // encoding.trits_per_code // fill

        steps = _steps(encoding)
        layout = data.StructLayout(
            {
                "index": encoding.index_bits,
                "move": signed(encoding.trits_per_code.bit_length() + 1),
                "negative": 1,
            }
        )
        # Step numbers run from `lowest` to the highest, then 0 is the last: the carry of the
        # increment says that the next step is the last one.
        number_bits = (len(steps) - 1).bit_length()
        lowest = (1 << number_bits) - len(steps) + 1
        contents = [steps[-1], *[steps[0]] * (lowest - 1), *steps[:-1]]
        m.submodules.steps = rom = block_ram(layout, 1 << number_bits, contents)
        read = ReadPort(m, rom)
        step = Signal(layout, reset_less=True)
        number = Signal(number_bits, init=lowest)
        fill_step = Signal(fill_steps, init=1)  # one-hot
        first = Signal(init=1)  # `number` is the first step of the walk
        last = Signal()  # `number` is the last step of the walk
        full = Signal()  # the loaded tile is complete and no word uses it yet
        run = Signal()  # `number` advances
        ends = Signal()
        free = Signal(init=1)  # no word still needs the tables that are written
        m.d.comb += read.addr.eq(number)
        fetched = Signal(layout, reset_less=True)
        m.d.sync += [fetched.eq(read.data), step.eq(fetched)]
        with m.If(run):
            m.d.sync += [Cat(number, last).eq(Mux(last, lowest - 1, number) + 1), first.eq(last)]
            with m.If(last & fill_step[-1]):
                m.d.sync += run.eq(0)
        with m.Else():
            m.d.sync += run.eq(self.i_more & ~full & ~ends & free)
        # `ends` drives every table, so it is registered. One cycle late is harmless: the next fill
        # step ends at least a full walk later.
        m.d.sync += ends.eq(run & last)
        with m.If(ends):
            m.d.sync += [fill_step.eq(fill_step.rotate_left(1)), full.eq(fill_step[-1])]
        swap = delay(m, self.i_swap, 1)
        with m.If(swap):
            m.d.sync += full.eq(0)
        if in_lut_ram(config):
            # There is no second bank: writing waits until the tile's last word has looked up.
            with m.If(delay(m, self.i_last, 1)):
                m.d.sync += free.eq(1)
            with m.Elif(swap):
                m.d.sync += free.eq(0)

        # Cycles from a step's number to its activation at `i_act`, which is then added. `full` is
        # set two cycles after the last number, and the last entry is written WRITE_CYCLES after its
        # activation: that is the first cycle of `ready`, and no word looks up before the next one.
        # After a swap, the previous tile's last word has looked up when the next tile's first entry
        # is written.
        arrival = STEP_CYCLES + ADDRESS_CYCLES + ACT_LATENCY
        m.d.comb += self.ready.eq(delay(m, full, arrival) & full & ~swap)
        moves = delay(m, run, STEP_CYCLES - 1)
        bits = len(self.act_address)
        # The address moves with the first step too; before a layer it lies one such move behind.
        address = Signal(bits, init=-steps[0]["move"] % (1 << bits), reset_less=True)
        m.d.comb += self.act_address.eq(delay(m, address, ADDRESS_CYCLES, reset_less=True))
        with m.If(self.i_start):
            m.d.sync += address.eq(address.init)
        with m.Elif(moves):
            m.d.sync += address.eq(address + fetched.move)
        zero = delay(m, first, arrival, reset_less=True)
        negative = delay(m, step.negative, ADDRESS_CYCLES + ACT_LATENCY, reset_less=True)
        index = delay(m, step.index, ADDRESS_CYCLES + ACT_LATENCY + WRITE_CYCLES, reset_less=True)
        # Write enables, one bit for each fill step. Two registers stand before the many tables;
        # `fill_step` itself changes a cycle after the number.
        writing = Signal(fill_steps, reset_less=True)
        enables = Signal(fill_steps)
        idle = Signal(init=1)
        m.d.sync += [
            idle.eq(~delay(m, run, arrival - 1)),
            writing.eq(delay(m, fill_step, arrival - 1, reset_less=True)),
            enables.eq(writing),
        ]
        with m.If(idle):
            m.d.sync += writing.eq(0)
        entries: list[Value] = []
        for place in range(fill):
            totals: list[Value] = []
            for token in range(tokens):
                x = self.i_act[token * fill + place]
                total = Signal(
                    entry_bits, name="total", init=1 << (entry_bits - 1), reset_less=True
                )
                wide = Cat(x, x[-1].replicate(entry_bits - len(x)))
                m.d.sync += total.eq(add_under(total, wide, negative))
                with m.If(zero):
                    m.d.sync += total.eq(total.init)
                totals.append(total)
            entries.append(delay(m, Cat(totals), 1, reset_less=True))
        return _Filling(enables, index, entries)

    def _look_up(self, m: Module, encoding: Encoding, entry_bits: int, filling: _Filling) -> None:
        """Add the tables of every row, their look-up by weight codes, and the adder trees."""
        config = self.config
        tokens, fill = config.tokens, config.fill
        codes = config.lanes // encoding.trits_per_code
        fill_steps = codes // fill
        code_bits, index_bits = encoding.code_bits, encoding.index_bits
        banks = 1 if in_lut_ram(config) else 2

        before, after = table_registers(config)
        word = delay(m, self.i_word, before, reset_less=True)
        # Words look up in `bank`; `other` is written. Each is a register that toggles before the
        # delay, so a copy that the fan-out pass makes for some tables has a register in front of
        # it, not logic.
        bank = Signal()
        other = Signal(init=1)
        m.d.sync += [bank.eq(bank ^ self.i_swap), other.eq(other ^ self.i_swap)]
        bank, other = (delay(m, signal, before - 1) for signal in (bank, other))
        shape = data.ArrayLayout(unsigned(entry_bits), tokens)
        for row in range(config.rows):
            outputs: list[data.View] = []
            negatives: list[Value] = []
            for n in range(codes):
                # A read and a write never meet: they use different banks or different times.
                table = block_ram(shape, banks << index_bits)
                m.submodules[f"table_{row}_{n}"] = table
                write = table.write_port()
                look = ReadPort(m, table)
                code = word.word_select(row * codes + n, code_bits)
                m.d.comb += [
                    write.en.eq(filling.enables[n % fill_steps]),
                    write.addr.eq(Cat(filling.index, other)[: len(write.addr)]),
                    write.data.eq(filling.entries[n // fill_steps]),
                    look.addr.eq(Cat(code[:index_bits], bank)),
                ]
                output = delay(m, look.data.as_value(), after, reset_less=True)
                outputs.append(data.View(shape, output))
                negatives.append(delay(m, code[-1], 1 + after, reset_less=True))
            for token in range(tokens):
                total, sign = adder_tree(
                    m, [output[token] for output in outputs], negatives if encoding.signed else None
                )
                m.d.comb += self.o_sums[token * config.rows + row].eq(
                    offset_binary(total).as_signed()
                )
            if sign is not None:
                m.d.comb += self.o_negative[row].eq(sign)
