"""Layers with scales on a device that applies them: the bits of the golden model, and refusals."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support import ROOT
from tests.support.scales import SCALED, random_layer
from tritloom.host import GgufFile, GroupLayer, InputError, TernaryLayer, connect
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.groups import fixed_to_float, fixed_totals, matmul_groups
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.scale_facts import ScaleConfig

SUMS = replace(SCALED, scale=None, max_group_sums=600)
ONE_BANK = replace(SCALED, banks=1, tokens=1, scale=ScaleConfig(group=64))
CASES = [
    ((24, 256), 32),
    ((25, 192), 64),
    ((7, 256), 256),
    ((50, 96), 0),
    ((1, 320), 10),  # no padding
    ((4, 60), 6),  # a tile has more lanes than a group has inputs
]


def golden(layer, codes):
    """float32 [tokens, out], as patterns."""
    sums = matmul_groups(layer.weights, codes, layer.group)
    high, low = fixed_totals(sums, np.broadcast_to(layer.scales.view(np.uint16), sums.shape))
    return fixed_to_float(high[..., -1], low[..., -1])


def check(device, shape, group, most, seed):
    rng = np.random.default_rng(seed)
    layer = random_layer(rng, shape, group, most)
    handle = device.load(layer)
    codes = rng.integers(-128, 128, (5, shape[1])).astype(np.int8)
    codes[:2] = [[-128], [127]]
    result = device.matmul_scaled(handle, codes)
    assert result.dtype == np.float32
    assert np.array_equal(result.view(np.uint32), golden(layer, codes))
    return handle


@pytest.mark.parametrize(
    ("config", "shape", "group"),
    [
        (config, *case)
        for config in (SCALED, ONE_BANK, SUMS)
        for case in CASES
        if config is not ONE_BANK or case[1] <= 64  # its units take groups of at most 70 inputs
    ],
)
def test_bits_of_the_golden_model(config, shape, group):
    """From a device with scales and from one with sums of groups."""
    with connect("golden", config=config) as device:
        for most in (1, 2):
            handle = check(device, shape, group, most, sum(shape) + most)
            device.unload(handle)
        assert device.info.free_words == config.memory_words


def test_the_value_itself():
    """Against totals that are written out: exact, then rounded once."""
    weights = np.array([[1, 1, 0, -1, -1, 0], [2, 0, 0, 1, 1, 1]], np.int8)
    scales = np.array([[2.0**-24, 65504], [0.5, -0.25]], np.float16)
    codes = np.array([[100, 27, 9, -128, -128, 9], [1, 2, 3, 4, 5, 6]], np.int8)
    config = replace(SCALED, lanes=5, scale=ScaleConfig(group=10), max_in_features=20)
    with connect("golden", config=config) as device:
        handle = device.load(GroupLayer.from_weights(weights, 3, scales))
        result = device.matmul_scaled(handle, codes)
    exact = [[127 * 2.0**-24 + 256 * 65504, 100 + 61.75], [3 * 2.0**-24 - 9 * 65504, 1 - 3.75]]
    assert result.tolist() == np.array(exact).astype(np.float32).tolist()


@pytest.mark.parametrize("config", [SCALED, ONE_BANK])
def test_a_layer_without_scales(config):
    """Its sums are whole numbers in float32, so they are exact."""
    rng = np.random.default_rng(11)
    with connect("golden", config=config) as device:
        for shape in ((24, 560), (5, 7), (30, 1200)):
            trits = rng.integers(-1, 2, shape).astype(np.int8)
            trits[0] = -1
            handle = device.load(TernaryLayer.from_trits(trits, 0.5))
            codes = rng.integers(-128, 128, (3, shape[1])).astype(np.int8)
            codes[0] = -128
            sums = device.matmul(handle, codes)
            assert sums.dtype == np.int32
            assert np.array_equal(sums, codes.astype(int) @ trits.T.astype(int))
        assert device.selftest().ok


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        (np.ones((2, 2), int), "scales must be float16, not int64; use .astype(np.float16)"),
        (np.ones((2, 1)), "scales must have shape (2, 2), not (2, 1); one for each group"),
        ([[1, 2], [np.inf, 1]], "scales must be finite, not inf at [1, 0]; "),
        ([[1, np.nan], [1, 1]], "scales must be finite, not nan at [0, 1]; "),
        ([[1, 1], [1, 65536.0]], "scales must be of half precision, not 65536.0 at [1, 1]; "),
        ([[1, 0.1], [1, 1]], "scales must be of half precision, not 0.1 at [0, 1]; "),
    ],
)
def test_wrong_scales(scales, message):
    if isinstance(scales, list):
        scales = np.array(scales, float)
    with pytest.raises(InputError) as error:
        GroupLayer.from_weights(np.ones((2, 64), np.int8), 32, scales)
    assert str(error.value).startswith(message)


def test_refusals():
    """Each in one line; the device works afterwards."""
    rng = np.random.default_rng(3)
    with connect("golden", config=SCALED) as device:
        for layer, message in (
            (
                GroupLayer.from_weights(np.ones((2, 64), np.int8), 32),
                "the layer has no scales; give them to GroupLayer.from_weights, or use a device ",
            ),
            (
                random_layer(rng, (2, 800), 32),
                "a layer with scales must have at most 64 tiles of 10 inputs on this device, not ",
            ),
            (
                random_layer(rng, (2, 512), 512),
                "group must be at most 260 inputs, not 512: this device has sums of fewer bits",
            ),
        ):
            with pytest.raises(InputError) as error:
                device.load(layer)
            assert str(error.value).startswith(message)
        assert device.info.free_words == SCALED.memory_words
        handle = check(device, (3, 64), 32, 1, 4)
        codes = np.zeros((1, 64), np.int8)
        with pytest.raises(InputError, match=r"scales its sums and does not send them; use mat"):
            device.matmul_groups(handle, codes)
        with pytest.raises(InputError, match=r"^matmul_scaled takes what load returned for a Gr"):
            device.matmul_scaled(handle.parts[0], codes)
    with connect("golden", config=SUMS) as device:
        handle = device.load(GroupLayer.from_weights(np.ones((2, 64), np.int8), 32))
        with pytest.raises(InputError, match=r"^the layer has no scales; "):
            device.matmul_scaled(handle, codes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 3}, "scale must be None or a record such as ScaleConfig(), not 3"),
        (
            {"lanes": 520, "scale": ScaleConfig(group=1)},
            "acc_bits must be at most 17 beside scale, not 18: 1 tiles of 520 lanes; lower lanes",
        ),
        (
            {"scale": ScaleConfig(group=512)},
            "acc_bits must be at most 17 beside scale, not 18: 52 tiles of 10 lanes; lower scale ",
        ),
        ({"max_group_sums": 24}, "max_group_sums must be left out beside scale, not 24"),
    ],
)
def test_wrong_configurations(change, message):
    with pytest.raises(ConfigError) as error:
        replace(SCALED, **{"packet_bytes": 4096} | change)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "half"}, "scale kind must be fixed or float, not 'half'"),
        ({"group": 0}, "scale group must be 1 to 4096, not 0"),
        ({"group": "64"}, "scale group must be 1 to 4096, not '64'"),
        ({"units": 4}, "unknown key 'units' of scale; it has kind, group"),
        ("fixed", 'scale must be an object such as {"kind": "fixed", "group": 256}, not \'fixed\''),
    ],
)
def test_wrong_records(values, message):
    with pytest.raises(ConfigError) as error:
        AcceleratorConfig.from_dict(SCALED.to_dict() | {"scale": values})
    assert str(error.value) == message


def test_a_tensor_of_a_model():
    """The scales of a GGUF file go to the device as they are."""
    tensor = GgufFile(ROOT / "models" / "tinygroup.gguf").tensor("blk.0.attn_k.weight")
    (out_features, in_features), groups = tensor.weights.shape, tensor.scales.shape[1]
    config = replace(SCALED, lanes=65, max_in_features=65 * groups, max_out_features=out_features)
    codes = np.random.default_rng(7).integers(-128, 128, (3, in_features)).astype(np.int8)
    with connect("golden", config=config) as device:
        handle = device.load(GroupLayer.from_weights(tensor.weights, tensor.group, tensor.scales))
        result = device.matmul_scaled(handle, codes)
    # Exact in float64: scales have 11 bits, sums 15, and their exponents are near each other.
    weights = tensor.weights * np.repeat(tensor.scales.astype(np.float64), tensor.group, axis=1)
    assert np.array_equal(result, (codes @ weights.T).astype(np.float32))


@pytest.mark.sim
def test_simulated_fpga():
    """The same bits, in the cycles of the layer's tiles."""
    config = replace(SCALED, scale=ScaleConfig(group=64), memory=BlockRam(words=512))
    with connect("sim", config=config) as device:
        for number, (shape, group) in enumerate(CASES):
            if group > 64:
                continue
            handle = check(device, shape, group, 1 + number % 2, number)
            pieces = device.allocation().pieces(handle.parts[0])
            columns = handle.parts[0].in_features
            expected = 3 * sum(  # runs of two tokens, two and one
                config.run_cycles(LayerShape.of(config, piece.rows, columns, group))
                for piece in pieces
            )
            assert handle.parts[0].stats.cycles == expected
            device.unload(handle)
        trits = np.random.default_rng(1).integers(-1, 2, (24, 560)).astype(np.int8)
        handle = device.load(TernaryLayer.from_trits(trits, 1.0))
        codes = np.full((1, 560), -128, np.int8)
        assert np.array_equal(device.matmul(handle, codes), codes.astype(int) @ trits.T)
        assert device.selftest().ok
