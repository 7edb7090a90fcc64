"""The order in which weights, activations and results lie in a device's memories and packets.

A *code* holds `trits_per_code` trits. A *weight word* holds `rows × lanes` trits: the codes of row
0 first, each later code in the next higher bits. The inputs of one code are
`stride = Engine.code_stride` apart. With `runs = lanes / (trits_per_code · stride)`, code
`turn · runs + run` of a row has the inputs `run · trits_per_code · stride + k · stride + turn`,
where `k` numbers the trits of the code.

Weight words are tile-major: for each tile of `lanes` inputs there is one word for each row group
of `rows` outputs. A layer is therefore read strictly forward. Inputs and outputs beyond the layer's
are trit 0, or +1 in the binary alphabet; activations beyond the layer's are 0. In a byte image
every word takes `word_bytes` bytes, little end first.

If the inputs are in groups, a tile ends where a group ends: each group is filled up to whole tiles
in the same way.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS, Codes, Encoding, Trits, encodings
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import engines

__all__ = [
    "act_limits",
    "check_group",
    "check_trits",
    "pack_activations",
    "pack_results",
    "pack_weights",
    "pad_groups",
    "unpack_results",
    "unpack_weights",
]

_INT32 = np.dtype("<i4")
_SHIFTS = tuple(np.array(8 * spare, np.int32) for spare in range(4))
"""By how far the bytes of a result are moved; NumPy is slower with a number of Python."""


_PIECE_BYTES = 1 << 18
"""Trits that are packed at a time."""
EncodeBytes = Callable[[Trits], NDArray[np.uint8]]


def _code_shape(config: AcceleratorConfig) -> tuple[int, int, int]:
    """A tile's inputs as an array [run, trit of the code, turn]; see this module's docstring."""
    trits_per_code = encodings[config.encoding].trits_per_code
    stride = engines[config.engine].code_stride(config)
    return config.lanes // (trits_per_code * stride), trits_per_code, stride


def _relative(codes: Codes, encoding: Encoding) -> Codes:
    """Codes uint32 [rows, codes] whose sign bit says whether it differs from code i & (i − 1)'s."""
    later = np.arange(1, codes.shape[1])
    relative = codes.copy()
    relative[:, later] ^= (
        codes[:, later & (later - 1)] >> encoding.index_bits << encoding.index_bits
    )
    return relative


def _absolute(codes: Codes, encoding: Encoding) -> Codes:
    """Inverse of `_relative`."""
    absolute = codes.copy()
    for n in range(1, codes.shape[1]):
        absolute[:, n] ^= absolute[:, n & (n - 1)] >> encoding.index_bits << encoding.index_bits
    return absolute


def check_trits(config: AcceleratorConfig, trits: Trits) -> None:
    """`InputError` for trits, int8 [out, in] in {-1, 0, 1}, that the alphabet does not have."""
    if 0 not in ALPHABETS[config.alphabet] and not trits.all():
        row, column = np.argwhere(trits == 0)[0]
        raise InputError(
            f"trits of a {config.alphabet} layer must be -1 or 1, not 0 at [{row}, {column}]; "
            "use a device of the ternary alphabet"
        )


def check_group(config: AcceleratorConfig, in_features: int, group: int) -> None:
    """`InputError` for groups of inputs that the layers of a device cannot have; 0 is no group."""
    if not group:
        return
    if not config.max_group_sums:
        raise InputError(
            f"group must be 0 on a device without groups of inputs, not {group}; use one whose "
            "configuration has max_group_sums"
        )
    if 2 * group <= config.lanes:
        raise InputError(
            f"group must be more than half of the {config.lanes} lanes, not {group}: a tile has "
            "one sum, and the rest of it would be padding; use a device with fewer lanes"
        )
    most = config.max_tiles * config.lanes // (group + -group % config.lanes) * group
    if group > most:
        raise InputError(
            f"group must be at most {config.max_tiles * config.lanes} inputs, not {group}: this "
            "device has no room for more activations"
        )
    if in_features % group:
        raise InputError(f"group must divide the {in_features} inputs of the layer, not be {group}")


def pad_groups(
    config: AcceleratorConfig, values: NDArray[np.int8], group: int, padding: int = 0
) -> NDArray[np.int8]:
    """Each group of inputs filled up to whole tiles: int8 […, in] → [..., tiles × lanes].

    With `group` 0 the array is as it was.
    """
    spare = -group % config.lanes
    if not spare:
        return values
    groups = values.reshape(*values.shape[:-1], -1, group)
    padded = np.full((*groups.shape[:-1], group + spare), padding, np.int8)
    padded[..., :group] = groups
    return padded.reshape(*values.shape[:-1], -1)


def pack_weights(config: AcceleratorConfig, trits: Trits, group: int = 0) -> bytes:
    """Image of a layer: int8 [out, in] in the alphabet → `words × word_bytes` bytes.

    `group` inputs have a sum of their own; 0: the whole row has one.
    """
    check_trits(config, trits)
    check_group(config, trits.shape[1], group)
    encoding = encodings[config.encoding]
    trits = pad_groups(config, trits, group, 0 if 0 in ALPHABETS[encoding.alphabet] else 1)
    shape = LayerShape.of(config, *trits.shape)
    if encoding.encode_bytes is not None:
        return _pack_bytes(config, trits, encoding.encode_bytes)
    padding = 0 if 0 in ALPHABETS[encoding.alphabet] else 1
    padded = np.full((shape.row_groups * config.rows, shape.tiles * config.lanes), padding, np.int8)
    padded[: trits.shape[0], : trits.shape[1]] = trits
    grouped = padded.reshape(shape.row_groups, config.rows, shape.tiles, *_code_shape(config))
    # Axes: tile, row group, row, then turn and run (the codes), then the trits of a code.
    codes = encoding.encode(grouped.transpose(2, 0, 1, 5, 3, 4))
    codes = codes.reshape(shape.words * config.rows, -1)
    if encoding.signed:
        codes = _relative(codes, encoding)
    codes = codes.reshape(shape.words, -1)
    bits = (codes[..., None] >> np.arange(encoding.code_bits, dtype=np.uint32)) & 1
    image = np.zeros((shape.words, config.word_bytes * 8), np.uint8)
    image[:, : config.word_bits] = bits.reshape(shape.words, config.word_bits)
    return np.packbits(image, axis=1, bitorder="little").tobytes()


def _pack_bytes(config: AcceleratorConfig, trits: Trits, encode: EncodeBytes) -> bytes:
    """`pack_weights` for ternary codes of a byte: a few rows at a time, which stay in the cache."""
    shape = LayerShape.of(config, *trits.shape)
    runs, _, stride = order = _code_shape(config)
    image = np.empty((shape.tiles, shape.row_groups, config.rows, stride, runs), np.uint8)
    columns = shape.tiles * config.lanes
    step = max(1, _PIECE_BYTES // (config.rows * columns))
    for start in range(0, shape.row_groups, step):
        end = min(start + step, shape.row_groups)
        rows = np.asarray(trits[start * config.rows : end * config.rows], np.int8)
        if rows.shape != ((end - start) * config.rows, columns):
            padded = np.zeros(((end - start) * config.rows, columns), np.int8)
            padded[: rows.shape[0], : rows.shape[1]] = rows
            rows = padded
        rows = np.ascontiguousarray(rows)
        codes = encode(rows.reshape(end - start, config.rows, shape.tiles, *order))
        if stride == 1:  # then the codes of a row in a word are neighbours, and move as one
            whole = np.dtype(f"V{runs}")
            source = np.ascontiguousarray(codes).reshape(end - start, config.rows, -1).view(whole)
            target = image.reshape(shape.tiles, shape.row_groups, config.rows, -1).view(whole)
            target[:, start:end, :, 0] = source.transpose(2, 0, 1)
        else:
            image[:, start:end] = codes.transpose(2, 0, 1, 4, 3)
    return image.tobytes()


def unpack_weights(
    config: AcceleratorConfig, image: bytes, out_features: int, in_features: int, group: int = 0
) -> Trits:
    """Inverse of `pack_weights`: int8 [out, in]; `InputError` for a wrong size or code."""
    check_group(config, in_features, group)
    shape = LayerShape.of(config, out_features, in_features, group)
    if len(image) != shape.words * config.word_bytes:
        raise InputError(
            f"image must have {shape.words * config.word_bytes} bytes for "
            f"{out_features} × {in_features}, not {len(image)}"
        )
    encoding = encodings[config.encoding]
    raw = np.frombuffer(image, np.uint8).reshape(shape.words, config.word_bytes)
    bits = np.unpackbits(raw, axis=1, bitorder="little", count=config.word_bits)
    weights = 1 << np.arange(encoding.code_bits, dtype=np.uint32)
    codes = (bits.reshape(shape.words, -1, encoding.code_bits) * weights).sum(-1, dtype=np.uint32)
    codes = codes.reshape(shape.words * config.rows, -1)
    if encoding.signed:
        codes = _absolute(codes, encoding)
    runs, trits_per_code, stride = _code_shape(config)
    trits = encoding.decode(codes).reshape(
        shape.tiles, shape.row_groups, config.rows, stride, runs, trits_per_code
    )
    ordered = trits.transpose(1, 2, 0, 4, 5, 3).reshape(shape.row_groups * config.rows, -1)
    if group:
        ordered = ordered.reshape(len(ordered), shape.groups, -1)[..., :group]
        ordered = ordered.reshape(len(ordered), -1)
    return np.ascontiguousarray(ordered[:out_features, :in_features])


def pack_activations(config: AcceleratorConfig, codes: NDArray[np.int8], group: int = 0) -> bytes:
    """One token's activations, int8 [in] → one byte each, zeros up to whole tiles."""
    codes = pad_groups(config, np.asarray(codes, np.int8), group)
    tiles = -(-codes.shape[0] // config.lanes)
    padding = bytes(tiles * config.lanes - codes.shape[0])
    return np.asarray(codes, np.int8).tobytes() + padding


def act_limits(config: AcceleratorConfig) -> tuple[int, int]:
    """The least and the greatest activation."""
    limit: int = 1 << (config.act_bits - 1)
    return -limit, limit - 1


def unpack_results(config: AcceleratorConfig, payload: bytes) -> NDArray[np.int32]:
    """Results as the device sends them, `acc_bytes` each, little end first → int32 [n]."""
    size = config.acc_bytes
    spare = 4 - size
    # Each number is read with the `spare` bytes before it, which the shift removes.
    words = np.ndarray((len(payload) // size,), _INT32, bytes(spare) + payload, 0, (size,))
    return words >> _SHIFTS[spare]


def pack_results(config: AcceleratorConfig, sums: NDArray[np.int32]) -> bytes:
    """Inverse of `unpack_results`."""
    raw = np.ascontiguousarray(sums, "<i4").view(np.uint8).reshape(-1, 4)
    return raw[:, : config.acc_bytes].tobytes()
