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
from tritloom.rtl.spec.vector_interpreter import Cores, VectorInterpreter
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
    memory : uint32 `[tokens, words]`, patterns of the vector memory of each token
    steps : uint8 `[steps, STEP_BYTES]`, the program memory
    kept : uint8 `[STEP_BYTES]`, the bits of a step that the device stores
    committed_steps : the first steps of the program memory that are committed
    cycles : of the last program of the session, those of its layers not counted
    void : the last program of the session ran a layer with a word that the memory cannot read
    """

    def __init__(self, config: VectorConfig, tokens: int = 1) -> None:
        self.config = config
        self.memory: npt.NDArray[np.uint32] = np.zeros((tokens, config.words), np.uint32)
        self.steps = np.zeros((config.steps, STEP_BYTES), np.uint8)
        self.kept = np.frombuffer(kept_mask(config), np.uint8)
        self.committed_steps = 0
        self.cycles = 0
        self.void = False
        self._unit = VectorInterpreter(config)
        self._executed = False  # in this session

    def words(self, token: int) -> npt.NDArray[np.uint8]:
        """The vector memory of a token, uint8 `[words, 4]`."""
        words: npt.NDArray[np.uint8] = self.memory[token].view(np.uint8).reshape(-1, 4)
        return words

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

    def execute(self, first: int, last_token: int, core: Cores) -> list[npt.NDArray[np.int8]]:
        """Execute the steps from `first` on; gives the codes of each token that no RUN used."""
        steps: list[Step] = []
        for step in decode_program(self.steps[first : self.committed_steps].tobytes()):
            steps.append(step)
            if step.operation == Operation.END:
                break
        unit, memory = copy(self._unit), self.memory.copy()
        codes = unit.run_tokens(steps, list(memory[: last_token + 1]), core)
        self._unit, self.memory = unit, memory
        self._executed = True
        self.cycles = program_cycles(steps, self.config, last_token + 1)
        return codes


def _layers(steps: npt.NDArray[np.uint8]) -> set[int]:
    """The layers that steps name."""
    is_run = steps[:, 0] & OPERATION_MASK == Operation.RUN
    layer = steps[is_run, LAYER_PLACE : LAYER_PLACE + 2].copy().view("<u2")
    return {int(index) for index in layer.reshape(-1)}
