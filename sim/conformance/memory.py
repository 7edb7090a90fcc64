"""Does a weight memory keep the contract of `tritloom.rtl.memories.contract`?"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from tritloom.rtl.memories.contract import create_memory
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.plugins import MEMORY_DOMAIN
from tritloom.sim.conformance.streams import require, simulate, sink, source
from tritloom.sim.models.surrounded import SurroundedMemory, model_domain, store_bench

__all__ = ["check_memory"]

RANDOM_RANGES = 12
LONGEST_RANGE = 6
DEADLINE_CYCLES = 20_000


def check_memory(
    config: AcceleratorConfig,
    *,
    idle: float,
    pause: float,
    seed: int,
    gapless: bool = False,
    deadline_cycles: int = DEADLINE_CYCLES,
    memory_model: Mapping[str, Any] | None = None,
) -> None:
    """Write every word twice, then read ranges: the words must come back, in order.

    If the plug-in states a latency, the cycles are checked too, in runs without idle and pause: the
    first word comes `latency` cycles after its range was taken, and the words of a range follow
    each other without a pause.

    Parameters
    ----------
    config : names the memory; its words should be few, because each of them is written and read
    idle : probability that a source is idle in a cycle
    pause : probability that the sink is not ready in a cycle; 1 if it waits for `valid`
    seed : of words, ranges and pauses
    gapless : the words of several ranges follow each other without a pause too
    deadline_cycles : cycles after which the memory is said to have stopped

    Raises
    ------
    ContractError
        A word is wrong or void, or does not come in its cycle, or does not hold until it is taken.
    TimeoutError
        The memory stopped.
    """
    rng = random.Random(seed)
    depth = config.memory_words
    words = {address: rng.getrandbits(config.word_bits) for address in range(depth)}
    writes = [{"address": a, "word": rng.getrandbits(config.word_bits)} for a in range(depth)]
    writes += [{"address": a, "word": word} for a, word in words.items()]
    ranges = [(0, depth), (depth - 1, 1)]
    for _ in range(RANDOM_RANGES):
        start = rng.randrange(depth)
        ranges.append((start, rng.randint(1, min(LONGEST_RANGE, depth - start))))
    expected = [words[start + n] for start, count in ranges for n in range(count)]

    dut: Any = create_memory(config)
    background: list[Any] = []
    rules: list[int] = []  # that the memory breaks
    if config.memory.model:
        dut = SurroundedMemory(config, memory_model or {})
        domain = model_domain(config)
        stores = range(len(dut.model.stores))
        background = [store_bench(dut, {}, number, domain) for number in stores]
    received: list[int] = []
    request_cycles: list[int] = []
    word_cycles: list[int] = []
    void_words: list[int] = []  # their numbers

    async def write_then_read(ctx: Any) -> None:
        await source(dut.i_write, writes, idle, seed)(ctx)
        # A write has ended when it was taken: the next range sees it.
        requests = [{"address": start, "count": count} for start, count in ranges]
        await source(dut.i_read, requests, idle, seed)(ctx)

    async def watch(ctx: Any) -> None:
        cycle = 0
        while len(received) < len(expected):
            *_, request, word, void = await ctx.tick().sample(
                dut.i_read.valid & dut.i_read.ready, dut.o.valid & dut.o.ready, dut.error
            )
            void_words.extend([len(word_cycles)] * (word & void))
            request_cycles.extend([cycle] * request)
            word_cycles.extend([cycle] * word)
            cycle += 1

    async def watch_rules(ctx: Any) -> None:
        async for *_, number in ctx.tick(model_domain(config)).sample(dut.violation):
            if number:
                rules.append(number)

    if config.memory.model:
        background.append(watch_rules)
    own_hz = config.memory.own_clock_hz(config)
    reader = sink(dut.o, len(expected), received, pause, seed)
    simulate(
        dut,
        write_then_read,
        reader,
        watch,
        background=background,
        deadline_cycles=deadline_cycles,
        clocks={MEMORY_DOMAIN: own_hz / config.clock_hz} if own_hz else {},
    )
    for number in rules:
        require(False, f"the memory breaks {dut.model.RULES.get(number, f'rule {number}')}")
    for number in void_words:
        require(False, f"word {number} is void: `error` is set")
    for number, (word, right) in enumerate(zip(received, expected, strict=True)):
        require(word == right, f"word {number} must be {right:#x}, not {word:#x}")
    latency = config.memory.latency(config)
    if latency is not None and not idle and not pause:
        cycles = word_cycles[0] - request_cycles[0]
        require(
            cycles == latency,
            f"the first word must come {latency} cycles after its range, not {cycles}",
        )
        count = len(expected) if gapless else depth
        first = word_cycles[0]
        require(
            word_cycles[:count] == list(range(first, first + count)),
            "the words of a range must follow each other without a pause",
        )
