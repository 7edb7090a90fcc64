"""Weight encodings, and the order in which weights and activations lie in a device's memory.

A *code* holds ``group`` trits. A weight *word* holds ``rows × lanes`` trits: the codes of row 0
first, each code in the next higher bits. A code's inputs are ``stride = Engine.code_stride`` apart:
of a tile's ``parts = lanes / (group · stride)``, code ``turn · parts + part`` has the inputs
``part · group · stride + k · stride + turn``. Words are tile-major:
for each tile of ``lanes`` inputs, one word for each group of ``rows`` outputs, so a layer is read
strictly forward. Inputs and outputs beyond the layer's are trit 0, or +1 in the binary alphabet;
activations beyond the layer's are 0. In a byte image every word takes ``word_bytes`` bytes, little
end first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.plugins import Registry, engines

if TYPE_CHECKING:
    from tritloom.rtl.spec.config import AcceleratorConfig

Codes = NDArray[np.uint32]
Trits = NDArray[np.int8]

ALPHABETS = {"ternary": (-1, 0, 1), "binary": (-1, 1)}
"""What a weight can be."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """A weight encoding: ``group`` trits in ``code_bits`` bits.

    ``encode``: int8 [..., group] in the alphabet → uint32 [...].
    ``decode``: uint32 [...] → int8 [..., group]; ``InputError`` for a code that no trits have.
    ``decoder``: component that decodes one code (``tritloom.rtl.engines.base3x5`` has its contract)
    in ``decoder_cycles``; empty where only engines that need no decoder take the encoding.
    ``signed``: the top bit is the sign of the rest. In a word it is kept relative to a code before
    it in its row: code i's to that of code i & (i − 1), as adders of a tree take it.
    ``alphabet``: what its trits can be, of ``ALPHABETS``.
    """

    name: str
    group: int
    code_bits: int
    encode: Callable[[Trits], Codes]
    decode: Callable[[Codes], Trits]
    decoder: str = ""
    decoder_cycles: int = 1
    signed: bool = False
    alphabet: str = "ternary"

    @property
    def index_bits(self) -> int:
        """Bits of a code without its sign."""
        return self.code_bits - self.signed


def _base3_encode(trits: Trits) -> Codes:
    powers = 3 ** np.arange(trits.shape[-1], dtype=np.uint32)
    codes: Codes = ((trits + 1).astype(np.uint32) * powers).sum(axis=-1, dtype=np.uint32)
    return codes


def _base3x5_decode(codes: Codes) -> Trits:
    if codes.size and codes.max() > 242:
        raise InputError(f"base3x5 code must be at most 242, not {codes.max()}; repack the weights")
    digits = codes[..., None] // 3 ** np.arange(5, dtype=np.uint32) % 3
    return (digits.astype(np.int8) - 1).astype(np.int8)


encodings: Registry[Encoding] = Registry("encoding")

BASE3X5 = encodings.add(
    Encoding(
        name="base3x5",
        group=5,
        code_bits=8,
        encode=_base3_encode,
        decode=_base3x5_decode,
        decoder="tritloom.rtl.engines.base3x5:Base3x5Decoder",
        decoder_cycles=3,
    )
)


def _balanced(name: str, group: int, index_bits: int) -> Encoding:
    """Balanced ternary: the size of a number of ``group`` digits, then its sign."""
    powers = 3 ** np.arange(group, dtype=np.int32)
    largest = int(powers.sum())

    def encode(trits: Trits) -> Codes:
        numbers = (trits * powers).sum(axis=-1)
        codes: Codes = (np.abs(numbers) | (numbers < 0) << index_bits).astype(np.uint32)
        return codes

    def decode(codes: Codes) -> Trits:
        sizes = (codes & ((1 << index_bits) - 1)).astype(np.int32)
        negative = codes >> index_bits != 0
        wrong = (sizes > largest) | (negative & (sizes == 0))
        if wrong.any():
            raise InputError(
                f"{name} code must be a sign and a number up to {largest}, not "
                f"{codes[wrong][0]}; repack the weights"
            )
        numbers = np.where(negative, -sizes, sizes) + largest
        return (numbers[..., None] // powers % 3 - 1).astype(np.int8)

    return Encoding(
        name=name,
        group=group,
        code_bits=index_bits + 1,
        encode=encode,
        decode=decode,
        signed=True,
    )


SYM3X5 = encodings.add(_balanced("sym3x5", 3, 4))
SYM6X10 = encodings.add(_balanced("sym6x10", 6, 9))


# Bits: first is 0, second is not, their signs differ, sign of the first (of the second if it is 0).
def _diff2_encode(trits: Trits) -> Codes:
    first, second = trits[..., 0], trits[..., 1]
    negative = (first < 0) | ((first == 0) & (second < 0))
    differ = first * second < 0
    bits = ((first == 0), (second != 0), differ, negative)
    codes: Codes = sum(bit.astype(np.uint32) << n for n, bit in enumerate(bits))
    return codes


def _diff2_decode(codes: Codes) -> Trits:
    zero, second, differ, negative = ((codes >> n & 1).astype(np.int8) for n in range(4))
    sign = 1 - 2 * negative
    trits: Trits = np.stack([(1 - zero) * sign, second * sign * (1 - 2 * differ)], axis=-1)
    wrong = _diff2_encode(trits) != codes
    if wrong.any():
        raise InputError(f"diff2 code must not be {codes[wrong][0]}; repack the weights")
    return trits


DIFF2 = encodings.add(
    Encoding(
        name="diff2",
        group=2,
        code_bits=4,
        encode=_diff2_encode,
        decode=_diff2_decode,
        signed=True,
    )
)


# Of any number of signs: which after the first differ from it, then the first, 1 is −1.
def _signs_encode(trits: Trits) -> Codes:
    negative = trits < 0
    first = negative[..., :1]
    bits = np.concatenate([negative[..., 1:] ^ first, first], axis=-1).astype(np.uint32)
    places = np.arange(bits.shape[-1], dtype=np.uint32)
    codes: Codes = (bits << places).sum(axis=-1, dtype=np.uint32)
    return codes


def _signs_decode(codes: Codes, group: int) -> Trits:
    bits = (codes[..., None] >> np.arange(group, dtype=np.uint32) & 1).astype(np.int8)
    first = bits[..., -1:]
    return 1 - 2 * np.concatenate([first, bits[..., :-1] ^ first], axis=-1)


SIGN2, SIGN9 = (
    encodings.add(
        Encoding(
            name=f"sign{group}",
            group=group,
            code_bits=group,
            encode=_signs_encode,
            decode=partial(_signs_decode, group=group),
            signed=True,
            alphabet="binary",
        )
    )
    for group in (2, 9)
)


@dataclass(frozen=True, slots=True)
class LayerShape:
    """How often a layer fills the device: ``tiles`` of inputs × ``groups`` of output rows."""

    tiles: int
    groups: int

    @property
    def words(self) -> int:
        return self.tiles * self.groups

    @classmethod
    def of(cls, config: AcceleratorConfig, out_features: int, in_features: int) -> LayerShape:
        return cls(tiles=-(-in_features // config.lanes), groups=-(-out_features // config.rows))


def _code_shape(config: AcceleratorConfig) -> tuple[int, int, int]:
    """Inputs of a tile: parts × trits of a code × codes, which take turns input by input."""
    group, stride = encodings[config.encoding].group, engines[config.engine].code_stride(config)
    return config.lanes // (group * stride), group, stride


def _relative(codes: Codes, encoding: Encoding) -> Codes:
    """Signs in a row, uint32 [rows, codes]: code i's as it differs from that of i & (i − 1)."""
    later = np.arange(1, codes.shape[1])
    relative = codes.copy()
    relative[:, later] ^= (
        codes[:, later & (later - 1)] >> encoding.index_bits << encoding.index_bits
    )
    return relative


def _absolute(codes: Codes, encoding: Encoding) -> Codes:
    """Inverse of ``_relative``."""
    absolute = codes.copy()
    for n in range(1, codes.shape[1]):
        absolute[:, n] ^= absolute[:, n & (n - 1)] >> encoding.index_bits << encoding.index_bits
    return absolute


def check_trits(config: AcceleratorConfig, trits: Trits) -> None:
    """``InputError`` for trits, int8 [out, in] in {-1, 0, 1}, that the alphabet does not have."""
    if 0 not in ALPHABETS[config.alphabet] and not trits.all():
        row, column = np.argwhere(trits == 0)[0]
        raise InputError(
            f"trits of a {config.alphabet} layer must be -1 or 1, not 0 at [{row}, {column}]; "
            "use a device of the ternary alphabet"
        )


def pack_weights(config: AcceleratorConfig, trits: Trits) -> bytes:
    """Image of a layer: int8 [out, in] in the alphabet → ``words × word_bytes`` bytes."""
    check_trits(config, trits)
    shape = LayerShape.of(config, *trits.shape)
    encoding = encodings[config.encoding]
    padding = 0 if 0 in ALPHABETS[encoding.alphabet] else 1
    padded = np.full((shape.groups * config.rows, shape.tiles * config.lanes), padding, np.int8)
    padded[: trits.shape[0], : trits.shape[1]] = trits
    grouped = padded.reshape(shape.groups, config.rows, shape.tiles, *_code_shape(config))
    # Tile, group and row, then the codes, then the trits of each.
    codes = encoding.encode(grouped.transpose(2, 0, 1, 5, 3, 4))
    codes = codes.reshape(shape.words * config.rows, -1)
    if encoding.signed:
        codes = _relative(codes, encoding)
    codes = codes.reshape(shape.words, -1)
    bits = (codes[..., None] >> np.arange(encoding.code_bits, dtype=np.uint32)) & 1
    image = np.zeros((shape.words, config.word_bytes * 8), np.uint8)
    image[:, : config.word_bits] = bits.reshape(shape.words, config.word_bits)
    return np.packbits(image, axis=1, bitorder="little").tobytes()


def unpack_weights(
    config: AcceleratorConfig, image: bytes, out_features: int, in_features: int
) -> Trits:
    """Inverse of ``pack_weights``: int8 [out, in]; ``InputError`` for a wrong size or code."""
    shape = LayerShape.of(config, out_features, in_features)
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
    parts, group, stride = _code_shape(config)
    trits = encoding.decode(codes).reshape(
        shape.tiles, shape.groups, config.rows, stride, parts, group
    )
    ordered = trits.transpose(1, 2, 0, 4, 5, 3).reshape(shape.groups * config.rows, -1)
    return np.ascontiguousarray(ordered[:out_features, :in_features])


def pack_activations(config: AcceleratorConfig, codes: NDArray[np.int8]) -> bytes:
    """One token's activations, int8 [in] → one byte each, zeros up to whole tiles."""
    tiles = -(-codes.shape[0] // config.lanes)
    padded = np.zeros(tiles * config.lanes, np.int8)
    padded[: codes.shape[0]] = codes
    return padded.tobytes()


def act_limits(config: AcceleratorConfig) -> tuple[int, int]:
    """The least and the greatest activation."""
    limit: int = 1 << (config.act_bits - 1)
    return -limit, limit - 1


def unpack_results(config: AcceleratorConfig, payload: bytes) -> NDArray[np.int32]:
    """Results as the device sends them, ``acc_bytes`` each, little end first → int32 [n]."""
    raw = np.frombuffer(payload, np.uint8).reshape(-1, config.acc_bytes)
    full = np.zeros((raw.shape[0], 4), np.uint8)
    full[:, 4 - config.acc_bytes :] = raw
    return full.view("<i4")[:, 0] >> (8 * (4 - config.acc_bytes))


def pack_results(config: AcceleratorConfig, sums: NDArray[np.int32]) -> bytes:
    """Inverse of ``unpack_results``."""
    raw = np.ascontiguousarray(sums, "<i4").view(np.uint8).reshape(-1, 4)
    return raw[:, : config.acc_bytes].tobytes()
