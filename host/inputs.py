"""Checks of the arrays that callers give to a device."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.numerics import to_array
from tritloom.rtl.spec.packing import act_limits

__all__ = [
    "LEAST_EPS",
    "checked_codes",
    "checked_floats",
    "checked_norm",
    "checked_scales",
    "require_linear",
]

INT8 = np.dtype(np.int8)
LEAST_EPS = 2.0**-100
"""Least eps of a norm. Beside it a mean of squares below 2^-126, which a vector unit takes for
zero, changes nothing."""


def checked_codes(
    config: AcceleratorConfig, codes: ArrayLike, in_features: int
) -> NDArray[np.int8]:
    """Codes as int8 `[tokens, in_features]`.

    Raises
    ------
    InputError : another dtype or shape, no token, or a code that `act_bits` bits do not hold
    """
    array = to_array(codes, "codes")
    if array.dtype != INT8:
        raise InputError(f"codes must be int8, not {array.dtype}; quantize the activations first")
    if array.ndim != 2:
        raise InputError(
            f"codes must have shape [tokens, in_features], not {array.shape}; reshape them"
        )
    if array.shape[0] == 0:
        raise InputError(f"codes must not be empty, their shape is {array.shape}")
    if array.shape[1] != in_features:
        raise InputError(f"codes must have {in_features} features, not {array.shape[1]}")
    if config.act_bits == 8:  # every int8 is a code
        return array
    least, most = act_limits(config)
    if array.min() < least or array.max() > most:
        token, place = np.argwhere((array < least) | (array > most))[0]
        raise InputError(
            f"codes must be {least} to {most} on a device of {config.act_bits}-bit activations, "
            f"not {array[token, place]} at [{token}, {place}]; "
            f"quantize to {config.act_bits} bits"
        )
    return array


def checked_scales(scales: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float32]:
    """A copy of scales of codes as float32 of a shape, `[tokens, groups]`.

    Raises
    ------
    InputError : another dtype or shape, or a scale that is not finite
    """
    array = to_array(scales, "scales")
    if array.dtype != np.float32:
        raise InputError(f"scales must be float32, not {array.dtype}; use .astype(np.float32)")
    if array.shape != shape:
        raise InputError(
            f"scales must have shape {shape}, not {array.shape}; one for each token and group"
        )
    if not np.isfinite(array).all():
        token, group = np.argwhere(~np.isfinite(array))[0]
        raise InputError(
            f"scales must be finite, not {array[token, group]} at [{token}, {group}]; "
            "check their source"
        )
    return np.array(array, np.float32, order="C")


def checked_norm(
    weight: ArrayLike, eps: float, in_features: int
) -> tuple[NDArray[np.float32], float]:
    """Weight and eps of a norm, the weight as float32 `[in_features]`.

    Raises
    ------
    InputError : another shape or dtype, a weight that is not finite, or an eps below `LEAST_EPS`
    """
    array = to_array(weight, "norm")
    if array.shape != (in_features,):
        raise InputError(f"norm must have shape ({in_features},), not {array.shape}")
    if array.dtype.kind not in "fiu":
        raise InputError(f"norm must have real numbers, not {array.dtype}")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError("norm must be finite float32, not NaN or inf")
    if not LEAST_EPS <= eps < np.inf:
        raise InputError(f"eps must be at least {LEAST_EPS:.2g} and finite, not {eps}")
    return array, float(eps)


def checked_floats(x: ArrayLike, in_features: int) -> NDArray[np.float32]:
    """The inputs of a norm as float32 `[tokens, in_features]`; codes and outputs check the rest.

    Raises
    ------
    InputError : another shape or dtype
    """
    array = to_array(x, "x")
    if array.ndim != 2 or array.shape[1] != in_features:
        raise InputError(f"x must have shape [tokens, {in_features}], not {array.shape}")
    if array.dtype.kind != "f":
        raise InputError(f"x must be float32, not {array.dtype}; use .astype(np.float32)")
    return array.astype(np.float32)


def require_linear(config: AcceleratorConfig) -> None:
    """`InputError` for a device that cannot take the codes of BitNet's 8-bit quantizer."""
    if config.act_bits != 8:
        raise InputError(
            f"a layer of floats needs 8-bit activations, the device has {config.act_bits}-bit "
            "ones; use matmul with codes of your own quantizer or a device with act_bits 8"
        )
