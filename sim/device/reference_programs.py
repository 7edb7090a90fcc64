"""The vector unit of the reference device: its memories, and the program that is committed."""

from __future__ import annotations

import zlib
from copy import copy

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.checks import State
from tritloom.rtl.spec.commands import Opcode, Request
from tritloom.rtl.spec.vector_cycles import program_cycles
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_interpreter import Core, VectorInterpreter
from tritloom.rtl.spec.vector_program import (
    FIELDS,
    STEP_BYTES,
    Operation,
    Step,
    decode_program,
    is_wrong,
    kept_mask,
)

__all__ = ["ReferencePrograms"]

OPERATION_MASK = (1 << FIELDS["operation"]) - 1
"""Of the first byte of a step."""
LAYER_PLACE = 4
"""First of the two bytes of a step that hold `a`, of RUN its layer."""


class ReferencePrograms:
    """What a device with a vector unit holds beside one without.

    A copy shares the memories of words and steps, until it executes a program.

    Members
    -------
    steps : uint8 `[steps, STEP_BYTES]`, the program memory
    kept : uint8 `[STEP_BYTES]`, the bits of a step that the device stores
    committed_steps : the first steps of the program memory that are committed
    cycles : of the last program of the session, those of its layers not counted
    void : the last program of the session ran a layer with a word that the memory cannot read
    """

    def __init__(self, config: VectorConfig) -> None:
        self.config = config
        self.steps = np.zeros((config.steps, STEP_BYTES), np.uint8)
        self.kept = np.frombuffer(kept_mask(config), np.uint8)
        self.committed_steps = 0
        self.cycles = 0
        self.void = False
        self._unit = VectorInterpreter(config)
        self._executed = False  # in this session

    @property
    def words(self) -> npt.NDArray[np.uint8]:
        """The vector memory, uint8 `[words, 4]`."""
        return self._unit.memory.view(np.uint8).reshape(-1, 4)

    def forget(self) -> None:
        """Begin a session."""
        self.committed_steps = self.cycles = 0
        self.void = self._executed = False

    def forget_layer(self, index: int) -> None:
        """Leave no step committed if one of them names the layer."""
        if index in _layers(self.steps[: self.committed_steps]):
            self.committed_steps = 0

    def state(self, request: Request, committed: set[int]) -> State:
        """What the checks of a request read of the unit; `committed` are the committed layers."""
        finite = State(
            void_words=self.void,
            not_finite=self._executed and self._unit.not_finite,
            program_steps=self.committed_steps,
        )
        if request.opcode != Opcode.COMMIT_PROGRAM or not 1 <= request.count <= self.config.steps:
            return finite
        steps = self.steps[: request.count]
        wrong = any(is_wrong(step.tobytes(), self.config) for step in steps)
        return State(
            program_checksum=zlib.crc32(steps.tobytes()),
            wrong_steps=wrong or bool(steps[-1, 0] & OPERATION_MASK != Operation.END),
            open_layers=not _layers(steps) <= committed,
        )

    def execute(self, first: int, core: Core) -> npt.NDArray[np.int8]:
        """Execute the steps from `first` on; gives the codes that no RUN used."""
        steps: list[Step] = []
        for step in decode_program(self.steps[first : self.committed_steps].tobytes()):
            steps.append(step)
            if step.operation == Operation.END:
                break
        unit = copy(self._unit)
        unit.memory, unit.core = unit.memory.copy(), core
        unit.run(steps)
        unit.core = None
        self._unit = unit
        self._executed = True
        self.cycles = program_cycles(steps, self.config)
        return unit.codes


def _layers(steps: npt.NDArray[np.uint8]) -> set[int]:
    """The layers that steps name."""
    is_run = steps[:, 0] & OPERATION_MASK == Operation.RUN
    layer = steps[is_run, LAYER_PLACE : LAYER_PLACE + 2].copy().view("<u2")
    return {int(index) for index in layer.reshape(-1)}
