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

If the device has scales, the codes of a word are followed by its rows' scales: half precision, 16
bits each, row 0 first, from the next whole byte on. The words of a group's last tile have the
group's scales, those of other tiles 0, which the device does not read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

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
    "half_scales",
    "pack_activations",
    "pack_into",
    "pack_results",
    "pack_scaled",
    "pack_weights",
    "pad_groups",
    "scale_tiles",
    "unpack_floats",
    "unpack_results",
    "unpack_scales",
    "unpack_weights",
]

_INT32 = np.dtype("<i4")
_SHIFTS = tuple(np.array(8 * spare, np.int32) for spare in range(4))
"""By how far the bytes of a result are moved; NumPy is slower with a number of Python."""
_FIRST_BYTES = tuple(np.dtype((np.void, size)) for size in range(5))
"""Elements that are the first bytes of a number."""


_PIECE_TRITS = 1 << 18
"""Trits that are packed at a time: all that is made of them stays in a core's cache."""
_MOST_DIGITS = 9
"""Trits of a code whose number fits in int16: (3 ** 9 - 1) / 2 is 9841."""
_MOST_INT8_DIGITS = 5
"""Trits whose number fits in int8: (3 ** 5 - 1) / 2 is 121."""
_MOST_FAST_BITS = 16
_ONE = int(np.float16(1).view(np.uint16))
Array = NDArray[Any]


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
    if not config.has_groups:
        raise InputError(
            f"group must be 0 on a device without groups of inputs, not {group}; use one whose "
            "configuration has max_group_sums or scale"
        )
    if 2 * group <= config.lanes:
        raise InputError(
            f"group must be more than half of the {config.lanes} lanes, not {group}: a tile has "
            "one sum, and the rest of it would be padding; use a device with fewer lanes"
        )
    if -(-group // config.lanes) > config.most_group_tiles:
        limits = "no room for more activations" if config.scale is None else "sums of fewer bits"
        raise InputError(
            f"group must be at most {config.most_group_tiles * config.lanes} inputs, not {group}: "
            f"this device has {limits}"
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


def half_scales(scales: Any, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Scales of a layer as patterns of half precision, uint16 [out, groups].

    Parameters
    ----------
    scales : float16 of that shape, or floats of another type that half precision holds exactly
    shape : outputs and groups of the layer

    Raises
    ------
    InputError : another dtype or shape, or a scale that is not finite or not of half precision;
        the message names its place
    """
    array = np.asarray(scales)
    if array.dtype.kind != "f":
        raise InputError(f"scales must be float16, not {array.dtype}; use .astype(np.float16)")
    if array.shape != shape:
        raise InputError(f"scales must have shape {shape}, not {array.shape}; one for each group")
    with np.errstate(over="ignore"):
        halves = array.astype(np.float16)
    bad = ~np.isfinite(array) | (halves != array)
    if bad.any():
        row, number = np.argwhere(bad)[0]
        what = "of half precision" if np.isfinite(array[row, number]) else "finite"
        raise InputError(
            f"scales must be {what}, not {array[row, number]} at [{row}, {number}]; "
            "round them with .astype(np.float16), or check their source"
        )
    return halves.view(np.uint16)


def pack_weights(
    config: AcceleratorConfig,
    trits: Trits,
    group: int = 0,
    scales: NDArray[np.uint16] | None = None,
) -> bytes:
    """Image of a layer: int8 [out, in] in the alphabet → `words × word_bytes` bytes.

    Parameters
    ----------
    group : inputs that have a sum of their own; 0: the whole row has one
    scales : of a device with scales, as `half_scales` gives them; None: all are 1
    """
    check_trits(config, trits)
    check_group(config, trits.shape[1], group)
    trits = pad_groups(config, trits, group, 0 if 0 in ALPHABETS[config.alphabet] else 1)
    shape = LayerShape.of(config, *trits.shape)
    if scales is not None:
        return pack_scaled(config, trits, -(-group // config.lanes) or shape.tiles, scales)
    image = np.empty(shape.words * config.word_bytes, np.uint8)
    pack_into(config, trits, image)
    return image.tobytes()


def pack_scaled(
    config: AcceleratorConfig,
    trits: Trits,
    group_tiles: int,
    scales: NDArray[np.uint16],
) -> bytes:
    """Image of a layer with a scale for each row and `group_tiles` tiles, uint16 [out, groups]."""
    core = config.without_scale
    shape = LayerShape.of(config, *trits.shape)
    words = np.empty((shape.tiles, shape.row_groups, config.word_bytes), np.uint8)
    codes = np.empty(shape.words * core.word_bytes, np.uint8)
    pack_into(core, trits, codes)
    words[:, :, : core.word_bytes] = codes.reshape(shape.tiles, shape.row_groups, -1)
    # Where the layer's groups are longer than the device's, their scale is in each of these.
    of_tiles = np.zeros((shape.row_groups * config.rows, shape.tiles), np.uint16)
    for last in scale_tiles(config, shape.tiles, group_tiles):
        of_tiles[: len(scales), last] = scales[:, last // group_tiles]
    grouped = of_tiles.reshape(shape.row_groups, config.rows, shape.tiles).transpose(2, 0, 1)
    patterns = np.ascontiguousarray(grouped, "<u2").view(np.uint8)
    words[:, :, core.word_bytes :] = patterns.reshape(shape.tiles, shape.row_groups, -1)
    return words.tobytes()


def scale_tiles(config: AcceleratorConfig, tiles: int, group_tiles: int) -> list[int]:
    """The tiles whose words have scales: the last one of each group.

    A group of more than `most_group_tiles` is several groups for the device.
    """
    step = min(group_tiles, config.most_group_tiles)
    return [min(start + step, tiles) - 1 for start in range(0, tiles, step)]


def pack_into(
    config: AcceleratorConfig,
    trits: Trits,
    image: NDArray[np.uint8],
    progress: Callable[[int], object] = lambda rows: None,
) -> None:
    """Write the image of a layer into an array, such as a file that is mapped to memory.

    Parameters
    ----------
    trits : int8 [out, in] in the alphabet; it may be mapped too, some rows at a time are read
    image : uint8 [words × word_bytes]
    progress : receives the number of rows that are packed so far

    Raises
    ------
    InputError : a trit that the alphabet does not have, or an image of another size
    """
    check_trits(config, trits)
    shape = LayerShape.of(config, *trits.shape)
    if image.shape != (shape.words * config.word_bytes,):
        raise InputError(
            f"image must have {shape.words * config.word_bytes} bytes for "
            f"{trits.shape[0]} × {trits.shape[1]}, not {image.size}"
        )
    if config.scale is not None:
        ones = np.full((trits.shape[0], 1), _ONE, np.uint16)
        image[:] = np.frombuffer(pack_scaled(config, trits, shape.tiles, ones), np.uint8)
        progress(trits.shape[0])
        return
    encoding = encodings[config.encoding]
    words = image.view(f"V{config.word_bytes}").reshape(shape.tiles, shape.row_groups)
    fast = encoding.trits_per_code <= _MOST_DIGITS and encoding.code_bits <= _MOST_FAST_BITS
    pack = _FastPacker(config).words if fast else partial(_pack_words, config)
    columns = shape.tiles * config.lanes
    padding = 0 if 0 in ALPHABETS[encoding.alphabet] else 1
    step = max(1, _PIECE_TRITS // (config.rows * columns))
    for start in range(0, shape.row_groups, step):
        end = min(start + step, shape.row_groups)
        rows = np.asarray(trits[start * config.rows : end * config.rows], np.int8)
        if rows.shape != ((end - start) * config.rows, columns):
            padded = np.full(((end - start) * config.rows, columns), padding, np.int8)
            padded[: rows.shape[0], : rows.shape[1]] = rows
            rows = padded
        words[:, start:end] = pack(np.ascontiguousarray(rows)).T
        progress(min(end * config.rows, trits.shape[0]))


def _pack_words(config: AcceleratorConfig, rows: Trits) -> Array:
    """Weight words [row group, tile] of whole row groups and tiles, as this module says.

    For codes of any size. The packer of short codes is far faster, and gives the same.
    """
    groups, tiles = rows.shape[0] // config.rows, rows.shape[1] // config.lanes
    encoding = encodings[config.encoding]
    grouped = rows.reshape(groups, config.rows, tiles, *_code_shape(config))
    # Axes: row group, tile, row, then turn and run (the codes), then the trits of a code.
    codes = encoding.encode(grouped.transpose(0, 2, 1, 5, 3, 4))
    codes = codes.reshape(groups * tiles * config.rows, -1)
    if encoding.signed:
        codes = _relative(codes, encoding)
    codes = codes.reshape(groups * tiles, -1)
    bits = (codes[..., None] >> np.arange(encoding.code_bits, dtype=np.uint32)) & 1
    image = np.zeros((groups * tiles, config.word_bytes * 8), np.uint8)
    image[:, : config.word_bits] = bits.reshape(groups * tiles, config.word_bits)
    words = np.packbits(image, axis=1, bitorder="little").view(f"V{config.word_bytes}")
    return words.reshape(groups, tiles)


class _FastPacker:
    """Packs codes of few trits and bits with operations on whole arrays.

    A code is a function of the balanced ternary number of its trits. The trits of one code are
    `stride` apart. So the numbers of *all* inputs are computed, as if a code began at each. This
    takes a few operations on arrays that lie in one piece, and is faster than gathering the trits
    of each code. Then those numbers are taken at which a code begins, an array for each code of a
    row, and all later steps are operations on such arrays.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        self._encoding = encoding = encodings[config.encoding]
        runs, self._digits, self._stride = _code_shape(config)
        block = self._digits * self._stride
        self._begins = [run * block + turn for turn in range(self._stride) for run in range(runs)]
        later = np.arange(1, len(self._begins))
        self._sign_of = later & (later - 1)
        self._encode = encoding.encode_numbers or _table_encoder(encoding)
        self._is_bytes = (
            self._stride == 1
            and self._digits <= _MOST_INT8_DIGITS
            and encoding.code_bits == 8
            and not encoding.signed
        )

    def words(self, rows: Trits) -> Array:
        """Weight words [row group, tile] of whole row groups and tiles."""
        config, lanes = self._config, self._config.lanes
        if self._is_bytes:
            return self._words_of_bytes(rows)
        groups, tiles = rows.shape[0] // config.rows, rows.shape[1] // lanes
        numbers = _numbers(rows.reshape(-1), self._stride, self._digits)
        chosen = np.empty((len(self._begins), groups * config.rows * tiles), numbers.dtype)
        for row, begin in zip(chosen, self._begins, strict=True):
            row[:] = numbers[begin::lanes]
        codes = self._encode(chosen)
        if self._encoding.signed:
            signs = codes & codes.dtype.type(1 << self._encoding.index_bits)
            codes[1:] ^= signs[self._sign_of]
        codes = codes.reshape(-1, groups, config.rows, tiles)
        return self._join([codes[:, :, row] for row in range(config.rows)])

    def _words_of_bytes(self, rows: Trits) -> Array:
        """The same where each code is a byte of adjacent trits: bytes of rows are words."""
        config = self._config
        codes = self._encode(_adjacent_numbers(rows.reshape(-1), self._digits))
        parts = codes.view(f"V{len(self._begins)}").reshape(
            -1, config.rows, rows.shape[1] // config.lanes
        )
        words = np.ascontiguousarray(parts.transpose(2, 0, 1)).reshape(parts.shape[2], -1)
        return words.view(f"V{config.word_bytes}").T

    def _join(self, rows: list[Array]) -> Array:
        """Weight words [row group, tile] of the codes [code, row group, tile] of each row."""
        config, bits = self._config, self._encoding.code_bits
        codes = [code for row in rows for code in row]
        unsigned = codes[0].dtype.type
        words = np.zeros((*codes[0].shape, config.word_bytes), np.uint8)
        for byte in range(-(-config.word_bits // 8)):
            number, low = divmod(8 * byte, bits)
            value = codes[number] >> unsigned(low) if low else codes[number]
            place = bits - low  # of the next code in the byte
            while place < 8 and number + 1 < len(codes):
                number += 1
                value = value | codes[number] << unsigned(place)
                place += bits
            words[:, :, byte] = value  # its low eight bits
        return words.view(f"V{config.word_bytes}")[:, :, 0]


def _numbers(trits: Trits, stride: int, digits: int) -> Array:
    """For each input the number Σ tᵢ·3^i of the trits at it, and 1, 2, … strides behind it."""

    def joined(low: Array, low_digits: int, high: Array, total: int) -> Array:
        dtype = np.int8 if total <= _MOST_INT8_DIGITS else np.int16
        power = dtype(3**low_digits)
        numbers: Array = np.multiply(high[low_digits * stride :], power, dtype=dtype)
        np.add(numbers, low[: len(numbers)], out=numbers)
        return numbers

    # Of 1, 2, 4, … digits; those that `digits` is the sum of make the number.
    part, size = trits, 1
    numbers, done = trits, 0
    while True:
        if digits & size:
            numbers = joined(numbers, done, part, done + size) if done else part
            done += size
        if done == digits:
            return numbers
        part, size = joined(part, size, part, 2 * size), 2 * size


def _adjacent_numbers(trits: Trits, digits: int) -> Array:
    """The number Σ tᵢ·3^i of each `digits` adjacent trits, at most five: int8 [n / digits].

    Eight trits are read as one number of 64 bits. In its product with digits 3^i, the top byte is
    the sum of the first trits' products. No byte below it overflows, because every trit is made 0,
    1 or 2 before: no sum exceeds 2 · (1 + 3 + … + 81) = 242.
    """
    raised = np.zeros(len(trits) + 8 - digits, np.uint8)
    np.add(trits.view(np.uint8), np.uint8(1), out=raised[: len(trits)])
    eights = np.ndarray((len(trits) // digits,), "<u8", raised.data, 0, (digits,))
    products = eights * np.uint64(sum(3**i << 8 * (7 - i) for i in range(digits)))
    products >>= np.uint64(56)
    numbers: Array = products.astype(np.uint8)
    numbers -= np.uint8(3**digits // 2)
    return numbers.view(np.int8)


def _table_encoder(encoding: Encoding) -> Callable[[Array], Array]:
    """`encode_numbers` of any encoding, by a table of all its codes."""
    digits = encoding.trits_per_code
    powers = 3 ** np.arange(digits)
    trits = (np.arange(3**digits)[:, None] // powers % 3 - 1).astype(np.int8)
    used = np.isin(trits, ALPHABETS[encoding.alphabet]).all(axis=1)
    table = np.zeros(len(trits), np.uint8 if encoding.code_bits <= 8 else np.uint16)
    table[used] = encoding.encode(trits[used])
    zero = len(trits) // 2
    return lambda numbers: table.take(numbers.astype(np.intp) + zero)


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
    bits = np.unpackbits(raw, axis=1, bitorder="little", count=config.codes_bits)
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


def unpack_scales(config: AcceleratorConfig, image: bytes, shape: LayerShape) -> NDArray[np.uint16]:
    """The scales in the image of a layer, uint16 [row groups × rows, groups of the device]."""
    raw = np.frombuffer(image, np.uint8).reshape(shape.tiles, shape.row_groups, config.word_bytes)
    start = config.without_scale.word_bytes
    patterns = np.ascontiguousarray(raw[:, :, start:]).view("<u2")
    group_tiles = shape.with_longest(config.most_group_tiles).group_tiles
    chosen = patterns[scale_tiles(config, shape.tiles, group_tiles)]
    return chosen.reshape(len(chosen), -1).T.astype(np.uint16)


def pack_activations(config: AcceleratorConfig, codes: NDArray[np.int8], group: int = 0) -> bytes:
    """One token's activations, int8 [in] → one byte each, zeros up to whole tiles."""
    codes = pad_groups(config, np.asarray(codes, np.int8), group)
    tiles = -(-codes.shape[0] // config.lanes)
    padding = bytes(tiles * config.lanes - codes.shape[0])
    return codes.tobytes() + padding


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


def unpack_floats(payload: bytes) -> NDArray[np.float32]:
    """Results of a device with scales → float32 [n]."""
    return np.frombuffer(payload, "<f4").astype(np.float32)


def pack_results(config: AcceleratorConfig, sums: NDArray[np.int32]) -> bytes:
    """Inverse of `unpack_results`."""
    words = np.ascontiguousarray(sums, _INT32)
    # One copy takes the first bytes of each number.
    return np.ndarray((words.size,), _FIRST_BYTES[config.acc_bytes], words, 0, (4,)).tobytes()
