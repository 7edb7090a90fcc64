"""What a program of the vector unit must give: its steps, interpreted in NumPy.

Each operation is that of `float_units`, so the bits are those of the hardware.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec import float_units
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.numerics import SCALE_FLOOR
from tritloom.rtl.spec.rounding import round_to
from tritloom.rtl.spec.vector_facts import WRAP_WORDS, VectorConfig
from tritloom.rtl.spec.vector_program import Factor, Operation, Second, Step

__all__ = [
    "BFLOAT16_FRACTION_BITS",
    "LIMIT_FIELD",
    "Core",
    "Cores",
    "VectorInterpreter",
    "floor_pattern",
]

Bits = npt.NDArray[np.uint32]
Codes = npt.NDArray[np.int8]
Core = Callable[[int, npt.NDArray[np.int8]], npt.NDArray[np.int32]]
"""Computes the sums of a layer, in the order of its rows, from a layer's index and its codes."""
Cores = Callable[[int, list[Codes]], list[npt.NDArray[np.int32]]]
"""The same for the codes of several tokens."""

BFLOAT16_FRACTION_BITS = 7
LIMIT_FIELD = float_units.FLOAT32.bias + 126
"""Exponent field of 2^126. The reciprocal of a magnitude from there on is subnormal, which the unit
takes for zero, so its results would differ from the golden model."""


def floor_pattern(bfloat16: bool) -> int:
    """The pattern of the smallest maximum that a scale is made of."""
    return int(round_to(SCALE_FLOOR, bfloat16).view(np.uint32))


class VectorInterpreter:
    """The vector unit in NumPy.

    Parameters
    ----------
    config : of the unit
    core : computes the layers that RUN names; None if no program has a RUN

    Members
    -------
    memory : uint32 `[words]`, the patterns of the vector memory; read and write it freely
    not_finite : whether a result of the last program was not finite, or 2^126 or more
    codes : int8, the codes that went to the core since the program's last RUN
    """

    def __init__(self, config: VectorConfig, core: Core | None = None) -> None:
        self.config, self.core = config, core
        self.memory: Bits = np.zeros(config.words, np.uint32)
        self.not_finite = False
        self.codes = np.zeros(0, np.int8)
        self._results = np.zeros(0, np.int32)
        self._maximum = 0

    def run(self, steps: Sequence[Step]) -> bool:
        """Execute a program that `check_program` accepts.

        Results that the core does not have are 0.

        Returns
        -------
        `not_finite`. The program runs to its end in any case.

        Raises
        ------
        InputError : a RUN without a core
        """
        core = self.core

        def compute(layer: int, codes: list[Codes]) -> list[npt.NDArray[np.int32]]:
            if core is None:
                raise InputError("a program with RUN needs a core")
            return [core(layer, each) for each in codes]

        (self.codes,) = self.run_tokens(steps, [self.memory], compute)
        return self.not_finite

    def run_tokens(
        self, steps: Sequence[Step], memories: Sequence[Bits], core: Cores
    ) -> list[Codes]:
        """Execute a program for several tokens, each with a memory of its own.

        The steps up to a RUN are executed for one token after the other, then the layer is computed
        for all of them, and so on. `memory` is the last token's at the end.

        Returns
        -------
        The codes of each token that no RUN used.
        """
        self.not_finite = False
        results = [np.zeros(0, np.int32) for _ in memories]
        for segment, layer in _segments(steps):
            codes: list[Codes] = []
            for token, memory in enumerate(memories):
                self.memory, self._results = memory, results[token]
                self.codes = np.zeros(0, np.int8)
                for step in segment:
                    self._execute(step)
                codes.append(self.codes)
            if layer is None:
                break
            results = [np.asarray(sums, np.int32) for sums in core(layer, codes)]
        return codes

    def _execute(self, step: Step) -> None:
        """Any step but RUN and END."""
        product = step.operation == Operation.PRODUCT
        results = self._product(step) if product else self._one(step)
        self._watch(results)
        if product:
            largest = float_units.absmax(results)[0]
            self._maximum = max(largest, floor_pattern(step.bfloat16))
        if step.codes:
            codes = float_units.to_int(results, 8).astype(np.int8)
            self.codes = np.concatenate([self.codes, codes])

    def _watch(self, results: Bits) -> None:
        """Remember whether a result left the contract."""
        largest = float_units.absmax(results)[0]
        self.not_finite |= largest >> float_units.FLOAT32.fraction_bits >= LIMIT_FIELD

    def _round(self, step: Step, patterns: Bits) -> Bits:
        return float_units.narrow(patterns, BFLOAT16_FRACTION_BITS) if step.bfloat16 else patterns

    def _one(self, step: Step) -> Bits:
        """A step whose result is one word."""
        a, b = self.memory[step.a : step.a + 1], self.memory[step.b : step.b + 1]
        if step.operation == Operation.DIVIDE:
            result = self._round(step, float_units.divide(a, b))
        elif step.operation == Operation.ROOT:
            result = self._round(step, float_units.root(a))
        else:
            result = np.array([self._maximum], np.uint32)
        self.memory[step.d] = result[0]
        return result

    def _second_product(self, step: Step, products: Bits) -> Bits:
        """The products, multiplied once more."""
        if step.second == Second.NONE:
            return products
        factors: Bits | np.uint32 = products
        if step.second == Second.SAME:
            factors = products = _relu(products) if step.relu else products
        elif step.second == Second.VECTOR:
            factors = self.memory[step.c : step.c + step.count]
        else:
            factors = self.memory[step.c]
        return self._round(step, float_units.multiply(products, factors))

    def _product(self, step: Step) -> Bits:
        """All results of a PRODUCT; they are written unless they become codes."""
        count, memory = step.count, self.memory
        if step.from_core:
            sums = np.zeros(count, np.int32)
            sums[: len(self._results)] = self._results[:count]
            self._results = self._results[count:]
            a = self._round(step, float_units.from_int(sums))
        else:
            a = memory[step.a : step.a + count]
        if step.relu and step.second != Second.SAME:
            a = _relu(a)
        if step.factor == Factor.SAME:
            products = float_units.multiply(a, a)
        elif step.factor == Factor.VECTOR:
            products = float_units.multiply(a, memory[step.b : step.b + count])
        elif step.factor == Factor.SCALAR:
            products = float_units.multiply(a, memory[step.b])
        else:
            products = float_units.divide(a, memory[step.b])
        products = self._second_product(step, self._round(step, products))
        width = WRAP_WORDS if step.wrap else count
        results = []
        for start in range(0, count, width):
            row = products[start : start + width]
            place = slice(step.d, step.d + len(row))
            if step.add:
                row = self._round(step, float_units.add(row, memory[place]))
            if not step.codes:
                memory[place] = row
            results.append(row)
        return np.concatenate(results)


def _segments(steps: Sequence[Step]) -> Iterator[tuple[list[Step], int | None]]:
    """The steps before each RUN with its layer, then those before END with None."""
    segment: list[Step] = []
    for step in steps:
        if step.operation == Operation.END:
            break
        if step.operation == Operation.RUN:
            yield segment, step.a
            segment = []
        else:
            segment.append(step)
    yield segment, None


def _relu(patterns: Bits) -> Bits:
    """max(·, 0); a negative number that is not finite stays, so that it is noticed."""
    finite = patterns >> float_units.FLOAT32.fraction_bits & 0xFF != 0xFF
    return np.where((patterns >> 31 == 1) & finite, np.uint32(0), patterns)
