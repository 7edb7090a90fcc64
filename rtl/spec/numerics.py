"""Golden model: what every device must compute, in NumPy.

Integers are exact for every input. Floats follow Hugging Face transformers
(`transformers.integrations.bitnet` and `transformers.models.bitnet`) operation by operation, and
equal its results bit for bit: without `torch.compile`, on a CPU, up to 32,767 features. Each
function says how it rounds. RN(…) is one float32 operation, rounded to the nearest float32, of two
equally near ones to the even one.

With `bfloat16`, inputs are rounded to bfloat16, which changes no bfloat16 value, and so is the
result of each operation that the function names. The results are float32 arrays of bfloat16 values.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.rounding import round_to, sum_in_order, to_bfloat16

__all__ = [
    "MAX_FEATURES",
    "absmax_quantize",
    "absmean_ternarize",
    "add_residual",
    "bitlinear",
    "exact_product",
    "matmul",
    "relu2_times",
    "rescale",
    "rms_norm",
    "rotate",
    "sum_in_order",
    "sums_as_floats",
    "to_array",
    "to_bfloat16",
    "to_bool",
]

F32 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]

SCALE_FLOOR = np.float32(1e-5)
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
    scale = max(mean, SCALE_FLOOR)
    trits = np.clip(np.rint(array * (np.float32(1) / scale)), -1, 1)
    return trits.astype(np.int8), scale


def absmax_quantize(x: npt.ArrayLike, bfloat16: bool = False) -> tuple[I8, F32]:
    """Activation codes and their scale, one scale a token: codes ≈ x · s.

    Parameters
    ----------
    x : float `[tokens, in_features]`
    bfloat16 : round 1e-5, the reciprocal, s and each x · s to bfloat16

    Returns
    -------
    codes : int8 `[tokens, in_features]`, RN(x · s) rounded to an integer, half to even, and clamped
        to −128 … 127; a zero token has zero codes; only with `bfloat16` can a code be −128
    s : float32 `[tokens, 1]`, RN(127 · RN(1 / max(absmax, 1e-5)))

    Raises `InputError` for NaN or inf (with token and position), a wrong dtype or shape. Source:
    `BitLinear.activation_quant`, bit for bit. PyTorch computes `127 / t` as `127 · (1 / t)`, two
    roundings: a single division would change a quarter of the scales.
    """
    array = _float32(x, "x")
    if bfloat16:
        array = _float32(to_bfloat16(array), "x")  # what rounds to infinity is refused
    floor = round_to(SCALE_FLOOR, bfloat16)
    absmax = np.maximum(np.abs(array).max(axis=1, keepdims=True), floor)
    with np.errstate(under="ignore"):
        s = round_to(np.float32(127) * round_to(np.float32(1) / absmax, bfloat16), bfloat16)
        codes = np.clip(np.rint(round_to(array * s, bfloat16)), -128, 127)
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
    in_features = trits.shape[1]
    if codes.shape[1] != in_features:
        raise InputError(
            f"codes must have {in_features} features as the trits have, not {codes.shape[1]}"
        )
    if in_features > MAX_FEATURES:
        raise InputError(f"in_features must be at most {MAX_FEATURES}, not {in_features}")
    if trits.min() < -1 or trits.max() > 1:
        worst = trits.min() if trits.min() < -1 else trits.max()
        raise InputError(f"trits must be -1, 0 or 1, not {worst}; ternarize the weights first")
    return exact_product(trits, codes)


def exact_product(trits: I8 | F32, codes: I8) -> I32:
    """The sums of `matmul`, of arrays that were checked; the trits may be floats."""
    acc = _exact_piece(trits[:, :_EXACT_FEATURES], codes[:, :_EXACT_FEATURES])
    for start in range(_EXACT_FEATURES, codes.shape[1], _EXACT_FEATURES):
        piece = slice(start, start + _EXACT_FEATURES)
        acc += _exact_piece(trits[:, piece], codes[:, piece])
    return acc


def _exact_piece(trits: I8 | F32, codes: I8) -> I32:
    try:
        product = _float_product(codes, trits)
    except FloatingPointError:
        product = codes.astype(np.int32) @ trits.astype(np.int32).T
    sums: I32 = product.astype(np.int32)
    return sums


def _float_product(codes: I8, trits: I8 | F32) -> npt.NDArray[Any]:
    """codes · tritsᵀ in float32, which is fast.

    No product of such integers is invalid. But a library's kernel may compute with what lies beside
    its operands too, and then report it: `FloatingPointError`.
    """
    with np.errstate(invalid="raise"):
        product: F32 = codes.astype(np.float32) @ trits.astype(np.float32, copy=False).T
    return product


def sums_as_floats(acc: I32, trits: I8, codes: I8, bfloat16: bool = False) -> F32:
    """Exact sums as the floats that the library's product returns, the sign of zero included.

    Parameters
    ----------
    acc : int32 `[tokens, out_features]`, as `matmul` returns it for `trits` and `codes`
    trits, codes : the inputs of `matmul`
    bfloat16 : round to bfloat16

    Returns
    -------
    float32 `[tokens, out_features]`, RN(acc), which is exact up to 131,072 features. A sum that is
    zero is +0.0, with one exception: in a float32 layer of one feature, the library's product of
    two matrices is code times trit, which is −0.0 for a negative number times zero. With one token
    or one output, the library uses another kernel, which adds to +0.0. Source:
    `torch.nn.functional.linear` on a CPU.
    """
    sums = round_to(acc.astype(np.float32), bfloat16)
    if codes.shape[1] == 1 and min(acc.shape) > 1 and not bfloat16:
        sums = codes.astype(np.float32) * trits.astype(np.float32).T
    return sums


def rescale(
    acc: I32 | F32,
    s: F32,
    scale: npt.ArrayLike,
    scale_divides: bool = False,
    bias: F32 | None = None,
    bfloat16: bool = False,
) -> F32:
    """Layer outputs from exact sums: undo both scales, then add the bias.

    Parameters
    ----------
    acc : int32 `[tokens, out_features]`, as `matmul` returns it, or as `sums_as_floats` does
    s : float32 `[tokens, 1]`, as `absmax_quantize` returns it
    scale : float32 scalar or `[out_features]`, weight scale
    scale_divides : which convention `scale` has
        True: RN(acc / RN(s · scale)), the packed `BitLinear` of transformers, bit for bit.
        False: RN(RN(acc / s) · scale).
    bias : float32 `[out_features]`, added last: RN(… + bias)
    bfloat16 : round the sums, each product, quotient and sum to bfloat16

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
    factor = round_to(factor, bfloat16)
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        total = round_to(acc.astype(np.float32), bfloat16)
        if divides:
            y = total / round_to(s * factor, bfloat16)
        else:
            y = round_to(total / s, bfloat16) * factor
        y = round_to(y, bfloat16)
        return y if bias is None else round_to(y + round_to(bias, bfloat16), bfloat16)


def bitlinear(
    x: npt.ArrayLike,
    trits: I8,
    scale: npt.ArrayLike,
    scale_divides: bool = False,
    bias: F32 | None = None,
    bfloat16: bool = False,
) -> F32:
    """One BitLinear layer: quantize, multiply exactly, rescale.

    `x` is float `[tokens, in_features]`, the result float32 `[tokens, out_features]`; the other
    arguments are those of `matmul` and `rescale`. With `scale_divides=True` it equals transformers'
    `BitLinear` bit for bit, up to 131,072 features.
    """
    codes, s = absmax_quantize(x, bfloat16)
    sums = sums_as_floats(matmul(trits, codes), trits, codes, bfloat16)
    return rescale(sums, s, scale, scale_divides, bias, bfloat16)


def rms_norm(x: F32, weight: F32, eps: float, bfloat16: bool = False) -> F32:
    """RMSNorm over the last dimension: weight · (x · (1 / √(mean(x²) + eps))).

    Parameters
    ----------
    x : float32 `[..., features]`
    weight : float32 `[features]`
    eps : added to the mean, as a float32
    bfloat16 : round x · r and the result to bfloat16; the mean and r are float32 all the same

    Returns
    -------
    float32 of x's shape, RN(weight · RN(x · r)). r = RN(1 / RN(√v)), the two roundings of
    `torch.rsqrt` on a CPU. v = RN(RN(sum / features) + eps), where sum adds each RN(x²) in the
    order of `sum_in_order`. Source: `BitNetRMSNorm` and `LlamaRMSNorm`, bit for bit up to 32,767
    features.
    """
    x, weight = round_to(x, bfloat16), round_to(weight, bfloat16)
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        mean = sum_in_order(np.square(x)) / np.float32(x.shape[-1])
        r = np.float32(1) / np.sqrt(mean + np.float32(eps))
        return round_to(weight * round_to(x * r[..., None], bfloat16), bfloat16)


def relu2_times(gate: F32, up: F32, bfloat16: bool = False) -> F32:
    """The activation of a BitNet feed-forward: relu(gate)² · up.

    Parameters
    ----------
    gate, up : float32, of one shape
    bfloat16 : round the square and the product to bfloat16

    Returns
    -------
    float32 of the same shape, RN(RN(max(gate, 0)²) · up); where it is zero it has the sign of `up`.
    Source: `ReLUSquaredActivation`, and the product in `BitNetMLP`.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        square = round_to(np.square(np.maximum(round_to(gate, bfloat16), np.float32(0))), bfloat16)
        return round_to(square * round_to(up, bfloat16), bfloat16)


def add_residual(x: F32, y: F32, bfloat16: bool = False) -> F32:
    """The sum after a block of a model: RN(x + y).

    `x` and `y` are float32 of one shape, as the result is. With `bfloat16` the sum is rounded to
    bfloat16. A sum that is zero is −0.0 only if both terms are. Source: `BitNetDecoderLayer`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return round_to(round_to(x, bfloat16) + round_to(y, bfloat16), bfloat16)


def rotate(x: F32, cos: F32, sin: F32, bfloat16: bool = False) -> F32:
    """Rotary position embedding: each pair, of one number from each half of `x`, is turned.

    Parameters
    ----------
    x : float32 `[..., head_dim]`
    cos, sin : float32, of a shape that broadcasts to x's
    bfloat16 : round both products and the sum to bfloat16, and first `cos` and `sin`

    Returns
    -------
    float32 of x's shape, RN(RN(x · cos) + RN(turned · sin)); `turned` is the second half of `x`
    negated, then the first half. Source: `apply_rotary_pos_emb`, bit for bit.
    """
    x, cos, sin = (round_to(values, bfloat16) for values in (x, cos, sin))
    first, second = np.split(x, 2, axis=-1)
    turned = np.concatenate([-second, first], axis=-1)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        products = round_to(x * cos, bfloat16), round_to(turned * sin, bfloat16)
        return round_to(products[0] + products[1], bfloat16)
