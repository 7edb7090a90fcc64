"""The ``table`` engine: memory holds every sum that a code can select; the code is the address.

For each code's activations (`Encoding.trits_per_code` of them) a table has one entry a code, or
one for each code and its negative where the code ends in a sign. The tables of the next tile are
written while words look up in those of the current one: two banks of block RAM. Small tables lie
in LUT RAM, which has one bank, and are written after the tile's last word. Entries are written
along a path on which each follows from the one before by adding or subtracting one activation.
"""

from itertools import pairwise

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


def _steps(encoding: Encoding) -> list[dict[str, int]]:
    """For each entry of the path: its place in the table, and how it follows from the last.

    The activation of trit k is word k of a part, so where the trit that changes is another one the
    address of activations moves; from the last step to the next part's first, which has none.
    A step between entries writes the place of the next one, which is then written again.
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


class TableEngine(DotEngine):
    """Dot engine of block RAM and one adder a code; see ``tritloom.rtl.engines.contract``.

    A look-up port needs a memory of its own, so each row has copies of the tables; an entry holds
    the sums of all tokens. ``fill`` tables of each row are written at a time, by one adder each;
    a tile is ``lanes / (fill · group)`` such parts.

    Latency: ``table_registers``, a cycle for the memory, and one for each level of the tree.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        encoding = encodings[config.encoding]
        group, tokens, fill = encoding.trits_per_code, config.tokens, config.fill
        code_bits, index_bits = encoding.code_bits, encoding.index_bits
        groups = config.lanes // group
        parts = groups // fill
        single = in_lut_ram(config)
        # An entry lies in ±group·2^(act_bits-1).
        entry_bits = (group << (config.act_bits - 1)).bit_length() + 1

        steps = _steps(encoding)
        layout = data.StructLayout(
            {"index": index_bits, "move": signed(group.bit_length() + 1), "negative": 1}
        )
        # Numbers end at 0, after the highest: the carry of the step says that the next is the last.
        number_bits = (len(steps) - 1).bit_length()
        lowest = (1 << number_bits) - len(steps) + 1
        contents = [steps[-1], *[steps[0]] * (lowest - 1), *steps[:-1]]
        m.submodules.steps = rom = block_ram(layout, 1 << number_bits, contents)
        read = ReadPort(m, rom)
        step = Signal(layout, reset_less=True)
        number = Signal(number_bits, init=lowest)
        part = Signal(parts, init=1)  # one bit for each
        first = Signal(init=1)
        full = Signal()
        run = Signal()
        last = Signal()
        ends = Signal()
        free = Signal(init=1)
        m.d.comb += read.addr.eq(number)
        fetched = Signal(layout, reset_less=True)
        m.d.sync += [fetched.eq(read.data), step.eq(fetched)]
        with m.If(run):
            m.d.sync += [Cat(number, last).eq(Mux(last, lowest - 1, number) + 1), first.eq(last)]
            with m.If(last & part[-1]):
                m.d.sync += run.eq(0)
        with m.Else():
            m.d.sync += run.eq(self.i_more & ~full & ~ends & free)
        # From a register to so many; the next part's last step is far.
        m.d.sync += ends.eq(run & last)
        with m.If(ends):
            m.d.sync += [part.eq(part.rotate_left(1)), full.eq(part[-1])]
        swap = delay(m, self.i_swap, 1)
        with m.If(swap):
            m.d.sync += full.eq(0)
        if single:
            # There is no other bank: the last word must have looked up.
            with m.If(delay(m, self.i_last, 1)):
                m.d.sync += free.eq(1)
            with m.Elif(swap):
                m.d.sync += free.eq(0)

        # The step comes 3 cycles after its number, its activation ACT_LATENCY + 1 later; then it is
        # added, passed on, and written. The last entry is written in the first cycle of ready, and
        # no word looks up before the next. After a swap no word of the tile before is left when the
        # first entry of the next one comes.
        added = 4 + ACT_LATENCY
        m.d.comb += self.ready.eq(delay(m, full, added) & full & ~swap)
        moves = delay(m, run, 2)
        bits = len(self.act_address)
        address = Signal(bits, init=-steps[0]["move"] % (1 << bits), reset_less=True)
        # A register for the way to the activations; their start is still before the first step.
        m.d.comb += self.act_address.eq(delay(m, address, 1, reset_less=True))
        with m.If(self.i_start):
            m.d.sync += address.eq(address.init)
        with m.Elif(moves):
            m.d.sync += address.eq(address + fetched.move)
        zero = delay(m, first, added, reset_less=True)
        negative = delay(m, step.negative, ACT_LATENCY + 1, reset_less=True)
        index = delay(m, step.index, ACT_LATENCY + 3, reset_less=True)
        # One for each part; a flip-flop on the way to so many blocks.
        writing = Signal(parts, reset_less=True)
        writes = Signal(parts)
        idle = Signal(init=1)
        m.d.sync += [
            idle.eq(~delay(m, run, added - 1)),
            writing.eq(delay(m, part, added - 1, reset_less=True)),
            writes.eq(writing),
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

        before, after = table_registers(config)
        word = delay(m, self.i_word, before, reset_less=True)
        # The bank in which that word looks up; the other is written. What turns comes first: copies
        # of the registers that feed the memories are then behind a register, not behind logic.
        bank = Signal()
        other = Signal(init=1)
        m.d.sync += [bank.eq(bank ^ self.i_swap), other.eq(other ^ self.i_swap)]
        bank, other = (delay(m, signal, before - 1) for signal in (bank, other))
        shape = data.ArrayLayout(unsigned(entry_bits), tokens)
        for row in range(config.rows):
            found: list[data.View] = []
            negatives: list[Value] = []
            for n in range(groups):
                # A read and a write never meet: they are in different banks, or at other times.
                table = block_ram(shape, (1 if single else 2) << index_bits)
                m.submodules[f"table_{row}_{n}"] = table
                write = table.write_port()
                look = ReadPort(m, table)
                code = word.word_select(row * groups + n, code_bits)
                m.d.comb += [
                    write.en.eq(writes[n % parts]),
                    write.addr.eq(Cat(index, other)[: len(write.addr)]),
                    write.data.eq(entries[n // parts]),
                    look.addr.eq(Cat(code[:index_bits], bank)),
                ]
                output = delay(m, look.data.as_value(), after, reset_less=True)
                found.append(data.View(shape, output))
                negatives.append(delay(m, code[-1], 1 + after, reset_less=True))
            for token in range(tokens):
                total, sign = adder_tree(
                    m, [output[token] for output in found], negatives if encoding.signed else None
                )
                m.d.comb += self.o_sums[token * config.rows + row].eq(
                    offset_binary(total).as_signed()
                )
            if sign is not None:
                m.d.comb += self.o_negative[row].eq(sign)
        return m
