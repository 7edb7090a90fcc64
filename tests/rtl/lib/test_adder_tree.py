"""The adder tree: exact sums of any number of terms, signs deferred or not, at its latency."""

import random

import pytest
from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.adder_tree import add_under, adder_tree, delay, offset_binary, tree_levels
from tritloom.sim.conformance.streams import plain, simulate

BITS = 5
TERMS = range(1, 18)
LEVELS = {1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 8: 3, 9: 4, 16: 4, 17: 5}


def clocked(m: Module) -> Module:
    """With a register, so that a bench has a clock to wait for."""
    m.d.sync += Signal(name="unused").eq(1)
    return m


class Tree(wiring.Component):
    """A tree over numbers in two's complement."""

    def __init__(self, terms: int, negatives: bool) -> None:
        self.terms, self.negatives = terms, negatives
        super().__init__(
            {
                "i": In(data.ArrayLayout(signed(BITS), terms)),
                "i_negative": In(terms),
                "o": Out(signed(BITS + tree_levels(terms))),
                "o_negative": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        terms = [offset_binary(self.i[n]) for n in range(self.terms)]
        total, negative = adder_tree(m, terms, list(self.i_negative) if self.negatives else None)
        assert len(total) == len(self.o), "one bit more a level"
        assert (negative is not None) == self.negatives
        m.d.comb += self.o.eq(offset_binary(total).as_signed())
        if negative is not None:
            m.d.comb += self.o_negative.eq(negative)
        return clocked(m)


def test_levels():
    assert {terms: tree_levels(terms) for terms in LEVELS} == LEVELS


@pytest.mark.parametrize("negatives", [False, True])
@pytest.mark.parametrize("terms", TERMS)
def test_sums(terms, negatives):
    """A sum in each cycle: extremes of both signs, single terms, random ones."""
    low, high = -(1 << BITS - 1), (1 << BITS - 1) - 1
    chance = random.Random(terms)
    vectors = [[low] * terms, [high] * terms, [0] * terms, [-1] * terms]
    vectors += [[low if k == n else 0 for k in range(terms)] for n in range(terms)]
    vectors += [[chance.choice((low, high)) for _ in range(terms)] for _ in range(100)]
    vectors += [[chance.randint(low, high) for _ in range(terms)] for _ in range(200)]
    signs = [[chance.getrandbits(1) * negatives for _ in range(terms)] for _ in vectors]
    # −x where x is the lowest is one more than the highest, in all of them at once.
    vectors += [[low] * terms] * 2
    signs += [[0] * terms, [int(negatives)] * terms]
    dut = Tree(terms, negatives)
    latency = tree_levels(terms)
    sums: list[int] = []

    async def bench(ctx):
        for cycle in range(len(vectors) + latency):
            if cycle < len(vectors):
                bits = signs[cycle]
                relative = [bits[n] ^ (bits[n & (n - 1)] if n else 0) for n in range(terms)]
                ctx.set(dut.i, vectors[cycle])
                ctx.set(dut.i_negative, sum(bit << n for n, bit in enumerate(relative)))
            else:
                ctx.set(dut.i, [chance.randint(low, high) for _ in range(terms)])
            *_, total, negative = await ctx.tick().sample(dut.o, dut.o_negative)
            if cycle >= latency:
                sums.append(-total if negative else total)

    simulate(dut, bench)
    expected = [
        sum(-x if sign else x for x, sign in zip(vector, bits, strict=True))
        for vector, bits in zip(vectors, signs, strict=True)
    ]
    assert sums == expected


def every_pair(make):
    """A component of two 4-bit inputs and a bit, over all of their values."""

    class Pair(wiring.Component):
        def __init__(self) -> None:
            super().__init__({"left": In(4), "right": In(4), "negative": In(1), "o": Out(4)})

        def elaborate(self, platform: object) -> Module:
            m = Module()
            m.d.comb += self.o.eq(make(self.left, self.right, self.negative))
            return clocked(m)

    dut = Pair()
    sums: dict[tuple[int, int, int], int] = {}

    async def bench(ctx):
        for left in range(16):
            for right in range(16):
                for negative in (0, 1):
                    ctx.set(
                        Cat(dut.left, dut.right, dut.negative), left | right << 4 | negative << 8
                    )
                    sums[left, right, negative] = ctx.get(dut.o)
        await ctx.tick()

    simulate(dut, bench)
    return sums


@pytest.mark.parametrize("numbers", [unsigned, signed])
def test_add_under(numbers):
    def make(left, right, negative):
        total = add_under(left.as_signed(), right.as_signed(), negative)
        if numbers is unsigned:
            total = add_under(left, right, negative)
        assert len(total) == 4
        return total

    for (left, right, negative), total in every_pair(make).items():
        assert total == (left - right if negative else left + right) % 16


def test_add_without_a_sign():
    for (left, right, _), total in every_pair(lambda a, b, _: add_under(a, b, None)).items():
        assert total == (left + right) % 16


def test_offset_binary():
    """n + 8 in four bits, and back."""
    for (left, right, _), total in every_pair(lambda a, b, _: offset_binary(a)).items():
        assert total == (left ^ 8) == (left + 8) % 16, right
    for (left, *_), again in every_pair(lambda a, *_: offset_binary(offset_binary(a))).items():
        assert again == left


@pytest.mark.parametrize("cycles", [0, 1, 3])
def test_delay(cycles):
    class Delay(wiring.Component):
        def __init__(self) -> None:
            super().__init__({"i": In(signed(4)), "o": Out(signed(4))})

        def elaborate(self, platform: object) -> Module:
            m = Module()
            late = delay(m, self.i, cycles)
            assert late.shape() == signed(4)
            m.d.comb += self.o.eq(late)
            return clocked(m)

    dut = Delay()
    values = [3, -8, 7, -1, 0, 5, 2, -3]
    sums: list[int] = []

    async def bench(ctx):
        for value in values:
            ctx.set(dut.i, value)
            sums.append(plain((await ctx.tick().sample(dut.o))[-1]))

    simulate(dut, bench)
    assert sums == [*[0] * cycles, *values][: len(values)]
