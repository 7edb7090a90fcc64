"""Random programs of the vector unit: right ones, and ones that a device refuses."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.vector_cycles import step_cycles
from tritloom.rtl.spec.vector_facts import WRAP_WORDS, VectorConfig
from tritloom.rtl.spec.vector_program import (
    STEP_BYTES,
    Factor,
    Operation,
    Second,
    Step,
    check_program,
    encode_program,
    is_wrong,
    kept_mask,
)

__all__ = ["END", "ProgramMaker", "unkept"]

END = Step(operation=Operation.END)
COUNTS = (1, 2, 3, 7, 16, 33)
"""Elements of a random PRODUCT."""
UNKNOWN_OPERATIONS = (max(Operation) + 1, max(Operation) + 2)
"""Operations that a device stores, and does not know."""


class ProgramMaker:
    """Makes steps and programs that `check_program` accepts.

    Parameters
    ----------
    config : of the unit
    rng : of everything random
    first : the programs use the words of the vector memory from here on only, a multiple of 32
    """

    def __init__(self, config: VectorConfig, rng: random.Random, first: int = 0) -> None:
        self.config, self._rng, self.first = config, rng, first

    def step(self, operations: Sequence[Operation] | None = None, **fields: Any) -> Step:
        """A random step; `fields` are as they are given."""
        while True:
            step = self._any(operations or _OPERATIONS, fields)
            if self._is_right(step):
                return step

    def program(
        self, layers: Mapping[int, tuple[int, int]], most_steps: int, most_cycles: int
    ) -> list[Step]:
        """A random program.

        Parameters
        ----------
        layers : results that the program takes of each layer, and codes that it gives; it runs
            some of them, each perhaps twice
        most_steps : it has at most this many steps, at least 1
        most_cycles : about the most cycles that it takes, but for those of the layers
        """
        rng = self._rng
        parts = [[self.step()] for _ in range(rng.randint(0, 4))]
        for _ in range(rng.randint(0, 2) if layers else 0):
            parts.append(self._layer(*rng.choice(sorted(layers.items()))))
        rng.shuffle(parts)
        steps: list[Step] = []
        for part in parts:
            if rng.random() < 0.3 and any(s.operation == Operation.PRODUCT for s in steps):
                part.append(self.step([Operation.MAXIMUM]))
            cycles = sum(step_cycles(step, self.config) for step in (*steps, *part))
            if len(steps) + len(part) < most_steps and cycles <= most_cycles:
                steps += part
        return [*steps, END]

    def wrong(self, steps: Sequence[Step], open_layers: Sequence[int]) -> bytes:
        """The encoding of a program with a fault, for which COMMIT_PROGRAM refuses it.

        Parameters
        ----------
        steps : a right program
        open_layers : indices that name no committed layer
        """
        rng = self._rng
        number = rng.randrange(len(steps))
        kind = rng.randrange(4 if open_layers else 3)
        if kind == 0:
            return encode_program([*steps[:-1], self.step()])
        if kind == 1:
            image = bytearray(encode_program(steps))
            image[number * STEP_BYTES] = rng.choice(UNKNOWN_OPERATIONS)
            return bytes(image)
        if kind == 2:
            fault = self._beyond()
        else:
            fault = Step(operation=Operation.RUN, a=rng.choice(open_layers))
        return encode_program([*steps[:number], fault, *steps[number:]])

    def _beyond(self) -> Step:
        """A step of which an operand leaves the memory."""
        rng = self._rng
        while True:
            step = self.step([Operation.PRODUCT], factor=Factor.VECTOR, add=False, wrap=False)
            fields = {name: getattr(step, name) for name in ("factor", "count", "a", "b", "d")}
            operand = rng.choice("abcd" if self.config.multipliers == 2 else "abd")
            fields[operand] = self.config.words - step.count + rng.randint(1, 3)
            step = Step(operation=Operation.PRODUCT, **fields)
            if self._is_refused(step):
                return step

    def _layer(self, index: int, shape: tuple[int, int]) -> list[Step]:
        """Steps that give a layer its codes, run it, and take its results."""
        results, codes = shape
        steps = [
            self.step([Operation.PRODUCT], count=count, codes=True, add=False, wrap=False, d=0)
            for count in self._pieces(codes)
        ]
        steps.append(Step(operation=Operation.RUN, a=index))
        steps += [
            self.step([Operation.PRODUCT], count=count, from_core=True, a=0)
            for count in self._pieces(results)
        ]
        return steps

    def _pieces(self, total: int) -> Iterator[int]:
        """Counts whose sum is `total`."""
        while total:
            most = min(total, self.config.words // 2)
            count = most if self._rng.random() < 0.7 else self._rng.randint(1, most)
            yield count
            total -= count

    def _any(self, operations: Sequence[Operation], fields: Mapping[str, Any]) -> Step:
        """A step that is perhaps not right."""
        rng = self._rng
        operation = rng.choice(operations)
        values: dict[str, Any] = {"operation": operation, "d": self._address()}
        if operation != Operation.MAXIMUM:
            values["a"] = self._address()
            values["bfloat16"] = self.config.bfloat16 and rng.random() < 0.5
        if operation == Operation.DIVIDE:
            values["b"] = self._address()
        if operation == Operation.PRODUCT:
            values["factor"] = rng.choice(list(Factor))
            values["count"] = rng.choice(COUNTS)
            values["relu"] = rng.random() < 0.3
            values["add"] = rng.random() < 0.5
            values["wrap"] = rng.random() < 0.4
            if self.config.multipliers == 2:
                values["second"] = rng.choice(list(Second))
            values |= fields
            if values["factor"] != Factor.SAME:
                values["b"] = self._address()
            if values.get("second") in (Second.VECTOR, Second.SCALAR):
                values["c"] = self._address()
            if values["wrap"]:
                values["d"] = values["d"] // WRAP_WORDS * WRAP_WORDS
        return Step(**values)

    def _address(self) -> int:
        return self._rng.randrange(self.first, self.config.words)

    def _is_refused(self, step: Step) -> bool:
        """Whether a device stores all bits of a step, and finds an operand beyond the memory."""
        encoded, mask = encode_program([step]), kept_mask(self.config)
        whole = all(byte & ~bits == 0 for byte, bits in zip(encoded, mask, strict=True))
        return whole and is_wrong(encoded, self.config)

    def _is_right(self, step: Step) -> bool:
        """Whether a program with layers that fit can have the step."""
        layers = {0: (step.count * step.from_core, 0), 1: (0, step.count * step.codes)}
        runs = [Step(operation=Operation.RUN, a=index) for index in layers]
        measured = Step(operation=Operation.PRODUCT, factor=Factor.SAME)
        try:
            check_program([measured, runs[0], step, runs[1], END], self.config, layers)
        except InputError:
            return False
        return True


_OPERATIONS = [Operation.PRODUCT] * 5 + [Operation.DIVIDE, Operation.ROOT]


def unkept(config: VectorConfig, image: bytes, rng: random.Random) -> bytes:
    """A program with random bits where the device stores none."""
    mask = kept_mask(config)
    return bytes(
        byte | rng.getrandbits(8) & ~mask[at % STEP_BYTES] & 0xFF for at, byte in enumerate(image)
    )
