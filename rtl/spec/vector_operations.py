"""Steps of the vector unit for the operations of a model, bit for bit those of `numerics`.

`ProgramBuilder` places vectors in the vector memory and collects steps. Each of its operations
names the function of `numerics` that it equals. They are equal as long as no number is below 2^-126
or from 2^126 on.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.errors import CapacityError, InputError
from tritloom.rtl.spec.rounding import ORDER_FEATURES
from tritloom.rtl.spec.vector_facts import WRAP_WORDS, VectorConfig
from tritloom.rtl.spec.vector_program import Factor, Operation, Second, Step

__all__ = ["SUM_WORDS", "ProgramBuilder"]

VECTOR_ELEMENTS = 8
"""Elements that PyTorch's kernel adds at once."""
FEW_SUMS = 4
"""Interleaved sums of a sum of fewer elements than a vector has."""
BLOCK_ROWS = 16
"""Rows of 32 squares after which their sums are added to those of the next level."""
LEVELS = 3
"""Levels of sums that `ORDER_FEATURES` elements need."""
SUM_WORDS = LEVELS * WRAP_WORDS
"""Words for the sums of squares of a norm."""


class ProgramBuilder:
    """Collects the steps of a program, and what the vector memory holds before it.

    Parameters
    ----------
    config : of the unit
    bfloat16 : whether the model's operations round to bfloat16. Vectors that `place` gets must then
        be rounded to bfloat16 by the caller, as the model's are.

    Members
    -------
    steps : the steps so far
    contents : patterns by first address, to be written before the program runs
    words : words of the memory that are taken

    Raises
    ------
    InputError : bfloat16 of a unit that has none
    """

    def __init__(self, config: VectorConfig, *, bfloat16: bool = False) -> None:
        if bfloat16 and not config.bfloat16:
            raise InputError("the unit has no bfloat16; build it with bfloat16 true")
        self.config, self.bfloat16 = config, bfloat16
        self._two = config.multipliers == 2
        self.steps: list[Step] = []
        self.contents: dict[int, npt.NDArray[np.uint32]] = {}
        self.words = 0
        self._constants: dict[int, int] = {}
        self._sums: int | None = None

    def reserve(self, count: int, align: int = 1) -> int:
        """The address of `count` free words, a multiple of `align`.

        Raises
        ------
        CapacityError : the memory has no room
        """
        address = -(-self.words // align) * align
        if address + count > self.config.words:
            raise CapacityError(
                f"the vector memory has {self.config.words} words, {address + count} are needed"
            )
        self.words = address + count
        return address

    def place(self, values: npt.ArrayLike) -> int:
        """The address of a vector or scalar that is in the memory before the program runs."""
        patterns = np.atleast_1d(np.asarray(values, np.float32)).view(np.uint32)
        address = self.reserve(len(patterns))
        self.contents[address] = patterns
        return address

    def constant(self, value: float) -> int:
        """The address of a scalar that no step writes; the same one for the same number."""
        pattern = int(np.float32(value).view(np.uint32))
        if pattern not in self._constants:
            self._constants[pattern] = self.place(value)
        return self._constants[pattern]

    def step(
        self,
        operation: Operation,
        factor: Factor = Factor.VECTOR,
        *,
        count: int = 1,
        a: int = 0,
        b: int = 0,
        c: int = 0,
        d: int = 0,
        second: Second = Second.NONE,
        bfloat16: bool | None = None,
        from_core: bool = False,
        relu: bool = False,
        add: bool = False,
        wrap: bool = False,
        codes: bool = False,
    ) -> None:
        """Append a step; `bfloat16` is the model's unless it is given."""
        self.steps.append(
            Step(
                operation=operation,
                factor=factor,
                count=count,
                a=a,
                b=b,
                c=c,
                d=d,
                second=second,
                bfloat16=self.bfloat16 if bfloat16 is None else bfloat16,
                from_core=from_core,
                relu=relu,
                add=add,
                wrap=wrap,
                codes=codes,
            )
        )

    def end(self) -> list[Step]:
        """Append END. Returns all steps."""
        self.steps.append(Step(operation=Operation.END))
        return self.steps

    def run(self, layer: int) -> None:
        """Let the core compute a layer with the codes of `quantize`."""
        self.steps.append(Step(operation=Operation.RUN, a=layer))

    def _add(self, a: int, d: int, count: int, *, first: bool = False) -> None:
        """d += a in float32; with `first`, d = a."""
        one = self.constant(1.0)
        self.step(
            Operation.PRODUCT,
            Factor.SCALAR,
            a=a,
            b=one,
            d=d,
            count=count,
            add=not first,
            bfloat16=False,
        )

    def _add_squares(self, a: int, d: int, count: int, *, first: bool, wrap: bool = False) -> None:
        """d += a² in float32; with `first`, d = a²."""
        self.step(
            Operation.PRODUCT,
            Factor.SAME,
            a=a,
            d=d,
            count=count,
            add=not first,
            wrap=wrap,
            bfloat16=False,
        )

    def place_sums(self, address: int) -> None:
        """Let the sums of squares take the `SUM_WORDS` words from `address` on, a multiple of 32.

        Nothing else may use these words while a norm is computed. Without this call the sums have
        words of their own.
        """
        self._sums = address

    def sum_of_squares(self, x: int, features: int) -> int:
        """The sum of x² in the order of `rounding.sum_in_order`, in float32.

        Returns
        -------
        The address of the sum, which holds until the next such sum is made.

        Raises
        ------
        InputError : no feature, or more than `ORDER_FEATURES`
        """
        if not 1 <= features <= ORDER_FEATURES:
            raise InputError(f"a norm must have 1 to {ORDER_FEATURES} features, not {features}")
        if self._sums is None:
            self._sums = self.reserve(SUM_WORDS, WRAP_WORDS)
        if features < VECTOR_ELEMENTS:
            return self._few_squares(x, features, self._sums)
        levels = [self._sums + level * WRAP_WORDS for level in range(LEVELS)]
        in_rows = features // WRAP_WORDS * WRAP_WORDS
        sums = levels[0]
        if in_rows:
            sums = self._rows_of_squares(x, features // WRAP_WORDS, levels)
        whole = features // VECTOR_ELEMENTS * VECTOR_ELEMENTS
        for start in range(in_rows, whole, VECTOR_ELEMENTS):
            # Without rows the 32 sums are zero, and nothing is added to them.
            self._add_squares(x + start, sums, VECTOR_ELEMENTS, first=not start)
        for start in range(VECTOR_ELEMENTS, WRAP_WORDS if in_rows else 0, VECTOR_ELEMENTS):
            self._add(sums + start, sums, VECTOR_ELEMENTS)
        if whole == features:
            total, begin = sums, 1
        else:
            total, begin = sums + VECTOR_ELEMENTS, 0
        for element in range(whole, features):
            self._add_squares(x + element, total, 1, first=element == whole)
        for element in range(begin, VECTOR_ELEMENTS):
            self._add(sums + element, total, 1)
        return total

    def _few_squares(self, x: int, features: int, total: int) -> int:
        """The sum of fewer squares than a vector has: four interleaved sums, added to the first."""
        order = [0, *range(FEW_SUMS, features), *range(1, min(FEW_SUMS, features))]
        for element in order:
            self._add_squares(x + element, total, 1, first=element == 0)
        return total

    def _rows_of_squares(self, x: int, rows: int, levels: list[int]) -> int:
        """Sum rows of 32 squares, in blocks; `levels` are the addresses of the sums of each level.

        Returns the address of the 32 sums of all levels.
        """
        used = [False] * LEVELS
        for row in range(0, rows, BLOCK_ROWS):
            count = min(BLOCK_ROWS, rows - row)
            whole = count == BLOCK_ROWS
            # The first block of the second level needs no sums of its own.
            level = int(whole and not used[1])
            start = x + row * WRAP_WORDS
            self._add_squares(start, levels[level], WRAP_WORDS, first=True)
            if count > 1:
                rest = (count - 1) * WRAP_WORDS
                self._add_squares(start + WRAP_WORDS, levels[level], rest, first=False, wrap=True)
            used[level] = True
            if whole and level == 0:
                self._add(levels[0], levels[1], WRAP_WORDS)
                used[0] = False
            if whole and (row // BLOCK_ROWS + 1) % BLOCK_ROWS == 0:
                self._add(levels[1], levels[2], WRAP_WORDS, first=not used[2])
                used[1:] = [False, True]
        sums, *others = (address for address, is_used in zip(levels, used, strict=True) if is_used)
        for address in others:
            self._add(address, sums, WRAP_WORDS)
        return sums

    def rms_norm(self, x: int, features: int, weight: int, eps: float, to: int) -> None:
        """`numerics.rms_norm`: `to` = weight · (x · r)."""
        one = self.constant(1.0)
        r = self.sum_of_squares(x, features)
        self.step(Operation.DIVIDE, a=r, b=self.constant(features), d=r, bfloat16=False)
        self._add(self.constant(eps), r, 1)
        self.step(Operation.ROOT, a=r, d=r, bfloat16=False)
        self.step(Operation.DIVIDE, a=one, b=r, d=r, bfloat16=False)
        if self._two:
            by_weight: dict[str, Any] = {"second": Second.VECTOR, "c": weight}
            self.step(Operation.PRODUCT, Factor.SCALAR, a=x, b=r, d=to, count=features, **by_weight)
            return
        self.step(Operation.PRODUCT, Factor.SCALAR, a=x, b=r, d=to, count=features)
        self.step(Operation.PRODUCT, a=to, b=weight, d=to, count=features)

    def quantize(self, x: int, features: int, s: int, *, measured: bool = False) -> None:
        """`numerics.absmax_quantize`: the codes go to the core, the scale to address `s`.

        With `measured`, the last step was the PRODUCT that wrote all of x; else one more step finds
        its maximum.
        """
        one = self.constant(1.0)
        if not measured:
            self.step(Operation.PRODUCT, Factor.SCALAR, a=x, b=one, d=x, count=features)
        self.step(Operation.MAXIMUM, d=s, bfloat16=False)
        self.step(Operation.DIVIDE, a=one, b=s, d=s)
        self.step(Operation.PRODUCT, Factor.SCALAR, a=s, b=self.constant(127.0), d=s)
        self.step(Operation.PRODUCT, Factor.SCALAR, a=x, b=s, count=features, codes=True)

    def rescale(
        self,
        rows: int,
        s: int,
        scale: int,
        to: int,
        *,
        scale_divides: bool,
        scale_per_row: bool = False,
        bias: int | None = None,
        residual: int | None = None,
    ) -> None:
        """`numerics.rescale` of the core's next `rows` results; scale, s and bias are addresses.

        With `residual` the outputs are added to the words there, as `numerics.add_residual` does,
        and `to` only has room for work.

        Raises
        ------
        InputError : a scale per row that divides
        """
        from_core: dict[str, Any] = {"count": rows, "from_core": True}
        if scale_divides:
            if scale_per_row:
                raise InputError("a scale per row must multiply: scale_divides must be False")
            # Until the quotients are written, `to` has room for the divisor, which is read first.
            self.step(Operation.PRODUCT, Factor.SCALAR, a=s, b=scale, d=to)
            s = to
        adds = residual is not None and bias is None and not scale_per_row
        last: dict[str, Any] = {"d": residual, "add": True} if adds else {"d": to}
        if scale_divides:
            self.step(Operation.PRODUCT, Factor.DIVISOR, b=s, **from_core, **last)
        elif self._two:
            kind = Second.VECTOR if scale_per_row else Second.SCALAR
            second: dict[str, Any] = {"second": kind, "c": scale}
            self.step(Operation.PRODUCT, Factor.DIVISOR, b=s, **second, **from_core, **last)
        else:
            self.step(Operation.PRODUCT, Factor.DIVISOR, b=s, d=to, **from_core)
            factor = Factor.VECTOR if scale_per_row else Factor.SCALAR
            self.step(Operation.PRODUCT, factor, a=to, b=scale, count=rows, **last)
        if bias is not None:
            self.add_residual(to, bias, rows)
        if residual is not None and not adds:
            self.add_residual(residual, to, rows)

    def rescale_gated(
        self, rows: int, s: int, gate_scale: int, up_scale: int, to: int, divisor: int
    ) -> None:
        """`numerics.relu2_times` of the core's next two times `rows` results, of gate and of up.

        Both scales divide. The unit must have two multipliers. `divisor` has room for one word.
        """
        self.rescale_squared(rows, s, gate_scale, to, divisor)
        self.rescale_times(rows, s, up_scale, to, divisor)

    def rescale_squared(self, rows: int, s: int, scale: int, to: int, divisor: int) -> None:
        """max(y, 0)² of the core's next `rows` results y; as `rescale_gated`."""
        squares: dict[str, Any] = {"second": Second.SAME, "relu": True}
        self._rescale_and(rows, s, scale, to, divisor, squares)

    def rescale_times(self, rows: int, s: int, scale: int, to: int, divisor: int) -> None:
        """The words at `to`, times the core's next `rows` results; as `rescale_gated`."""
        self._rescale_and(rows, s, scale, to, divisor, {"second": Second.VECTOR, "c": to})

    def _rescale_and(
        self, rows: int, s: int, scale: int, to: int, divisor: int, second: dict[str, Any]
    ) -> None:
        self.step(Operation.PRODUCT, Factor.SCALAR, a=s, b=scale, d=divisor)
        results: dict[str, Any] = {"count": rows, "from_core": True, "d": to}
        self.step(Operation.PRODUCT, Factor.DIVISOR, b=divisor, **results, **second)

    def relu2_times(self, gate: int, up: int, features: int) -> None:
        """`numerics.relu2_times`: gate = relu(gate)² · up."""
        square: dict[str, Any] = {"a": gate, "d": gate, "count": features, "relu": True}
        if self._two:
            self.step(Operation.PRODUCT, Factor.SAME, second=Second.VECTOR, c=up, **square)
            return
        self.step(Operation.PRODUCT, Factor.SAME, **square)
        self.step(Operation.PRODUCT, a=gate, b=up, d=gate, count=features)

    def add_residual(self, x: int, y: int, features: int) -> None:
        """`numerics.add_residual`: x = x + y."""
        one = self.constant(1.0)
        self.step(Operation.PRODUCT, Factor.SCALAR, a=y, b=one, d=x, count=features, add=True)

    def rotate(self, x: int, cos: int, sin: int, head_dim: int, work: int) -> None:
        """`numerics.rotate`: x = x · cos + turned · sin.

        The table at `sin` has the first half of its numbers negated, instead of those of x. `work`
        is the address of `head_dim` words for the second product.
        """
        half = head_dim // 2
        for to, a in ((0, half), (half, 0)):
            self.step(Operation.PRODUCT, a=x + a, b=sin + to, d=work + to, count=half)
        self.step(Operation.PRODUCT, a=x, b=cos, d=x, count=head_dim)
        self.add_residual(x, work, head_dim)
