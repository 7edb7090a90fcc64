"""Single layers on the vector unit: the golden model's bits, or a reason why not."""

from dataclasses import replace

import numpy as np
import pytest

from tests.host.test_vectors import CONFIG, load
from tests.support.programs import PlayedProgram, random_decoder, same_bits
from tests.support.vector_programs import random_vector
from tritloom.host import CapacityError, InputError, NotFiniteError, TernaryLayer, connect
from tritloom.host.layer import stack
from tritloom.host.linear_program import LINEAR, linear_program, unit_is_sooner
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.vector_facts import VectorConfig

UNIT = VectorConfig(words=4096, bfloat16=True)


def layer_of(rng, shape=(96, 72), scale="one", divides=False, bias=False):
    rows = shape[0]
    if scale == "one":
        values = 0.0625 + rng.random()
    elif scale == "segments":
        values = np.repeat(rng.random(3) + 0.25, [rows // 2, rows // 4, rows - rows * 3 // 4])
    else:
        values = rng.random(rows) + 0.25
    return TernaryLayer.from_trits(
        rng.integers(-1, 2, shape, np.int8),
        np.float32(values),
        scale_divides=divides,
        bias=rng.standard_normal(rows).astype(np.float32) if bias else None,
    )


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("multipliers", [1, 2])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("scale", "divides"),
    [
        ("one", False),
        ("one", True),
        ("segments", False),
        ("segments", True),
        ("rows", False),
        ("rows", True),
    ],
)
def test_linear_programs(scale, divides, bias, norm, multipliers, bfloat16):
    rng = np.random.default_rng(1)
    shape = (72, 96) if norm else (96, 72)
    layer = layer_of(rng, shape, scale, divides, bias)
    weight = random_vector(rng, shape[1], False, 0.5) if norm else None
    unit = replace(UNIT, multipliers=multipliers)
    program = linear_program(unit, layer, norm=weight, eps=1e-5, bfloat16=bfloat16)
    x = np.stack([random_vector(rng, shape[1], bfloat16) for _ in range(4)])
    got = PlayedProgram(unit, program, [layer], base=64).run(LINEAR, {"x": x}, ["y"])["y"]
    inputs = x if weight is None else numerics.rms_norm(x, weight, 1e-5, bfloat16)
    expected = numerics.bitlinear(
        inputs, layer.trits, layer.scale, layer.scale_divides, layer.bias, bfloat16
    )
    assert same_bits(got, expected)


def test_segments_and_rows():
    """A few scales have steps of their own, many need a word for each row."""
    rng = np.random.default_rng(2)
    few = layer_of(rng, scale="segments")
    many = layer_of(rng, scale="rows")
    counts = [len(linear_program(UNIT, layer).steps) for layer in (layer_of(rng), few, many)]
    assert counts[0] < counts[1]
    assert counts[0] == counts[2]
    words = [linear_program(UNIT, layer).words for layer in (few, many)]
    assert words[1] > words[0] + 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (8, 1)}, "a layer of one feature has another sign of zero; compute the"),
    ],
)
def test_what_the_unit_does_not_compute(options, message):
    layer = layer_of(np.random.default_rng(3), **options)
    with pytest.raises(InputError, match=message):
        linear_program(UNIT, layer)


@pytest.mark.parametrize(
    ("scale", "divides", "bias"),
    [(2.0**-101, False, 0), (2.0**101, True, 0), (0.0, False, 0), (1, False, 2.0**-101)],
)
def test_outputs_that_the_unit_might_take_for_zero(scale, divides, bias):
    layer = TernaryLayer.from_trits(
        np.ones((2, 3), np.int8), scale, scale_divides=divides, bias=np.float32([0, bias])
    )
    with pytest.raises(InputError, match="a scale or bias is so small that outputs may lie"):
        linear_program(UNIT, layer)


@pytest.mark.parametrize(("scale", "divides"), [(2.0**-100, False), (2.0**100, True)])
def test_least_outputs(scale, divides):
    """The codes are large, the sum is small."""
    trits, zero = np.int8([[1, -1, 0]]), np.float32([0])
    layer = TernaryLayer.from_trits(trits, scale, scale_divides=divides, bias=zero)
    program = linear_program(UNIT, layer)
    x = np.float32([[1e-5, 1e-5 * 126 / 127, 0], [1e-5, 0, 0], [0, 1e-30, 0]])
    got = PlayedProgram(UNIT, program, [layer]).run(LINEAR, {"x": x}, ["y"])["y"]
    assert same_bits(got, numerics.bitlinear(x, trits, layer.scale, divides, zero))
    assert 0 < np.abs(got[0, 0]) < 2.0**-120


def test_too_many_scales_that_divide():
    """Each has two steps. On a device the host rescales then."""
    layer = layer_of(np.random.default_rng(4), (300, 20), "rows", divides=True)
    with pytest.raises(
        CapacityError, match=r"^the program needs 6\d\d steps, the device has 512; "
    ):
        linear_program(UNIT, layer)
    assert len(linear_program(replace(UNIT, steps=1024), layer).steps) > 600


SLOW = replace(CONFIG, link=Uart(baud=3_000_000), clock_hz=80_000_000)
FAST = replace(CONFIG, link=PacketStream(width=8), clock_hz=100_000_000)


def test_which_is_sooner():
    """On a UART the host; on a fast link the unit."""
    rng = np.random.default_rng(5)
    layer = layer_of(rng, (128, 64))
    assert not unit_is_sooner(SLOW, layer, linear_program(SLOW.vector, layer))
    assert unit_is_sooner(FAST, layer, linear_program(FAST.vector, layer))
    slow = replace(FAST, clock_hz=12_000_000)
    assert not unit_is_sooner(slow, layer, linear_program(slow.vector, layer))


@pytest.mark.parametrize("config", [SLOW, FAST, replace(FAST, vector=None)])
def test_device_linear(config):
    """The same bits, wherever they are computed; the stats say where."""
    rng = np.random.default_rng(6)
    layers = [layer_of(rng, (70, 60), "one"), layer_of(rng, (70, 60), "one", bias=True)]
    layers += [layer_of(rng, (70, 60), "rows", divides=True), layer_of(rng, (70, 300))]
    with connect("golden", config=config) as device:
        for number, layer in enumerate(layers):
            handle = device.load(layer)
            x = rng.standard_normal((3, layer.in_features)).astype(np.float32)
            expected = numerics.bitlinear(
                x, layer.trits, layer.scale, layer.scale_divides, layer.bias
            )
            assert same_bits(device.linear(handle, x), expected)
            assert same_bits(device.linear(handle, x.tolist()), expected)
            able = number < 3 and config.vector is not None
            # A divisor for each row takes so many cycles that the host is sooner.
            on_unit = 6 * (number < 2 and config is FAST)
            assert device.linear_stats(handle).executions == on_unit
            assert same_bits(device.linear(handle, x, "host"), expected)
            assert device.linear_stats(handle).executions == on_unit
            if able:
                assert same_bits(device.linear(handle, x, "unit"), expected)
                assert device.linear_stats(handle).executions == on_unit + 3
            else:
                with pytest.raises(InputError):
                    device.linear(handle, x, "unit")
            device.unload(handle)
            assert device.linear_stats(handle).executions == 0
        if config.vector is not None:
            assert device.info.free_vector_words == config.vector.words
            assert device.info.free_steps == 512


@pytest.mark.parametrize("config", [SLOW, FAST, replace(FAST, vector=None)])
def test_device_linear_with_a_norm(config):
    """Each norm has a program of its own; the layer can be used without one beside it."""
    rng = np.random.default_rng(16)
    layer = layer_of(rng, (70, 60), bias=True)
    weights = [rng.normal(1, 0.3, 60).astype(np.float32) for _ in range(2)]
    norms = [(weights[0], 1e-5), (weights[0], 1e-3), (weights[1], 1e-5), None]
    x = rng.standard_normal((3, 60)).astype(np.float32) * np.float32(1e-3)
    results = []
    with connect("golden", config=config) as device:
        handle = device.load(layer)
        for norm in norms:
            inputs = x if norm is None else numerics.rms_norm(x, *norm)
            expected = numerics.bitlinear(inputs, layer.trits, layer.scale, bias=layer.bias)
            results.append(expected)
            wanted = ["host", "sooner"] + ["unit"] * (config.vector is not None)
            for floats in wanted:
                before = device.linear_stats(handle).executions
                assert same_bits(device.linear(handle, x, floats, norm=norm), expected)
                on_unit = device.linear_stats(handle).executions - before
                assert on_unit in {"host": [0], "unit": [3]}.get(floats, [0, 3])
        assert len({result.tobytes() for result in results}) == len(norms)
        device.unload(handle)
        if config.vector is not None:
            assert device.info.free_vector_words == config.vector.words
            assert device.info.free_steps == 512


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        ((np.ones(59), 1e-5), "norm must have shape (60,), not (59,)"),
        ((np.full(60, np.inf), 1e-5), "norm must be finite float32, not NaN or inf"),
        ((np.ones(60, bool), 1e-5), "norm must have real numbers, not bool"),
        ((np.ones(60), 0.0), "eps must be at least 7.9e-31 and finite, not 0.0"),
        ((np.ones(60), np.nan), "eps must be at least 7.9e-31 and finite, not nan"),
    ],
)
def test_wrong_norms(norm, message):
    with connect("golden", config=FAST) as device:
        handle = device.load(layer_of(np.random.default_rng(9), (70, 60)))
        with pytest.raises(InputError) as caught:
            device.linear(handle, np.ones((1, 60), np.float32), norm=norm)
        assert str(caught.value) == message
        for floats in ("host", "unit"):
            with pytest.raises(InputError, match=r"x must have|60 features|shape"):
                device.linear(handle, np.ones((1, 61)), floats, norm=(np.ones(60), 1e-5))


def test_numbers_that_the_unit_does_not_compute_with():
    """The host computes them."""
    layer = layer_of(np.random.default_rng(7), (70, 60))
    with connect("golden", config=FAST) as device:
        handle = device.load(layer)
        x = np.full((1, 60), 2.0**126, np.float32)
        x[0, 0] = 1
        expected = numerics.bitlinear(x, layer.trits, layer.scale)
        assert same_bits(device.linear(handle, x), expected)
        with pytest.raises(NotFiniteError):
            device.linear(handle, x, "unit")
        x[0, 5] = np.nan
        with pytest.raises(InputError, match="x must be finite float32, not nan at token 0"):
            device.linear(handle, x)


def test_other_programs_come_first():
    """A program of blocks takes the words of layers that `linear` computed on the unit."""
    decoder = random_decoder(8)
    config = replace(FAST, vector=VectorConfig(words=960))
    with connect("golden", config=config) as device:
        handles = [device.load(layer_of(np.random.default_rng(8), (70, 60))) for _ in range(2)]
        x = np.ones((1, 60), np.float32)
        first = [device.linear(handle, x) for handle in handles]
        assert [device.linear_stats(handle).executions for handle in handles] == [1, 1]
        program = load(device, decoder)
        assert [device.linear_stats(handle).executions for handle in handles] == [0, 0]
        assert all(
            same_bits(device.linear(handle, x), y) for handle, y in zip(handles, first, strict=True)
        )
        with pytest.raises(CapacityError, match="vector words, free are"):
            device.linear(handles[0], x, "unit")
        assert program.stats.executions == 0


def test_wrong_arguments():
    with connect("golden", config=CONFIG) as device:
        handle = device.load(layer_of(np.random.default_rng(9), (70, 60)))
        with pytest.raises(InputError) as caught:
            device.linear(handle, np.ones((1, 60), np.float32), "device")  # type: ignore[arg-type]
        assert str(caught.value) == 'floats must be "sooner", "unit" or "host", not \'device\''
        device.unload(handle)
        with pytest.raises(InputError, match="the layer was unloaded"):
            device.linear(handle, np.ones((1, 60), np.float32))


def test_stacked_layers():
    rng = np.random.default_rng(10)
    layer = stack([layer_of(rng, (20, 40), divides=True) for _ in range(3)])
    with connect("golden", config=CONFIG) as device:
        handle = device.load(layer)
        x = rng.standard_normal((2, 40)).astype(np.float32)
        expected = numerics.bitlinear(x, layer.trits, layer.scale, True)
        assert same_bits(device.linear(handle, x, "unit"), expected)
