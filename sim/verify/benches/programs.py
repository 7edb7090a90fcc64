"""Benches of the vector unit: exact layers, refused programs, interrupted ones.

They run only on designs that have a vector unit.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import cocotb
import numpy as np
from numpy.typing import NDArray

from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.commands import OVERHEAD_BYTES, Opcode, Status, unpack_counters
from tritloom.rtl.spec.requests import (
    commit_program,
    execute_program,
    get_words,
    put_words,
    write_steps,
)
from tritloom.rtl.spec.rounding import round_to
from tritloom.rtl.spec.vector_cycles import program_cycles
from tritloom.rtl.spec.vector_facts import LAYER_BITS, WRAP_WORDS, VectorConfig
from tritloom.rtl.spec.vector_operations import ProgramBuilder
from tritloom.rtl.spec.vector_program import (
    STEP_BYTES,
    Factor,
    Operation,
    Second,
    Step,
    encode_program,
)
from tritloom.sim.verify.driver import Driver, bench
from tritloom.sim.verify.programs import END

Floats = NDArray[np.float32]

PART = 4
"""Inputs of a layer take at most this part of the vector memory, and so do its outputs."""


def unit(t: Driver) -> VectorConfig:
    """The configuration of the design's vector unit."""
    assert t.config.vector is not None
    return t.config.vector


async def put(t: Driver, address: int, words: Any) -> None:
    """Write float32 words to the vector memory."""
    words = np.atleast_1d(np.asarray(words, np.float32))
    await t.execute(put_words(address, words, t.config.max_payload))


async def get(t: Driver, address: int, count: int) -> Floats:
    """Read words of the vector memory."""
    payload = b""
    for request in get_words(address, count, t.config.max_payload):
        await t.execute([request])
        assert t.last().status == Status.OK
        payload += t.last().payload
    return np.frombuffer(payload, "<f4")


async def commit(t: Driver, steps: Iterable[Step], expect: Status = Status.OK) -> None:
    """Write a program and commit it."""
    image = encode_program(steps)
    await t.execute([*write_steps(image, t.config.max_payload), commit_program(image)])
    assert t.last().status == expect, f"{expect.name} expected, not {t.last().status}"


async def execute(t: Driver, step: int = 0, activations: int = 0, results: int = 0) -> None:
    """Execute the committed program."""
    await t.execute([execute_program(step, activations, results)])
    assert t.last().status == Status.OK


def shapes(t: Driver) -> Iterator[tuple[int, int]]:
    """Outputs and inputs of layers at the edges of the geometry, as large as there is room for."""
    lanes, rows = t.config.lanes, t.config.rows
    for outputs, inputs in ((1, 1), (rows + 1, lanes), (2 * rows, lanes + 1)):
        room = unit(t).words // PART
        inputs = min(inputs, t.config.max_in_features, room, t.config.memory_words * lanes)
        tiles = -(-inputs // lanes)
        most = t.config.memory_words // tiles * rows
        yield min(outputs, t.config.max_out_features, room, most), inputs


@cocotb.test()
@cocotb.parametrize((("idle", "stall"), [("none", "none"), ("heavy", "light")]))
@bench
async def linear(dut: Any, idle: str, stall: str) -> None:
    """Layers with floats in and out give the bits of `numerics.bitlinear`."""
    t = Driver(dut, "linear", idle, stall)
    await t.begin()
    random = np.random.default_rng(t.random.getrandbits(32))
    for number, shape in enumerate(shapes(t)):
        bfloat16, divides = unit(t).bfloat16 and number != 1, bool(number % 2)
        trits = t.trits(shape, "random")
        x = round_to(random.standard_normal(shape[1]).astype(np.float32), bfloat16)
        scale = round_to(np.float32(0.37), bfloat16)
        builder = ProgramBuilder(unit(t), bfloat16=bfloat16)
        inputs = builder.reserve(len(x))
        s, outputs = builder.reserve(1), builder.reserve(len(trits))
        weight = builder.place(scale)
        builder.quantize(inputs, len(x), s)
        builder.run(0)
        builder.rescale(len(trits), s, weight, outputs, scale_divides=divides)
        await t.send(*t.layer(0, 0, trits))
        for address, words in builder.contents.items():
            await put(t, address, words.view(np.float32))
        await put(t, inputs, x)
        await commit(t, builder.end())
        await execute(t, 0, t.bank(), t.bank())
        y = await get(t, outputs, len(trits))
        right = numerics.bitlinear(x[None], trits, scale, divides, None, bfloat16)[0]
        assert y.tobytes() == right.astype("<f4").tobytes(), (
            f"a layer of {shape[0]} × {shape[1]} must give {right}, not {y}"
        )
    await t.do(Opcode.COUNTERS, Status.OK)


def at_the_end(config: VectorConfig) -> Iterator[Step]:
    """PRODUCTs whose operands end with the memory, or beyond it, as far as a step can say so."""
    last = config.words - 2
    for factor in (Factor.VECTOR, Factor.SAME, Factor.SCALAR):
        for count in (1, 2, 3):
            step = Step(operation=Operation.PRODUCT, factor=factor, count=count)
            yield from (replace(step, a=last), replace(step, b=last), replace(step, d=last))
    for second in Second if config.multipliers == 2 else ():
        for count in (1, 2, 3):
            yield Step(operation=Operation.PRODUCT, second=second, count=count, c=last)
    wraps = Step(operation=Operation.PRODUCT, factor=Factor.SAME, count=40, add=True, wrap=True)
    yield from (wraps, replace(wraps, d=config.words - WRAP_WORDS))


@cocotb.test()
@bench
async def refusals(dut: Any) -> None:
    """Each step that leaves the memory is refused, and no step that does not."""
    t = Driver(dut, "refusals")
    await t.begin()
    statuses = set()
    unknown = bytearray(encode_program([END, END]))
    images = [encode_program([step, END]) for step in at_the_end(unit(t))]
    for operation in range(max(Operation) + 1, 8):
        unknown[0] = operation
        images.append(bytes(unknown))
    await t.send(*t.layer(0, 0, t.trits((1, 1), "random")))
    # The low bits of each index but the first are those of the committed layer 0.
    indices = [0, *(1 << bit for bit in range(LAYER_BITS) if 1 << bit >= t.config.max_layers)]
    images += [encode_program([Step(operation=Operation.RUN, a=a), END]) for a in (*indices, 0xFF)]
    unended = Step(operation=Operation.RUN)
    images += [encode_program([*[END] * count, unended]) for count in (0, 2)]
    for image in images:
        await t.execute(write_steps(image, t.config.max_payload))
        await t.execute([commit_program(image)])
        statuses.add(t.last().status)
        await t.do(Opcode.EXECUTE, address=len(image) // STEP_BYTES)
    assert statuses == {Status.OK, Status.OUT_OF_RANGE, Status.BAD_STATE}
    await commit(t, [END])
    await execute(t)


@cocotb.test()
@bench
async def cycles(dut: Any) -> None:
    """A program that needs no layer takes the cycles that `vector_cycles` states."""
    t = Driver(dut, "cycles")
    await t.begin()
    await put(t, 0, np.ones(unit(t).words, np.float32))
    product = Step(operation=Operation.PRODUCT, count=7, a=8, b=16, d=24)
    programs = [[END], [Step(operation=Operation.ROOT), END]]
    programs += [[product, replace(product, factor=factor, count=20), END] for factor in Factor]
    await commit(t, [step for steps in programs for step in steps])
    first, before = 0, await vector_cycles(t)
    for steps in programs:
        await execute(t, first)
        taken, wanted = (await t.do(Opcode.GET, count=1)).value, program_cycles(steps, unit(t))
        assert taken == wanted, f"a program must take {wanted} cycles, not {taken}"
        first += len(steps)
    taken = await vector_cycles(t) - before
    wanted = sum(program_cycles(steps, unit(t)) for steps in programs)
    assert taken == wanted, f"vector_cycles must grow by {wanted}, not {taken}"


async def vector_cycles(t: Driver) -> int:
    """The counter of the cycles of programs."""
    payload = (await t.do(Opcode.COUNTERS, Status.OK)).payload
    return unpack_counters(t.config, payload)["vector_cycles"]


def long_program(t: Driver, layer: int | None) -> list[Step]:
    """Steps that take longer than some packets, and compute a layer if it is given."""
    config = unit(t)
    square = Step(operation=Operation.PRODUCT, factor=Factor.SAME, count=config.words // 2)
    codes = Step(operation=Operation.PRODUCT, factor=Factor.SAME, count=7, codes=True)
    run = [] if layer is None else [codes, Step(operation=Operation.RUN, a=layer)]
    take = Step(operation=Operation.PRODUCT, factor=Factor.SAME, count=5, from_core=True, d=1)
    return [square, *run, take, replace(square, a=1, d=0), END]


@cocotb.test()
@bench
async def interrupted(dut: Any) -> None:
    """Duplicates of EXECUTE and GET, and RESET and the reset pin in the middle of a program."""
    t = Driver(dut, "interrupted")
    shape = (t.config.rows, t.config.lanes)
    steps = long_program(t, 0)

    async def prepare() -> None:
        await t.send(*t.layer(0, 0, t.trits(shape, "random")))
        await put(t, 0, np.ones(unit(t).words, np.float32))
        await commit(t, steps)

    await t.begin()
    await prepare()
    done: list[bytes] = []
    for results in (0, 1):
        run = t.pack(execute_program(0, 0, results))
        read = t.command(Opcode.GET, address=0, count=8)
        done += [run, read]
        await t.send(run, run, read, run, read)
        await t.send(*done[-t.config.window :])
    whole = 2 * OVERHEAD_BYTES
    for cycles in (1, whole, whole + 40, whole + unit(t).words, whole + unit(t).words + 60):
        run = t.pack(execute_program(0))
        await t.begin_to_send(run, len(run) + cycles)
        await t.renew()
        assert (await t.do(Opcode.GET, Status.OK, count=8)).value == 0
        await t.do(Opcode.EXECUTE, Status.BAD_STATE)
        await t.do(Opcode.RESULTS, Status.BAD_STATE, count=1)
        await t.do(Opcode.COMMIT_PROGRAM, Status.BAD_STATE, **commit_fields(steps))
        await prepare()
        await execute(t)
        await t.do(Opcode.GET, Status.OK, count=8)
        await t.begin_to_send(t.pack(execute_program(0)), len(run) + cycles)
        await t.begin()
        await t.do(Opcode.EXECUTE, Status.BAD_STATE)
        await prepare()
    await execute(t)
    await get(t, 0, 16)
    await t.do(Opcode.COUNTERS, Status.OK)


def commit_fields(steps: Iterable[Step]) -> dict[str, int]:
    """The fields of the COMMIT_PROGRAM of a program."""
    image = encode_program(steps)
    return {"count": commit_program(image).count, "address": zlib.crc32(image)}
