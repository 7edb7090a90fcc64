"""The reference device against the text of `tritloom.rtl.spec.commands`, byte by byte."""

import json
import struct
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.plugins import Failing
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import checks
from tritloom.rtl.spec.commands import (
    COUNTERS,
    LAYER,
    PROTOCOL_VERSION,
    Opcode,
    Request,
    Response,
    Status,
    identity,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import BASE3X5, Encoding, encodings
from tritloom.rtl.spec.errors import ConfigError, DeviceError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import pack_activations, pack_weights, unpack_results
from tritloom.rtl.spec.plugins import Engine, engines
from tritloom.sim.device.reference import ReferenceDevice, open_device

SESSION = 0xFFEE01

# Four bits a word: the upper half of each byte of an image has no memory behind it.
PAIRS = encodings.add(
    Encoding(
        name="reference-test-pairs",
        trits_per_code=2,
        code_bits=4,
        encode=lambda trits: ((trits + 1) * np.array([1, 3])).sum(-1, dtype=np.uint32),
        decode=lambda codes: (codes[..., None] // np.array([1, 3]) % 3 - 1).astype(np.int8),
    )
)
engines.add(
    Engine(
        name="reference-test",
        component="",
        encodings=(PAIRS.name, BASE3X5.name),
        latency=lambda config: 1,
        fill_cycles=lambda config: 1,
        tile_cycles=lambda config: 1,
    )
)


def make_config(**values: object) -> AcceleratorConfig:
    defaults: dict[str, object] = {
        "lanes": 10,
        "rows": 3,
        "tokens": 2,
        "fill": 2,
        "memory": {"kind": "bram", "words": 40},
        "max_in_features": 35,
        "max_out_features": 19,
        "max_layers": 3,
        "packet_bytes": 256,
        "slots": 4,
    }
    return AcceleratorConfig.from_dict(defaults | values)


class Client:
    """Sends commands in order, in a session of its own."""

    def __init__(self, config: AcceleratorConfig, session: int = SESSION) -> None:
        self.config = config
        self.device = ReferenceDevice(config)
        self.session = session
        self.seq = 0
        response = self.send(Opcode.RESET, seq=0)
        assert response == Response(Opcode.RESET, 0, session, Status.OK, 1, PROTOCOL_VERSION)

    def send(self, opcode: int, *, seq: int | None = None, **fields: object) -> Response:
        if seq is None:
            self.seq = seq = (self.seq + 1) % 65536
        fields = {"session": self.session} | fields
        packet = self.device.process(Request(opcode, seq, **fields).pack())  # type: ignore[arg-type]
        assert packet is not None
        response = Response.parse(packet)
        assert response is not None
        return response

    def status(self, opcode: int, **fields: object) -> Status:
        """The status of the next command; an error has neither payload nor value."""
        response = self.send(opcode, **fields)
        expected = (self.seq + 1) % 65536
        assert (response.opcode, response.seq, response.session) == (opcode, self.seq, self.session)
        assert response.expected == expected
        if response.status not in (Status.OK, Status.BAD_CHECKSUM):
            assert (response.value, response.payload) == (0, b"")
        return Status(response.status)

    def define(self, index: int, base: int, tiles: int, groups: int) -> Status:
        return self.status(Opcode.DEFINE, index=index, payload=LAYER.pack(base, tiles, groups))

    def write_image(self, index: int, image: bytes) -> None:
        size = self.config.word_bytes
        step = self.config.max_payload // size
        for address in range(0, len(image) // size, step):
            part = image[address * size : (address + step) * size]
            assert self.status(Opcode.WRITE, index=index, address=address, payload=part) == 0

    def read_image(self, index: int, words: int) -> bytes:
        step = self.config.max_payload // self.config.word_bytes
        image = b""
        for address in range(0, words, step):
            count = min(step, words - address)
            image += self.send(Opcode.READ, index=index, address=address, count=count).payload
        return image

    def load_layer(self, index: int, base: int, trits: np.ndarray) -> LayerShape:
        shape = LayerShape.of(self.config, *trits.shape)
        image = pack_weights(self.config, trits)
        assert self.define(index, base, shape.tiles, shape.row_groups) == Status.OK
        self.write_image(index, image)
        assert self.status(Opcode.COMMIT, index=index, address=zlib.crc32(image)) == Status.OK
        return shape

    def counters(self) -> dict[str, int]:
        response = self.send(Opcode.COUNTERS)
        return dict(zip(COUNTERS, struct.unpack("<6Q", response.payload), strict=True))


@pytest.fixture
def client() -> Client:
    return Client(make_config())


def trits_of(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return rng.integers(-1, 2, (rows, columns)).astype(np.int8)


def test_bytes_of_a_reset() -> None:
    device = ReferenceDevice(make_config())
    body = bytes.fromhex("1400 3412 efbead de c1 00 0000 00000000")
    response = bytes.fromhex("1400 3412 efbead de c1 00 0100 02000000")
    assert device.process(body + zlib.crc32(body).to_bytes(4, "little")) == (
        response + zlib.crc32(response).to_bytes(4, "little")
    )


def test_bytes_of_a_read(client: Client) -> None:
    client.define(2, 5, 1, 2)
    client.write_image(2, bytes(range(12)))
    packet = client.device.process(
        Request(
            Opcode.READ, 3, SESSION, index=2, count=1, address=1, result_bank=1, acknowledged=0x9A
        ).pack()
    )
    response = bytes.fromhex("1a00 0300 01eeff 9a 85 00 0400 00000000 060708090a0b")
    assert packet == response + zlib.crc32(response).to_bytes(4, "little")


def test_power_up_is_session_0() -> None:
    device = ReferenceDevice(make_config())
    response = Response.parse(device.process(Request(Opcode.COUNTERS, 1).pack()) or b"")
    assert response is not None
    assert (response.status, response.session, response.expected) == (Status.OK, 0, 2)
    response = Response.parse(device.process(Request(Opcode.RESET, 9, payload=b"").pack()) or b"")
    assert response == Response(Opcode.RESET, 9, 0, Status.OK, 2, PROTOCOL_VERSION)


@pytest.mark.parametrize("byte", [0, 1, 2, 8, 15, 16, 19])
def test_corrupt_packets_are_dropped_and_counted(client: Client, byte: int) -> None:
    packet = bytearray(Request(Opcode.IDENTIFY, 1, SESSION, count=4).pack())
    packet[byte] ^= 0x10
    assert client.device.process(bytes(packet)) is None
    assert client.counters()["bad_packets"] == 1


def test_wrong_lengths_are_dropped_and_counted(client: Client) -> None:
    good = Request(Opcode.COUNTERS, 1, SESSION).pack()
    lying = bytearray(good[:-4])
    lying[0] += 1
    bad = [b"", b"\0", good[:-1], good + b"\0", good[:19]]
    bad.append(bytes(lying) + zlib.crc32(lying).to_bytes(4, "little"))
    # A longer packet than the device can hold, all else right.
    bad.append(Request(Opcode.LOAD, 1, SESSION, payload=bytes(237)).pack())
    for packet in bad:
        assert client.device.process(packet) is None
    counters = client.counters()
    assert counters["bad_packets"] == len(bad)
    assert counters["packets"] == 2


def test_corrupt_reset_starts_nothing(client: Client) -> None:
    packet = bytearray(Request(Opcode.RESET, 0, 77).pack())
    packet[-1] ^= 1
    assert client.device.process(bytes(packet)) is None
    assert client.status(Opcode.COUNTERS) == Status.OK


def test_other_sessions_are_refused_before_anything_else(client: Client) -> None:
    for seq, opcode in ((1, Opcode.COUNTERS), (9, Opcode.COUNTERS), (1, 33)):
        response = client.send(opcode, seq=seq, session=SESSION + 1)
        assert response == Response(opcode, seq, SESSION + 1, Status.NO_SESSION, 1)
    assert client.status(Opcode.COUNTERS) == Status.OK


def test_reset_to_the_same_session_changes_nothing(client: Client) -> None:
    client.define(0, 0, 1, 1)
    first = client.send(Opcode.IDENTIFY, count=3)
    again = client.send(Opcode.RESET, seq=500)
    assert again == Response(Opcode.RESET, 500, SESSION, Status.OK, 3, PROTOCOL_VERSION)
    assert client.send(Opcode.IDENTIFY, seq=2, count=3) == first
    assert client.status(Opcode.READ, index=0, count=1) == Status.OK


def test_reset_to_another_session_forgets_layers_results_and_answers(client: Client) -> None:
    rng = np.random.default_rng(0)
    trits = trits_of(rng, 3, 10)
    client.load_layer(0, 4, trits)
    client.send(Opcode.LOAD, payload=bytes([1] * 10))
    client.send(Opcode.RUN, index=0, count=1)
    assert client.status(Opcode.RESULTS, count=3) == Status.OK
    last = client.seq
    client.session, client.seq = 5, 0
    response = client.send(Opcode.RESET, seq=0)
    assert response == Response(Opcode.RESET, 0, 5, Status.OK, 1, PROTOCOL_VERSION)
    for seq in (0, 65535, last, 2):
        response = client.send(Opcode.COUNTERS, seq=seq)
        assert response == Response(Opcode.COUNTERS, seq, 5, Status.NAK, 1)
    assert client.status(Opcode.RESULTS, count=1) == Status.BAD_STATE
    assert client.status(Opcode.READ, index=0, count=1) == Status.BAD_STATE
    # Weights and activations stay.
    assert client.define(1, 4, 1, 1) == Status.OK
    image = pack_weights(client.config, trits)
    assert client.read_image(1, 1) == image
    assert client.status(Opcode.COMMIT, index=1, address=zlib.crc32(image)) == Status.OK
    client.send(Opcode.RUN, index=1, count=1)
    sums = unpack_results(client.config, client.send(Opcode.RESULTS, count=3).payload)
    assert (sums == trits.sum(1)).all()


def test_reset_takes_any_payload(client: Client) -> None:
    """A later protocol may add one; what starts a session must not depend on its version."""
    response = client.send(Opcode.RESET, seq=4, session=9, payload=b"x")
    assert response == Response(Opcode.RESET, 4, 9, Status.OK, 1, PROTOCOL_VERSION)


def test_only_the_next_command_is_executed(client: Client) -> None:
    for seq in (0, 2, 3, 30000, 65535):
        response = client.send(Opcode.COUNTERS, seq=seq)
        assert response == Response(Opcode.COUNTERS, seq, SESSION, Status.NAK, 1)
    assert client.status(Opcode.COUNTERS) == Status.OK


@pytest.mark.parametrize("slots", [2, 4, 8])
def test_a_command_again_is_answered_as_the_first_time(slots: int) -> None:
    client = Client(make_config(slots=slots))
    window = slots - 1
    first: list[Response] = []
    for seq in range(1, 2 * slots):
        # A counter would change if the command were executed again.
        first.append(client.send(Opcode.COUNTERS if seq % 2 else 33))
        for age in range(window + 2):
            again = client.send(Opcode.COUNTERS, seq=(seq - age) % 65536)
            if age < min(window, len(first)):
                assert again == first[-1 - age]
            else:
                nak = Response(Opcode.COUNTERS, (seq - age) % 65536, SESSION, Status.NAK, seq + 1)
                assert again == nak


def test_a_repeated_write_is_not_executed_again(client: Client) -> None:
    client.define(0, 0, 1, 1)
    client.send(Opcode.WRITE, index=0, payload=b"abcdef")
    client.send(Opcode.WRITE, index=0, payload=b"ghijkl")
    assert client.send(Opcode.WRITE, seq=2, index=0, payload=b"abcdef").status == Status.OK
    assert client.read_image(0, 1) == b"ghijkl"


def test_seq_wraps() -> None:
    client = Client(make_config(slots=4))
    for seq in range(1, 65535):
        client.device.process(Request(33, seq, SESSION).pack())
    client.seq = 65534
    last = client.send(Opcode.IDENTIFY, count=3)
    assert (client.seq, last.seq, last.expected, last.payload) == (65535, 65535, 0, b"TRI")
    first = client.send(Opcode.IDENTIFY, count=1)
    assert (client.seq, first.seq, first.expected, first.payload) == (0, 0, 1, b"T")
    assert client.send(Opcode.IDENTIFY, seq=0) == first
    assert client.send(Opcode.IDENTIFY, seq=65535) == last
    assert client.send(Opcode.IDENTIFY, seq=65534).status == Status.BAD_OPCODE
    assert client.send(Opcode.IDENTIFY, seq=65533).status == Status.NAK


def test_every_failed_command_takes_its_number(client: Client) -> None:
    assert client.status(33) == Status.BAD_OPCODE
    assert client.status(0, payload=b"abc") == Status.BAD_OPCODE
    assert client.status(11, index=255) == Status.BAD_OPCODE
    assert client.seq == 3


NO_PAYLOAD = [
    Opcode.IDENTIFY,
    Opcode.READ,
    Opcode.COMMIT,
    Opcode.RUN,
    Opcode.RESULTS,
    Opcode.COUNTERS,
]


@pytest.mark.parametrize("opcode", NO_PAYLOAD)
def test_length_comes_before_all_else(client: Client, opcode: Opcode) -> None:
    wrong = {"index": 255, "count": 0, "address": 0xFFFFFFFF}
    assert client.status(opcode, payload=b"x", **wrong) == Status.BAD_LENGTH


def test_order_of_the_other_checks(client: Client) -> None:
    far = 0xFFFFFFFF
    for size in (0, 9, 11):
        payload = bytes(size)
        assert client.status(Opcode.DEFINE, index=255, payload=payload) == Status.BAD_LENGTH
    for opcode, limit in (
        (Opcode.DEFINE, 3),
        (Opcode.WRITE, 3),
        (Opcode.READ, 3),
        (Opcode.COMMIT, 3),
        (Opcode.LOAD, 2),
        (Opcode.RUN, 3),
        (Opcode.RESULTS, 2),
    ):
        payload = bytes(LAYER.size) if opcode == Opcode.DEFINE else b""
        for index in (limit, 255):
            status = client.status(opcode, index=index, address=far, payload=payload)
            assert status == Status.OUT_OF_RANGE, opcode
    for opcode in (Opcode.READ, Opcode.RUN, Opcode.RESULTS):
        for count in (0, 0xFFFF):
            status = client.status(opcode, count=count, address=far)
            assert status == Status.BAD_LENGTH, opcode
        assert client.status(opcode, count=1, address=far) == Status.BAD_STATE, opcode
    assert client.status(Opcode.COMMIT, address=far) == Status.BAD_STATE
    assert client.status(Opcode.WRITE, address=far, payload=b"x") == Status.BAD_STATE


@pytest.mark.parametrize("opcode", [Opcode.COUNTERS, Opcode.COMMIT, Opcode.DEFINE, Opcode.RUN])
def test_fields_without_use_are_ignored(client: Client, opcode: Opcode) -> None:
    client.load_layer(1, 0, np.zeros((3, 10), np.int8))
    client.define(2, 0, 1, 1)
    fields: dict[str, object] = {
        Opcode.COUNTERS: {"index": 255, "count": 9, "address": 9},
        Opcode.COMMIT: {
            "index": 2,
            "count": 999,
            "address": zlib.crc32(pack_weights(client.config, np.zeros((3, 10), np.int8))),
        },
        Opcode.DEFINE: {"count": 999, "address": 0xFFFFFFFF, "payload": LAYER.pack(0, 1, 1)},
        Opcode.RUN: {"index": 1, "count": 1, "address": 0xFFFFFFFF},
    }[opcode]
    assert client.status(opcode, **fields) == Status.OK


def test_identify(client: Client) -> None:
    whole = identity(client.config)
    assert json.loads(whole[24:]) == client.config.to_dict()
    read = b""
    while len(read) < len(whole):
        count = min(client.config.max_payload, len(whole) - len(read))
        response = client.send(Opcode.IDENTIFY, address=len(read), count=count, index=255)
        assert (response.status, response.value) == (Status.OK, 0)
        read += response.payload
    assert read == whole
    assert client.status(Opcode.IDENTIFY) == Status.BAD_LENGTH
    assert client.status(Opcode.IDENTIFY, count=237) == Status.BAD_LENGTH
    end = len(whole)
    assert client.send(Opcode.IDENTIFY, address=end - 1, count=1).payload == whole[-1:]
    for address, count in ((end - 1, 2), (end, 1), (0xFFFFFFFF, 1)):
        status = client.status(Opcode.IDENTIFY, address=address, count=count)
        assert status == Status.OUT_OF_RANGE


def test_bounds_of_a_layer(client: Client) -> None:
    # 35 inputs are 4 tiles of 10, 19 outputs are 7 groups of 3; the memory has 40 words.
    good = [(0, 1, 1), (0, 4, 7), (12, 4, 7), (39, 1, 1), (36, 4, 1), (33, 1, 7)]
    bad = [(0, 0, 1), (0, 1, 0), (0, 5, 1), (0, 1, 8), (13, 4, 7), (40, 1, 1), (37, 4, 1)]
    bad += [(0xFFFFFFFF, 1, 1), (0, 0xFFFF, 0xFFFF), (0, 0, 0), (0xFFFFFFE4, 4, 7)]
    for shape in good:
        assert client.define(0, *shape) == Status.OK, shape
    for shape in bad:
        assert client.define(0, *shape) == Status.OUT_OF_RANGE, shape


def test_a_refused_define_leaves_the_layer(client: Client) -> None:
    client.load_layer(0, 0, np.ones((3, 10), np.int8))
    assert client.define(0, 40, 1, 1) == Status.OUT_OF_RANGE
    assert client.status(Opcode.RUN, index=0, count=1) == Status.OK
    assert client.define(0, 0, 1, 1) == Status.OK
    assert client.status(Opcode.RUN, index=0, count=1) == Status.BAD_STATE
    assert client.define(0, 40, 1, 1) == Status.OUT_OF_RANGE
    assert client.status(Opcode.WRITE, index=0, payload=bytes(6)) == Status.OK


def test_write_and_read_are_relative_to_the_layer(client: Client) -> None:
    size = client.config.word_bytes
    whole = bytes(range(40 * size))
    assert client.define(0, 12, 4, 7) == Status.OK
    client.write_image(0, whole[12 * size :])
    assert client.define(1, 0, 2, 6) == Status.OK
    client.write_image(1, whole[: 12 * size])
    assert client.define(2, 10, 2, 2) == Status.OK
    assert client.read_image(2, 4) == whole[10 * size : 14 * size]
    assert client.send(Opcode.READ, index=2, address=3, count=1).payload == whole[78:84]


def test_bounds_of_read_and_write(client: Client) -> None:
    client.define(0, 10, 2, 2)
    for address, count in ((0, 5), (3, 2), (4, 1), (0xFFFFFFFF, 1)):
        status = client.status(Opcode.READ, index=0, address=address, count=count)
        assert status == Status.OUT_OF_RANGE
        status = client.status(Opcode.WRITE, index=0, address=address, payload=bytes(count * 6))
        assert status == Status.OUT_OF_RANGE
    assert client.status(Opcode.READ, index=0, address=3, count=1) == Status.OK
    assert client.status(Opcode.WRITE, index=0, address=3, payload=bytes(6)) == Status.OK
    # 236 payload bytes hold 39 words of 6.
    client.define(1, 0, 4, 7)
    assert client.status(Opcode.READ, index=1, count=40) == Status.BAD_LENGTH
    assert client.status(Opcode.READ, index=1, count=39) == Status.OUT_OF_RANGE
    wide = Client(make_config(memory=BlockRam(words=40), max_in_features=60))
    wide.define(0, 0, 6, 6)
    assert wide.status(Opcode.READ, index=0, count=36) == Status.OK


def test_write_takes_words_until_one_is_out_of_range(client: Client) -> None:
    client.define(0, 10, 1, 6)
    client.write_image(0, b"......" * 6)
    client.define(0, 10, 1, 3)
    written = b"abcdef" + b"ghijkl" + b"mnopqr"
    status = client.status(Opcode.WRITE, index=0, address=1, payload=written + b"st")
    assert status == Status.OUT_OF_RANGE
    client.define(0, 10, 1, 6)
    assert client.read_image(0, 6) == b"......" + b"abcdef" + b"ghijkl" + b"......" * 3


def test_write_of_a_part_of_a_word(client: Client) -> None:
    client.define(0, 10, 1, 2)
    client.write_image(0, b"......" * 2)
    status = client.status(Opcode.WRITE, index=0, payload=b"abcdefghi")
    assert status == Status.BAD_LENGTH
    assert client.read_image(0, 2) == b"abcdef" + b"......"
    assert client.status(Opcode.WRITE, index=0, address=9, payload=b"abcde") == Status.BAD_LENGTH
    assert client.status(Opcode.WRITE, index=0, address=9) == Status.OK
    assert client.status(Opcode.WRITE, index=0, address=9, count=9) == Status.OK


def test_states_of_a_layer(client: Client) -> None:
    image = bytes(range(6))
    crc = zlib.crc32(image)
    assert client.status(Opcode.WRITE, index=1, payload=image) == Status.BAD_STATE
    assert client.status(Opcode.COMMIT, index=1, address=0) == Status.BAD_STATE
    assert client.status(Opcode.READ, index=1, count=1) == Status.BAD_STATE
    assert client.status(Opcode.RUN, index=1, count=1) == Status.BAD_STATE
    client.define(1, 0, 1, 1)
    client.write_image(1, image)
    assert client.status(Opcode.RUN, index=1, count=1) == Status.BAD_STATE
    assert client.status(Opcode.READ, index=1, count=1) == Status.OK
    response = client.send(Opcode.COMMIT, index=1, address=crc ^ 1)
    assert (response.status, response.value, response.payload) == (Status.BAD_CHECKSUM, crc, b"")
    assert client.status(Opcode.RUN, index=1, count=1) == Status.BAD_STATE
    assert client.status(Opcode.WRITE, index=1, payload=image) == Status.OK
    response = client.send(Opcode.COMMIT, index=1, address=crc)
    assert (response.status, response.value, response.payload) == (Status.OK, crc, b"")
    assert client.status(Opcode.WRITE, index=1, payload=image) == Status.BAD_STATE
    assert client.status(Opcode.COMMIT, index=1, address=crc) == Status.BAD_STATE
    assert client.status(Opcode.READ, index=1, count=1) == Status.OK
    assert client.status(Opcode.RUN, index=1, count=1) == Status.OK
    client.define(1, 0, 1, 1)
    assert client.status(Opcode.RUN, index=1, count=1) == Status.BAD_STATE


def test_checksum_is_of_the_layers_words_alone(client: Client) -> None:
    client.define(0, 0, 4, 7)
    whole = bytes(range(168))
    client.write_image(0, whole)
    client.define(0, 3, 2, 5)
    part = whole[18:78]
    assert client.status(Opcode.COMMIT, index=0, address=zlib.crc32(part)) == Status.OK


def test_bits_that_a_word_has_not_are_zero() -> None:
    config = make_config(lanes=2, rows=1, engine="reference-test", encoding=PAIRS.name)
    assert (config.word_bits, config.word_bytes) == (4, 1)
    client = Client(config)
    client.define(0, 0, 1, 2)
    client.write_image(0, b"\xf8\x30")
    assert client.read_image(0, 2) == b"\x08\x00"
    crc = zlib.crc32(b"\x08\x00")
    assert client.status(Opcode.COMMIT, index=0, address=crc) == Status.OK
    client.send(Opcode.LOAD, payload=b"\x01\x02")
    client.send(Opcode.RUN, index=0, count=1)
    response = client.send(Opcode.RESULTS, count=2)
    assert unpack_results(config, response.payload).tolist() == [3, -3]


def test_load_fills_the_tokens_buffer(client: Client) -> None:
    client.load_layer(0, 0, np.eye(3, 35, dtype=np.int8) + np.eye(3, 35, 32, dtype=np.int8))
    for index, value in ((0, 1), (1, 2)):
        assert client.status(Opcode.LOAD, index=index, payload=bytes([value] * 40)) == Status.OK
    # 40 activations are 20 words of two.
    assert client.status(Opcode.LOAD, address=19, payload=b"zz") == Status.OK
    assert client.status(Opcode.LOAD, address=20, payload=b"zz") == Status.OUT_OF_RANGE
    assert client.status(Opcode.LOAD, address=0xFFFFFFFF, payload=b"zz") == Status.OUT_OF_RANGE
    assert client.status(Opcode.LOAD, address=20) == Status.OK
    assert client.status(Opcode.LOAD, address=20, payload=b"z") == Status.BAD_LENGTH
    assert client.status(Opcode.LOAD, address=1, payload=b"\x05\x06\x07") == Status.BAD_LENGTH
    status = client.status(Opcode.LOAD, address=16, payload=b"\x09\x0a" * 5 + b"z")
    assert status == Status.OUT_OF_RANGE
    client.send(Opcode.RUN, index=0, count=2)
    sums = [
        unpack_results(client.config, client.send(Opcode.RESULTS, index=i, count=3).payload)
        for i in (0, 1)
    ]
    # Trit rows pick codes 0 + 32, 1 + 33 and 2 + 34.
    assert sums[0].tolist() == [1 + 9, 1 + 10, 5 + 9]
    assert sums[1].tolist() == [4, 4, 4]


def test_run_takes_one_to_tokens(client: Client) -> None:
    client.load_layer(0, 0, np.ones((3, 10), np.int8))
    for count, status in ((0, Status.BAD_LENGTH), (1, 0), (2, 0), (3, Status.BAD_LENGTH)):
        assert client.status(Opcode.RUN, index=0, count=count) == status


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"lanes": 5, "fill": 1, "rows": 1, "tokens": 1},
        {"lanes": 20, "fill": 20, "rows": 7, "tokens": 5},
        {"lanes": 35, "rows": 19, "fill": 5, "packet_bytes": 512},
    ],
)
def test_results_are_exact(values: dict[str, object]) -> None:
    config = make_config(memory=BlockRam(words=200), **values)
    client = Client(config)
    rng = np.random.default_rng(1)
    for case in range(12):
        out_features, in_features = rng.integers(1, 20), rng.integers(1, 36)
        trits = trits_of(rng, out_features, in_features)
        codes = rng.integers(-128, 128, (config.tokens, in_features)).astype(np.int8)
        if case == 0:
            trits, codes = np.full_like(trits, -1), np.full_like(codes, -128)
        shape = client.load_layer(case % 3, int(rng.integers(0, 8)), trits)
        for index, row in enumerate(codes):
            data = pack_activations(config, row)
            assert client.status(Opcode.LOAD, index=index, payload=data) == Status.OK
        response = client.send(Opcode.RUN, index=case % 3, count=config.tokens)
        assert (response.status, response.value) == (Status.OK, 0)
        expected = codes.astype(np.int64) @ trits.T.astype(np.int64)
        for index in range(config.tokens):
            sums: list[int] = []
            for group in range(shape.row_groups):
                response = client.send(
                    Opcode.RESULTS, index=index, address=group, count=config.rows
                )
                assert response.value == (config.run_cycles(shape) or 0)
                assert len(response.payload) == config.rows * config.acc_bytes
                sums += unpack_results(config, response.payload).tolist()
            assert sums[:out_features] == expected[index].tolist()
            assert not any(sums[out_features:])


def test_bounds_of_results(client: Client) -> None:
    config = client.config
    assert config.acc_bytes == 2
    client.load_layer(0, 0, np.ones((7, 10), np.int8))
    client.load_layer(1, 20, np.ones((19, 10), np.int8))
    client.send(Opcode.RUN, index=1, count=2)
    client.send(Opcode.RUN, index=0, count=2)
    # A RUN that is refused changes nothing.
    client.send(Opcode.RUN, index=1, count=3)
    good = [(0, 1), (0, 9), (1, 6), (2, 3), (2, 2), (1, 4)]
    bad = [(0, 10), (1, 7), (2, 4), (3, 1), (0xFFFFFFFF, 1), (0x55555556, 1)]
    for address, count in good:
        response = client.send(Opcode.RESULTS, index=1, address=address, count=count)
        assert (response.status, len(response.payload)) == (Status.OK, 2 * count)
    for address, count in bad:
        status = client.status(Opcode.RESULTS, address=address, count=count)
        assert status == Status.OUT_OF_RANGE
    assert client.status(Opcode.RESULTS, count=118) == Status.OUT_OF_RANGE
    assert client.status(Opcode.RESULTS, count=119) == Status.BAD_LENGTH


def loaded_and_run(client: Client, bank: int, code: int, *, activations: int | None = None) -> None:
    """Load 10 times `code` to an activation bank, and run layer 0 into the result bank `bank`."""
    activations = bank if activations is None else activations
    client.send(Opcode.LOAD, payload=bytes([code] * 10), activation_bank=activations)
    status = client.status(
        Opcode.RUN, index=0, count=1, activation_bank=activations, result_bank=bank
    )
    assert status == Status.OK


def sum_in(client: Client, bank: int, **fields: object) -> int:
    """The first result of a result bank."""
    response = client.send(Opcode.RESULTS, count=1, result_bank=bank, **fields)
    assert response.status == Status.OK
    return int(unpack_results(client.config, response.payload)[0])


def test_a_result_bank_keeps_its_results(client: Client) -> None:
    client.load_layer(0, 0, np.ones((3, 10), np.int8))
    loaded_and_run(client, 0, 1)
    loaded_and_run(client, 1, 2)
    assert (sum_in(client, 0), sum_in(client, 1)) == (10, 20)
    loaded_and_run(client, 1, 3)
    assert (sum_in(client, 0), sum_in(client, 1), sum_in(client, 0)) == (10, 30, 10)
    assert sum_in(client, 0, activation_bank=1) == 10


def test_an_activation_bank_keeps_its_activations(client: Client) -> None:
    """Several RUNs of one LOAD, and a LOAD that writes a part of the bank."""
    client.load_layer(0, 0, np.ones((3, 10), np.int8))
    loaded_and_run(client, 0, 1, activations=1)
    client.send(Opcode.LOAD, payload=bytes([5] * 10), activation_bank=0)
    banks = {"activation_bank": 1, "result_bank": 1}
    client.send(Opcode.RUN, index=0, count=1, **banks)
    assert (sum_in(client, 0), sum_in(client, 1)) == (10, 10)
    client.send(Opcode.LOAD, address=1, payload=bytes([3, 3]), activation_bank=1)
    client.send(Opcode.RUN, index=0, count=1, **banks)
    assert (sum_in(client, 0), sum_in(client, 1)) == (10, 14)


def test_each_result_bank_has_its_row_groups_and_cycles(client: Client) -> None:
    shapes = [client.load_layer(0, 0, np.ones((7, 10), np.int8))]
    shapes.append(client.load_layer(1, 20, np.ones((3, 30), np.int8)))
    assert client.status(Opcode.RESULTS, count=1, result_bank=1) == Status.BAD_STATE
    client.send(Opcode.RUN, index=0, count=1)
    assert client.status(Opcode.RESULTS, count=1, result_bank=1) == Status.BAD_STATE
    client.send(Opcode.RUN, index=1, count=1, result_bank=1)
    for bank, shape in enumerate(shapes):
        last = {"result_bank": bank, "count": 1}
        response = client.send(Opcode.RESULTS, address=shape.row_groups - 1, **last)
        assert response.status == Status.OK
        assert response.value == client.config.run_cycles(shape)
        status = client.status(Opcode.RESULTS, address=shape.row_groups, **last)
        assert status == Status.OUT_OF_RANGE
    assert client.config.run_cycles(shapes[0]) != client.config.run_cycles(shapes[1])


def test_a_run_that_fails_leaves_the_banks(client: Client) -> None:
    client.load_layer(0, 0, np.ones((3, 10), np.int8))
    loaded_and_run(client, 1, 2)
    assert client.status(Opcode.RUN, index=2, count=1, result_bank=1) == Status.BAD_STATE
    assert sum_in(client, 1) == 20


def test_a_device_with_one_bank() -> None:
    client = Client(make_config(banks=1))
    client.load_layer(0, 0, np.ones((3, 10), np.int8))
    for opcode, fields in (
        (Opcode.LOAD, {"payload": b"xx", "activation_bank": 1}),
        (Opcode.RUN, {"count": 1, "activation_bank": 1}),
        (Opcode.RUN, {"count": 1, "result_bank": 1}),
    ):
        assert client.status(opcode, **fields) == Status.OUT_OF_RANGE
    loaded_and_run(client, 0, 1)
    assert sum_in(client, 0) == 10
    assert client.status(Opcode.RESULTS, count=1, result_bank=1) == Status.OUT_OF_RANGE


def test_reset_empties_both_banks(client: Client) -> None:
    client.load_layer(0, 0, np.ones((3, 10), np.int8))
    loaded_and_run(client, 0, 1)
    loaded_and_run(client, 1, 2)
    client.session, client.seq = 5, 0
    client.send(Opcode.RESET, seq=0)
    for bank in (0, 1):
        assert client.status(Opcode.RESULTS, count=1, result_bank=bank) == Status.BAD_STATE


def test_results_are_replayed_after_their_bank_was_overwritten(client: Client) -> None:
    client.load_layer(0, 0, np.ones((3, 10), np.int8))
    loaded_and_run(client, 0, 1)
    first = client.send(Opcode.RESULTS, count=1)
    loaded_and_run(client, 0, 2)
    assert client.send(Opcode.RESULTS, seq=client.seq - 2, count=1) == first
    assert sum_in(client, 0) == 20


def test_result_bytes_are_little_end_first_and_signed(client: Client) -> None:
    trits = np.zeros((3, 10), np.int8)
    trits[0, :3], trits[1, 0], trits[2, 0] = 1, 1, -1
    client.load_layer(0, 0, trits)
    client.send(Opcode.LOAD, payload=bytes([0x7F, 0x7F, 0x7F]) + bytes(7))
    client.send(Opcode.RUN, index=0, count=1)
    assert client.send(Opcode.RESULTS, count=3).payload == bytes.fromhex("7d01 7f00 81ff")


def test_run_sees_what_was_written_last_through_another_layer(client: Client) -> None:
    client.load_layer(0, 0, np.ones((3, 10), np.int8))
    client.send(Opcode.LOAD, payload=bytes([1] * 10))
    client.send(Opcode.RUN, index=0, count=1)
    client.define(1, 0, 1, 1)
    client.write_image(1, pack_weights(client.config, -np.ones((3, 10), np.int8)))
    client.send(Opcode.RUN, index=0, count=1)
    sums = unpack_results(client.config, client.send(Opcode.RESULTS, count=3).payload)
    assert sums.tolist() == [-10, -10, -10]


def test_run_sees_the_layers_new_place(client: Client) -> None:
    client.load_layer(0, 0, np.ones((3, 10), np.int8))
    client.load_layer(1, 1, -np.ones((3, 10), np.int8))
    client.send(Opcode.LOAD, payload=bytes([1] * 10))
    for base, total in ((0, 10), (1, -10)):
        client.define(0, base, 1, 1)
        crc = zlib.crc32(client.read_image(0, 1))
        assert client.status(Opcode.COMMIT, index=0, address=crc) == Status.OK
        client.send(Opcode.RUN, index=0, count=1)
        sums = unpack_results(client.config, client.send(Opcode.RESULTS, count=3).payload)
        assert sums.tolist() == [total] * 3


def test_codes_that_no_trits_have_do_not_stop_the_device(client: Client) -> None:
    image = b"\xff" * 6
    client.define(0, 0, 1, 1)
    client.write_image(0, image)
    assert client.status(Opcode.COMMIT, index=0, address=zlib.crc32(image)) == Status.OK
    assert client.status(Opcode.RUN, index=0, count=1) == Status.OK
    assert client.status(Opcode.RESULTS, count=3) == Status.OK


def test_counters(client: Client) -> None:
    shape = client.load_layer(0, 0, np.ones((3, 30), np.int8))
    before = client.counters()
    client.send(Opcode.RUN, index=0, count=1)
    client.send(Opcode.COUNTERS, seq=9999)
    client.device.process(b"?")
    after = client.counters()
    cycles = client.config.run_cycles(shape) or 0
    assert {name: after[name] - before[name] for name in COUNTERS} == {
        "cycles": cycles,
        "run_cycles": cycles,
        "stall_cycles": 0,
        "packets": 3,
        "bad_packets": 1,
        "dropped_packets": 0,
    }
    client.session, client.seq = 8, 0
    client.send(Opcode.RESET, seq=0)
    assert client.counters()["packets"] == after["packets"] + 2


def test_random_packets_always_have_a_sound_response_and_keep_order() -> None:
    rng = np.random.default_rng(7)
    client = Client(make_config())
    expected = 1
    for _ in range(3000):
        request = Request(
            opcode=int(rng.integers(0, 13)),
            seq=int(rng.integers(expected - 2, expected + 2)) % 65536,
            session=SESSION if rng.random() < 0.95 else 3,
            index=int(rng.integers(0, 5)),
            count=int(rng.integers(0, 8)),
            address=int(rng.integers(0, 30)),
            payload=rng.bytes(int(rng.choice([0, 0, 10, 12, 7]))),
            activation_bank=int(rng.integers(0, 2)),
            result_bank=int(rng.integers(0, 2)),
            acknowledged=int(rng.integers(0, 256)),
        )
        if request.opcode == Opcode.RESET and request.session != SESSION:
            continue
        response = Response.parse(client.device.process(request.pack()) or b"")
        assert response is not None
        assert response.seq == request.seq
        if request.seq == expected or response.status in (Status.NAK, Status.NO_SESSION):
            for name in ("opcode", "session", "activation_bank", "result_bank", "acknowledged"):
                assert getattr(response, name) == getattr(request, name)
        if response.status in (Status.NAK, Status.NO_SESSION) or request.opcode == Opcode.RESET:
            assert response.expected == expected
        elif request.seq == expected:
            expected = (expected + 1) % 65536
            assert response.expected == expected


GOLDEN = SimpleNamespace(scheme="golden", path="", query={})


def test_transport_queues_answers() -> None:
    transport = open_device(GOLDEN, make_config())
    assert transport.timeout_s == 0
    assert transport.receive(1.0) is None
    transport.send(Request(Opcode.RESET, 0, 3).pack())
    transport.send(b"noise")
    transport.send(Request(Opcode.IDENTIFY, 1, 3, count=4).pack())
    assert transport.receive(0.0) == Response(Opcode.RESET, 0, 3, 0, 1, PROTOCOL_VERSION).pack()
    assert transport.receive(0.0) == Response(Opcode.IDENTIFY, 1, 3, 0, 2, 0, b"TRIT").pack()
    assert transport.receive(0.0) is None
    transport.close()
    transport.close()
    with pytest.raises(DeviceError, match=r"^the golden device is closed; connect again$"):
        transport.receive(0.0)
    with pytest.raises(DeviceError, match=r"^the golden device is closed; connect again$"):
        transport.send(b"")


def test_transport_moves_blocks() -> None:
    """As one packet after the other; a block has at most as many packets as the window."""
    config = make_config(slots=4)
    transport = open_device(GOLDEN, config)
    assert transport.block == config.window == 3
    requests = [
        Request(Opcode.RESET, 0, 3),
        *(Request(Opcode.IDENTIFY, seq, 3, count=seq) for seq in (1, 2, 3, 4)),
    ]
    transport.send_block([])
    assert transport.receive_block(1.0) == []
    transport.send_block([requests[0].pack(), b"noise", requests[1].pack()])
    transport.send_block([request.pack() for request in requests[2:]])
    responses = [
        Response(Opcode.RESET, 0, 3, 0, 1, PROTOCOL_VERSION).pack(),
        *(
            Response(Opcode.IDENTIFY, seq, 3, 0, seq + 1, 0, b"TRIT"[:seq]).pack()
            for seq in (1, 2, 3, 4)
        ),
    ]
    assert transport.receive_block(0.0) == responses[:3]
    assert transport.receive(0.0) == responses[3]
    assert transport.receive_block(0.0) == responses[4:]
    assert transport.receive_block(0.0) == []
    transport.close()
    with pytest.raises(DeviceError, match=r"^the golden device is closed; connect again$"):
        transport.receive_block(0.0)
    with pytest.raises(DeviceError, match=r"^the golden device is closed; connect again$"):
        transport.send_block([b""])


def test_it_needs_a_configuration() -> None:
    with pytest.raises(
        ConfigError, match=r"^golden needs a configuration; name a board or pass config=$"
    ):
        open_device(GOLDEN, None)


def test_it_evaluates_the_table_of_checks(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    """No rule is repeated in the reference device: without its check, everything passes."""
    assert client.status(Opcode.COUNTERS, payload=b"x") == Status.BAD_LENGTH
    without = {**checks.checks_of(client.device.config), Opcode.COUNTERS: ()}
    monkeypatch.setattr(checks, "checks_of", lambda config: without)
    assert Client(client.device.config).status(Opcode.COUNTERS, payload=b"x") == Status.OK


def test_void_words() -> None:
    """RESULTS, READ and COMMIT fail if a word of theirs is void; each RUN decides for its bank."""
    config = replace(make_config(), memory=Failing(words=40))
    client = Client(config)
    trits = trits_of(np.random.default_rng(4), 6, 20)
    client.load_layer(0, 3, trits)  # words 3 to 6
    results = [{"count": 6, "result_bank": bank} for bank in (0, 1)]
    for void, fails in ((2, False), (3, True), (6, True), (7, False)):
        client.device.void_words = {void}
        status = Status.MEMORY_ERROR if fails else Status.OK
        assert client.status(Opcode.RUN, index=0, count=1) == Status.OK
        assert client.status(Opcode.READ, index=0, count=4) == status
        assert client.status(Opcode.RESULTS, **results[0]) == status
        beyond = status if fails else Status.OUT_OF_RANGE
        assert client.status(Opcode.RESULTS, count=1, address=2) == beyond
    client.device.void_words = {4}
    assert client.status(Opcode.READ, index=0, address=2, count=2) == Status.OK
    assert client.status(Opcode.READ, index=0, address=1, count=1) == Status.MEMORY_ERROR
    assert client.status(Opcode.RUN, index=0, count=1, result_bank=1) == Status.OK
    client.device.void_words = set()
    assert client.status(Opcode.RESULTS, **results[0]) == Status.OK
    assert client.status(Opcode.RESULTS, **results[1]) == Status.MEMORY_ERROR
    client.device.void_words = {4}
    assert client.define(1, 3, 2, 2) == Status.OK
    checksum = zlib.crc32(pack_weights(config, trits))
    assert client.status(Opcode.COMMIT, index=1, address=checksum) == Status.MEMORY_ERROR
    client.device.void_words = set()
    assert client.status(Opcode.COMMIT, index=1, address=checksum) == Status.OK
