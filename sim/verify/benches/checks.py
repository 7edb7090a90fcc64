"""Benches of the checks of every command, made from `tritloom.rtl.spec.checks.checks_of`."""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import cache
from typing import Any

import cocotb
import numpy as np

from tritloom.rtl.spec.checks import Stage, checks_of
from tritloom.rtl.spec.commands import Opcode, Request, Status
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import pack_weights
from tritloom.rtl.spec.requests import put_words, write_steps
from tritloom.rtl.spec.vector_program import STEP_BYTES, Factor, Operation, Step, encode_program
from tritloom.sim.verify.boundaries import (
    Scene,
    boundary_requests,
    opcode_requests,
    scenes,
)
from tritloom.sim.verify.driver import Driver, bench
from tritloom.sim.verify.programs import END
from tritloom.sim.verify.responses import name_of
from tritloom.sim.verify.settings import config

ERRORS_PER_CHECK = 2
"""Requests for each check of an opcode that the bench `errors` sends."""
MAY_CHANGE = (Opcode.LOAD, Opcode.SCALES, Opcode.PUT, Opcode.PROGRAM, Opcode.COMMIT_PROGRAM)
"""Commands that change something that the bench `errors` needs, although they fail late."""
HUGE = np.array([2.0**100], np.float32)
"""The square of this number is not finite."""


@cache
def all_scenes() -> list[Scene]:
    """The scenes of the design, with layers of two words if it has room for them.

    If a block has several words, they have a block and half of the next one.
    """
    words = 2 if config().align == 1 else config().align * 3 // 2
    words = min(words, config().max_row_groups, config().memory_words)
    return scenes(config(), LayerShape(1, words))


async def prepare(t: Driver, scene: Scene, opcode: Opcode | None = None) -> tuple[Scene, bytes]:
    """A new session with the layers of a scene; the scene and the words of its open layer.

    The vector unit's memories hold all that the boundary requests of `opcode` read.
    """
    await t.renew()
    await prepare_unit(t, opcode)
    for bank in range(t.config.banks):
        await t.do(Opcode.RESULTS, Status.BAD_STATE, count=1, result_bank=bank)
    shape = (scene.shape.row_groups * t.config.rows, t.config.lanes)
    base = scene.base
    await t.send(*t.loads(t.codes(t.config.lanes, "random"), scene.activation_bank))
    if scene.committed is not None:
        await t.send(*t.layer(scene.committed, base, t.trits(shape, "random")))
        await run(t, scene, scene.committed)
        base += t.config.stored_words(scene.shape.words)
    if scene.programs is not None:
        await program(t, scene.programs.image)
        await t.do(Opcode.COMMIT_PROGRAM, Status.OK, **commit_of(scene))
        await t.do(Opcode.EXECUTE, Status.OK)
        await t.do(Opcode.GET, Status.OK, count=4)
    if scene.open is None:
        return scene, b""
    image = pack_weights(t.config, t.trits(shape, "random"))
    await t.send(*t.open_layer(scene.open, base, scene.shape, image))
    return replace(scene, checksum=zlib.crc32(image)), image


async def prepare_unit(t: Driver, opcode: Opcode | None) -> None:
    """Write the vector unit's memories; show what it refuses in the state of the device."""
    if t.config.vector is None:
        return
    await t.do(Opcode.EXECUTE, Status.BAD_STATE)
    words = t.config.vector.words if opcode == Opcode.GET else 4
    numbers = np.arange(1, words + 1, dtype=np.float32)
    await t.execute(put_words(0, numbers, t.config.max_payload))
    await t.execute(put_words(0, HUGE, t.config.max_payload))
    square = Step(operation=Operation.PRODUCT, factor=Factor.SAME)
    steps = t.config.vector.steps if opcode == Opcode.COMMIT_PROGRAM else 2
    image = encode_program([square, END])
    await program(t, image + bytes((steps - 2) * STEP_BYTES))
    await t.do(Opcode.COMMIT_PROGRAM, Status.OK, count=2, address=zlib.crc32(image))
    await t.do(Opcode.EXECUTE, Status.OK)
    await t.do(Opcode.GET, Status.NOT_FINITE, count=1)
    await t.execute(put_words(0, numbers[:4], t.config.max_payload))


async def program(t: Driver, image: bytes) -> None:
    """Write steps from the first one on."""
    await t.execute(write_steps(image, t.config.max_payload))


def commit_of(scene: Scene) -> dict[str, int]:
    """The fields of the COMMIT_PROGRAM that belongs to a scene."""
    assert scene.programs is not None
    count = scene.programs.steps
    return {"count": count, "address": scene.programs.checksum(count)}


async def run(t: Driver, scene: Scene, index: int) -> None:
    """Compute a layer for one token, in the banks of the scene."""
    banks = {"activation_bank": scene.activation_bank, "result_bank": scene.result_bank}
    await t.do(Opcode.RUN, Status.OK, index=index, count=1, **banks)


async def finish(t: Driver, scene: Scene, image: bytes) -> None:
    """The layers and the program of the scene are whole, and the open layer can be committed."""
    if scene.committed is not None:
        await run(t, scene, scene.committed)
        await t.send(*t.results(scene.shape.row_groups * t.config.rows, scene.result_bank))
    if scene.open is not None:
        base = scene.base
        if scene.committed is not None:
            base += t.config.stored_words(scene.shape.words)
        if t.reference.failure(Request(Opcode.COMMIT, index=scene.open, address=scene.checksum)):
            await t.send(*t.open_layer(scene.open, base, scene.shape, image))
        await t.do(Opcode.COMMIT, Status.OK, index=scene.open, address=scene.checksum)
        await run(t, scene, scene.open)
        await t.send(*t.results(scene.shape.row_groups * t.config.rows, scene.result_bank))
    if scene.programs is not None:
        await program(t, scene.programs.image)
        await t.do(Opcode.COMMIT_PROGRAM, Status.OK, **commit_of(scene))
        await t.do(Opcode.EXECUTE, Status.OK)
        await t.do(Opcode.GET, Status.OK, count=4)
    await t.do(Opcode.COUNTERS, Status.OK)


@cocotb.test()
@cocotb.parametrize(
    opcode=[opcode.name for opcode, checks in checks_of(config()).items() if checks]
)
@bench
async def bounds(dut: Any, opcode: str) -> None:
    """For every check, its bounds, their neighbours, and values with only the low bits right."""
    t = Driver(dut, f"bounds {opcode}")
    await t.begin()
    for scene in all_scenes():
        scene, image = await prepare(t, scene, Opcode[opcode])
        await t.execute(boundary_requests(t.config, scene, Opcode[opcode]))
        await finish(t, scene, image)


@cocotb.test()
@bench
async def opcodes(dut: Any) -> None:
    """Every opcode that does not exist, with and without a payload."""
    t = Driver(dut, "opcodes")
    await t.begin()
    await t.execute(opcode_requests(t.config))
    await t.do(0, Status.BAD_OPCODE, payload=bytes(t.config.max_payload))
    await t.do(Opcode.COUNTERS, Status.OK)


@cocotb.test()
@cocotb.parametrize((("idle", "stall"), [("none", "none"), ("heavy", "light")]))
@bench
async def errors(dut: Any, idle: str, stall: str) -> None:
    """Each check of each opcode fails, in any order; a command that fails changes nothing."""
    t = Driver(dut, "errors", idle, stall)
    await t.begin()
    for scene in all_scenes():
        scene, image = await prepare(t, scene)
        cases = failing(t, scene)
        t.random.shuffle(cases)
        for number, (status, request) in enumerate(cases):
            await t.execute([request])
            assert t.last().status == status, (
                f"status of {name_of(request.opcode)} must be {status!r}, not {t.last().status}"
            )
            if number % 6 == 0 and scene.committed is not None:
                rows = scene.shape.row_groups * t.config.rows
                await t.send(*t.results(rows, scene.result_bank))
                assert t.last().status == Status.OK
        if scene.undefined is not None:
            await t.do(Opcode.READ, Status.BAD_STATE, index=scene.undefined, count=1)
        await finish(t, scene, image)


def failing(t: Driver, scene: Scene) -> list[tuple[Status, Request]]:
    """Requests that fail before they change anything, some for each check, with their status."""
    cases: list[tuple[Status, Request]] = []
    for opcode, checks in checks_of(t.config).items():
        requests = boundary_requests(t.config, scene, opcode)
        failures = [(t.reference.failure(request), request) for request in requests]
        for check in checks:
            if check.stage >= Stage.WORD and opcode in MAY_CHANGE:
                continue
            matching = [request for failed, request in failures if failed == check]
            chosen = t.random.sample(matching, min(ERRORS_PER_CHECK, len(matching)))
            cases += [(check.status, request) for request in chosen]
    return cases
