"""Shared by the tests of the core: layers on a simulated or compiled `Core`."""

import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from tritloom.rtl.core.core import Core, shape_numbers
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.groups import float_totals
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import act_limits, pack_scaled
from tritloom.sim.conformance.operands import (
    random_act_scales,
    random_codes,
    random_scales,
    random_trits,
    weight_words,
)
from tritloom.sim.conformance.streams import plain, simulate, sink, source
from tritloom.sim.device.core import CoreSimulation


def loads_of(config: AcceleratorConfig, codes: np.ndarray, bank: int = 0) -> list[dict[str, int]]:
    """Activations int8 [tokens, in] as the words of an activation bank."""
    mask, bits = (1 << config.act_bits) - 1, config.act_bits
    return [
        {
            "token": token,
            "address": address,
            "bank": bank,
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


def run_of(
    config: AcceleratorConfig, shape: LayerShape, activations: int = 0, results: int = 0
) -> dict[str, int]:
    """The payload of `Core.i_run` for a shape, an activation bank and a result bank."""
    return {
        **shape_numbers(config, shape),
        "activation_bank": activations,
        "result_bank": results,
    }


def group_sums(trits: np.ndarray, codes: np.ndarray, group: int) -> np.ndarray:
    """Sums [tokens, groups × out], group after group; the last may be shorter, 0 is no group."""
    width = group or codes.shape[1]
    parts = [slice(start, start + width) for start in range(0, codes.shape[1], width)]
    return np.hstack([codes[:, part].astype(np.int64) @ trits[:, part].T for part in parts])


def scaled_layer(
    config: AcceleratorConfig,
    rng: np.random.Generator,
    shape: LayerShape,
    trits: np.ndarray,
    codes: np.ndarray,
    bank: int,
) -> tuple[list[int], np.ndarray, list[dict[str, int]]]:
    """Weight words with random scales, and the totals [tokens, out] in units of 2^-24.

    Or float32 patterns, as signed integers; then the loads of the activations' scales come too.
    """
    tiles = min(shape.group_tiles or config.most_group_tiles, shape.tiles)
    sums = group_sums(trits, codes, tiles * config.lanes)
    sums = sums.reshape(len(codes), -1, len(trits)).astype(object)
    scales = random_scales(rng, (len(trits), sums.shape[1]))
    image, size = pack_scaled(config, trits, tiles, scales), config.word_bytes
    starts = range(0, len(image), size)
    words = [int.from_bytes(image[start : start + size], "little") for start in starts]
    if config.scales_activations:
        acts = random_act_scales(rng, (config.tokens, sums.shape[1]))
        loads = [
            {"token": token, "group": group, "bank": bank, "scale": act}
            for token, of_token in enumerate(acts.tolist())
            for group, act in enumerate(of_token)
        ]
        sums = sums.astype(np.int64).transpose(0, 2, 1)  # [tokens, out, groups]
        totals = float_totals(sums, *np.broadcast_arrays(scales, acts[:, None]))
        return words, totals[..., -1].view(np.int32), loads
    units = (scales.view(np.float16).astype(float) * 2.0**24).astype(np.int64)
    return words, (sums * units.T.astype(object)).sum(1), []


class Beside:
    """Uses the other banks of a `Core` while a layer runs.

    Members
    -------
    loads : activations to load, and scales of activations; at random while `running`
    fetches : row groups to fetch and the totals that must come; at random while `running`
    running : a layer runs that uses neither the activation bank nor the result bank of these
    ended : no layer comes any more
    overlapped : row groups that were fetched while a layer ran
    """

    def __init__(self, dut: Any, pause: float, seed: int) -> None:
        self.loads: deque[dict[str, int]] = deque()
        self.fetches: deque[tuple[dict[str, int], list[int]]] = deque()
        self.running = self.ended = False
        self.overlapped = 0
        self._dut, self._pause, self._random = dut, pause, random.Random(seed)
        self._awaited: deque[list[int]] = deque()

    @property
    def busy(self) -> bool:
        """A row group is fetched, or waits at `o`."""
        return bool(self._awaited)

    async def testbench(self, ctx: Any) -> None:
        """Run until `ended`."""
        dut, chance = self._dut, self._random
        while not self.ended:
            if not (self.running or self._awaited):
                await ctx.tick()
                continue
            load = self.loads[0] if self.running and self.loads and chance.random() < 0.5 else None
            fetch = self.fetches[0] if self.running and self.fetches else None
            ready = chance.random() >= self._pause / 2
            port = dut.i_scale if load is not None and "scale" in load else dut.i_load
            ctx.set(port.valid, load is not None)
            if load is not None:
                ctx.set(port.payload, load)
            ctx.set(dut.i_fetch.valid, fetch is not None)
            if fetch is not None:
                ctx.set(dut.i_fetch.payload, fetch[0])
            ctx.set(dut.o.ready, ready)
            *_, accepted, valid, totals = await ctx.tick().sample(
                dut.i_fetch.ready, dut.o.valid, dut.o.payload
            )
            if load is not None:
                self.loads.popleft()
            if valid and ready:
                assert plain(totals) == self._awaited.popleft()
            if fetch is not None and accepted:
                self._awaited.append(self.fetches.popleft()[1])
                self.overlapped += 1
            ctx.set(port.valid, 0)
            ctx.set(dut.i_fetch.valid, 0)
            ctx.set(dut.o.ready, 0)


def run_core(
    config: AcceleratorConfig,
    shapes: Sequence[LayerShape],
    *,
    idle: float = 0.0,
    pause: float = 0.0,
    seed: int = 0,
) -> tuple[list[int], list[int]]:
    """Random layers on a `Core`, every third extreme: exact; each one's cycles and stalls.

    Activations have scales if the device has; some of them are extreme.
    Each layer uses any banks. While it runs, the next activations are loaded if they go to the
    other bank, and the results that lie in the other bank are fetched once more.
    """
    rng = np.random.default_rng(seed)
    chance = random.Random(seed)
    dut = Core(config)
    beside = Beside(dut, pause, seed)
    run_cycles: list[int] = []
    stalls: list[int] = []
    banks = range(config.banks)
    kept: dict[int, list[list[int]]] = {}  # the totals in each result bank
    operands = []
    for number, shape in enumerate(shapes):
        size = (shape.row_groups * config.rows, shape.tiles * config.lanes)
        trits = random_trits(config, rng, size)
        codes = random_codes(config, rng, (config.tokens, size[1]))
        if number % 3 == 0:
            trits[:], codes[:] = -1, act_limits(config)[0]
        bank = chance.choice(banks)
        loads = loads_of(config, codes, bank)
        expected = group_sums(trits, codes, shape.group_tiles * config.lanes)
        words = weight_words(config, trits)
        if config.scale is not None:
            words, expected, scales = scaled_layer(config, rng, shape, trits, codes, bank)
            loads += scales
        chance.shuffle(loads)
        operands.append((shape, expected, words, bank, loads))

    async def bench(ctx):
        for number, (shape, expected, words, bank, loads) in enumerate(operands):
            results = chance.choice(banks)
            remaining = list(beside.loads) if beside.loads else loads
            if number and operands[number - 1][3] != bank and not beside.loads:
                remaining = []  # all of them were loaded while the last layer ran
            beside.loads.clear()
            for name in ("i_load", "i_scale"):
                of_port = [load for load in remaining if ("scale" in load) == (name == "i_scale")]
                if of_port:
                    await source(getattr(dut, name), of_port, idle, number)(ctx)
            while beside.busy:
                await ctx.tick()
            beside.fetches.clear()
            ctx.set(dut.i_run.payload, run_of(config, shape, bank, results))
            ctx.set(dut.i_run.valid, 1)
            await ctx.tick().until(dut.i_run.ready)
            ctx.set(dut.i_run.valid, 0)
            if number + 1 < len(operands) and operands[number + 1][3] != bank:
                beside.loads.extend(operands[number + 1][4])
            for other, totals in kept.items():
                if other != results:
                    for group in chance.choices(range(len(totals)), k=2 * len(totals)):
                        beside.fetches.append(({"row_group": group, "bank": other}, totals[group]))
            beside.running = True
            cycles, stalled = await run_layer(ctx, dut, words, idle, number)
            beside.running = False
            await ctx.tick()  # it ends its cycle after this bench
            while beside.busy:
                await ctx.tick()
            run_cycles.append(cycles)
            stalls.append(stalled)
            totals: list[list[int]] = []
            row_groups = len(expected[0]) // config.rows
            for group in range(row_groups):
                fetch = {"row_group": group, "bank": results}
                await source(dut.i_fetch, [fetch], idle, group)(ctx)
                await sink(dut.o, group + 1, totals, pause, group)(ctx)
            kept[results] = totals
            sums = np.array(totals, object).reshape(row_groups, config.tokens, config.rows)
            assert (sums.transpose(1, 0, 2).reshape(config.tokens, -1) == expected).all()
        beside.ended = True

    deadline = 20_000 + 8 * sum(config.run_cycles(shape) or 0 for shape in shapes)
    simulate(dut, bench, beside.testbench, deadline_cycles=deadline)
    assert beside.overlapped or config.banks == 1 or len(shapes) < 4
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
