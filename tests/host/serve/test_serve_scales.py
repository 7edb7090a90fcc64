"""A served device that scales its sums: the floats of the golden model, or a clear error."""

import struct
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from tritloom.host import DeviceError, connect
from tritloom.host.serve.client import Client
from tritloom.host.serve.thread import serving
from tritloom.host.serve.wire import Kind, Room
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.groups import float_totals, matmul_groups
from tritloom.rtl.spec.numerics import matmul
from tritloom.rtl.spec.scale_facts import ScaleConfig

PLAIN = replace(TINY.with_words(512), max_layers=8)
FLOAT = replace(PLAIN, max_in_features=150, scale=ScaleConfig(kind="float", group=48))
FIXED = replace(PLAIN, max_in_features=60, scale=ScaleConfig(group=10))
TOKENS, OUT, IN = 5, 10, 48


@contextmanager
def served(config):
    with connect("golden", config=config) as device, serving(device) as server:
        with Client(server.path) as client:
            yield client, server, device


def weights_of(seed, group, most):
    """int8 [out, in] up to `most`, and a scale for each group, extreme ones among them."""
    random = np.random.default_rng(seed)
    weights = random.integers(-1, most + 1, (OUT, IN)).astype(np.int8)
    weights[3], weights[4] = most, -1
    scales = random.standard_normal((OUT, IN // group)).astype(np.float16)
    scales[0, 0], scales[1, 0], scales[2] = 0, 65504, 2.0**-24
    return weights, scales


def activations(seed, group):
    """int8 [tokens, in], and a scale for each group, extreme ones among them."""
    random = np.random.default_rng(seed)
    codes = random.integers(-128, 128, (TOKENS, IN)).astype(np.int8)
    codes[0], codes[1] = -128, 127
    scales = random.standard_normal((TOKENS, IN // group)).astype(np.float32)
    scales[2], scales[3, 0], scales[4, 0] = 0, 2.0**-120, -(2.0**110)
    return codes, scales


def golden(weights, scales, codes, act_scales, group):
    """Patterns of float32 [tokens, out]."""
    sums = matmul_groups(weights, codes, group)
    patterns = np.broadcast_to(scales.view(np.uint16), sums.shape)
    return float_totals(sums, patterns, act_scales.view(np.uint32)[:, np.newaxis])[..., -1]


@pytest.mark.parametrize(("group", "most"), [(8, 1), (16, 2), (24, 2), (48, 1)])
def test_floats(group, most):
    """Of several layers of one input in one message, and of a layer that stands there twice."""
    codes, act_scales = activations(group, group)
    layers = [weights_of(seed, group, most) for seed in range(2)]
    with served(FLOAT) as (client, server, device):
        assert client.fits(OUT, IN, group) == Room.FLOATS
        numbers = [client.load(weights, group, scales) for weights, scales in layers]
        assert device.info.layers_used == 2
        for order in ((0, 1), (1,), (0, 1, 0), ()):
            before = server.products
            got = client.scaled_products([numbers[n] for n in order], codes, act_scales)
            for result, n in zip(got, order, strict=True):
                assert result.dtype == np.float32
                expected = golden(*layers[n], codes, act_scales, group)
                assert np.array_equal(result.view(np.uint32), expected)
            assert server.products == before + len(order)
        for number in numbers:
            client.unload(number)
        assert device.info.layers_used == 0


def test_what_fits():
    """A longer group, or a row in several layers of the device, has sums; `fits` says it."""
    with served(FLOAT) as (client, _, device):
        assert client.fits(OUT, IN, 0) == Room.SUMS
        assert client.fits(4, 150, 75) == Room.SUMS  # longer than the scale's group
        assert client.fits(4, 150, 30) == Room.FLOATS
        assert client.fits(4, 180, 30) == Room.SUMS  # more tiles than a layer of the device has
        assert client.fits(4, 180 * 9, 180) == Room.NONE
        weights, scales = weights_of(1, 48, 2)
        with pytest.raises(DeviceError, match="group"):  # a 2 needs groups of twice the inputs
            client.load(weights, 48, scales)
        assert device.info.layers_used == 0


@pytest.fixture
def loaded():
    """A client, a layer with scales, one without, and what is to be computed."""
    codes, act_scales = activations(1, 16)
    with served(FLOAT) as (client, _, _):
        weights, scales = weights_of(1, 16, 1)
        numbers = client.load(weights, 16, scales), client.load(weights)
        yield client, numbers, (weights, scales), codes, act_scales
        (result,) = client.scaled_products([numbers[0]], codes, act_scales)
        expected = golden(weights, scales, codes, act_scales, 16)
        assert np.array_equal(result.view(np.uint32), expected)


def test_refusals_leave_the_client_connected(loaded):
    client, (scaled, plain), (weights, scales), codes, act_scales = loaded
    infinite = np.where(scales == scales[0, 1], np.float16(np.inf), scales)
    for ask, message in (
        (lambda: client.scaled_products([plain], codes, act_scales), "has no scales on the device"),
        (lambda: client.scaled_products([9], codes, act_scales), "layer must be a number"),
        (lambda: client.products([scaled], codes), "scales"),
        (
            lambda: client.scaled_products([scaled], codes, np.full_like(act_scales, np.inf)),
            "finite",
        ),
        (
            lambda: client.scaled_products([scaled], codes, act_scales[:, 1:]),
            "scales must have 3 groups a token, not 2",
        ),
        (
            lambda: client.scaled_products([scaled], codes[:, 1:], act_scales),
            "codes must have 48 features, not 47",
        ),
        (lambda: client._ask(Kind.SCALED, bytes(12)), "SCALED must have at least 16 bytes"),
        (lambda: client._ask(Kind.SCALED, struct.pack("<4I", 1, 1, 0, 1)), "must have 21 bytes"),
        (lambda: client._ask(Kind.LOAD_SCALED, bytes(8)), "LOAD_SCALED must have at least 12 by"),
        (
            lambda: client._ask(Kind.LOAD_SCALED, struct.pack("<3I", 2, 2, 1)),
            "LOAD_SCALED must have 24 bytes",
        ),
        (lambda: client.load(weights, 16, infinite), "finite"),
    ):
        with pytest.raises(DeviceError, match=message):
            ask()


def test_sums_of_layers_without_groups(loaded):
    client, (_, plain), (weights, _), codes, _ = loaded
    (sums,) = client.products([plain], codes)
    assert np.array_equal(sums[..., 0], matmul(weights, codes))


@pytest.mark.parametrize("config", [PLAIN, replace(PLAIN, max_group_sums=64), FIXED])
def test_other_devices(config):
    """They give sums; LOAD_SCALED is refused in one line, and nothing stays on the device."""
    weights, scales = weights_of(1, 8, 1)
    with served(config) as (client, _, device):
        assert client.fits(OUT, IN, 8) in (Room.NONE, Room.SUMS)
        with pytest.raises(DeviceError, match="needs a device whose configuration has a scale of"):
            client.load(weights, 8, scales)
        assert device.info.layers_used == 0
