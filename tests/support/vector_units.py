"""Runs programs on the vector unit in Amaranth's simulator, with a played core."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth.sim import Simulator

from tritloom.rtl.core.vector_unit import VectorUnit
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_interpreter import VectorInterpreter
from tritloom.rtl.spec.vector_program import FIELDS, Step, check_program, encode_program
from tritloom.sim.conformance.streams import require

SUM_BITS = 20

Core = Callable[[int, np.ndarray], np.ndarray]


@dataclass
class Outcome:
    """What a program did on the unit."""

    words: np.ndarray
    not_finite: bool = False
    cycles: int = 0
    stalls: int = 0
    codes: list[int] = field(default_factory=list)


class PlayedCore:
    """Takes codes and layers, and gives their sums, each with seeded pauses."""

    def __init__(self, dut: VectorUnit, core: Core | None, idle: float, pause: float, seed: int):
        self.dut, self.core = dut, core
        self.idle, self.pause = idle, pause
        self.rng = random.Random(seed)
        self.codes: list[int] = []
        self.since_run: list[int] = []
        self.sums: deque[int] = deque()

    async def bench(self, ctx: Any) -> None:
        code, run, sums = self.dut.o_code, self.dut.o_run, self.dut.i_sum
        lanes = self.dut.config.lanes
        offered, waiting = False, None
        while True:
            takes = self.rng.random() >= self.pause
            takes_run = self.rng.random() >= self.pause
            ctx.set(code.ready, takes)
            ctx.set(run.ready, takes_run)
            wanted = 1 + (ctx.get(self.dut.sum_last) if lanes > 1 else 0)
            there = len(self.sums) >= wanted
            offered = there and (offered or self.rng.random() >= self.idle)
            ctx.set(sums.valid, offered)
            shown = list(self.sums)[:wanted] if offered else []
            shown += [self.rng.randrange(1 << 18) for _ in range(lanes - len(shown))]
            ctx.set(sums.payload, shown if lanes > 1 else shown[0])
            *_, valid, payload, run_valid, layer, ready = await ctx.tick().sample(
                code.valid, code.payload, run.valid, run.payload, sums.ready
            )
            if lanes > 1:
                payload = [payload.codes[lane] for lane in range(payload.last + 1)]
            else:
                payload = [payload]
            if waiting is not None:
                require((valid, payload) == (1, waiting), "a code changed before its transfer")
            waiting = payload if valid and not takes else None
            if valid and takes:
                self.codes += payload
                self.since_run += payload
            if run_valid and takes_run:
                require(not valid, "a layer is to run before the core has all codes")
                require(not self.sums, "a layer is to run before its last results are taken")
                assert self.core is not None
                sums_of_layer = self.core(layer, np.array(self.since_run, np.int8))
                self.sums.extend(np.asarray(sums_of_layer).tolist())
                self.since_run = []
            if offered and ready:
                for _ in range(wanted):
                    self.sums.popleft()
                offered = False


def set_step(ctx: Any, dut: VectorUnit, step: Step) -> None:
    """Drive the step port with a step's encoding."""
    value = int.from_bytes(encode_program([step]), "little")
    for name, bits in FIELDS.items():
        ctx.set(dut.step[name], value & ((1 << bits) - 1))
        value >>= bits


def run_unit(
    config: VectorConfig,
    words: np.ndarray,
    programs: Sequence[Sequence[Step]],
    core: Core | None = None,
    *,
    idle: float = 0.0,
    pause: float = 0.0,
    seed: int = 0,
    sum_bits: int = SUM_BITS,
    deadline_cycles: int = 200_000,
) -> list[Outcome]:
    """Put `words` at address 0, then run the programs, which lie one behind the other.

    After each program all words are read again.
    """
    dut = VectorUnit(config, sum_bits)
    played = PlayedCore(dut, core, idle, pause, seed)
    outcomes: list[Outcome] = []

    async def host(ctx: Any) -> None:
        ctx.set(dut.put, 1)
        for address, word in enumerate(words.tolist()):
            ctx.set(dut.address, address)
            ctx.set(dut.word, word)
            await ctx.tick()
        ctx.set(dut.put, 0)
        ctx.set(dut.step_write, 1)
        for address, step in enumerate(step for program in programs for step in program):
            ctx.set(dut.step_address, address)
            set_step(ctx, dut, step)
            await ctx.tick()
        ctx.set(dut.step_write, 0)
        start = 0
        for program in programs:
            ctx.set(dut.step_address, start)
            start += len(program)
            outcomes.append(await run_one(ctx))

    async def run_one(ctx: Any) -> Outcome:
        ctx.set(dut.start, 1)
        await ctx.tick()
        # The unit must ignore these while it is busy.
        ctx.set(dut.put, 1)
        ctx.set(dut.word, 0xDEADBEEF)
        outcome = Outcome(np.zeros(0, np.uint32))
        while ctx.get(dut.busy):
            ctx.set(dut.address, outcome.cycles % len(words))
            ctx.set(dut.start, outcome.cycles % 3 == 0)
            *_, stall = await ctx.tick().sample(dut.stall)
            outcome.cycles += 1
            outcome.stalls += stall
            ctx.set(dut.start, 0)
        ctx.set(dut.put, 0)
        outcome.not_finite = bool(ctx.get(dut.not_finite))
        outcome.words = np.array(await read(ctx), np.uint32)
        outcome.codes, played.codes = played.codes, []
        return outcome

    async def read(ctx: Any) -> list[int]:
        results = []
        for address in range(len(words) + dut.GET_CYCLES):
            ctx.set(dut.address, min(address, len(words) - 1))
            *_, word = await ctx.tick().sample(dut.got)
            if address >= dut.GET_CYCLES:
                results.append(word)
        return results

    async def deadline(ctx: Any) -> None:
        for _ in range(deadline_cycles):
            await ctx.tick()
        raise TimeoutError(f"not done in {deadline_cycles} cycles")

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(host)
    simulator.add_testbench(played.bench, background=True)
    simulator.add_testbench(deadline, background=True)
    simulator.run()
    return outcomes


def interpret(
    config: VectorConfig,
    words: np.ndarray,
    programs: Sequence[Sequence[Step]],
    core: Core | None = None,
) -> list[Outcome]:
    """The same by the interpreter; cycles and stalls stay 0."""
    codes: list[int] = []

    def listening(layer: int, layer_codes: np.ndarray) -> np.ndarray:
        codes.extend(layer_codes.tolist())
        assert core is not None
        return core(layer, layer_codes)

    unit = VectorInterpreter(config, listening)
    unit.memory[: len(words)] = words
    outcomes = []
    for program in programs:
        codes.clear()
        unit.run(program)
        outcome = Outcome(unit.memory[: len(words)].copy(), unit.not_finite)
        outcome.codes = codes.copy()
        outcomes.append(outcome)
    return outcomes


def compare(
    config: VectorConfig,
    words: np.ndarray,
    programs: Sequence[Sequence[Step]],
    core: Core | None = None,
    layers: dict[int, tuple[int, int]] | None = None,
    **flow: Any,
) -> list[Outcome]:
    """Require the unit to do what the interpreter does, bit for bit. Returns the outcomes."""
    for program in programs:
        check_program(program, config, layers or {})
    outcomes = run_unit(config, words, programs, core, **flow)
    expected = interpret(config, words, programs, core)
    for number, (outcome, wanted) in enumerate(zip(outcomes, expected, strict=True)):
        different = np.flatnonzero(outcome.words != wanted.words)
        require(
            not len(different),
            f"program {number}: {len(different)} words differ, the first at {different[:1]}: "
            f"{[hex(w) for w in outcome.words[different[:3]]]}, "
            f"not {[hex(w) for w in wanted.words[different[:3]]]}",
        )
        require(outcome.codes == wanted.codes, f"program {number}: codes differ")
        require(outcome.not_finite == wanted.not_finite, f"program {number}: not_finite differs")
    return outcomes
