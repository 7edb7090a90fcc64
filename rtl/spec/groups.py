"""Golden model of sums by groups of inputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.numerics import matmul

__all__ = ["MOST_WEIGHT", "matmul_groups", "ternary_passes"]

I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]

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
