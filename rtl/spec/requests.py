"""The requests that write a layer, compute it, and read its results, in order.

The driver, the simulation benches and the tests all make their requests here. A caller sets `seq`
and `session`. A payload that exceeds `payload_bytes` is sent in several requests.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tritloom.rtl.spec.commands import COUNTER_BYTES, LAYER, Opcode, Request, counters_of
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import pack_activations
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES
from tritloom.rtl.spec.vector_facts import VECTOR_WORD_BYTES
from tritloom.rtl.spec.vector_program import STEP_BYTES

__all__ = [
    "commit_layer",
    "commit_program",
    "count_scales",
    "define_layer",
    "execute_program",
    "get_words",
    "load_activations",
    "load_scales",
    "put_words",
    "read_counters",
    "read_identity",
    "read_results",
    "read_words",
    "response_bytes",
    "run_layer",
    "write_parts",
    "write_steps",
    "write_words",
]

# A product asks for these, and Python 3.11 looks up a member of an enumeration slowly.
_IDENTIFY, _READ, _LOAD, _RUN = Opcode.IDENTIFY, Opcode.READ, Opcode.LOAD, Opcode.RUN
_RESULTS, _COUNTERS = Opcode.RESULTS, Opcode.COUNTERS
_PUT, _GET, _EXECUTE = Opcode.PUT, Opcode.GET, Opcode.EXECUTE
_SCALES = Opcode.SCALES


def define_layer(index: int, base: int, shape: LayerShape) -> Request:
    """DEFINE: layer `index` begins at weight word `base`."""
    return Request(
        Opcode.DEFINE,
        index=index,
        count=shape.group_tiles,
        payload=LAYER.pack(base, shape.tiles, shape.row_groups),
    )


def write_words(
    config: AcceleratorConfig,
    index: int,
    image: bytes | memoryview,
    payload_bytes: int,
    word: int = 0,
) -> Iterator[Request]:
    """WRITE: an image, as `pack_weights` makes it, from word `word` of the open layer `index`.

    Each request but the last one holds whole blocks of words. `word` is the first of a block, and
    the image ends with a block or with the layer.
    """
    for address, payload in write_parts(config, image, payload_bytes, word):
        yield Request(Opcode.WRITE, index=index, address=address, payload=payload)


def write_parts(
    config: AcceleratorConfig, image: bytes | memoryview, payload_bytes: int, word: int = 0
) -> Iterator[tuple[int, bytes]]:
    """The first word, and the payload, of each request of `write_words`."""
    return _parts(image, config.word_bytes, payload_bytes, word, config.align)


def commit_layer(index: int, image: bytes | memoryview) -> Request:
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
    group: int = 0,
) -> Iterator[Request]:
    """LOAD: the activations of one token, int8 `[in_features]`, to an activation bank.

    `group` is that of the layer that reads them.
    """
    image = pack_activations(config, codes, group)
    return _write(_LOAD, token, image, config.fill, payload_bytes, bank=bank)


def load_scales(
    token: int, scales: NDArray[np.float32], payload_bytes: int, bank: int = 0
) -> Iterator[Request]:
    """SCALES: those of one token's activations, float32 `[groups]`, to an activation bank."""
    image = scales.astype("<f4", copy=False).tobytes()
    return _write(_SCALES, token, image, FLOAT_BYTES, payload_bytes, bank=bank)


def count_scales(config: AcceleratorConfig, shape: LayerShape) -> int:
    """Scales that the activations of a token have for a layer; 0 if the device takes none."""
    if not config.scales_activations:
        return 0
    return shape.with_longest(config.most_group_tiles).groups


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


def put_words(
    address: int, words: NDArray[np.float32], payload_bytes: int, token: int = 0
) -> Iterator[Request]:
    """PUT: float32 `[n]` to the vector memory of a token from word `address`."""
    image = words.astype("<f4", copy=False).tobytes()
    return _write(_PUT, token, image, VECTOR_WORD_BYTES, payload_bytes, address)


def get_words(address: int, count: int, payload_bytes: int, token: int = 0) -> Iterator[Request]:
    """GET: `count` words of a token's vector memory from word `address`, as float32."""
    step = max(1, payload_bytes // VECTOR_WORD_BYTES)
    for start in range(0, count, step):
        here = min(step, count - start)
        yield Request(_GET, index=token, address=address + start, count=here)


def write_steps(image: bytes, payload_bytes: int, first: int = 0) -> Iterator[Request]:
    """PROGRAM: steps, as `encode_program` makes them, to the program memory from step `first`."""
    return _write(Opcode.PROGRAM, 0, image, STEP_BYTES, payload_bytes, first)


def commit_program(image: bytes) -> Request:
    """COMMIT_PROGRAM: commit the program memory's first steps if they are those of the image."""
    return Request(Opcode.COMMIT_PROGRAM, count=len(image) // STEP_BYTES, address=zlib.crc32(image))


def execute_program(
    step: int, activation_bank: int = 0, result_bank: int = 0, last_token: int = 0
) -> Request:
    """EXECUTE: the committed program from step `step`, for tokens 0 to `last_token`."""
    return Request(
        _EXECUTE,
        index=last_token,
        address=step,
        activation_bank=activation_bank,
        result_bank=result_bank,
    )


def response_bytes(config: AcceleratorConfig | None, request: Request) -> int:
    """Payload bytes of the response to a request, if its status is OK.

    `config` may be None for a request whose response does not depend on it: all but READ, RESULTS
    and COUNTERS.
    """
    opcode = request.opcode
    if opcode == _RESULTS and config is not None:
        return request.count * config.acc_bytes
    if opcode == _READ and config is not None:
        return request.count * config.word_bytes
    if opcode == _IDENTIFY:
        return request.count
    if opcode == _GET:
        return request.count * VECTOR_WORD_BYTES
    if opcode == _COUNTERS and config is not None:
        return len(counters_of(config)) * COUNTER_BYTES
    return 0


def _write(
    opcode: Opcode,
    index: int,
    image: bytes | memoryview,
    word_bytes: int,
    payload_bytes: int,
    word: int = 0,
    bank: int = 0,
) -> Iterator[Request]:
    """An image in words, as many in each request as its payload holds, at least one."""
    for address, payload in _parts(image, word_bytes, payload_bytes, word):
        yield Request(opcode, index=index, address=address, payload=payload, activation_bank=bank)


def _parts(
    image: bytes | memoryview, word_bytes: int, payload_bytes: int, word: int, block: int = 1
) -> Iterator[tuple[int, bytes]]:
    """An image in blocks of words, as many together as a payload holds, at least one."""
    block_bytes = block * word_bytes
    step = max(1, payload_bytes // block_bytes) * block_bytes
    for start in range(0, len(image), step):
        yield word + start // word_bytes, bytes(image[start : start + step])
