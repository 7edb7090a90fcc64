"""A ternary layer: weights, scale and bias, which are checked once and then never change."""

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
    scale_divides : if False, outputs are (acc / s) · scale; if True, acc / (s · scale), as in the
        packed `BitLinear` of transformers. The two round differently, so a layer remembers which
        convention its scale has.
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

        Parameters
        ----------
        trits : int8 `[out_features, in_features]` in {-1, 0, 1}
        scale : a number, or one for each row, `[out_features]`
        scale_divides : convention of the scale, see above
        bias : one number for each row, `[out_features]`, or None

        Raises
        ------
        InputError : another dtype or shape, no elements, another value (the message names its
            place), NaN or inf, a masked array, or a scale of zero that divides
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
    """Fuse layers that read the same input into one layer, such as q/k/v or gate/up.

    Parameters
    ----------
    layers : their rows follow each other in this order

    Returns
    -------
    layer : one scale for each row; its outputs are those of the layers side by side, bit for bit

    Raises
    ------
    InputError : there is no layer, or in_features or the conventions of the scales differ
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
        # To add -0.0 changes no float. To add 0.0 would turn -0.0 into 0.0.
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
    """Finite float32 of shape `[out_features]`; with `scalar` also `()`, one value for all rows."""
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
