"""How many cycles a device takes for a routine of the vector unit, its link included.

The commands are those of the driver for one token, in its order: PUT, EXECUTE, GET
(`tritloom.host.execution`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tritloom.gen.plan.schedule import CommandCycles, exchange_of, run_cycles
from tritloom.gen.plan.stages import Exchange
from tritloom.gen.plan.timing import HOST, Host, Times
from tritloom.host.execution import joined_vectors
from tritloom.host.models.placed_blocks import BlockPlan
from tritloom.host.program import Program
from tritloom.rtl.spec import requests
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.vector_cycles import (
    START_CYCLES,
    element_cycles,
    pipeline_cycles,
    step_cycles,
)
from tritloom.rtl.spec.vector_program import Operation, Step

__all__ = ["execution_cycles", "plan_times", "routine_cycles"]

CODE_CYCLES = 4
"""From the end of a PRODUCT with codes until the core has taken the last of them."""
LAYER_CYCLES = 10
"""From the transfer of a layer to its first result, beside the cycles of RUN, of zeros, and of the
layer table."""


def execution_cycles(
    config: AcceleratorConfig, steps: Sequence[Step], layers: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """Cycles of a routine, as GET tells them, and those of the layers that it runs.

    Parameters
    ----------
    config : of the device
    steps : of the routine, END included
    layers : out_features and in_features of each layer that RUN names

    Raises
    ------
    ConfigError : the memory gives no bound on a run's cycles
    """
    unit = config.vector
    assert unit is not None
    now, ready, engine = START_CYCLES, 0, 0
    for step in steps:
        now += step_cycles(step, unit)
        if step.operation == Operation.RUN:
            shape = LayerShape.of(config, *layers[step.a])
            cycles = run_cycles(config, shape)
            engine += cycles
            now += CODE_CYCLES
            zeros = _zero_cycles(config, layers[step.a][1])
            ready = now + cycles + zeros + config.entry_cycles + LAYER_CYCLES
        elif step.from_core:
            # The first element waits for the first result.
            enters = now - element_cycles(step, unit) - pipeline_cycles(unit)
            now += max(0, ready - enters)
    return now, engine


def _zero_cycles(config: AcceleratorConfig, in_features: int) -> int:
    """Cycles in which zeros fill the last tile of a layer; each word of them takes one more.

    Several lanes write that many zeros a cycle, and the last ones of a word one by one.
    """
    assert config.vector is not None
    lanes, zeros = config.vector.lanes, -in_features % config.lanes
    words, first = divmod(zeros, config.fill)
    word = sum(divmod(config.fill, lanes)) + 1
    return words * word + (sum(divmod(first, lanes)) + 1 if first else 0)


def _commands(
    config: AcceleratorConfig,
    program: Program,
    routine: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Iterator[Exchange]:
    size = config.max_payload
    for address, count in joined_vectors(program, inputs):
        for request in requests.put_words(address, np.zeros(count, np.float32), size):
            yield exchange_of(config, request)
    cycles, _ = execution_cycles(config, program.steps_of(routine), program.layers)
    yield exchange_of(config, requests.execute_program(0), engine=cycles)
    for address, count in joined_vectors(program, outputs):
        for request in requests.get_words(address, count, size):
            yield exchange_of(config, request)


def routine_cycles(
    config: AcceleratorConfig,
    program: Program,
    routine: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> CommandCycles:
    """One token of a routine; its `engine` counts all cycles of the program.

    Parameters
    ----------
    config : of the device
    program : that is loaded
    routine : its name
    inputs, outputs : names of the vectors that are written before it, and read behind it

    Raises
    ------
    ConfigError : the memory gives no bound on a run's cycles
    """
    return CommandCycles.of(config, list(_commands(config, program, routine, inputs, outputs)))


def _routines(plan: BlockPlan) -> Iterator[tuple[str, str, str]]:
    """The routines of one token, and the vectors that each of them reads and leaves."""
    program = plan.program
    assert program is not None
    if plan.form == "feed_forward":
        yield from ((name, "x", "x") for name in program.routines)
        return
    last = "hidden" if "hidden" in program.vectors else "x"
    names = list(program.routines)
    yield names[0], "x", "qkv"
    for name in names[1:]:
        output = last if name == names[-1] else "qkv"
        if "inner" in program.vectors:  # the host computes the activation in between
            attends = name.startswith("block")
            yield name, *(("attention", "gate_up") if attends else ("inner", output))
        else:
            yield name, "attention", output


def plan_times(config: AcceleratorConfig, plan: BlockPlan, *, host: Host = HOST) -> Times:
    """The routines of a plan for one token, whose hidden vector stays on the device.

    `engine_s` counts the cycles of the programs, `run_cycles` those of their layers. What the host
    computes between the routines is not counted.

    Parameters
    ----------
    config : of the device, with its link and clock
    plan : with a program
    host : what the driver takes

    Raises
    ------
    ConfigError : the memory gives no bound on a run's cycles
    """
    program = plan.program
    assert program is not None
    total, clock_hz = Times(), config.clock_hz
    for routine, given, left in _routines(plan):
        call = routine_cycles(config, program, routine, [given], [left])
        steps = program.steps_of(routine)
        named = [program.layers[step.a] for step in steps if step.operation == Operation.RUN]
        commands_s = call.commands * host.command_s
        total += Times(
            tokens=1,
            macs=sum(rows * columns for rows, columns in named),
            calls=1,
            commands=call.commands,
            bytes_in=call.bytes_in,
            bytes_out=call.bytes_out,
            run_cycles=execution_cycles(config, steps, program.layers)[1],
            total_s=max(call.cycles / clock_hz, commands_s) + host.call_s,
            link_in_s=call.link_in / clock_hz,
            link_out_s=call.link_out / clock_hz,
            front_end_s=call.front_end / clock_hz,
            engine_s=call.engine / clock_hz,
            host_s=commands_s + host.call_s,
        )
    return total
