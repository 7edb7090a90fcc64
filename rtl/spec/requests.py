"""The requests that write a layer, compute it, and read its results, in order.

The driver, the simulation benches and the tests all make their requests here. A caller sets `seq`
and `session`. A payload that exceeds `payload_bytes` is sent in several requests.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tritloom.rtl.spec.commands import COUNTERS_STRUCT, LAYER, Opcode, Request
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import pack_activations

__all__ = [
    "commit_layer",
    "define_layer",
    "load_activations",
    "read_counters",
    "read_identity",
    "read_results",
    "read_words",
    "response_bytes",
    "run_layer",
    "write_words",
]

# A product asks for these, and Python 3.11 looks up a member of an enumeration slowly.
_IDENTIFY, _READ, _LOAD, _RUN = Opcode.IDENTIFY, Opcode.READ, Opcode.LOAD, Opcode.RUN
_RESULTS, _COUNTERS = Opcode.RESULTS, Opcode.COUNTERS


def define_layer(index: int, base: int, shape: LayerShape) -> Request:
    """DEFINE: layer `index` begins at weight word `base`."""
    return Request(
        Opcode.DEFINE, index=index, payload=LAYER.pack(base, shape.tiles, shape.row_groups)
    )


def write_words(
    config: AcceleratorConfig, index: int, image: bytes, payload_bytes: int, word: int = 0
) -> Iterator[Request]:
    """WRITE: an image, as `pack_weights` makes it, from word `word` of the open layer `index`."""
    yield from _write(Opcode.WRITE, index, image, config.word_bytes, payload_bytes, word)


def commit_layer(index: int, image: bytes) -> Request:
    """COMMIT: close layer `index` if its words are those of the image."""
    return Request(Opcode.COMMIT, index=index, address=zlib.crc32(image))


def read_words(
    config: AcceleratorConfig, index: int, words: int, payload_bytes: int
) -> Iterator[Request]:
    """READ: the first `words` words of layer `index`."""
    step = max(1, payload_bytes // config.word_bytes)
    for start in range(0, words, step):
        count = min(step, words - start)
        yield Request(Opcode.READ, index=index, address=start, count=count)


def load_activations(
    config: AcceleratorConfig,
    token: int,
    codes: NDArray[np.int8],
    payload_bytes: int,
    bank: int = 0,
) -> Iterator[Request]:
    """LOAD: the activations of one token, int8 `[in_features]`, to an activation bank."""
    image = pack_activations(config, codes)
    return _write(_LOAD, token, image, config.fill, payload_bytes, bank=bank)


def run_layer(index: int, tokens: int, activation_bank: int = 0, result_bank: int = 0) -> Request:
    """RUN: compute layer `index` for the first `tokens` tokens, from one bank into another."""
    return Request(
        _RUN,
        index=index,
        count=tokens,
        activation_bank=activation_bank,
        result_bank=result_bank,
    )


def read_results(
    config: AcceleratorConfig, token: int, rows: int, payload_bytes: int, bank: int = 0
) -> Iterator[Request]:
    """RESULTS: the first `rows` sums of one token of a result bank.

    Each request begins at a whole row group.
    """
    step = max(1, payload_bytes // (config.acc_bytes * config.rows)) * config.rows
    for start in range(0, rows, step):
        count = min(step, rows - start)
        yield Request(
            _RESULTS,
            index=token,
            address=start // config.rows,
            count=count,
            result_bank=bank,
        )


def read_identity(start: int, count: int) -> Request:
    """IDENTIFY: `count` bytes of the identity from byte `start`."""
    return Request(Opcode.IDENTIFY, address=start, count=count)


def read_counters() -> Request:
    """COUNTERS: all counters."""
    return Request(Opcode.COUNTERS)


def response_bytes(config: AcceleratorConfig | None, request: Request) -> int:
    """Payload bytes of the response to a request, if its status is OK.

    `config` may be None for a request whose response does not depend on it: all but READ and
    RESULTS.
    """
    opcode = request.opcode
    if opcode == _RESULTS and config is not None:
        return request.count * config.acc_bytes
    if opcode == _READ and config is not None:
        return request.count * config.word_bytes
    if opcode == _IDENTIFY:
        return request.count
    return COUNTERS_STRUCT.size if opcode == _COUNTERS else 0


def _write(
    opcode: Opcode,
    index: int,
    image: bytes,
    word_bytes: int,
    payload_bytes: int,
    word: int = 0,
    bank: int = 0,
) -> Iterator[Request]:
    """An image in whole words, as many in each request as its payload holds, at least one."""
    step = max(1, payload_bytes // word_bytes) * word_bytes
    for start in range(0, len(image), step):
        yield Request(
            opcode,
            index=index,
            address=word + start // word_bytes,
            payload=image[start : start + step],
            activation_bank=bank,
        )
