"""The ``table`` engine: block RAM holds every sum that a code can select; the code is the address.

For each group of activations (``Encoding.group`` of them) a table has one entry a code. The tables
of the next tile are written while words look up in those of the current one: two banks.

Entries are written along a Gray code that counts each digit up modulo 3, from the zero trits on:
the trit of an activation x goes 0 → + → − → 0, so each entry is the last one plus x or minus 2x,
and its address the last one plus 3^k or minus 2·3^k. It takes no more cycles than entries.
"""

from collections.abc import Iterable
from functools import reduce
from itertools import pairwise
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.block_ram import ReadPort, block_ram
from tritloom.rtl.config import AcceleratorConfig
from tritloom.rtl.engine import engine_members
from tritloom.rtl.packing import encodings
from tritloom.rtl.select import delay


def one_of(chosen: Value, values: Iterable[Value]) -> Value:
    """The value whose bit in ``chosen`` is set: fewer LUTs than a selection by number."""
    masked = [Mux(bit, value, 0) for bit, value in zip(chosen, values, strict=True)]
    return reduce(or_, masked)


class GrayWalk(wiring.Component):
    """Counts through the 3^``group`` entries of a table, and says how each follows from the last.

    Members
    -------
    start : strobe; the first entry comes in the next cycle
    active : an entry comes, one in each cycle
    first, last : of the entries; the first has the zero trits
    changed : a bit a trit; that which is not as in the last entry
    double : it went down by 2, where not up by 1
    """

    start: Signal
    active: Signal
    first: Signal
    last: Signal
    changed: Signal
    double: Signal

    def __init__(self, group: int) -> None:
        self.group = group
        super().__init__(
            {
                "start": In(1),
                "active": Out(1),
                "first": Out(1),
                "last": Out(1),
                "changed": Out(group),
                "double": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # A plain ternary count n; trit k of the Gray code is (n[k] − n[k+1] + 1) modulo 3 − 1.
        count = [Signal(2, name=f"count_{k}") for k in range(self.group)]
        m.d.comb += [
            self.first.eq(Cat(count) == 0),
            self.last.eq(Cat(n == 2 for n in count).all()),
        ]
        with m.If(self.active):
            carry: Value = Const(1)
            for n in count:
                with m.If(carry):
                    m.d.sync += n.eq(Mux(n == 2, 0, n + 1))
                carry = carry & (n == 2)
            # The lowest n that is not 2 goes up, and with it that trit alone.
            for k, (n, above) in reversed([*enumerate(pairwise([*count, Const(0, 2)]))]):
                with m.If(n != 2):
                    m.d.sync += [
                        self.changed.eq(1 << k),
                        self.double.eq(Mux(n == 0, above == 2, above == 0)),
                    ]
        with m.If(self.start):
            m.d.sync += self.active.eq(1)
        with m.Elif(self.last):
            m.d.sync += self.active.eq(0)
        return m


class TableEngine(wiring.Component):
    """Dot engine of block RAM and one adder a code; the contract is in ``tritloom.rtl.engine``.

    A look-up port needs a memory of its own, so each row has copies of the tables; an entry holds
    the sums of all tokens. ``fill`` activations, whole groups, are made into tables at a time, in
    as many cycles as a table has entries; a tile needs that ``lanes / fill`` times.

    Latency: one cycle for the address, one for the memory, one for its slow output, one for each
    level of the tree.
    """

    i_act: stream.Interface
    ready: Signal
    i_word: Signal
    i_valid: Signal
    i_swap: Signal
    o_sums: data.View
    o_valid: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(engine_members(config))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        encoding = encodings[config.encoding]
        group, tokens, code_bits = encoding.group, config.tokens, encoding.code_bits
        groups, walks = config.lanes // group, config.lanes // config.fill
        at_once = config.fill // group
        # An entry lies in ±group·2^(act_bits-1).
        entry = signed((group << (config.act_bits - 1)).bit_length() + 1)

        # The bank of the word that came one cycle ago, which looks up now; the other is written.
        bank = Signal()
        m.d.sync += bank.eq(bank ^ self.i_swap)

        m.submodules.walk = walk = GrayWalk(group)
        acts = Signal(self.i_act.payload.shape(), reset_less=True)
        turn = Signal(walks, init=1 << (walks - 1))  # one bit for each part of a tile
        full = Signal()
        m.d.comb += [
            self.i_act.ready.eq(~full & (~walk.active | walk.last)),
            walk.start.eq(self.i_act.valid & self.i_act.ready),
        ]
        with m.If(walk.start):
            m.d.sync += [acts.eq(self.i_act.payload), full.eq(turn.rotate_left(1)[-1])]
        with m.If(self.i_swap):
            m.d.sync += full.eq(0)
        # The last entry is written in the first cycle of ready, and the first word looks up in the
        # next one. After a swap no word of the tile before is left when the first entry comes.
        walked = delay(m, full & ~walk.active, 1) & full
        m.d.comb += self.ready.eq(delay(m, walked, 1) & full)

        # Selection, step, entry, write: in one cycle each. While there is no walk the first entry
        # is written again and again: 0 at the zero trits, which is right for every tile.
        first = delay(m, walk.first, 2, reset_less=True)
        changed = delay(m, walk.changed, 1, reset_less=True)
        double = delay(m, walk.double, 1, reset_less=True)
        minus = delay(m, double, 1, reset_less=True)
        step = Signal(code_bits, reset_less=True)
        address = Signal(code_bits, reset_less=True)
        steps = (Mux(double, -2 * 3**k, 3**k) for k in range(group))
        m.d.sync += [
            step.eq(one_of(changed, steps)),
            address.eq(Mux(first, 3**group // 2, address + step)),
        ]
        with m.If(delay(m, walk.start, 3)):
            m.d.sync += turn.eq(turn.rotate_left(1))
        entries: list[Value] = []
        for part in range(at_once):
            totals: list[Value] = []
            for token in range(tokens):
                own = (acts[token * config.fill + part * group + k] for k in range(group))
                x = Signal(signed(config.act_bits), name="x", reset_less=True)
                addend = Signal(signed(config.act_bits + 1), name="addend", reset_less=True)
                total = Signal(entry, name="total", reset_less=True)
                # −2x is ~2x + 1; the bit below the sum carries the 1 into the same adder.
                plus = Cat(Const(1, 1), total).as_signed() + Cat(minus, addend).as_signed()
                m.d.sync += [
                    x.eq(one_of(walk.changed, own)),
                    addend.eq(Mux(double, ~Cat(Const(0, 1), x), x)),
                    total.eq(Mux(first, 0, plus >> 1)),
                ]
                totals.append(total)
            entries.append(Cat(totals))

        word = Signal(config.word_bits, reset_less=True)
        m.d.sync += word.eq(self.i_word)
        shape = data.ArrayLayout(entry, tokens)
        found: list[list[Value]] = []
        for row in range(config.rows):
            outputs: list[Value] = []
            for n in range(groups):
                # A read and a write never meet: they are in different banks.
                table = block_ram(shape, 2 << code_bits)
                m.submodules[f"table_{row}_{n}"] = table
                fill = table.write_port()
                look = ReadPort(m, table)
                output = Signal(shape, name="output", reset_less=True)
                m.d.comb += [
                    fill.en.eq(turn[n // at_once]),
                    fill.addr.eq(Cat(address, ~bank)),
                    fill.data.eq(entries[n % at_once]),
                    look.addr.eq(Cat(word.word_select(row * groups + n, code_bits), bank)),
                ]
                m.d.sync += output.eq(look.data)
                outputs.append(output)
            found.append(outputs)
        for token in range(tokens):
            for row, outputs in enumerate(found):
                terms: list[Value] = [output[token] for output in outputs]
                while len(terms) > 1:
                    # A sum of two is one bit wider than either, so nothing overflows.
                    level: list[Value] = []
                    for left, right in zip(terms[::2], terms[1::2], strict=False):
                        total = Signal(
                            signed(max(len(left), len(right)) + 1), name="total", reset_less=True
                        )
                        m.d.sync += total.eq(left + right)
                        level.append(total)
                    if len(terms) % 2:
                        level.append(delay(m, terms[-1], 1, reset_less=True))
                    terms = level
                m.d.comb += self.o_sums[token * config.rows + row].eq(terms[0])
        m.d.comb += self.o_valid.eq(delay(m, self.i_valid, config.engine_latency))
        return m
