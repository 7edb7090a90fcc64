"""How many cycles a device takes for a routine of the vector unit, its link included.

The commands are those of the driver for one token, in its order: PUT, EXECUTE, GET
(`tritloom.host.execution`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tritloom.gen.plan.schedule import CommandCycles, exchange_of, run_cycles
from tritloom.gen.plan.stages import Exchange
from tritloom.host.execution import joined_vectors
from tritloom.host.program import Program
from tritloom.rtl.spec import requests
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.vector_cycles import START_CYCLES, pipeline_cycles, step_cycles
from tritloom.rtl.spec.vector_program import Operation, Step

__all__ = ["execution_cycles", "routine_cycles"]

CODE_CYCLES = 4
"""From the end of a PRODUCT with codes until the core has taken the last of them."""
LAYER_CYCLES = 11
"""From the transfer of a layer to its first result, beside the cycles of RUN and of zeros."""


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
            ready = now + cycles + _zero_cycles(config, layers[step.a][1]) + LAYER_CYCLES
        elif step.from_core:
            # The first element waits for the first result.
            enters = now - step.count - pipeline_cycles(unit)
            now += max(0, ready - enters)
    return now, engine


def _zero_cycles(config: AcceleratorConfig, in_features: int) -> int:
    """Cycles in which zeros fill the last tile of a layer; each word of them takes one more."""
    zeros = -in_features % config.lanes
    return zeros + -(-zeros // config.fill)


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
