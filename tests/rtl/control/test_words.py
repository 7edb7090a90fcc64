"""Words from bytes, beats from words; activations and results in a word."""

import random

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from tritloom.rtl.control.words import (
    WordCollector,
    WordSplitter,
    activations_in,
    results_out,
)
from tritloom.rtl.engines.contract import sums_layout
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.sim.conformance.streams import FLOWS, simulate, sink

BYTES = 7
WIDE = AcceleratorConfig.from_dict(
    TINY.to_dict() | {"lanes": 10, "rows": 3, "tokens": 2, "fill": 2, "act_bits": 4}
)


def run(dut, bench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("take", [1.0, 0.4])
@pytest.mark.parametrize("size", [1, 3, BYTES])
def test_collects_words(size, take):
    """A word is taken in the cycle in which the next one may begin, or later."""
    rng = random.Random(size)
    dut = WordCollector(BYTES)
    words = [rng.randbytes(size) for _ in range(12)]
    taken: list[bytes] = []

    async def bench(ctx):
        ctx.set(dut.size, size)
        data, held, cycles = list(b"".join(words)), 0, 0
        while len(taken) < len(words):
            complete = held == size
            assert ctx.get(dut.complete) == complete
            assert ctx.get(dut.partial) == (not complete and held != 0)
            takes = complete and rng.random() < take
            if takes:
                word = ctx.get(dut.word) >> 8 * (BYTES - size)
                taken.append(word.to_bytes(size, "little"))
                held = 0
            enters = bool(data) and held < size and (take == 1.0 or rng.random() < 0.7)
            ctx.set(dut.take, takes)
            ctx.set(dut.enter, enters)
            ctx.set(dut.byte, data.pop(0) if enters else 0xEE)
            held += enters
            cycles += 1
            await ctx.tick()
        if take == 1.0:
            assert cycles == size * len(words) + 1, "a byte in every cycle"

    run(dut, bench)
    assert taken == words


@pytest.mark.parametrize("before", range(4))
def test_clear_forgets_the_bytes(before):
    """Those of a word that is not complete, and a complete word."""
    dut = WordCollector(BYTES)

    async def bench(ctx):
        ctx.set(dut.size, 3)
        ctx.set(dut.enter, 1)
        for _ in range(before):
            await ctx.tick()
        ctx.set(dut.enter, 0)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        assert not ctx.get(dut.complete) and not ctx.get(dut.partial)
        ctx.set(dut.enter, 1)
        for number in range(3):
            assert not ctx.get(dut.complete)
            ctx.set(dut.byte, number)
            await ctx.tick()
        ctx.set(dut.enter, 0)
        assert ctx.get(dut.complete) and ctx.get(dut.word) >> 32 == 0x020100

    run(dut, bench)


def split(words: list[bytes], word_bytes: int, beat_bytes: int, idle=0.0, pause=0.0):
    """Send words through a splitter; its beats, and the cycles from the first word on."""
    dut = WordSplitter(word_bytes, beat_bytes)
    rng = random.Random(len(words))
    beats: list[dict[str, int]] = []
    size = sum(len(word) for word in words)
    cycles = 0

    async def bench(ctx):
        nonlocal cycles
        assert ctx.get(dut.empty)
        for word in words:
            while rng.random() < idle:
                await ctx.tick()
            noise = rng.randbytes(word_bytes - len(word))
            raw = int.from_bytes(word + noise, "little")
            ctx.set(dut.i.payload, {"word": raw, "size": len(word)})
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)
        ctx.set(dut.flush, 1)

    async def count(ctx):
        nonlocal cycles
        while sum(beat["size"] for beat in beats) < size:
            cycles += 1
            await ctx.tick()
        assert ctx.get(dut.empty)

    beat_count = -(-size // beat_bytes)
    simulate(dut, bench, sink(dut.o, beat_count, beats, pause, 5), count)
    return beats, cycles


@pytest.mark.parametrize("beat_bytes", [1, 2, 4, 8])
@pytest.mark.parametrize("word_bytes", [1, 3, 8, 13])
def test_splits_words(word_bytes, beat_bytes):
    """The words' bytes in order, in full beats; only the last one may be cut short."""
    rng = random.Random(word_bytes)
    for idle, pause in FLOWS:
        words = [rng.randbytes(rng.randint(1, word_bytes)) for _ in range(rng.randint(1, 30))]
        beats, _ = split(words, word_bytes, beat_bytes, idle, pause)
        assert all(beat["size"] == beat_bytes for beat in beats[:-1])
        raw = [beat["data"].to_bytes(beat_bytes, "little")[: beat["size"]] for beat in beats]
        assert b"".join(raw) == b"".join(words)


@pytest.mark.parametrize("beat_bytes", [1, 2, 4, 8])
def test_a_beat_leaves_in_every_cycle(beat_bytes):
    """Words of whole beats follow one another without a pause."""
    words = [bytes(8)] * 10
    beats, cycles = split(words, 8, beat_bytes)
    assert cycles == len(beats) + 1


def test_a_beat_that_is_not_full_waits_for_flush():
    dut = WordSplitter(8, 4)

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.payload, {"word": 0x030201, "size": 3})
        ctx.set(dut.i.valid, 1)
        await ctx.tick()
        ctx.set(dut.i.valid, 0)
        for _ in range(3):
            assert not ctx.get(dut.o.valid) and not ctx.get(dut.empty)
            await ctx.tick()
        ctx.set(dut.flush, 1)
        assert ctx.get(dut.o.valid) and ctx.get(dut.o.payload.size) == 3
        await ctx.tick()
        assert not ctx.get(dut.o.valid) and ctx.get(dut.empty)

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
