"""A ternary layer: weights, scale and bias, checked once and then immutable."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.numerics import to_array, to_bool

__all__ = ["TernaryLayer", "stack"]

F32 = npt.NDArray[np.float32]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class TernaryLayer:
    """Weights of one linear layer. Make it with `from_trits`, which checks and copies.

    Members
    -------
    trits : int8 `[out_features, in_features]` in {-1, 0, 1}, read-only
    scale : float32 `()` or `[out_features]`, weight scale, read-only
    scale_divides : False: outputs are (acc / s) · scale. True: acc / (s · scale), as transformers'
        packed `BitLinear`. The two round differently, so the convention stays with the scale.
    bias : float32 `[out_features]` or None, added last
    """

    trits: npt.NDArray[np.int8]
    scale: F32
    scale_divides: bool
    bias: F32 | None

    @property
    def out_features(self) -> int:
        """Rows of the weight matrix."""
        return int(self.trits.shape[0])

    @property
    def in_features(self) -> int:
        """Columns of the weight matrix."""
        return int(self.trits.shape[1])

    @classmethod
    def from_trits(
        cls,
        trits: npt.ArrayLike,
        scale: npt.ArrayLike,
        *,
        scale_divides: bool = False,
        bias: npt.ArrayLike | None = None,
    ) -> "TernaryLayer":
        """Check the arrays and copy them into a layer.

        `trits` is int8 `[out_features, in_features]` in {-1, 0, 1}; `scale` a number or
        `[out_features]`; `bias` None or `[out_features]`. Raises `InputError` for anything else:
        another dtype or shape, no elements, another value (named with its place), NaN or inf, a
        scale of zero that would divide.
        """
        matrix = to_array(trits, "trits")
        divides = to_bool(scale_divides, "scale_divides")
        if matrix.dtype != np.int8:
            raise InputError(f"trits must be int8, not {matrix.dtype}; use .astype(np.int8)")
        if matrix.ndim != 2:
            raise InputError(
                f"trits must have shape [out_features, in_features], not {matrix.shape}; reshape it"
            )
        if matrix.size == 0:
            raise InputError(f"trits must not be empty, the shape is {matrix.shape}")
        if matrix.min() < -1 or matrix.max() > 1:
            row, column = np.argwhere((matrix < -1) | (matrix > 1))[0]
            raise InputError(
                f"trits must be -1, 0 or 1, not {matrix[row, column]} at [{row}, {column}]; "
                "ternarize the weights first"
            )
        out_features = matrix.shape[0]
        factor = _vector(scale, "scale", out_features, scalar=True)
        if divides and not factor.all():
            row = int(np.argwhere(np.atleast_1d(factor) == 0)[0, 0])
            raise InputError(f"scale must not be 0 where it divides, row {row}; check its meaning")
        offset = None if bias is None else _vector(bias, "bias", out_features, scalar=False)
        return cls(_frozen(matrix), factor, divides, offset)


def stack(layers: Sequence[TernaryLayer]) -> TernaryLayer:
    """Fuse layers that read the same input into one, rows in the given order (q/k/v, gate/up).

    The result has `[sum of out_features, in_features]` trits and a scale a row; its outputs are
    the layers' outputs side by side, bit for bit. Raises `InputError` when in_features or the
    scale's convention differ, or there is no layer.
    """
    if not layers:
        raise InputError("stack needs at least one layer, not an empty list")
    for index, layer in enumerate(layers):
        if not isinstance(layer, TernaryLayer):
            raise InputError(
                f"stack takes TernaryLayers, not {type(layer).__name__} (layer {index})"
            )
    first = layers[0]
    for index, layer in enumerate(layers):
        if layer.in_features != first.in_features:
            raise InputError(
                f"stacked layers must have the same in_features, not {first.in_features} "
                f"and {layer.in_features} (layer {index})"
            )
        if layer.scale_divides != first.scale_divides:
            raise InputError(
                f"stacked layers must all multiply or all divide by the scale, layer {index} "
                "differs from layer 0; stack them separately"
            )
    bias = None
    if any(layer.bias is not None for layer in layers):
        # Adding -0.0 changes no float, adding 0.0 would turn -0.0 into 0.0.
        bias = np.concatenate(
            [
                np.full(layer.out_features, -0.0, np.float32) if layer.bias is None else layer.bias
                for layer in layers
            ]
        )
    return TernaryLayer.from_trits(
        np.concatenate([layer.trits for layer in layers]),
        np.concatenate([np.broadcast_to(layer.scale, layer.out_features) for layer in layers]),
        scale_divides=first.scale_divides,
        bias=bias,
    )


def _frozen(array: npt.NDArray[T]) -> npt.NDArray[T]:
    copy = array.copy(order="C")
    copy.flags.writeable = False
    return copy


def _vector(values: npt.ArrayLike, name: str, out_features: int, *, scalar: bool) -> F32:
    """Finite float32 of shape `[out_features]`, or `()` where a scalar may stand for all rows."""
    array = to_array(values, name)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} must be float32, not {array.dtype}; use .astype(np.float32)")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if scalar and array.size == 1:
        array = array.reshape(())
    if array.shape not in ([(), (out_features,)] if scalar else [(out_features,)]):
        allowed = f"() or ({out_features},)" if scalar else f"({out_features},)"
        raise InputError(f"{name} must have shape {allowed}, not {array.shape}; one value a row")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(np.atleast_1d(array)))[0, 0])
        value = np.atleast_1d(array)[row]
        raise InputError(
            f"{name} must be finite float32, not {value} in row {row}; check its source"
        )
    return _frozen(array)
