"""Golden model: what every device must compute, in NumPy.

Integers are exact for every input. Floats are float32 and follow Hugging Face transformers
(`transformers.integrations.bitnet` and `BitNetRMSNorm`) operation by operation. So they agree bit
for bit wherever the order of a sum does not matter, except for the sign of some zeros. Each
function says where they differ.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.errors import InputError

__all__ = [
    "MAX_FEATURES",
    "absmax_quantize",
    "absmean_ternarize",
    "bitlinear",
    "matmul",
    "rescale",
    "rms_norm",
    "to_array",
    "to_bool",
]

F32 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]

_FLOOR = np.float32(1e-5)
"""Smallest mean or maximum that a scale is made of."""

_EXACT_FEATURES = 2**24 // 128
"""Features that one float32 product sums exactly, see `matmul`."""

MAX_FEATURES = (2**31 - 1) // 128
"""Most features whose sum fits in int32 for all codes: 128 · features <= 2^31 - 1."""


def to_array(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """What a caller gave, as a NumPy array.

    Tensors of torch are taken with any float dtype, from any of its devices, and without their
    gradient.

    Parameters
    ----------
    values : array, tensor, number, or nested lists of numbers
    name : what error messages call it

    Raises
    ------
    InputError : lists of different lengths, a masked array, or something that is no array at all
    """
    if type(values) is np.ndarray and values.dtype.kind != "O":
        return values
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(
            f"{name} must not be a masked array, its mask would be lost; fill it with .filled(0)"
        )
    source: Any = values
    try:
        if callable(getattr(source, "detach", None)):
            source = source.detach().cpu()
            if str(source.dtype) == "torch.bfloat16":  # NumPy has no such dtype
                source = source.float()
        array = np.asarray(source)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(f"{name} must be an array of numbers: {reason}") from None
    if array.dtype == object:
        raise InputError(f"{name} must be an array of numbers, not {type(values).__name__}")
    return array


def to_bool(value: object, name: str) -> bool:
    """A yes or no that a caller or a file gave.

    Raises
    ------
    InputError : neither a Python bool nor one NumPy bool
    """
    if isinstance(value, np.ndarray) and value.shape == () and value.dtype == np.bool_:
        return bool(value)
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False, not {value!r:.40}")
    return bool(value)


def _float32(values: npt.ArrayLike, name: str) -> F32:
    """Floats of any width as finite float32 `[rows, columns]`; `InputError` otherwise."""
    array = to_array(values, name)
    if array.dtype.kind != "f":
        raise InputError(f"{name} must be float32, not {array.dtype}; use .astype(np.float32)")
    if array.ndim != 2:
        raise InputError(f"{name} must have 2 dimensions, not shape {array.shape}; reshape it")
    if array.size == 0:
        raise InputError(f"{name} must not be empty, its shape is {array.shape}")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    finite = np.isfinite(array)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        what = "token" if name == "x" else "row"
        raise InputError(
            f"{name} must be finite float32, not {array[row, column]} "
            f"at {what} {row}, position {column}; remove NaN and inf first"
        )
    return array


def _int8(values: npt.NDArray[np.int8], name: str) -> I8:
    """An int8 array `[rows, columns]` with something in it; `InputError` otherwise."""
    array = to_array(values, name)
    if array.dtype != np.int8:
        raise InputError(f"{name} must be int8, not {array.dtype}; use .astype(np.int8)")
    if array.ndim != 2:
        raise InputError(f"{name} must have 2 dimensions, not shape {array.shape}; reshape it")
    if array.size == 0:
        raise InputError(f"{name} must not be empty, its shape is {array.shape}")
    return array


def absmean_ternarize(weights: npt.ArrayLike) -> tuple[I8, np.float32]:
    """Ternary weights and their scale by BitNet b1.58's absmean rule.

    Parameters
    ----------
    weights : float `[out_features, in_features]`

    Returns
    -------
    trits : int8 `[out_features, in_features]` in {-1, 0, 1}
    scale : float32 scalar that **multiplies**, max(mean|weights|, 1e-5)

    Raises `InputError` for NaN, inf, a wrong dtype or shape. Source: `WeightQuant`, which divides
    by 1/scale. The mean is summed in float64; a library that sums in float32 can differ in the
    scale's last bits, and then in trits that lie within as much of ±0.5.
    """
    array = _float32(weights, "weights")
    mean = np.float32(np.abs(array).mean(dtype=np.float64))
    scale = max(mean, _FLOOR)
    trits = np.clip(np.rint(array * (np.float32(1) / scale)), -1, 1)
    return trits.astype(np.int8), scale


def absmax_quantize(x: npt.ArrayLike) -> tuple[I8, F32]:
    """Activation codes and their scale, one scale a token: codes ≈ x · s.

    Parameters
    ----------
    x : float `[tokens, in_features]`

    Returns
    -------
    codes : int8 `[tokens, in_features]`; a zero token has zero codes
    s : float32 `[tokens, 1]`, 127 · (1 / max(absmax, 1e-5))

    Raises `InputError` for NaN or inf (with token and position), a wrong dtype or shape. Source:
    `BitLinear.activation_quant` in float32, bit for bit. PyTorch computes `127 / t` as
    `127 · (1 / t)`, two roundings: a single division would change a quarter of the scales. Codes
    are rounded half to even from the float32 product.
    """
    array = _float32(x, "x")
    absmax = np.maximum(np.abs(array).max(axis=1, keepdims=True), _FLOOR)
    s = np.float32(127) * (np.float32(1) / absmax)
    codes = np.clip(np.rint(array * s), -128, 127)
    return codes.astype(np.int8), s


def matmul(trits: I8, codes: I8) -> I32:
    """Exact product of ternary weights and activation codes.

    Parameters
    ----------
    trits : int8 `[out_features, in_features]` in {-1, 0, 1}
    codes : int8 `[tokens, in_features]`, all 256 values

    Returns
    -------
    acc : int32 `[tokens, out_features]`, acc[t, n] = Σ_k codes[t, k] · trits[n, k]

    Raises `InputError` for a wrong dtype, shape or trit. Exactness: each product is an integer of
    at most 128, so over 2^17 features every partial sum, in whatever order and fused or not, is an
    integer of at most 2^24 and thus a float32; longer rows are summed in int32 by such pieces.
    """
    trits, codes = _int8(trits, "trits"), _int8(codes, "codes")
    out_features, in_features = trits.shape
    if codes.shape[1] != in_features:
        raise InputError(
            f"codes must have {in_features} features as the trits have, not {codes.shape[1]}"
        )
    if in_features > MAX_FEATURES:
        raise InputError(f"in_features must be at most {MAX_FEATURES}, not {in_features}")
    if trits.min() < -1 or trits.max() > 1:
        worst = trits.min() if trits.min() < -1 else trits.max()
        raise InputError(f"trits must be -1, 0 or 1, not {worst}; ternarize the weights first")
    acc = np.zeros((codes.shape[0], out_features), np.int32)
    for start in range(0, in_features, _EXACT_FEATURES):
        piece = slice(start, start + _EXACT_FEATURES)
        product = codes[:, piece].astype(np.float32) @ trits[:, piece].astype(np.float32).T
        acc += product.astype(np.int32)
    return acc


def rescale(
    acc: I32,
    s: F32,
    scale: npt.ArrayLike,
    scale_divides: bool = False,
    bias: F32 | None = None,
) -> F32:
    """Layer outputs from exact sums: undo both scales, then add the bias.

    Parameters
    ----------
    acc : int32 `[tokens, out_features]`, as `matmul` returns it
    s : float32 `[tokens, 1]`, as `absmax_quantize` returns it
    scale : float32 scalar or `[out_features]`, weight scale
    scale_divides : which convention `scale` has
        True: acc / (s · scale), the packed `BitLinear` of transformers, bit for bit.
        False: (acc / s) · scale. Each operation rounds to float32.
    bias : float32 `[out_features]`, added last

    Returns
    -------
    y : float32 `[tokens, out_features]`; overflow gives inf, as in the library
    """
    factor = to_array(scale, "scale").astype(np.float32)
    divides = to_bool(scale_divides, "scale_divides")
    if factor.ndim and factor.shape != (acc.shape[1],):
        raise InputError(
            f"scale must be a scalar or have shape ({acc.shape[1]},), not {factor.shape}"
        )
    total = acc.astype(np.float32)
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        y: F32 = total / (s * factor) if divides else (total / s) * factor
        return y if bias is None else y + bias


def bitlinear(
    x: npt.ArrayLike,
    trits: I8,
    scale: npt.ArrayLike,
    scale_divides: bool = False,
    bias: F32 | None = None,
) -> F32:
    """One BitLinear layer: quantize, multiply exactly, rescale.

    `x` is float `[tokens, in_features]`, the result float32 `[tokens, out_features]`; the other
    arguments are those of `matmul` and `rescale`. With `scale_divides=True` it equals
    transformers' `BitLinear` in float32 bit for bit, up to 131,072 features, except for the sign of
    some zeros. The library multiplies floats: if the only product of a layer with one input is a
    negative number times zero, the kernel that torch chooses may return -0.0. Here a sum that is
    zero has no sign.
    """
    codes, s = absmax_quantize(x)
    return rescale(matmul(trits, codes), s, scale, scale_divides, bias)


def rms_norm(x: F32, weight: F32, eps: float) -> F32:
    """RMSNorm over the last dimension: weight · (x · (1 / √(mean(x²) + eps))).

    `x` is float32 `[..., features]`, `weight` float32 `[features]`, the result has x's shape.
    Source: `BitNetRMSNorm`, float32. The mean of the float32 squares is summed in float64 and
    rounded once; PyTorch sums in float32 in an order of its own, so results can differ from it
    in the last bits.
    """
    with np.errstate(over="ignore", under="ignore"):
        variance = np.square(x).mean(axis=-1, keepdims=True, dtype=np.float64)
        root = np.sqrt(variance.astype(np.float32) + np.float32(eps))
        normed: F32 = weight * (x * (np.float32(1) / root))
        return normed
