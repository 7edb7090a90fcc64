"""The requests for a layer: the reference device takes each, and its responses have the size."""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from tests.support.line_store import TestLines
from tritloom.rtl.spec import numerics, requests
from tritloom.rtl.spec.commands import (
    LAYER,
    Opcode,
    Request,
    Response,
    Status,
    identity,
    unpack_counters,
)
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.packing import LayerShape, pack_activations, pack_weights, unpack_results
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.sim.device.reference import ReferenceDevice

CONFIGS = {
    "tiny": TINY,
    "wide words": replace(TINY, rows=7, max_out_features=70, fill=5),
    "two tokens": replace(TINY, tokens=2),
    "blocks": replace(
        TINY,
        lanes=15,
        max_out_features=14,  # 14 words end within a block of 4
        memory=TestLines(words=64, line_bits=64, beat_bits=64),
    ),
}
PAYLOADS = [1, 9, 44, 108]
"""Less than a word, less than a row group, of a bad link, of a whole packet."""


@pytest.mark.parametrize("payload_bytes", PAYLOADS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_whole_layer(config, payload_bytes):
    """Written, read back, computed, and its results read: all exact, and each response as said."""
    device = ReferenceDevice(config)
    random = np.random.default_rng(1)
    trits = random.integers(-1, 2, (config.max_out_features, 20)).astype(np.int8)
    codes = random.integers(-128, 128, (config.tokens, 20)).astype(np.int8)
    shape = LayerShape.of(config, *trits.shape)
    image = pack_weights(config, trits)
    device.process(Request(Opcode.RESET, session=5).pack())
    seq = 0

    def send(request: Request) -> Response:
        nonlocal seq
        seq += 1
        response = Response.parse(device.process(replace(request, seq=seq, session=5).pack()))
        assert response.status == Status.OK
        assert len(response.payload) == requests.response_bytes(config, request)
        return response

    def send_all(several) -> bytes:
        return b"".join(send(request).payload for request in several)

    send(requests.define_layer(1, 0, shape))
    send_all(requests.write_words(config, 1, image, payload_bytes))
    assert send(requests.commit_layer(1, image)).value == zlib.crc32(image)
    assert send_all(requests.read_words(config, 1, shape.words, payload_bytes)) == image
    send_all(requests.load_activations(config, 0, codes[0], payload_bytes))  # to another bank
    for token, row in enumerate(codes):
        send_all(requests.load_activations(config, token, row, payload_bytes, bank=1))
    send(requests.run_layer(1, config.tokens, activation_bank=1, result_bank=1))
    send_all(requests.load_activations(config, 0, ~codes[0], payload_bytes))
    send(requests.run_layer(1, config.tokens))  # neither bank is that of the results read below
    for token in range(config.tokens):
        results = send_all(requests.read_results(config, token, len(trits), payload_bytes, bank=1))
        expected = numerics.matmul(trits, codes)[token]
        assert np.array_equal(unpack_results(config, results), expected)
    assert send(requests.read_identity(3, 40)).payload == identity(config)[3:43]
    counters = unpack_counters(TINY, send(requests.read_counters()).payload)
    assert counters["packets"] == seq + 1


@pytest.mark.parametrize("payload_bytes", PAYLOADS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_payloads_are_whole_words_and_as_large_as_they_may_be(config, payload_bytes):
    image = bytes(range(40)) * config.word_bytes
    codes = np.arange(20, dtype=np.int8)
    activations = pack_activations(config, codes)
    writes = requests.write_words(config, 2, image, payload_bytes)
    loads = requests.load_activations(config, 0, codes, payload_bytes)
    for word_bytes, align, whole, several in (
        (config.word_bytes, config.align, image, writes),
        (config.fill, 1, activations, loads),
    ):
        sent = list(several)
        assert b"".join(request.payload for request in sent) == whole
        start = 0
        for request in sent:
            assert request.address == start // word_bytes
            assert len(request.payload) % word_bytes == 0
            assert len(request.payload) <= max(payload_bytes, align * word_bytes)
            start += len(request.payload)
        block_bytes = align * word_bytes
        most = max(1, payload_bytes // block_bytes) * block_bytes
        assert all(len(request.payload) == most for request in sent[:-1])


def test_results_begin_at_row_groups():
    config = replace(TINY, rows=7, max_out_features=70)
    sent = list(requests.read_results(config, 0, 40, 50))
    assert config.acc_bytes == 2
    assert [(request.address, request.count) for request in sent] == [(0, 21), (3, 19)]


def test_define_is_little_endian():
    request = requests.define_layer(3, 0x01020304, LayerShape(5, 6))
    assert (request.opcode, request.index) == (Opcode.DEFINE, 3)
    packed = LAYER.pack(0x01020304, 5, 6)
    assert request.payload == packed == bytes([4, 3, 2, 1, 5, 0, 6, 0, 0, 0])


def test_responses_of_commands_that_need_a_configuration():
    assert requests.response_bytes(None, requests.read_identity(0, 7)) == 7
    assert requests.response_bytes(TINY, requests.read_counters()) == 48
    vector = replace(TINY, vector=VectorConfig(words=64))
    assert requests.response_bytes(vector, requests.read_counters()) == 64
    assert requests.response_bytes(TINY, Request(Opcode.WRITE, count=9)) == 0
