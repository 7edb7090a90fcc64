"""Layers with groups of inputs on a device: exact sums, pieces, both passes, and refusals."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support import ROOT
from tritloom.host import CapacityError, GgufFile, GroupLayer, InputError, TernaryLayer, connect
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.groups import matmul_groups
from tritloom.rtl.spec.layer_shape import LayerShape

GROUPS = AcceleratorConfig(
    lanes=10,
    rows=3,
    tokens=2,
    fill=5,
    memory=BlockRam(words=6000),
    max_in_features=280,
    max_out_features=24,
    max_group_sums=60,
    max_layers=64,
)
ONE_BANK = replace(GROUPS, banks=1, tokens=1)


def random_layer(rng, out_features, in_features, group, most=2):
    weights = rng.integers(-1, most + 1, (out_features, in_features)).astype(np.int8)
    return GroupLayer.from_weights(weights, group)


@pytest.mark.parametrize("config", [GROUPS, ONE_BANK])
@pytest.mark.parametrize(
    ("shape", "group"),
    [
        ((24, 256), 32),  # 8 groups of 4 tiles; sums of two row groups fit a bank
        ((25, 256), 64),
        ((7, 768), 256),  # pieces of one group
        ((5, 128), 128),
        ((50, 96), 0),
        ((1, 320), 10),  # no padding
        ((4, 60), 6),  # a tile has more lanes than a group has inputs
        ((1, 2560), 32),
    ],
)
def test_sums_are_exact(config, shape, group):
    rng = np.random.default_rng(sum(shape) + group)
    with connect("golden", config=config) as device:
        for most in (1, 2):
            layer = random_layer(rng, *shape, group, most)
            handle = device.load(layer)
            assert len(handle.parts) == most
            codes = rng.integers(-128, 128, (5, shape[1])).astype(np.int8)
            codes[0] = -128
            job = device.submit(handle, codes)
            sums = device.matmul_groups(handle, codes)
            assert sums.dtype == np.int32
            assert sums.shape == (5, shape[0], shape[1] // (group or shape[1]))
            assert np.array_equal(sums, matmul_groups(layer.weights, codes, group))
            assert np.array_equal(sums, job.result())
            assert job.result() is job.result()
            whole = codes.astype(np.int64) @ layer.weights.T.astype(np.int64)
            assert np.array_equal(sums.sum(-1), whole)
            assert handle.words > 0
            device.unload(handle)
            assert handle.words == 0
        assert device.info.free_words == config.memory_words


def test_the_golden_model():
    """Against sums that are written out, with the extremes."""
    weights = np.array([[2, 2, -1, -1], [-1, 0, 1, 2]], np.int8)
    codes = np.array([[-128, -128, 127, -128], [1, 2, 3, 4]], np.int8)
    expected = [[[-512, 1], [128, -129]], [[6, -7], [-1, 11]]]
    assert matmul_groups(weights, codes, 2).tolist() == expected
    assert matmul_groups(weights, codes, 0).tolist() == [[[-511], [-1]], [[-1], [10]]]
    with pytest.raises(
        InputError, match=r"^group must divide the 4 inputs of the layer, not be 3$"
    ):
        matmul_groups(weights, codes, 3)


@pytest.mark.parametrize(
    ("weights", "group", "message"),
    [
        (np.zeros((2, 4)), 2, "weights must be int8, not float64; use .astype(np.int8)"),
        (
            np.zeros(4, np.int8),
            2,
            "weights must have shape [out_features, in_features], not (4,); ",
        ),
        (np.full((2, 4), 3, np.int8), 2, "weights must be -1, 0, 1 or 2, not 3 at [0, 0]; "),
        (np.zeros((2, 4), np.int8), 3, "group must divide the 4 inputs of the layer, not be 3"),
        (np.zeros((2, 4), np.int8), -2, "group must be a number of inputs or 0, not -2"),
        (np.zeros((2, 4), np.int8), 2.0, "group must be a number of inputs or 0, not 2.0"),
    ],
)
def test_wrong_layers(weights, group, message):
    with pytest.raises(InputError) as error:
        GroupLayer.from_weights(weights, group)
    assert str(error.value).startswith(message)


def test_refusals():
    """Each in one line; the device works afterwards."""
    rng = np.random.default_rng(3)
    plain = replace(GROUPS, max_group_sums=0)
    with connect("golden", config=plain) as device, pytest.raises(InputError) as error:
        device.load(random_layer(rng, 2, 64, 32))
    assert str(error.value) == (
        "group must be 0 on a device without groups of inputs, not 32; use one whose configuration "
        "has max_group_sums or scale"
    )
    with connect("golden", config=GROUPS) as device:
        with pytest.raises(InputError) as error:
            device.load(random_layer(rng, 2, 65, 5))
        assert str(error.value) == (
            "group must be more than half of the 10 lanes, not 5: a tile has one sum, and the rest "
            "of it would be padding; use a device with fewer lanes"
        )
        with pytest.raises(InputError) as error:
            device.load(random_layer(rng, 2, 512, 512))
        assert str(error.value) == (
            "group must be at most 280 inputs, not 512: this device has no room for more "
            "activations"
        )
        with pytest.raises(CapacityError):
            device.load(random_layer(rng, 500, 256, 32, 1))
        # The first pass has room, the second one has none.
        layer = random_layer(rng, 330, 256, 64)
        assert 110 * 28 < device.info.free_words < 2 * 110 * 28
        with pytest.raises(CapacityError):
            device.load(layer)
        assert device.info.free_words == GROUPS.memory_words
        handle = device.load(random_layer(rng, 3, 64, 32))
        codes = np.zeros((1, 64), np.int8)
        for call in (device.matmul, device.linear):
            with pytest.raises(
                InputError, match=r"^the layer has groups of inputs; use matmul_gro"
            ):
                call(handle, codes)
        with pytest.raises(InputError, match=r"^codes must have 64 features, not 63$"):
            device.matmul_groups(handle, codes[:, :63])
        whole = device.load(TernaryLayer.from_trits(np.ones((3, 64), np.int8), 1.0))
        with pytest.raises(
            InputError, match=r"^matmul_groups takes what load returned for a Group"
        ):
            device.matmul_groups(whole, codes)
        assert not device.matmul_groups(handle, codes).any()
        device.unload(handle)
        for call in (device.matmul_groups, device.submit):
            with pytest.raises(InputError, match=r"^the layer was unloaded; load it again$"):
                call(handle, codes)
        with pytest.raises(InputError, match=r"^the layer was unloaded; load it again$"):
            device.unload(handle)


@pytest.mark.parametrize("name", ["blk.0.attn_k.weight", "blk.1.ffn_down.weight"])
def test_tensors_of_a_model(name):
    """Group sums of a GGUF file's tensor, times its scales, are the product of its weights."""
    tensor = GgufFile(ROOT / "models" / "tinygroup.gguf").tensor(name)
    assert tensor.group == 64 and tensor.scales.shape[1] == tensor.weights.shape[1] // 64
    (out_features, in_features), groups = tensor.weights.shape, tensor.scales.shape[1]
    config = replace(
        GROUPS,
        lanes=65,
        fill=5,
        max_in_features=65 * groups,
        max_out_features=out_features,
        max_group_sums=(out_features + 2) * groups,
    )
    rng = np.random.default_rng(7)
    codes = rng.integers(-128, 128, (3, in_features)).astype(np.int8)
    with connect("golden", config=config) as device:
        handle = device.load(GroupLayer.from_weights(tensor.weights, tensor.group))
        assert device.info.layers_used == len(handle.parts), "a layer in one piece"
        sums = device.matmul_groups(handle, codes)
    # Exact in float64: scales have 11 bits, sums 15, and their exponents are near each other.
    scaled = (sums * tensor.scales.astype(np.float64)).sum(-1)
    weights = tensor.weights * np.repeat(tensor.scales.astype(np.float64), 64, axis=1)
    assert np.array_equal(scaled, codes.astype(np.float64) @ weights.T)


@pytest.mark.sim
def test_simulated_fpga():
    """The same sums, in the cycles of the layer's tiles."""
    config = replace(GROUPS, memory=BlockRam(words=512))
    rng = np.random.default_rng(5)
    with connect("sim", config=config) as device:
        for shape, group in (((9, 64), 32), ((24, 280), 40), ((25, 96), 16), ((3, 100), 0)):
            layer = random_layer(rng, *shape, group)
            handle = device.load(layer)
            codes = rng.integers(-128, 128, (5, shape[1])).astype(np.int8)
            codes[:2] = [[-128], [127]]
            sums = device.matmul_groups(handle, codes)
            assert np.array_equal(sums, matmul_groups(layer.weights, codes, group))
            pieces = device.allocation().pieces(handle.parts[0])
            runs = 3  # of two tokens, two and one
            expected = runs * sum(
                config.run_cycles(LayerShape.of(config, piece.rows, piece.columns, group))
                for piece in pieces
            )
            assert handle.parts[0].stats.cycles == expected
            device.unload(handle)
