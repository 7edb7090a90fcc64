"""Packets and the identity: layouts byte by byte, and what is not sound."""

import json
import random
import zlib
from dataclasses import replace

import pytest

from tritloom.rtl.control.layouts import COUNTER_BITS, DEFINITION, REQUEST, RESPONSE
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import (
    COUNTER_BYTES,
    COUNTERS,
    CRC_BYTES,
    HEADER_BYTES,
    IDENTITY,
    LAYER,
    MAGIC,
    OVERHEAD_BYTES,
    PROTOCOL_VERSION,
    Opcode,
    Request,
    Response,
    Status,
    counters_of,
    identity,
    pack_counters,
    seal,
    sound,
    unpack_counters,
)
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.vector_facts import VectorConfig

ULTIMATE = AcceleratorConfig(
    lanes=5,
    rows=1,
    memory=BlockRam(words=1 << 28),
    max_in_features=16384,
    max_out_features=1 << 18,
)


def crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


def test_sizes():
    assert (HEADER_BYTES, CRC_BYTES, OVERHEAD_BYTES, LAYER.size, IDENTITY.size) == (
        16,
        4,
        20,
        10,
        24,
    )
    assert TINY.max_payload == TINY.packet_bytes - OVERHEAD_BYTES


def test_bytes_of_a_request():
    packet = Request(4, 0x1234, 0xADBEEF, 7, 0x55AA, 0x01020304, b"xyz", 1, 0, 0xDE).pack()
    body = bytes.fromhex("1700 3412 efbead de 44 07 aa55 04030201") + b"xyz"
    assert packet == body + crc(body)


def test_bytes_of_a_response():
    packet = Response(8, 0x1234, 0xADBEEF, 5, 0x1235, 0xCAFE, b"", 0, 1, 0xDE).pack()
    body = bytes.fromhex("1400 3412 efbead de 88 05 3512 feca0000")
    assert packet == body + crc(body)


def test_hardware_reads_the_same_fields():
    for layout in (REQUEST, RESPONSE):
        assert layout.size == 8 * HEADER_BYTES
    assert DEFINITION.size == 8 * LAYER.size
    places = {name: (field.offset, field.width) for name, field in REQUEST}
    common = {"seq": 0xA1A2, "session": 0xB1B2B3, "acknowledged": 0xB4, "opcode": 0x21}
    common |= {"activation_bank": 1, "result_bank": 0}
    fields = common | {"index": 0xD1, "count": 0xE1E2, "address": 0xF1F2F3F4}
    number = int.from_bytes(Request(**fields).pack()[:HEADER_BYTES], "little")
    for name, value in (fields | {"length": 20}).items():
        offset, width = places[name]
        assert number >> offset & (1 << width) - 1 == value, name
    places = {name: (field.offset, field.width) for name, field in RESPONSE}
    common |= {"activation_bank": 0, "result_bank": 1}
    fields = common | {"status": 0xD1, "expected": 0xE1E2, "value": 0xF1F2F3F4}
    number = int.from_bytes(Response(**fields).pack()[:HEADER_BYTES], "little")
    for name, value in (fields | {"length": 20}).items():
        offset, width = places[name]
        assert number >> offset & (1 << width) - 1 == value, name


@pytest.mark.parametrize("kind", [Request, Response])
def test_round_trip(kind):
    rng = random.Random(24)
    for size in (0, 1, 2, 1004, 4076):
        bits = {"opcode": 6, "seq": 16, "session": 24, "index": 8, "status": 8}
        bits |= {"activation_bank": 1, "result_bank": 1, "acknowledged": 8}
        bits |= {"count": 16, "expected": 16, "address": 32, "value": 32}
        names = [name for name in kind.__dataclass_fields__ if name != "payload"]
        values = {name: rng.getrandbits(bits[name]) for name in names}
        message = kind(**values, payload=rng.randbytes(size))
        assert len(message.pack()) == OVERHEAD_BYTES + size
        assert kind.parse(message.pack()) == message


@pytest.mark.parametrize("kind", [Request, Response])
def test_every_bit_is_checked(kind):
    packet = kind(3, 2, 1, payload=b"\x00\xff").pack()
    assert sound(packet)
    for bit in range(8 * len(packet)):
        damaged = bytearray(packet)
        damaged[bit // 8] ^= 1 << bit % 8
        assert not sound(bytes(damaged)) and kind.parse(bytes(damaged)) is None


def test_not_sound():
    packet = Request(3, payload=b"abc").pack()
    for size in range(len(packet)):
        assert not sound(packet[:size]) and not sound(packet[size + 1 :])
    assert not sound(packet + b"\0")
    for length in (0, 22, 24, 23 + 256, 0xFFFF):  # the checksum right, the length not
        assert not sound(seal(length.to_bytes(2, "little") + packet[2:-CRC_BYTES]))
    for size in range(2, HEADER_BYTES):
        short = seal((size + CRC_BYTES).to_bytes(2, "little") + bytes(size - 2))
        assert not sound(short)
        assert Request.parse(short) is None and Response.parse(short) is None


def test_numbers_are_the_protocol():
    assert PROTOCOL_VERSION == 2
    assert [(code.name, code.value) for code in Opcode] == [
        ("RESET", 1),
        ("IDENTIFY", 2),
        ("DEFINE", 3),
        ("WRITE", 4),
        ("READ", 5),
        ("COMMIT", 6),
        ("LOAD", 7),
        ("RUN", 8),
        ("RESULTS", 9),
        ("COUNTERS", 10),
        ("PUT", 11),
        ("GET", 12),
        ("PROGRAM", 13),
        ("COMMIT_PROGRAM", 14),
        ("EXECUTE", 15),
        ("SCALES", 16),
    ]
    assert [status.name for status in sorted(Status)] == [
        "OK",
        "NAK",
        "NO_SESSION",
        "BAD_OPCODE",
        "BAD_LENGTH",
        "OUT_OF_RANGE",
        "BAD_STATE",
        "BAD_CHECKSUM",
        "MEMORY_ERROR",
        "NOT_FINITE",
    ]
    assert [status.value for status in sorted(Status)] == list(range(10))
    every = counters_of(replace(TINY, vector=VectorConfig(words=64)))
    assert counters_of(TINY) == COUNTERS == every[: len(COUNTERS)]
    assert COUNTER_BITS == 8 * COUNTER_BYTES
    assert COUNTER_BYTES * len(every) <= TINY.max_payload, "they fit in any packet"
    values = dict(zip(every, range(1 << 40, (1 << 40) + len(every)), strict=True))
    config = replace(TINY, vector=VectorConfig(words=64))
    assert unpack_counters(config, pack_counters(values.values())) == values


@pytest.mark.parametrize("config", [TINY, ULTIMATE], ids=["tiny", "ultimate"])
def test_identity(config):
    content = identity(config)
    magic, version, size, layout, build = IDENTITY.unpack_from(content)
    assert (magic, version, size) == (MAGIC, PROTOCOL_VERSION, len(content) - IDENTITY.size)
    assert (layout, build) == (config.layout_digest, config.build_digest)
    text = content[IDENTITY.size :]
    assert AcceleratorConfig.from_json(text) == config
    assert json.loads(text) == config.to_dict()


@pytest.mark.parametrize("kind", [Request, Response])
@pytest.mark.parametrize("excess", [-1, 1, 256])
def test_a_packet_of_another_length_than_it_says(kind, excess):
    """Its checksum is right all the same."""
    packet = kind(Opcode.LOAD, seq=3, payload=bytes(300)).pack()
    body = (len(packet) + excess).to_bytes(2, "little") + packet[2:-CRC_BYTES]
    assert kind.parse(seal(packet[:-CRC_BYTES])) is not None
    assert not sound(seal(body))
    assert kind.parse(seal(body)) is None
