"""Tensor types of ggml, and how the blocks of its ternary types hold weights and scales.

A block is a run of weights along the inputs that share one scale, a group. ggml calls the number of
inputs `ne[0]`; the blocks of a row follow each other, row after row.

Source
------
`ggml.h`, `ggml-common.h` and `ggml-quants.c` of ggml 0.25.3 for ids up to 42; PrismML's fork
(release prism-b10685) for 142, 143 and the older layout of 42; `ggml-bitnet-mad.cpp` of bitnet.cpp
for 36.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.errors import CheckpointError

__all__ = [
    "I2S_ORDERS",
    "I2_S",
    "OTHER_TYPES",
    "TERNARY_TYPES",
    "TernaryType",
    "i2s_weights",
    "layouts",
    "row_multiple",
    "type_name",
]

U8 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int8]

I2_S = 36
"""bitnet.cpp's type: one float32 scale for the tensor, which stands behind its codes."""
I2S_TAIL_BYTES = 32
"""Bytes behind the codes of an I2_S tensor; the first four are the scale, the rest mean nothing."""
I2S_ORDERS = ("x86", "arm", "x86-rows")
"""Who wrote an I2_S file decides the order of its codes, and the file does not say who.

`x86`: 32 bytes hold 128 weights of a row. `arm`: 16 bytes hold 64 weights of a row. `x86-rows`: a
byte holds one column of four rows, as bitnet.cpp on x86 writes without `ACT_PARALLEL`.
"""
I2S_SPAN = {"x86": 32, "arm": 16}
"""Bytes of a run; byte j of a run holds weights j, span + j, 2 · span + j, 3 · span + j."""

TRITS_PER_BYTE = 5
HALF_BYTES = 2
LOW_BITS = np.uint8(3)
"""Mask of a two-bit code."""

_POWERS = 3 ** np.arange(TRITS_PER_BYTE)
_DIGITS: U8 = ((((np.arange(256)[:, None] * _POWERS) & 255) * 3) >> 8).astype(np.uint8)
"""Digit n of byte b in base 3, the most significant first: a byte is ⌈value · 256 / 243⌉."""


@dataclass(frozen=True, slots=True)
class TernaryType:
    """A ternary type with one scale a block.

    Members
    -------
    name : as ggml writes it
    group : weights of a block
    block_bytes : bytes of a block
    scale_first : whether the scale, a half-precision float, stands before the codes or behind them
    two_bits : whether the codes have two bits each; otherwise a byte holds five trits, or four
    has_two : whether code 3 is the weight 2; otherwise it has no meaning
    decode : codes uint8 `[blocks, bytes]` → codes uint8 `[blocks, group]`, weight + 1
    """

    name: str
    group: int
    block_bytes: int
    scale_first: bool
    two_bits: bool
    has_two: bool
    decode: Callable[[U8], U8]

    def split(self, data: U8) -> tuple[U8, npt.NDArray[np.float32]]:
        """The blocks of a tensor as codes `[blocks, bytes]` and scales float32 `[blocks]`."""
        blocks = data.reshape(-1, self.block_bytes)
        first = slice(HALF_BYTES) if self.scale_first else slice(-HALF_BYTES, None)
        codes = blocks[:, HALF_BYTES:] if self.scale_first else blocks[:, :-HALF_BYTES]
        halves = np.ascontiguousarray(blocks[:, first]).view("<f2")[:, 0]
        return codes, halves.astype(np.float32)


def _position_major(codes: U8, stages: tuple[int, ...]) -> U8:
    """Trits of bytes that hold five each: within a stage all first digits come first, and so on."""
    parts, begin = [], 0
    for width in stages:
        digits = _DIGITS[codes[:, begin : begin + width]]
        parts.append(digits.transpose(0, 2, 1).reshape(len(codes), -1))
        begin += width
    # The last bytes hold four trits each.
    digits = _DIGITS[codes[:, begin:], : TRITS_PER_BYTE - 1]
    parts.append(digits.transpose(0, 2, 1).reshape(len(codes), -1))
    return np.concatenate(parts, axis=1)


def _decode_tq1_0(codes: U8) -> U8:
    return _position_major(codes, (32, 16))


def _decode_ptq1_0(codes: U8) -> U8:
    return _position_major(codes, (16, 8))


def _decode_tq2_0(codes: U8) -> U8:
    """Two halves of 32 bytes; within one, the lowest two bits of all bytes come first."""
    halves = codes.reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & LOW_BITS
    return halves.reshape(len(codes), -1)


def _decode_q2_0(codes: U8) -> U8:
    """Byte j holds weights 4j to 4j + 3, the lowest bits first."""
    return (codes[:, :, None] >> np.arange(0, 8, 2, dtype=np.uint8) & LOW_BITS).reshape(
        len(codes), -1
    )


def _two_bit(name: str, group: int) -> TernaryType:
    """A type like Q2_0: the scale, then two bits a weight."""
    return TernaryType(name, group, HALF_BYTES + group // 4, True, True, True, _decode_q2_0)


TERNARY_TYPES: dict[int, tuple[TernaryType, ...]] = {
    34: (TernaryType("TQ1_0", 256, 54, False, False, False, _decode_tq1_0),),
    35: (TernaryType("TQ2_0", 256, 66, False, True, False, _decode_tq2_0),),
    42: (_two_bit("Q2_0", 64), _two_bit("Q2_0", 128)),
    142: (_two_bit("PQ2_0", 128),),
    143: (TernaryType("PTQ1_0", 128, 28, False, False, False, _decode_ptq1_0),),
}
"""By id. 42 has two layouts: ggml's, and that of PrismML's first files. Bytes tell them apart."""

OTHER_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""Name, weights of a block and bytes of a block by id: types that are listed, and not decoded."""


def type_name(type_id: int) -> str:
    """The name of a type, or its number if it is unknown."""
    if type_id in TERNARY_TYPES:
        return TERNARY_TYPES[type_id][0].name
    if type_id == I2_S:
        return "I2_S"
    return OTHER_TYPES[type_id][0] if type_id in OTHER_TYPES else f"type {type_id}"


def row_multiple(type_id: int) -> int:
    """What the inputs of a row must be a multiple of; 1 if the type is unknown."""
    if type_id in TERNARY_TYPES:
        return min(each.group for each in TERNARY_TYPES[type_id])
    if type_id == I2_S:
        return 4 * min(I2S_SPAN.values())
    return OTHER_TYPES[type_id][1] if type_id in OTHER_TYPES else 1


def layouts(type_id: int, shape: tuple[int, ...]) -> list[tuple[int, TernaryType | None]]:
    """Bytes that a tensor may take, and the layout that takes them; none for an unknown type.

    Parameters
    ----------
    type_id : its id
    shape : its dimensions; the last is `in_features`
    """
    elements = math.prod(shape)
    if type_id in TERNARY_TYPES:
        return [
            (elements // each.group * each.block_bytes, each)
            for each in TERNARY_TYPES[type_id]
            if shape[-1] % each.group == 0
        ]
    if type_id == I2_S:
        return [(elements // 4 + I2S_TAIL_BYTES, None)]
    if type_id in OTHER_TYPES:
        _, block, block_bytes = OTHER_TYPES[type_id]
        return [(elements // block * block_bytes, None)]
    return []


def i2s_weights(codes: U8, shape: tuple[int, int], order: str, name: str) -> U8:
    """The codes of an I2_S tensor.

    Parameters
    ----------
    codes : uint8 `[out_features · in_features / 4]`; the highest two bits of a byte come first
    shape : out_features and in_features
    order : one of `I2S_ORDERS`
    name : of the tensor, for the error message

    Returns
    -------
    uint8 `[out_features, in_features]`, weight + 1

    Raises
    ------
    CheckpointError : a tensor of this shape cannot have this order
    """
    out_features, in_features = shape
    fields = np.arange(6, -1, -2, dtype=np.uint8)
    if order == "x86-rows":
        if out_features % 4:
            raise CheckpointError(
                f"{name} has {out_features} rows, the order x86-rows takes multiples of 4; "
                "give another order of I2_S"
            )
        packed = codes.reshape(-1, 1, in_features) >> fields[:, None] & LOW_BITS
    else:
        span = I2S_SPAN[order]
        if in_features % (4 * span):
            raise CheckpointError(
                f"{name} has {in_features} inputs, the order {order} takes multiples of "
                f"{4 * span}; give another order of I2_S"
            )
        packed = codes.reshape(-1, 1, span) >> fields[:, None] & LOW_BITS
    return packed.reshape(shape)
