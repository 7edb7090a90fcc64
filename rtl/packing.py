"""Weight encodings, and the order in which weights and activations lie in a device's memory.

A *code* holds ``group`` trits. A weight *word* holds ``rows × lanes`` trits: the codes of row 0
first, in a row the lowest input first, each code in the next higher bits. Words are tile-major:
for each tile of ``lanes`` inputs, one word for each group of ``rows`` outputs, so a layer is read
strictly forward. Inputs and outputs beyond the layer's are trit 0. In a byte image every word
takes ``word_bytes`` bytes, little end first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tritloom.rtl.errors import InputError
from tritloom.rtl.plugins import Registry

if TYPE_CHECKING:
    from tritloom.rtl.config import AcceleratorConfig

Codes = NDArray[np.uint32]
Trits = NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """A weight encoding: ``group`` trits in ``code_bits`` bits.

    ``encode``: int8 [..., group] in {-1, 0, 1} → uint32 [...].
    ``decode``: uint32 [...] → int8 [..., group]; ``InputError`` for a code that no trits have.
    ``decoder``: component that decodes one code (``tritloom.rtl.decoder`` has its contract) in
    ``decoder_cycles``; empty where only engines that need no decoder take the encoding.
    """

    name: str
    group: int
    code_bits: int
    encode: Callable[[Trits], Codes]
    decode: Callable[[Codes], Trits]
    decoder: str = ""
    decoder_cycles: int = 0


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
        decoder="tritloom.rtl.decoder:Base3x5Decoder",
        decoder_cycles=3,
    )
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


def pack_weights(config: AcceleratorConfig, trits: Trits) -> bytes:
    """Image of a layer: int8 [out, in] in {-1, 0, 1} → ``words × word_bytes`` bytes."""
    shape = LayerShape.of(config, *trits.shape)
    encoding = encodings[config.encoding]
    padded = np.zeros((shape.groups * config.rows, shape.tiles * config.lanes), np.int8)
    padded[: trits.shape[0], : trits.shape[1]] = trits
    grouped = padded.reshape(
        shape.groups, config.rows, shape.tiles, config.lanes // encoding.group, encoding.group
    )
    codes = encoding.encode(grouped.transpose(2, 0, 1, 3, 4)).reshape(shape.words, -1)
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
    trits = encoding.decode(codes).reshape(
        shape.tiles, shape.groups, config.rows, config.lanes // encoding.group, encoding.group
    )
    ordered = trits.transpose(1, 2, 0, 3, 4).reshape(shape.groups * config.rows, -1)
    return np.ascontiguousarray(ordered[:out_features, :in_features])


def pack_activations(config: AcceleratorConfig, codes: NDArray[np.int8]) -> bytes:
    """One token's activations, int8 [in] → one byte each, zeros up to whole tiles."""
    tiles = -(-codes.shape[0] // config.lanes)
    padded = np.zeros(tiles * config.lanes, np.int8)
    padded[: codes.shape[0]] = codes
    return padded.tobytes()


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
