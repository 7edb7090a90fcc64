"""Does a dot engine keep the contract of `tritloom.rtl.engines.contract`?"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from tritloom.rtl.engines.contract import ACT_LATENCY, create_engine
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.packing import act_limits
from tritloom.rtl.spec.plugins import engines
from tritloom.sim.conformance.operands import Trits, random_codes, random_trits, weight_words
from tritloom.sim.conformance.streams import Testbench, plain, require, simulate

__all__ = ["check_engine", "run_words"]

TILES = 4
MOST_PAUSE_CYCLES = 4
"""Cycles, less one, that the weights pause at most before a tile."""
DEADLINE_CYCLES = 40_000


def check_engine(config: AcceleratorConfig, *, row_groups: int, idle: float, seed: int) -> None:
    """Run four tiles of random weights and activations, the extremes among them.

    Each sum must be exact and come `latency` cycles after its word. The first tile must be filled
    in `fill_cycles`. Without idle cycles, the next tile must begin exactly when the facts of the
    plug-in say that it can.

    Parameters
    ----------
    config : names the engine; `max_in_features` must hold four tiles
    row_groups : weight words of a tile
    idle : probability that no word comes in a cycle
    seed : of weights, activations and pauses

    Raises
    ------
    ContractError
        A sum is wrong or does not come in its cycle, or the engine is ready in another cycle.
    TimeoutError
        The engine was not ready for a tile.
    """
    rng = np.random.default_rng(seed)
    trits = random_trits(config, rng, (row_groups * config.rows, TILES * config.lanes))
    codes = random_codes(config, rng, (config.tokens, TILES * config.lanes))
    # The first tiles have the extreme sums of both signs.
    trits[: config.rows, : config.lanes] = -1
    trits[config.rows : 2 * config.rows, : config.lanes] = 1
    trits[: config.rows, config.lanes : 2 * config.lanes] = 1
    codes[:, : 2 * config.lanes] = act_limits(config)[0]
    words = weight_words(config, trits)
    tiles = [words[at : at + row_groups] for at in range(0, len(words), row_groups)]
    products = np.einsum(
        "grtl,ktl->tgkr",
        trits.reshape(row_groups, config.rows, TILES, config.lanes).astype(np.int64),
        codes.reshape(config.tokens, TILES, config.lanes).astype(np.int64),
    ).reshape(TILES * row_groups, config.tokens * config.rows)

    run = _Run(config, tiles, codes, idle, seed)
    run.simulate()
    for number, (sums, right) in enumerate(zip(run.sums, products.tolist(), strict=True)):
        tile, group = divmod(number, row_groups)
        require(
            sums == right, f"sums of tile {tile}, row group {group} must be {right}, not {sums}"
        )
    facts = engines[config.engine]
    fill_cycles = facts.fill_cycles(config)
    require(
        run.ready_cycles[0] == fill_cycles,
        f"the first tile must be ready in cycle {fill_cycles}, not {run.ready_cycles[0]}",
    )
    if not idle:
        reload = facts.reload_cycles(config)
        least = row_groups - 1 + reload if reload else row_groups
        right_gap = max(least, facts.tile_cycles(config))
        gaps = {after - before for before, after in pairwise(run.first_cycles)}
        require(
            gaps == {right_gap},
            f"a tile must begin {right_gap} cycles after the previous tile, not {sorted(gaps)}",
        )


def run_words(config: AcceleratorConfig, tiles: list[list[int]], codes: Trits) -> list[list[int]]:
    """The sums of an engine for the weight words of some tiles, each sent as early as possible.

    Parameters
    ----------
    config : names the engine
    tiles : the weight words of each tile
    codes : activations, int8 [tokens, in]

    Returns
    -------
    list[list[int]]
        For each word its sums, token by token, the rows of a token together.
    """
    run = _Run(config, tiles, codes, 0.0, 0)
    run.simulate()
    return run.sums


class _Run:
    """A simulation of an engine with its weights and its activation memory.

    Members
    -------
    sums : the engine's sums of each word, those `latency` cycles after it
    ready_cycles : cycles in which `ready` rose
    first_cycles : cycles of the first word of each tile
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        tiles: list[list[int]],
        codes: Trits,
        idle: float,
        seed: int,
    ) -> None:
        self.sums: list[list[int]] = []
        self.ready_cycles: list[int] = []
        self.first_cycles: list[int] = []
        self._config, self._tiles, self._codes = config, tiles, codes
        self._idle, self._seed = idle, seed
        self._dut = create_engine(config)
        self._words = sum(map(len, tiles))
        self._word_cycles: list[int] = []
        self._cycle = 0

    def simulate(self) -> None:
        """Run until the sums of all words have come."""
        memory = activation_memory(self._dut, self._config, self._codes, self._running, self._seed)
        # The watch is first, so that it counts a cycle before the others see it.
        simulate(self._dut, self._watch, memory, self._weights, deadline_cycles=DEADLINE_CYCLES)

    def _running(self) -> bool:
        return len(self.sums) < self._words

    async def _watch(self, ctx: Any) -> None:
        dut, latency = self._dut, self._config.engine_latency
        ready_before = 0
        while self._running():
            *_, payload, negative, ready = await ctx.tick().sample(
                dut.o_sums, dut.o_negative, dut.ready
            )
            if self._cycle - latency in self._word_cycles[len(self.sums) : len(self.sums) + 1]:
                self.sums.append(signed_sums(payload, negative, self._config.rows))
            if ready and not ready_before:
                self.ready_cycles.append(self._cycle)
            ready_before = ready
            self._cycle += 1

    async def _weights(self, ctx: Any) -> None:
        dut, rng = self._dut, random.Random(self._seed)
        ctx.set(dut.i_start, 1)
        await ctx.tick()
        ctx.set(dut.i_start, 0)
        ctx.set(dut.i_more, 1)
        for tile, words in enumerate(self._tiles):
            if self._idle and tile:
                for _ in range(rng.randrange(MOST_PAUSE_CYCLES)):
                    await ctx.tick()
            while not ctx.get(dut.ready):
                await ctx.tick()
            for number, word in enumerate(words):
                while rng.random() < self._idle:
                    ctx.set(dut.i_word, rng.getrandbits(self._config.word_bits))
                    await ctx.tick()
                ctx.set(dut.i_word, word)
                ctx.set(dut.i_valid, 1)
                ctx.set(dut.i_swap, number == 0)
                ctx.set(dut.i_last, number == len(words) - 1)
                self._word_cycles.append(self._cycle)
                if number == 0:
                    self.first_cycles.append(self._cycle)
                await ctx.tick()
                ctx.set(dut.i_valid, 0)
                ctx.set(dut.i_swap, 0)
                ctx.set(dut.i_last, 0)
                ctx.set(dut.i_more, tile + 1 < len(self._tiles))


def activation_memory(
    dut: Any,
    config: AcceleratorConfig,
    codes: Trits,
    running: Callable[[], bool],
    seed: int = 0,
) -> Testbench:
    """Test bench that is an engine's activation memory, int8 [tokens, in]; beyond it is noise."""
    memory = codes.reshape(config.tokens, -1, config.fill).transpose(1, 0, 2)
    words = memory.reshape(codes.shape[1] // config.fill, -1).tolist()
    least, most = act_limits(config)

    async def testbench(ctx: Any) -> None:
        rng = random.Random(seed)
        addresses = [0] * (ACT_LATENCY - 1)
        while running():
            *_, address = await ctx.tick().sample(dut.act_address)
            addresses.append(address)
            address = addresses.pop(0)
            noise = [rng.randint(least, most) for _ in words[0]]
            ctx.set(dut.i_act, words[address] if address < len(words) else noise)

    return testbench


def signed_sums(sums: Any, negative: int, rows: int) -> list[int]:
    """An engine's sums, those of the rows in `negative` negated."""
    return [-x if negative >> n % rows & 1 else x for n, x in enumerate(plain(sums))]
