"""Weight encodings: how the trits of a code become bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.registry import Registry

__all__ = [
    "ALPHABETS",
    "BASE3X5",
    "DIFF2",
    "SIGN2",
    "SIGN9",
    "SYM3X5",
    "SYM6X10",
    "Codes",
    "Encoding",
    "Trits",
    "encodings",
]

Codes = NDArray[np.uint32]
Trits = NDArray[np.int8]

ALPHABETS = {"ternary": (-1, 0, 1), "binary": (-1, 1)}
"""What a weight can be."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """A weight encoding: `trits_per_code` trits in `code_bits` bits.

    Parameters
    ----------
    name : as in a configuration; also its entry point in the group `tritloom.encodings`
    trits_per_code : trits in one code
    code_bits : bits of one code
    encode : int8 [..., trits_per_code] in the alphabet → uint32 [...]. Its docstring says in words
        how the trits become bits; a generated design's manifest repeats it.
    decode : uint32 [...] → int8 [..., trits_per_code]; raises `InputError` for a code that stands
        for no trits
    decoder : the component that decodes one code, as `module:Class` (`TritDecoder` in
        `tritloom.rtl.engines.contract` is its contract); empty if only engines that need no
        decoder take the encoding
    decoder_cycles : latency of that component in cycles
    signed : the top bit is the sign of the rest. In a weight word the sign of code i of a row is
        stored relative to the sign of code i & (i − 1), because an adder tree negates by the
        difference of two signs.
    alphabet : what a trit can be, a key of `ALPHABETS`
    encode_numbers : `encode` by the numbers Σ tᵢ·3^i of the trits, int8 or int16 [...] → uint8 or
        uint16 [...], a new array; faster than the table that the packer makes without it
    """

    name: str
    trits_per_code: int
    code_bits: int
    encode: Callable[[Trits], Codes]
    decode: Callable[[Codes], Trits]
    decoder: str = ""
    decoder_cycles: int = 1
    signed: bool = False
    alphabet: str = "ternary"
    encode_numbers: Callable[[NDArray[Any]], NDArray[Any]] | None = None

    @property
    def index_bits(self) -> int:
        """Bits of a code without its sign."""
        return self.code_bits - self.signed


def _base3_encode(trits: Trits) -> Codes:
    """The number whose base-3 digits are the trits plus 1, the first trit lowest."""
    powers = 3 ** np.arange(trits.shape[-1], dtype=np.uint32)
    codes: Codes = ((trits + 1).astype(np.uint32) * powers).sum(axis=-1, dtype=np.uint32)
    return codes


def _base3x5_numbers(numbers: NDArray[Any]) -> NDArray[Any]:
    """Digits that are 1 more make a number that is 121 more."""
    return numbers.view(np.uint8) + np.uint8(121)


def _base3x5_decode(codes: Codes) -> Trits:
    if codes.size and codes.max() > 242:
        raise InputError(f"base3x5 code must be at most 242, not {codes.max()}; repack the weights")
    digits = codes[..., None] // 3 ** np.arange(5, dtype=np.uint32) % 3
    return (digits.astype(np.int8) - 1).astype(np.int8)


BASE3X5 = Encoding(
    name="base3x5",
    trits_per_code=5,
    code_bits=8,
    encode=_base3_encode,
    decode=_base3x5_decode,
    decoder="tritloom.rtl.engines.base3x5:Base3x5Decoder",
    decoder_cycles=3,
    encode_numbers=_base3x5_numbers,
)


def _balanced(name: str, trits_per_code: int, index_bits: int) -> Encoding:
    """Balanced ternary: the magnitude of a number of `trits_per_code` digits, then its sign."""
    powers = 3 ** np.arange(trits_per_code, dtype=np.int32)
    largest = int(powers.sum())

    def encode(trits: Trits) -> Codes:
        """The size of the sum of the trits times 1, 3, 9, …; then, as the top bit, its sign."""
        numbers = (trits * powers).sum(axis=-1)
        codes: Codes = (np.abs(numbers) | (numbers < 0) << index_bits).astype(np.uint32)
        return codes

    def encode_numbers(numbers: NDArray[Any]) -> NDArray[Any]:
        sizes = numbers.astype(np.int16)
        signs = sizes >> np.int16(15)  # all bits of a negative number
        sizes ^= signs
        sizes -= signs
        signs &= np.int16(1 << index_bits)
        sizes |= signs
        return sizes.view(np.uint16)

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
        trits_per_code=trits_per_code,
        code_bits=index_bits + 1,
        encode=encode,
        decode=decode,
        signed=True,
        encode_numbers=encode_numbers,
    )


SYM3X5 = _balanced("sym3x5", 3, 4)
SYM6X10 = _balanced("sym6x10", 6, 9)


def _diff2_encode(trits: Trits) -> Codes:
    """Bits, low to high: the first trit is 0; the second is not 0; their signs differ; the sign of
    the first trit, or of the second if the first is 0. A sign of 1 is negative.
    """
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


DIFF2 = Encoding(
    name="diff2",
    trits_per_code=2,
    code_bits=4,
    encode=_diff2_encode,
    decode=_diff2_decode,
    signed=True,
)


def _signs_encode(trits: Trits) -> Codes:
    """Bits, low to high: for each trit after the first whether it differs from the first; then the
    first trit's sign. A sign of 1 is negative.
    """
    negative = trits < 0
    first = negative[..., :1]
    bits = np.concatenate([negative[..., 1:] ^ first, first], axis=-1).astype(np.uint32)
    places = np.arange(bits.shape[-1], dtype=np.uint32)
    codes: Codes = (bits << places).sum(axis=-1, dtype=np.uint32)
    return codes


def _signs_decode(codes: Codes, trits_per_code: int) -> Trits:
    bits = (codes[..., None] >> np.arange(trits_per_code, dtype=np.uint32) & 1).astype(np.int8)
    first = bits[..., -1:]
    return 1 - 2 * np.concatenate([first, bits[..., :-1] ^ first], axis=-1)


def _signs(name: str, trits_per_code: int) -> Encoding:
    return Encoding(
        name=name,
        trits_per_code=trits_per_code,
        code_bits=trits_per_code,
        encode=_signs_encode,
        decode=partial(_signs_decode, trits_per_code=trits_per_code),
        signed=True,
        alphabet="binary",
    )


SIGN2 = _signs("sign2", 2)
SIGN9 = _signs("sign9", 9)


def _fault(item: Any) -> str:
    return "" if isinstance(item, Encoding) else f"it is {item!r:.60}, not an Encoding"


encodings: Registry[Encoding] = Registry("encoding", "tritloom.encodings", _fault)
"""The encodings by name."""
