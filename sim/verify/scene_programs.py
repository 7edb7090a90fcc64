"""What the program memory holds in a `Scene` of the boundary requests."""

from __future__ import annotations

import zlib

import numpy as np

from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_program import (
    STEP_BYTES,
    Factor,
    Operation,
    Step,
    encode_program,
)
from tritloom.sim.device.reference_programs import ReferencePrograms
from tritloom.sim.verify.programs import END

__all__ = ["ScenePrograms"]

UNKNOWN = bytes([max(Operation) + 1]) + bytes(STEP_BYTES - 1)
"""A step whose operation no device knows."""


class ScenePrograms:
    """A program that is committed, and behind it steps that are right only in part.

    Parameters
    ----------
    config : of the unit
    committed : a committed layer, which the program runs, or `None`
    uncommitted : index of a layer that is not committed

    Members
    -------
    image : the steps; behind them the program memory holds END only
    steps : of the committed program
    counts : of first steps that COMMIT_PROGRAM finds right, without END, with an open layer, and
        with an unknown operation
    memory : what the checks read of the unit
    """

    def __init__(self, config: VectorConfig, committed: int | None, uncommitted: int) -> None:
        square = Step(operation=Operation.PRODUCT, factor=Factor.SAME, d=2, count=2)
        runs = [] if committed is None else [Step(operation=Operation.RUN, a=committed)]
        program = encode_program([square, *runs, END])
        opened = encode_program([Step(operation=Operation.RUN, a=uncommitted), END])
        self.image = program + opened + UNKNOWN + encode_program([END])
        self.steps = len(program) // STEP_BYTES
        self.counts = tuple(self.steps + more for more in (0, 1, 2, 4))
        self.memory = ReferencePrograms(config)
        rows = np.frombuffer(self.image, np.uint8).reshape(-1, STEP_BYTES)
        self.memory.steps[: len(rows)] = rows
        self.memory.committed_steps = self.steps

    def checksum(self, count: int) -> int:
        """CRC-32 of the first steps."""
        return zlib.crc32(self.memory.steps[:count].tobytes())
