"""Programs of the vector unit as the driver loads them, wherever they lie in the device.

A program consists of routines. Each runs by itself and ends with END. A routine reads its inputs
from named vectors and writes its outputs to named vectors. All addresses count from the program's
first vector word, and RUN names the program's layers by their place in its list. `Program.moved`
gives the steps for a place in the vector memory and for the device's layer numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tritloom.rtl.spec.errors import CapacityError, InputError
from tritloom.rtl.spec.vector_facts import WRAP_WORDS, VectorConfig
from tritloom.rtl.spec.vector_program import Operation, Step, check_program

__all__ = ["LEAST", "LIMIT", "Program", "Routine", "Vector", "leaves_unit"]

LIMIT = np.float32(2.0**126)
"""Magnitudes from here on are refused: the unit could not scale them as the golden model does."""
LEAST = np.finfo(np.float32).tiny
"""The least magnitude that the unit does not take for zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """Some vector words: the address of the first, and how many there are."""

    address: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Routine:
    """Steps that run one after the other: the number of the first, and how many, END included."""

    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Program:
    """Routines, and what they need.

    Members
    -------
    steps : of all routines, one behind the other
    routines : by name
    vectors : inputs and outputs of the routines, by name
    constants : float32, what the vector memory must hold from `constants_at` on
    words : vector words of the program
    layers : out_features and in_features of each layer that a step names
    """

    steps: tuple[Step, ...]
    routines: Mapping[str, Routine]
    vectors: Mapping[str, Vector]
    constants: NDArray[np.float32]
    constants_at: int
    words: int
    layers: tuple[tuple[int, int], ...]

    def steps_of(self, routine: str) -> tuple[Step, ...]:
        """The steps of one routine."""
        place = self.routines[routine]
        return self.steps[place.first : place.first + place.count]

    def check(self, config: VectorConfig) -> None:
        """Refuse a program that a unit with nothing in it cannot run.

        Raises
        ------
        CapacityError : it needs more steps or vector words than the unit has
        InputError : a step that the unit cannot run, or a constant that it does not compute with
        """
        if self.words > config.words:
            raise CapacityError(
                f"the program needs {self.words} vector words, the device has {config.words}; "
                "build it with more vector words"
            )
        if len(self.steps) > config.steps:
            raise CapacityError(
                f"the program needs {len(self.steps)} steps, the device has "
                f"{config.steps}; build it with more steps, or run fewer blocks on it"
            )
        layers = dict(enumerate(self.layers))
        for name in self.routines:
            try:
                check_program(self.steps_of(name), config, layers)
            except InputError as error:
                raise InputError(f"routine {name}: {error}") from error
        tiny = (self.constants != 0) & (np.abs(self.constants) < LEAST)
        wrong = np.flatnonzero(leaves_unit(self.constants) | tiny)
        if len(wrong):
            raise InputError(
                f"a weight, scale or bias must be zero, or from 2^-126 to below 2^126, not "
                f"{self.constants[wrong[0]]:g}; compute the model on the host"
            )

    def moved(self, base: int, indices: Sequence[int]) -> list[Step]:
        """The steps for vector words from `base` on, and for the device's layer numbers.

        Parameters
        ----------
        base : a multiple of 32, for the interleaved sums
        indices : the device's number of each layer of `layers`

        Raises
        ------
        InputError : another base, or another number of layers
        """
        if base % WRAP_WORDS:
            raise InputError(f"base must be a multiple of {WRAP_WORDS}, not {base}")
        if len(indices) != len(self.layers):
            raise InputError(f"the program has {len(self.layers)} layers, not {len(indices)}")
        return [_moved(step, base, indices) for step in self.steps]


def _moved(step: Step, base: int, indices: Sequence[int]) -> Step:
    """A step whose addresses, but not its unused fields, are moved by `base`."""
    if step.operation == Operation.RUN:
        return replace(step, a=indices[step.a])
    names = [name for name, _, _ in step.reads()] + ["d"] * bool(step.writes())
    return replace(step, **{name: getattr(step, name) + base for name in names})


def leaves_unit(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the numbers the unit refuses: NaN, inf, and magnitudes from 2^126 on."""
    return ~(np.abs(values) < LIMIT)
