"""Shared by the tests of the core: layers on a simulated or compiled `Core`."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from tritloom.rtl.core.core import Core
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import act_limits
from tritloom.sim.conformance.operands import random_codes, random_trits, weight_words
from tritloom.sim.conformance.streams import simulate, sink, source
from tritloom.sim.device.core import CoreSimulation


def loads_of(config: AcceleratorConfig, codes: np.ndarray) -> list[dict[str, int]]:
    """Activations int8 [tokens, in] as the activation buffer's words."""
    mask, bits = (1 << config.act_bits) - 1, config.act_bits
    return [
        {
            "token": token,
            "address": address,
            "word": sum((code & mask) << bits * n for n, code in enumerate(word)),
        }
        for token, words in enumerate(codes.reshape(config.tokens, -1, config.fill).tolist())
        for address, word in enumerate(words)
    ]


async def run_layer(
    ctx: Any, dut: Any, words: list[int], idle: float, seed: int
) -> tuple[int, int]:
    """Feed a `Core` the words of a run: the cycles until `done`, and how many of them stalled."""
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


def last_numbers(shape: LayerShape) -> dict[str, int]:
    """The payload of `Core.i_run` for a shape."""
    return {"last_tile": shape.tiles - 1, "last_group": shape.row_groups - 1}


def run_core(
    config: AcceleratorConfig,
    shapes: Sequence[LayerShape],
    *,
    idle: float = 0.0,
    pause: float = 0.0,
    seed: int = 0,
) -> tuple[list[int], list[int]]:
    """Random layers on a `Core`, every third extreme: exact; each one's cycles and stalls."""
    rng = np.random.default_rng(seed)
    dut = Core(config)
    run_cycles: list[int] = []
    stalls: list[int] = []

    async def bench(ctx):
        for number, shape in enumerate(shapes):
            size = (shape.row_groups * config.rows, shape.tiles * config.lanes)
            trits = random_trits(config, rng, size)
            codes = random_codes(config, rng, (config.tokens, size[1]))
            if number % 3 == 0:
                trits[:], codes[:] = -1, act_limits(config)[0]
            loads = loads_of(config, codes)
            random.Random(number).shuffle(loads)
            await source(dut.i_load, loads, idle, number)(ctx)
            ctx.set(dut.i_run.payload, last_numbers(shape))
            ctx.set(dut.i_run.valid, 1)
            await ctx.tick().until(dut.i_run.ready)
            ctx.set(dut.i_run.valid, 0)
            words = weight_words(config, trits)
            cycles, stalled = await run_layer(ctx, dut, words, idle, number)
            run_cycles.append(cycles)
            stalls.append(stalled)
            totals: list[list[int]] = []
            for group in range(shape.row_groups):
                await source(dut.i_fetch, [{"row_group": group}], idle, group)(ctx)
                await sink(dut.o, group + 1, totals, pause, group)(ctx)
            sums = np.array(totals).reshape(shape.row_groups, config.tokens, config.rows)
            expected = codes.astype(np.int64) @ trits.T
            assert (sums.transpose(1, 0, 2).reshape(config.tokens, -1) == expected).all()

    deadline = 20_000 + 8 * sum(config.run_cycles(shape) or 0 for shape in shapes)
    simulate(dut, bench, deadline_cycles=deadline)
    return run_cycles, stalls


def check_core(core: CoreSimulation, trits: np.ndarray, codes: np.ndarray) -> None:
    """A layer on a compiled core: each sum exact, each run of the formula's cycles."""
    config = core.config
    cycles = config.run_cycles(LayerShape.of(config, *trits.shape))
    expected = numerics.matmul(trits, codes)
    done = 0
    for sums, run_cycles in core.layer(trits, codes):
        assert run_cycles == cycles, config
        assert np.array_equal(sums, expected[done : done + len(sums)]), (config, done)
        done += len(sums)
    assert done == len(codes)
