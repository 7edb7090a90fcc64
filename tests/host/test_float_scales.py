"""Layers whose groups have scales of weights and of activations: every product has the bits of
`float_totals`, whether a device computes them or the host."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support import ROOT
from tests.support.scales import SCALED, random_layer
from tritloom.host import DeviceError, GgufFile, GroupLayer, InputError, TernaryLayer, connect
from tritloom.host.device import Device
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import Opcode, Request, Response, Status
from tritloom.rtl.spec.groups import float_totals, matmul_groups
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.sim.device.reference import ReferenceTransport

FLOAT = replace(SCALED, scale=ScaleConfig(kind="float", group=256))
ONE_BANK = replace(FLOAT, banks=1, tokens=1, packet_bytes=128)
SUMS = replace(FLOAT, scale=None, max_group_sums=600)
CASES = [
    ((24, 256), 32),
    ((25, 192), 64),  # two pieces of rows
    ((7, 512), 256),
    ((50, 96), 0),
    ((1, 320), 10),  # no padding
    ((4, 60), 6),  # a tile has more lanes than a group has inputs
    ((3, 300), 100),
]
EXTREME = [0.0, -0.0, 2.0**-149, -(2.0**-127), 2.0**-126, 3.4e38, -3.4e38, 2.0**-100, 1.0, -1.0]
"""Scales of activations: zeros, subnormal ones, the smallest normal one, and huge ones."""


def random_operands(rng, layer, tokens=5):
    """Codes and their scales: some tokens have the extremes, so some totals are not finite."""
    codes = rng.integers(-128, 128, (tokens, layer.in_features)).astype(np.int8)
    codes[:2] = np.array([[-128], [127]])[:tokens]
    scales = rng.uniform(-1, 1, (tokens, layer.groups)).astype(np.float32)
    scales[0] = rng.choice(np.array(EXTREME, np.float32), layer.groups)
    return codes, scales


def golden(layer, codes, scales):
    """The patterns, uint32 [tokens, out]."""
    sums = matmul_groups(layer.weights, codes, layer.group)
    acts = scales.view(np.uint32)[:, None]
    return float_totals(sums, layer.scales.view(np.uint16), acts)[..., -1]


def check(device, shape, group, most, seed):
    rng = np.random.default_rng(seed)
    layer = random_layer(rng, shape, group, most)
    handle = device.load(layer)
    codes, scales = random_operands(rng, layer)
    result = device.matmul_scaled(handle, codes, scales)
    assert result.dtype == np.float32
    assert np.array_equal(result.view(np.uint32), golden(layer, codes, scales))
    return handle


@pytest.mark.parametrize(("shape", "group"), CASES)
@pytest.mark.parametrize("config", [FLOAT, ONE_BANK, SUMS], ids=["two", "one", "sums"])
def test_bits_of_the_golden_model(config, shape, group):
    """From a device with scales and from one with sums of groups; 5 tokens are three runs."""
    with connect("golden", config=config) as device:
        for most in (1, 2):
            if group == 256 and most == 2 and config is not SUMS:
                continue  # two passes of such a group are too long for the units
            handle = check(device, shape, group, most, sum(shape) + most)
            assert len(handle.parts) == (2 if config is SUMS and most == 2 else 1)
            device.unload(handle)
        assert device.info.free_words == config.memory_words


def test_the_order_of_operations():
    """Each operation is rounded to float32; written out in NumPy's float32."""
    rng = np.random.default_rng(5)
    weights = rng.integers(-1, 3, (6, 120)).astype(np.int8)
    scales = rng.uniform(-1, 1, (6, 5)).astype(np.float16)
    codes = rng.integers(-128, 128, (3, 120)).astype(np.int8)
    acts = rng.uniform(-0.1, 0.1, (3, 5)).astype(np.float32)
    expected = np.zeros((3, 6), np.float32)
    for group in range(5):
        inputs = slice(24 * group, 24 * group + 24)
        sums = codes[:, inputs].astype(int) @ weights[:, inputs].T.astype(int)
        factors = acts[:, group, None] * scales[:, group].astype(np.float32)
        expected = expected + sums.astype(np.float32) * factors
    assert expected.dtype == np.float32
    for config in (FLOAT, SUMS):
        with connect("golden", config=config) as device:
            handle = device.load(GroupLayer.from_weights(weights, 24, scales))
            assert np.array_equal(device.matmul_scaled(handle, codes, acts), expected)


def test_a_zero_keeps_its_sign():
    """A total that becomes too small for a normal number is a zero of its sign."""
    layer = GroupLayer.from_weights(np.ones((1, 20), np.int8), 10, np.ones((1, 2), np.float16))
    codes = np.zeros((1, 20), np.int8)
    codes[0, [0, 10]] = 2, -2
    scales = np.array([[1.5 * 2.0**-126, 1.75 * 2.0**-126]], np.float32)
    for config in (FLOAT, SUMS):
        with connect("golden", config=config) as device:
            result = device.matmul_scaled(device.load(layer), codes, scales)
        assert result.view(np.uint32).tolist() == [[1 << 31]]


def test_where_the_passes_lie():
    """Both passes of a group are one group of the device, before the next group."""
    weights = np.array([[2, 1, 0, -1, 0, 2, 2, 1]], np.int8)
    layer = GroupLayer.from_weights(weights, 4, np.array([[1, 2]], np.float16))
    joined = layer.joined(FLOAT)
    assert joined.trits.tolist() == [[1, 1, 0, -1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 0]]
    assert (joined.group, joined.patterns.view(np.float16).tolist()) == (8, [[1, 2]])
    exact = layer.joined(replace(FLOAT, scale=ScaleConfig(group=256)))
    assert exact.trits.tolist() == [[1, 1, 0, -1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0]]
    assert (exact.group, exact.patterns.view(np.float16).tolist()) == (4, [[1, 2, 1, 2]])


@pytest.mark.parametrize("config", [FLOAT, ONE_BANK])
def test_a_layer_without_scales(config):
    """Its sums are exact, also after a product with other scales, and in pieces of inputs."""
    rng = np.random.default_rng(11)
    with connect("golden", config=config) as device:
        for shape in ((24, 560), (5, 7), (30, 1200)):
            check(device, (24, 256), 32, 1, 9)
            trits = rng.integers(-1, 2, shape).astype(np.int8)
            trits[0] = -1
            handle = device.load(TernaryLayer.from_trits(trits, 0.5))
            codes = rng.integers(-128, 128, (3, shape[1])).astype(np.int8)
            codes[0] = -128
            sums = device.matmul(handle, codes)
            assert sums.dtype == np.int32
            assert np.array_equal(sums, codes.astype(int) @ trits.T.astype(int))
        assert device.selftest().ok


class Watched(ReferenceTransport):
    """Notes the opcodes, and refuses the SCALES with the number `refused`."""

    def __init__(self, config):
        super().__init__(config)
        self.opcodes = []
        self.refused = 0

    def send(self, packet):
        opcode = Request.parse(packet).opcode
        self.opcodes.append(opcode)
        super().send(packet)
        if opcode == Opcode.SCALES and self.opcodes.count(opcode) == self.refused:
            response = replace(Response.parse(self._responses.pop()), status=Status.BAD_LENGTH)
            self._responses.append(response.pack())

    def count(self, *opcodes):
        return [self.opcodes.count(opcode) for opcode in opcodes]


def test_several_layers_load_codes_and_scales_once():
    """Those whose groups lie in the same way; a weight of 2 takes the codes twice."""
    rng = np.random.default_rng(21)
    transport = Watched(FLOAT)
    with Device(transport, url="test") as device:
        layers = [random_layer(rng, (rows, 192), 32, 1) for rows in (24, 50, 7)]
        layers += [random_layer(rng, (5, 192), 32, 2), random_layer(rng, (9, 192), 32, 2)]
        handles = [device.load(layer) for layer in layers]
        codes, scales = random_operands(rng, layers[0], 2)
        for chosen, loads in (
            ([0], 1),
            ([0, 1, 2], 1),
            ([3, 4], 1),
            ([0, 3, 4, 1], 3),
        ):
            transport.opcodes.clear()
            jobs = device.submit_all([handles[number] for number in chosen], codes, scales)
            for number, job in zip(chosen, jobs, strict=True):
                floats = golden(layers[number], codes, scales)
                assert np.array_equal(job.scaled().view(np.uint32), floats)
                assert job.result() is job.scaled()
            assert transport.count(Opcode.SCALES) == [2 * loads]
        plain = [device.load(TernaryLayer.from_trits(layer.weights, 1.0)) for layer in layers[:2]]
        transport.opcodes.clear()
        for layer, job in zip(layers, device.submit_all(plain, codes), strict=False):
            assert np.array_equal(job.result(), codes.astype(int) @ layer.weights.T.astype(int))
        assert transport.count(Opcode.LOAD, Opcode.SCALES) == [2, 2]


def test_codes_and_scales_are_copied():
    """The caller may change both after `submit`."""
    rng = np.random.default_rng(2)
    for config in (FLOAT, SUMS):
        with connect("golden", config=config) as device:
            layer = random_layer(rng, (4, 64), 32)
            handle = device.load(layer)
            codes, scales = random_operands(rng, layer)
            expected = golden(layer, codes, scales)
            jobs = [device.submit(handle, codes, scales) for _ in range(3)]
            codes[:], scales[:] = 1, 1
            for job in jobs:
                assert np.array_equal(job.scaled().view(np.uint32), expected)


def test_refused_scales_fail_each_job_that_needs_them():
    rng = np.random.default_rng(3)
    transport = Watched(FLOAT)
    with Device(transport, url="test") as device:
        layer = random_layer(rng, (4, 64), 32)
        handles = [device.load(layer) for _ in range(2)]
        codes, scales = random_operands(rng, layer, 1)
        transport.refused = 1
        for job in device.submit_all(handles, codes, scales):
            with pytest.raises(DeviceError, match="refused SCALES"):
                job.scaled()
        result = device.matmul_scaled(handles[0], codes, scales)
        assert np.array_equal(result.view(np.uint32), golden(layer, codes, scales))


ONES = np.ones((1, 2), np.float32)
CODES = np.zeros((1, 64), np.int8)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        (None, "golden scales the activations of each group; pass their scales, float32 [tokens, "),
        (np.ones((1, 2)), "scales must be float32, not float64; use .astype(np.float32)"),
        (np.ones((1, 2), int), "scales must be float32, not int64; use .astype(np.float32)"),
        (np.ones((1, 2), np.float16), "scales must be float32, not float16; use .astype(np.flo"),
        (np.ones(2, np.float32), "scales must have shape (1, 2), not (2,); one for each token an"),
        (np.ones((2, 2), np.float32), "scales must have shape (1, 2), not (2, 2); one for each "),
        (np.ones((1, 3), np.float32), "scales must have shape (1, 2), not (1, 3); one for each "),
        (np.float32([[1, np.inf]]), "scales must be finite, not inf at [0, 1]; check their source"),
        (np.float32([[np.nan, 1]]), "scales must be finite, not nan at [0, 0]; check their source"),
    ],
)
def test_wrong_scales(scales, message):
    """Nothing is sent for them; the device works afterwards."""
    layer = random_layer(np.random.default_rng(1), (3, 64), 32)
    with connect("golden", config=FLOAT) as device:
        handle = device.load(layer)
        packets = device.counters().packets
        for method in (device.matmul_scaled, device.submit):
            with pytest.raises(InputError) as error:
                method(handle, CODES, scales)
            assert str(error.value).startswith(message)
            assert "\n" not in str(error.value)
        with pytest.raises(InputError) as error:
            device.submit_all([handle], CODES, scales)
        assert device.counters().packets == packets + 1
        check(device, (3, 64), 32, 1, 4)


def test_what_a_device_refuses():
    """Each in one line."""
    rng = np.random.default_rng(3)
    layer = random_layer(rng, (2, 64), 32)
    with connect("golden", config=FLOAT) as device:
        for wrong, message in (
            (
                GroupLayer.from_weights(np.ones((2, 64), np.int8), 32),
                "the layer has no scales; give them to GroupLayer.from_weights, or use a device ",
            ),
            (
                random_layer(rng, (2, 800), 32),
                "a layer with scales must have at most 64 tiles of 10 inputs on this device, not ",
            ),
            (
                random_layer(rng, (2, 384), 192, 2),
                (
                    "groups of a layer with weights of 2 must have at most 130 inputs on this "
                    "device, not 192, because a group's sum is rounded once; use a device whose "
                    "scale group and max_in_features are at least 384"
                ),
            ),
            (
                random_layer(rng, (2, 261), 0),
                "groups of the layer must have at most 260 inputs on this device, not 261, because",
            ),
        ):
            with pytest.raises(InputError) as error:
                device.load(wrong)
            assert str(error.value).startswith(message)
        assert device.info.free_words == FLOAT.memory_words
        handle = device.load(layer)
        with pytest.raises(InputError, match=r"scales its sums and does not send them; use mat"):
            device.matmul_groups(handle, CODES)
        with pytest.raises(InputError, match=r"^matmul_scaled takes what load returned for a Gr"):
            device.matmul_scaled(handle.parts[0], CODES, ONES)
        with pytest.raises(InputError, match=r"^scales must be None for a TernaryLayer, which ha"):
            device.submit(device.load(TernaryLayer.from_trits(layer.weights, 1.0)), CODES, ONES)
        device.unload(handle)
        with pytest.raises(InputError, match=r"unloaded"):
            device.matmul_scaled(handle, CODES, ONES)
    with connect("golden", config=replace(FLOAT, scale=ScaleConfig(group=256))) as device:
        handle = device.load(layer)
        with pytest.raises(InputError, match=r"^golden takes no scales of activations; pass none"):
            device.matmul_scaled(handle, CODES, ONES)
    with connect("golden", config=SUMS) as device:
        handle = device.load(GroupLayer.from_weights(np.ones((2, 64), np.int8), 32))
        for method in (device.submit, device.matmul_scaled):
            with pytest.raises(InputError, match=r"^the layer has no scales; "):
                method(handle, CODES, ONES)


def test_longest_groups():
    """Just as long as the units take, in one group or in two passes of half of that."""
    for in_features, group, most in ((260, 260, 1), (260, 0, 1), (130, 130, 2), (130, 0, 2)):
        with connect("golden", config=FLOAT) as device:
            check(device, (2, in_features), group, most, in_features + group)


def test_a_tensor_of_a_model():
    """The scales of a GGUF file go to the device as they are."""
    tensor = GgufFile(ROOT / "models" / "tinygroup.gguf").tensor("blk.0.attn_k.weight")
    (out_features, in_features), groups = tensor.weights.shape, tensor.scales.shape[1]
    config = replace(FLOAT, lanes=65, max_in_features=130 * groups, max_out_features=out_features)
    layer = GroupLayer.from_weights(tensor.weights, tensor.group, tensor.scales)
    rng = np.random.default_rng(7)
    codes = rng.integers(-128, 128, (3, in_features)).astype(np.int8)
    scales = rng.uniform(0, 0.1, (3, groups)).astype(np.float32)
    with connect("golden", config=config) as device:
        result = device.matmul_scaled(device.load(layer), codes, scales)
    assert np.array_equal(result.view(np.uint32), golden(layer, codes, scales))


@pytest.mark.sim
def test_simulated_fpga():
    """The same bits, in the cycles of the layer's tiles."""
    config = replace(FLOAT, scale=ScaleConfig(kind="float", group=64), memory=BlockRam(words=512))
    with connect("sim", config=config) as device:
        for number, (shape, group) in enumerate(CASES):
            if not 0 < group <= 32:
                continue
            handle = check(device, shape, group, 1 + number % 2, number)
            part = handle.parts[0]
            expected = 3 * sum(  # runs of two tokens, two and one
                config.run_cycles(LayerShape.of(config, piece.rows, part.in_features, part.group))
                for piece in device.allocation().pieces(part)
            )
            assert part.stats.cycles == expected
            device.unload(handle)
        rng = np.random.default_rng(8)
        layers = [
            random_layer(rng, (rows, 96), 32, most) for rows, most in ((7, 1), (26, 1), (5, 2))
        ]
        handles = [device.load(layer) for layer in layers]
        for tokens in (1, 2, 3):
            codes, scales = random_operands(rng, layers[0], tokens)
            jobs = device.submit_all(handles, codes, scales)
            for job, layer in reversed(list(zip(jobs, layers, strict=True))):
                floats = golden(layer, codes, scales)
                assert np.array_equal(job.scaled().view(np.uint32), floats)
        for handle in handles:
            device.unload(handle)
        trits = np.random.default_rng(1).integers(-1, 2, (24, 560)).astype(np.int8)
        handle = device.load(TernaryLayer.from_trits(trits, 1.0))
        codes = np.full((1, 560), -128, np.int8)
        assert np.array_equal(device.matmul(handle, codes), codes.astype(int) @ trits.T)
        assert device.selftest().ok
