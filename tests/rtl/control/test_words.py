"""The word register: words from bytes, bytes from words; activations and results in a word."""

import random

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from tritloom.rtl.control.words import WordRegister, activations_in, results_out
from tritloom.rtl.engines.contract import sums_layout
from tritloom.rtl.spec.config import TINY, AcceleratorConfig

BYTES = 7
WIDE = AcceleratorConfig.from_dict(
    TINY.to_dict() | {"lanes": 10, "rows": 3, "tokens": 2, "fill": 2, "act_bits": 4}
)


def run(dut, bench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("size", [1, 3, BYTES])
def test_collects_words(size):
    rng = random.Random(size)
    dut = WordRegister(BYTES)

    async def bench(ctx):
        ctx.set(dut.size, size)
        for _ in range(4):
            word = rng.randbytes(size)
            for number, byte in enumerate(word):
                assert not ctx.get(dut.complete)
                assert ctx.get(dut.partial) == (number != 0)
                ctx.set(dut.byte, byte)
                ctx.set(dut.enter, 1)
                await ctx.tick()
                ctx.set(dut.enter, 0)
                if rng.random() < 0.5:
                    await ctx.tick()
            assert ctx.get(dut.complete)
            assert ctx.get(dut.word) >> 8 * (BYTES - size) == int.from_bytes(word, "little")
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)

    run(dut, bench)


@pytest.mark.parametrize("size", [1, 3, BYTES])
def test_sends_words(size):
    rng = random.Random(size)
    dut = WordRegister(BYTES)

    async def bench(ctx):
        for _ in range(4):
            word = rng.randbytes(BYTES)
            ctx.set(dut.new_word, int.from_bytes(word, "little"))
            ctx.set(dut.new_size, size)
            ctx.set(dut.load, 1)
            await ctx.tick()
            ctx.set(dut.load, 0)
            for number in range(size):
                assert ctx.get(dut.word) & 0xFF == word[number]
                assert ctx.get(dut.last) == (number == size - 1)
                if rng.random() < 0.5:
                    await ctx.tick()
                ctx.set(dut.leave, 1)
                await ctx.tick()
                ctx.set(dut.leave, 0)

    run(dut, bench)


class Layouts(wiring.Component):
    """The functions of the module, with ports."""

    def __init__(self) -> None:
        layout = sums_layout(WIDE, WIDE.acc_bits)
        super().__init__(
            {
                "word": In(32),
                "activations": Out(data.ArrayLayout(signed(WIDE.act_bits), WIDE.fill)),
                "sums": In(layout),
                "token": In(8),
                "count": In(16),
                "results": Out(8 * WIDE.rows * WIDE.acc_bytes),
                "size": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        results, size = results_out(WIDE, self.sums, self.token, self.count)
        m.d.comb += [
            self.activations.as_value().eq(activations_in(WIDE, self.word)),
            self.results.eq(results),
            self.size.eq(size),
        ]
        m.d.sync += Signal(name="unused").eq(1)
        return m


def test_activations_and_results():
    rng = random.Random(3)
    dut = Layouts()
    low, high = -(1 << WIDE.acc_bits - 1), (1 << WIDE.acc_bits - 1) - 1

    async def bench(ctx):
        ctx.set(dut.word, 0x5A_F7_00_00)  # the word lies at the top; 4 bits of each byte count
        assert list(ctx.get(dut.activations)) == [7, -6]
        for count in (1, 2, 3, 4, 5, 8, 9, 65535):
            sums = [rng.choice((low, high, -1, 0, 5)) for _ in range(WIDE.tokens * WIDE.rows)]
            for token in range(WIDE.tokens):
                ctx.set(dut.sums, sums)
                ctx.set(dut.token, token)
                ctx.set(dut.count, count)
                raw = ctx.get(dut.results).to_bytes(WIDE.rows * WIDE.acc_bytes, "little")
                results = np.frombuffer(raw, f"<i{WIDE.acc_bytes}").tolist()
                assert results == sums[token * WIDE.rows :][: WIDE.rows]
                assert ctx.get(dut.size) == min(count, WIDE.rows) * WIDE.acc_bytes
        await ctx.tick()

    assert WIDE.acc_bytes == 2 and WIDE.rows == 3
    run(dut, bench)
