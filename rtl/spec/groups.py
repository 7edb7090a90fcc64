"""Golden model of sums by groups of inputs, and of the units that scale them.

Two units add the scaled sums of a row (`tritloom.rtl.lib.group_scale`):

* `GroupFixed`: total = Σ sum · scale, exactly; rounded once, at the end, to float32. For
  activations that have one scale a token.
* `GroupFloat`: total = RN(total + RN(sum · RN(act · scale))), group after group, every operation
  rounded to float32: the order of ggml's plain C code. For activations that have a scale a block.
  Numbers below the smallest normal one are zero, as in `tritloom.rtl.spec.float_units`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.float_units import add, from_int, multiply
from tritloom.rtl.spec.numerics import matmul

__all__ = [
    "HALF_PLACES",
    "MOST_WEIGHT",
    "fixed_to_float",
    "fixed_totals",
    "float_totals",
    "matmul_groups",
    "ternary_passes",
]

I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]

I64 = npt.NDArray[np.int64]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]

HALF_PLACES = 24
"""Binary places of the smallest number of half precision: 2^-24."""
MOST_WEIGHT = 2
"""Greatest weight of the formats with groups; the least one is -1."""


def ternary_passes(weights: I8) -> tuple[I8, ...]:
    """Matrices of trits whose sum is `weights`, int8 in {-1, 0, 1, 2}: one, or two if a 2 is there.

    The first one has min(w, 1), the second one a 1 where w = 2.
    """
    twos = weights == MOST_WEIGHT
    if not twos.any():
        return (weights,)
    return np.minimum(weights, np.int8(1)), twos.astype(np.int8)


def matmul_groups(weights: I8, codes: I8, group: int) -> I32:
    """Exact product of weights and activation codes, with a sum for each group of inputs.

    Parameters
    ----------
    weights : int8 `[out_features, in_features]` in {-1, 0, 1, 2}
    codes : int8 `[tokens, in_features]`, all 256 values
    group : inputs of a group; divides in_features. 0: the whole row is one group

    Returns
    -------
    sums : int32 `[tokens, out_features, groups]`,
        sums[t, n, q] = Σ codes[t, k] · weights[n, k] over the `group` inputs k from q · `group`

    Raises
    ------
    InputError : a wrong dtype, shape or weight, or a group that does not divide the inputs

    Exactness: as `tritloom.rtl.spec.numerics.matmul`, of which this is one call a group and pass.
    """
    in_features = weights.shape[1]
    size = group or in_features
    if in_features % size:
        raise InputError(f"group must divide the {in_features} inputs of the layer, not be {group}")
    parts = [slice(start, start + size) for start in range(0, in_features, size)]
    passes = ternary_passes(weights)
    return np.stack(
        [
            np.add.reduce([matmul(trits[:, part], codes[:, part]) for trits in passes])
            for part in parts
        ],
        axis=-1,
    )


def fixed_totals(sums: npt.NDArray[np.integer], scales: U16) -> tuple[I64, U32]:
    """The running totals of `GroupFixed`: after each group, along the last axis.

    Parameters
    ----------
    sums : integers of at most 17 bits, `[…, groups]`
    scales : patterns of half precision, `[…, groups]`, all finite

    Returns
    -------
    high, low : the totals in units of 2^-24 are high · 2^32 + low
    """
    pattern = scales.astype(np.int64)
    exponent = pattern >> 10 & 31
    size = (pattern & 1023) | np.where(exponent > 0, 1024, 0)
    term = sums.astype(np.int64) * np.where(pattern >> 15, -size, size)
    term = term << np.maximum(exponent - 1, 0)  # at most 57 bits
    low = np.cumsum(term & 0xFFFFFFFF, axis=-1)
    high = np.cumsum(term >> 32, axis=-1)
    return high + (low >> 32), (low & 0xFFFFFFFF).astype(np.uint32)


def fixed_to_float(high: I64, low: U32) -> U32:
    """RN((high · 2^32 + low) · 2^-24) as patterns of float32; zero is +0.0."""
    negative = high < 0
    rest = low.astype(np.int64)
    # The magnitude: −(high · 2^32 + low) = (~high · 2^32 + ~low) + 1.
    low_size = np.where(negative, (1 << 32) - rest, rest)
    high_size = np.where(negative, ~high + (low_size >> 32), high)
    low_size &= 0xFFFFFFFF
    # Up to 2^40 the number is exact in float64. Above, the lowest bit stands for all lost ones:
    # more than 24 + 2 bits remain above it, so the rounding to float32 is right.
    exact = (high_size << 32 | low_size).astype(np.float64)
    odd = (low_size & 0x3FFF != 0).astype(np.int64)
    cut = (high_size << 18 | low_size >> 14 | odd).astype(np.float64) * 2.0**14
    size = np.where(high_size < 1 << 8, exact, cut) * 2.0**-HALF_PLACES
    return np.where(negative, -size, size).astype(np.float32).view(np.uint32)


def float_totals(sums: npt.NDArray[np.integer], scales: U16, acts: U32) -> U32:
    """The running totals of `GroupFloat`: after each group, along the last axis.

    Parameters
    ----------
    sums : integers of at most 17 bits, `[…, groups]`
    scales : patterns of half precision, `[…, groups]`: scales of the weights
    acts : patterns of float32, `[…, groups]`: scales of the activations

    Returns
    -------
    Patterns of float32, `[…, groups]`; not finite from the first operand on that is not.
    """
    halves = np.ascontiguousarray(scales).view(np.float16).astype(np.float32).view(np.uint32)
    terms = multiply(multiply(acts, halves), from_int(sums))
    totals = np.empty_like(terms)
    total = np.zeros(terms.shape[:-1], np.uint32)
    for group in range(terms.shape[-1]):
        total = totals[..., group] = add(terms[..., group], total)
    return totals
