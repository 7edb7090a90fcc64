"""The core alone: products from activations and a stream of weight words, and its cycles."""

import random

import numpy as np
import pytest

from tests.bench import noise, simulate, sink, source
from tritloom.rtl.config import TINY, AcceleratorConfig
from tritloom.rtl.core import ActivationBuffer, Core
from tritloom.rtl.packing import LayerShape, pack_weights

WIDE = AcceleratorConfig(
    lanes=10,
    rows=3,
    tokens=2,
    fill=5,
    memory_words=64,
    max_in_features=40,
    max_out_features=30,
)
LEAST = AcceleratorConfig(
    lanes=5, rows=1, fill=5, memory_words=1, max_in_features=5, max_out_features=1
)
CONFIGS = {"tiny": TINY, "wide": WIDE, "least": LEAST}


def loads_of(config, codes):
    """Activations int8 [tokens, in] as the buffer's words, in any order."""
    words = codes.reshape(config.tokens, -1, config.fill).view(np.uint8)
    return [
        {"token": token, "address": address, "word": int.from_bytes(word.tobytes(), "little")}
        for token, rows in enumerate(words)
        for address, word in enumerate(rows)
    ]


def shapes_of(config):
    return [
        LayerShape(tiles, groups)
        for tiles in sorted({1, 2, config.max_tiles})
        for groups in sorted({1, 2, 3, 4, 5, config.max_groups})
        if tiles <= config.max_tiles and groups <= config.max_groups
    ]


@pytest.mark.parametrize(("idle", "pause"), [(0.0, 0.0), (0.4, 0.4), (0.8, 1.0)])
@pytest.mark.parametrize("name", CONFIGS)
def test_products(name, idle, pause):
    config = CONFIGS[name]
    rng = np.random.default_rng(14)
    dut = Core(config)
    took: list[int] = []
    stalls: list[int] = []

    async def bench(ctx):
        for number, shape in enumerate(shapes_of(config)):
            size = (shape.groups * config.rows, shape.tiles * config.lanes)
            trits = rng.integers(-1, 2, size).astype(np.int8)
            codes = rng.integers(-128, 128, (config.tokens, size[1])).astype(np.int8)
            if number % 3 == 0:
                trits[:], codes[:] = -1, -128
            loads = loads_of(config, codes)
            random.Random(number).shuffle(loads)
            await source(dut.i_load, loads, idle, number)(ctx)
            ctx.set(dut.i_run.payload, {"tiles": shape.tiles, "groups": shape.groups})
            ctx.set(dut.i_run.valid, 1)
            await ctx.tick().until(dut.i_run.ready)
            ctx.set(dut.i_run.valid, 0)
            image = pack_weights(config, trits)
            words = [
                int.from_bytes(image[at : at + config.word_bytes], "little")
                for at in range(0, len(image), config.word_bytes)
            ]
            cycles, stalled = await run(ctx, words, number)
            took.append(cycles)
            stalls.append(stalled)
            totals: list[list[int]] = []
            for group in range(shape.groups):
                await source(dut.i_fetch, [group], idle, group)(ctx)
                await sink(dut.o, group + 1, totals, pause, group)(ctx)
            found = np.array(totals).reshape(shape.groups, config.tokens, config.rows)
            expected = codes.astype(np.int64) @ trits.T
            assert (found.transpose(1, 0, 2).reshape(config.tokens, -1) == expected).all()

    async def run(ctx, words, seed):
        """Feed the words of a run; its cycles until ``done``, and those in which it stalled."""
        chance = random.Random(seed)
        cycles = stalled = sent = 0
        offered = False
        while True:
            offered = sent < len(words) and (offered or chance.random() >= idle)
            ctx.set(dut.i_word.valid, offered)
            if offered:
                ctx.set(dut.i_word.payload, words[sent])
            *_, ready, done, stall, free = await ctx.tick().sample(
                dut.i_word.ready, dut.done, dut.stall, dut.i_run.ready
            )
            assert not free
            assert stall == (ready and not offered)
            stalled += stall
            cycles += 1
            if offered and ready:
                sent += 1
                offered = False
            if done:
                assert sent == len(words)
                return cycles, stalled

    simulate(dut, bench)
    if not idle:
        assert took == [config.run_cycles(shape) for shape in shapes_of(config)]
        assert not any(stalls)
    else:
        assert any(stalls) or name == "least"


@pytest.mark.parametrize("pause", [0.0, 0.5, 1.0])
def test_activation_buffer(pause):
    config = WIDE
    rng = np.random.default_rng(15)
    codes = rng.integers(-128, 128, (config.tokens, 40)).astype(np.int8)
    transfers = codes.reshape(config.tokens, -1, config.fill).transpose(1, 0, 2)
    dut = ActivationBuffer(config)

    async def bench(ctx):
        await source(dut.i_load, loads_of(config, codes), 0.2)(ctx)
        for tiles in (1, 3, 4, 2):
            ctx.set(dut.tiles, tiles)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            count = tiles * config.lanes // config.fill
            received: list[list[int]] = []
            await sink(dut.o, count, received, pause, tiles)(ctx)
            assert received == transfers[:count].reshape(count, -1).tolist()
            for _ in range(4):  # and no more than these
                *_, valid = await ctx.tick().sample(dut.o.valid)
                assert not valid

    simulate(dut, bench)


def test_tokens_keep_their_part_of_a_word():
    config = WIDE
    dut = ActivationBuffer(config)

    async def bench(ctx):
        rng = random.Random(16)
        for token, word in ((0, 0x0102030405), (1, 0x1112131415), (0, 0x2122232425)):
            load = {"token": token, "address": 0, "word": word}
            await source(dut.i_load, [load])(ctx)
            await noise(ctx, dut.i_load, rng)
        ctx.set(dut.tiles, 1)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        received: list[list[int]] = []
        await sink(dut.o, 2, received)(ctx)
        first = [0x25, 0x24, 0x23, 0x22, 0x21, 0x15, 0x14, 0x13, 0x12, 0x11]
        assert received[0] == first

    simulate(dut, bench)
