"""The reference device with scales of activations: what SCALES stores, and what RUN makes of it."""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import requests
from tritloom.rtl.spec.commands import Opcode, Request, Response, Status
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.groups import float_totals, matmul_groups
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import half_scales, pack_weights, unpack_floats
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.sim.device.reference import ReferenceDevice

CONFIG = AcceleratorConfig(
    lanes=10,
    rows=3,
    tokens=2,
    fill=5,
    memory=BlockRam(words=60),
    max_in_features=60,
    max_out_features=7,
    max_layers=2,
    packet_bytes=256,
    scale=ScaleConfig(kind="float", group=20),
)


class Client:
    """Sends commands in order."""

    def __init__(self, config=CONFIG):
        self.config = config
        self.device = ReferenceDevice(config)
        self.restart(1)

    def restart(self, session):
        self.session, self.seq = session, 0
        self.device.process(Request(Opcode.RESET, session=session).pack())

    def send(self, request):
        self.seq += 1
        request = replace(request, seq=self.seq, session=self.session)
        return Response.parse(self.device.process(request.pack()))

    def status(self, opcode, **fields):
        return Status(self.send(Request(opcode, **fields)).status)

    def load(self, weights, scales=None, group=0):
        shape = LayerShape.of(self.config, *weights.shape, group)
        halves = None if scales is None else half_scales(scales, scales.shape)
        image = pack_weights(self.config, weights, group, halves)
        self.send(requests.define_layer(0, 0, shape))
        for request in requests.write_words(self.config, 0, image, self.config.max_payload):
            self.send(request)
        assert self.status(Opcode.COMMIT, address=zlib.crc32(image)) == Status.OK

    def load_codes(self, token, codes, bank=0, group=0):
        limit = self.config.max_payload
        for request in requests.load_activations(self.config, token, codes, limit, bank, group):
            assert self.send(request).status == Status.OK

    def load_scales(self, token, scales, bank=0, address=0):
        payload = np.array(scales, "<f4").tobytes()
        fields = {"index": token, "address": address, "payload": payload, "activation_bank": bank}
        assert self.status(Opcode.SCALES, **fields) == Status.OK

    def results(self, token, rows, bank=0):
        assert self.status(Opcode.RUN, count=token + 1, activation_bank=bank) == Status.OK
        response = self.send(Request(Opcode.RESULTS, index=token, count=rows))
        return unpack_floats(response.payload)


def test_each_bank_token_and_group_has_its_scale():
    client = Client()
    client.load(np.ones((1, 30), np.int8), np.array([[1, 2, -0.5]], np.float16), 10)
    ones = np.ones(30, np.int8)
    for bank in (0, 1):
        for token in (0, 1):
            client.load_codes(token, ones, bank)
            assert client.results(token, 1, bank)[0] == 0, "all scales are 0 at power-up"
            client.load_scales(token, [0.25 + bank, 3 + token, 1], bank)
    for bank in (0, 1):
        for token in (0, 1):
            total = 10 * (0.25 + bank) + 20 * (3 + token) - 5
            assert client.results(token, 1, bank)[0] == total
    client.load_scales(1, [7, 8], bank=1, address=1)
    assert client.results(1, 1, 1)[0] == 12.5 + 140 - 40
    assert client.results(1, 1, 0)[0] == 2.5 + 80 - 5


def test_reset_and_load_keep_the_scales():
    client = Client()
    client.load_scales(0, [2])
    client.restart(9)
    client.load(np.ones((1, 10), np.int8))
    client.load_codes(0, np.ones(10, np.int8))
    assert client.results(0, 1)[0] == 20
    client.load_codes(0, np.full(10, 3, np.int8))
    assert client.results(0, 1)[0] == 60


def test_whole_numbers_before_the_failing_one_stay():
    client = Client()  # of six groups at most
    client.load(np.ones((1, 60), np.int8), np.ones((1, 6), np.float16), 10)
    client.load_codes(0, np.ones(60, np.int8))
    three = np.array([1, 2, 4], "<f4").tobytes()
    assert client.status(Opcode.SCALES, payload=three[:-1]) == Status.BAD_LENGTH
    assert client.results(0, 1)[0] == 10 * (1 + 2)
    assert client.status(Opcode.SCALES, address=4, payload=three) == Status.OUT_OF_RANGE
    assert client.results(0, 1)[0] == 10 * (1 + 2 + 1 + 2)


@pytest.mark.parametrize("payload_bytes", [4, 7, 8, 200])
def test_requests_for_scales(payload_bytes):
    """In packets of any size; the bits of the golden model, the extremes among them."""
    rng = np.random.default_rng(payload_bytes)
    client = Client()
    weights = rng.integers(-1, 2, (7, 45)).astype(np.int8)
    weights[0] = -1
    scales = rng.uniform(-2, 2, (7, 3)).astype(np.float16)
    scales[1] = [65504, 2.0**-24, -0.0]
    client.load(weights, scales, 15)
    acts = rng.uniform(-1, 1, (2, 3)).astype(np.float32)
    acts[1] = [3e38, 1e-39, -(2.0**-126)]
    codes = rng.integers(-128, 128, (2, 45)).astype(np.int8)
    codes[0] = -128
    for token in (0, 1):
        client.load_codes(token, codes[token], bank=1, group=15)
        several = list(requests.load_scales(token, acts[token], payload_bytes, bank=1))
        assert [len(each.payload) for each in several] == {
            4: [4, 4, 4],
            7: [4, 4, 4],
            8: [8, 4],
            200: [12],
        }[payload_bytes]
        for request in several:
            assert client.send(request).status == Status.OK
    expected = float_totals(
        matmul_groups(weights, codes, 15), scales.view(np.uint16), acts.view(np.uint32)[:, None]
    )
    for token in (0, 1):
        results = client.results(token, 7, bank=1).view(np.uint32)
        assert np.array_equal(results, expected[token, :, -1])


def test_longest_groups_of_a_layer_without_scales():
    """Each is 20 inputs of the 45, so the layer has three."""
    client = Client()
    client.load(np.ones((2, 45), np.int8))
    client.load_codes(0, np.ones(45, np.int8))
    client.load_scales(0, [1, 10, 100, 1000, 10000])
    assert client.results(0, 2).tolist() == [20 + 200 + 500] * 2


def test_other_devices_have_no_such_command():
    for config in (replace(CONFIG, scale=None), replace(CONFIG, scale=ScaleConfig(group=20))):
        assert Client(config).status(Opcode.SCALES, payload=bytes(4)) == Status.BAD_OPCODE
