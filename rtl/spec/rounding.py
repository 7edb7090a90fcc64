"""How floats are rounded, and in which order they are summed, in NumPy.

Every operation of the golden model is a float32 operation of IEEE 754: rounded to the nearest
float32, of two equally near ones to the even one. A bfloat16 model computes the same float32
operations and rounds each result to bfloat16.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ORDER_FEATURES", "round_to", "sum_in_order", "to_bfloat16"]

F32 = npt.NDArray[np.float32]

ORDER_FEATURES = 32_767
"""Most features up to which PyTorch sums in the order of `sum_in_order`. It gives the parts of
longer rows to several threads."""

_LANES = 8
"""Neighbouring elements that PyTorch's kernel adds to as many sums at once."""

_VECTORS = 4
"""Vectors of `_LANES` elements that it adds to sums of their own."""

_BLOCK = 16
"""Additions after which a sum is added to the sum of the next level, and begins again."""

_LEVELS = 4


def to_bfloat16(values: npt.ArrayLike) -> F32:
    """Floats rounded to bfloat16, half to even.

    Parameters
    ----------
    values : float32, any shape

    Returns
    -------
    float32 of the same shape, whose low 16 bits are zero. What rounds beyond the largest bfloat16
    is infinite, subnormal numbers stay, and NaN stays NaN. Source: `Tensor.to(torch.bfloat16)`.
    """
    array = np.asarray(values, np.float32)
    bits = array.view(np.uint32)
    # Not for NaN, whose bits could overflow. Infinity has no low bits, so it stays.
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    result: F32 = np.where(np.isnan(array), np.float32(np.nan), rounded.view(np.float32))
    return result


def round_to(values: npt.ArrayLike, bfloat16: bool) -> F32:
    """Float32 values as they are, or rounded to bfloat16."""
    return to_bfloat16(values) if bfloat16 else np.asarray(values, np.float32)


def sum_in_order(values: F32) -> F32:
    """Sum over the last dimension in float32, in the order in which PyTorch sums on a CPU.

    Parameters
    ----------
    values : float32 `[..., features]`

    Returns
    -------
    float32 `[...]`. Each addition rounds to float32. The order:

    1. Element i is added to sum i mod 32, in rows of 32. After 16 rows the 32 sums are added to 32
       sums of a second level and begin again with zero; after 16 such blocks those are added to a
       third level, and so to a fourth.
    2. The levels are added: first + second + third + fourth.
    3. Rows that are not whole: each whole vector of 8 elements is added to the sums 0 to 7.
    4. The sums 0 to 7, 8 to 15, 16 to 23, 24 to 31 are added to 8 sums, in this order.
    5. To zero are added: the elements after the last whole vector, then the 8 sums.

    With fewer than 8 features, a vector has one element. Source: the cascade sum of ATen
    (`SumKernel.cpp`). It is the order of the implementation, which PyTorch does not promise: tests
    compare it with the installed version. It is the same for each instruction set of x86, and for
    one row or many, up to `ORDER_FEATURES`. On CUDA, and in compiled models, PyTorch sums in other
    orders.
    """
    array = np.asarray(values, np.float32)
    shape, features = array.shape[:-1], array.shape[-1]
    array = array.reshape(-1, features)
    lanes = _LANES if features >= _LANES else 1
    width = lanes * _VECTORS
    in_rows = features // width * width
    in_vectors = features // lanes * lanes
    rows = array[:, :in_rows].reshape(len(array), -1, width)
    sums = _cascade(rows).reshape(len(array), _VECTORS, lanes)
    first = sums[:, 0]
    for start in range(in_rows, in_vectors, lanes):
        first = first + array[:, start : start + lanes]
    first = _in_turn(np.concatenate([first[:, None], sums[:, 1:]], axis=1))
    total = np.zeros((len(array), 1), np.float32)
    ends = np.concatenate([total, array[:, in_vectors:], first], axis=1)
    return _in_turn(ends[..., None])[:, 0].reshape(shape)


def _cascade(rows: F32) -> F32:
    """Steps 1 and 2 of the order: `[n, rows, width]` → `[n, width]`."""
    count, _, width = rows.shape
    levels = []
    for _ in range(_LEVELS - 1):
        blocks = rows.shape[1] // _BLOCK
        levels.append(_in_turn(rows[:, blocks * _BLOCK :]))
        rows = _in_turn(rows[:, : blocks * _BLOCK].reshape(count, blocks, _BLOCK, width))
    levels.append(_in_turn(rows))
    return _in_turn(np.stack(levels, axis=1))


def _in_turn(values: F32) -> F32:
    """Sum over the last dimension but one, from its first element to its last."""
    if not values.shape[-2]:
        return np.zeros((*values.shape[:-2], values.shape[-1]), np.float32)
    # Each element of `accumulate` needs the element before it, which fixes the order.
    totals: npt.NDArray[Any] = np.add.accumulate(values, axis=-2, dtype=np.float32)
    return totals[..., -1, :]
