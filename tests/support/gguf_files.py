"""Writes GGUF files for tests, weight by weight: it shares no code and no idea with the reader."""

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["BLOCKS", "IDS", "block_data", "gguf_bytes", "i2s_data", "write_gguf"]

IDS = {"F32": 0, "TQ1_0": 34, "TQ2_0": 35, "I2_S": 36, "Q2_0": 42, "PQ2_0": 142, "PTQ1_0": 143}


def half(value: float) -> bytes:
    return struct.pack("<e", value)


def base3(weights: Sequence[int], places: Sequence[tuple[int, int]], size: int) -> bytes:
    """Bytes whose digits in base 3 are weight + 1; `places` gives each weight's byte and digit."""
    values = [0] * size
    for weight, (byte, digit) in zip(weights, places, strict=True):
        values[byte] += (weight + 1) * 3 ** (4 - digit)
    return bytes(-(-value * 256 // 243) for value in values)


TQ1_0_PLACES = [
    *((k % 32, k // 32) for k in range(160)),
    *((32 + k % 16, k // 16) for k in range(80)),
    *((48 + k % 4, k // 4) for k in range(16)),
]
PTQ1_0_PLACES = [
    *((k % 16, k // 16) for k in range(80)),
    *((16 + k % 8, k // 8) for k in range(40)),
    *((24 + k % 2, k // 2) for k in range(8)),
]


def tq1_0(weights: Sequence[int], scale: float) -> bytes:
    return base3(weights, TQ1_0_PLACES, 52) + half(scale)


def ptq1_0(weights: Sequence[int], scale: float) -> bytes:
    return base3(weights, PTQ1_0_PLACES, 26) + half(scale)


def tq2_0(weights: Sequence[int], scale: float) -> bytes:
    codes = bytearray(64)
    for k, weight in enumerate(weights):
        codes[k // 128 * 32 + k % 32] |= (weight + 1) << k % 128 // 32 * 2
    return bytes(codes) + half(scale)


def q2_0(weights: Sequence[int], scale: float) -> bytes:
    codes = bytearray(len(weights) // 4)
    for k, weight in enumerate(weights):
        codes[k // 4] |= (weight + 1) << k % 4 * 2
    return half(scale) + bytes(codes)


BLOCKS: dict[str, tuple[int, int, Callable[[Sequence[int], float], bytes]]] = {
    "TQ1_0": (IDS["TQ1_0"], 256, tq1_0),
    "TQ2_0": (IDS["TQ2_0"], 256, tq2_0),
    "Q2_0": (IDS["Q2_0"], 64, q2_0),
    "Q2_0 of 128": (IDS["Q2_0"], 128, q2_0),
    "PQ2_0": (IDS["PQ2_0"], 128, q2_0),
    "PTQ1_0": (IDS["PTQ1_0"], 128, ptq1_0),
}
"""Id, group and writer of a block by the layout's name."""


def block_data(layout: str, weights: np.ndarray, scales: Any) -> bytes:
    """A tensor's data; `scales` is one number or `[out, groups]`."""
    _, group, write = BLOCKS[layout]
    blocks = weights.reshape(len(weights), -1, group)
    scales = np.broadcast_to(np.asarray(scales, np.float64), blocks.shape[:2])
    return b"".join(
        write(block.tolist(), float(scale))
        for row, row_scales in zip(blocks, scales, strict=True)
        for block, scale in zip(row, row_scales, strict=True)
    )


def i2s_data(weights: np.ndarray, scale: float, order: str) -> bytes:
    """An I2_S tensor's data, as bitnet.cpp's three packers place it."""
    in_features = weights.shape[1]
    flat = (weights + 1).astype(np.uint8).ravel()
    k = np.arange(flat.size)
    if order == "x86-rows":
        row, column = k // in_features, k % in_features
        byte, field = row // 4 * in_features + column, row % 4
    else:
        width = {"x86": 32, "arm": 16}[order]
        byte = k // (4 * width) * width + k % width
        field = k % (4 * width) // width
    codes = np.zeros(flat.size // 4, np.uint8)
    np.bitwise_or.at(codes, byte, flat << (6 - 2 * field).astype(np.uint8))
    return codes.tobytes() + struct.pack("<f", scale) + bytes(range(28))


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(item: Any) -> bytes:
    if isinstance(item, bool):
        return struct.pack("<IB", 7, item)
    if isinstance(item, int):
        return struct.pack("<II", 4, item)
    if isinstance(item, float):
        return struct.pack("<If", 6, item)
    if isinstance(item, str):
        return struct.pack("<I", 8) + string(item)
    if all(isinstance(each, int) for each in item):
        return struct.pack(f"<IIQ{len(item)}i", 9, 5, len(item), *item)
    texts = [string(each) for each in item]
    return struct.pack("<IIQ", 9, 8, len(texts)) + b"".join(texts)


def gguf_bytes(
    tensors: Mapping[str, tuple[int, Sequence[int], bytes]],
    metadata: Mapping[str, Any] | None = None,
    version: int = 3,
) -> bytes:
    """A file; a tensor is its id, its shape `[out, in]` and its data."""
    metadata = {"general.architecture": "bitnet"} if metadata is None else metadata
    alignment = metadata.get("general.alignment", 32)
    header = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(metadata))
    for key, item in metadata.items():
        header += string(key) + value(item)
    data = b""
    for name, (type_id, shape, raw) in tensors.items():
        header += string(name) + struct.pack("<I", len(shape))
        header += b"".join(struct.pack("<Q", size) for size in reversed(shape))
        header += struct.pack("<IQ", type_id, len(data))
        data += raw + bytes(-len(raw) % alignment)
    return header + bytes(-len(header) % alignment) + data


def write_gguf(
    path: Path,
    tensors: Mapping[str, tuple[int, Sequence[int], bytes]],
    metadata: Mapping[str, Any] | None = None,
    version: int = 3,
) -> Path:
    path.write_bytes(gguf_bytes(tensors, metadata, version))
    return path
