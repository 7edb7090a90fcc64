"""What goes to the device: the largest layers first, the rest exact on the host."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.support.floats import different
from tritloom.host import CapacityError, Device, TernaryLayer, connect
from tritloom.host.allocator import Allocator
from tritloom.host.models.bitnet import golden_linear
from tritloom.host.placement import Placement, Rectangle, load_placed, place_layers
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig

CONFIG = AcceleratorConfig(
    lanes=10,
    rows=2,
    memory=BlockRam(words=60),
    max_in_features=40,
    max_out_features=16,
    max_layers=4,
    packet_bytes=256,
)
"""A layer of 16 × 40 takes 4 tiles × 8 groups = 32 words."""


def where(placement: Placement) -> dict[str, str]:
    return {layer.name: layer.where for layer in placement.layers}


def test_all() -> None:
    placement = place_layers(CONFIG, {"a": (16, 40), "b": (8, 40)})
    assert where(placement) == {"a": "device", "b": "device"}
    assert placement.fit == "all"
    assert (placement.words, placement.free_words) == (48, 60)
    assert (placement.slots, placement.free_slots) == (2, 4)
    assert placement.device_share == 1
    assert placement.layers[0].on_device == (Rectangle(row=0, rows=16, column=0, columns=40),)
    placement.require("all")
    placement.require("layers")


def test_largest_first() -> None:
    """The last is the largest; of two alike the first in the model's order."""
    shapes = {"a": (8, 40), "b": (8, 40), "c": (16, 40)}
    placement = place_layers(replace(CONFIG, memory=BlockRam(words=48)), shapes)
    assert where(placement) == {"a": "device", "b": "host", "c": "device"}
    assert [layer.name for layer in placement.load_order] == ["c", "a"]
    assert placement.fit == "part"
    assert placement.device_share == 0.75


def test_a_smaller_layer_fills_what_is_left() -> None:
    shapes = {"a": (16, 40), "b": (16, 40), "c": (4, 20)}
    placement = place_layers(replace(CONFIG, memory=BlockRam(words=40)), shapes)
    assert where(placement) == {"a": "device", "b": "host", "c": "device"}


def test_slots() -> None:
    shapes = dict.fromkeys("abcdef", (4, 10))
    placement = place_layers(CONFIG, shapes)
    assert where(placement) == dict(zip("abcdef", ["device"] * 4 + ["host"] * 2, strict=True))
    assert placement.slots == 4


def test_pieces_of_a_layer_that_does_not_fit() -> None:
    """20 × 50 is cut at 16 rows and 40 columns: 32, 8, 8 and 2 words."""
    placement = place_layers(replace(CONFIG, memory=BlockRam(words=45)), {"a": (20, 50)})
    (layer,) = placement.layers
    assert layer.on_device == (
        Rectangle(row=0, rows=16, column=0, columns=40),
        Rectangle(row=16, rows=4, column=0, columns=40),
        Rectangle(row=16, rows=4, column=40, columns=10),
    )
    assert (layer.words, layer.slots, layer.device_weights) == (42, 3, 840)
    assert layer.where == "device and host"


def test_rows_of_a_piece_that_does_not_fit() -> None:
    """Whole row groups, as many as the memory holds; only if nothing else is on the device."""
    placement = place_layers(
        replace(CONFIG, memory=BlockRam(words=15)), {"b": (8, 40), "a": (20, 50)}
    )
    assert where(placement) == {"b": "host", "a": "device and host"}
    (layer,) = placement.load_order
    assert layer.on_device == (
        Rectangle(row=16, rows=4, column=0, columns=40),
        Rectangle(row=16, rows=4, column=40, columns=10),
    )
    placement = place_layers(replace(CONFIG, memory=BlockRam(words=15)), {"a": (16, 40)})
    assert placement.layers[0].on_device == (Rectangle(row=0, rows=6, column=0, columns=40),)
    assert placement.words == 12


def test_none() -> None:
    placement = place_layers(replace(CONFIG, memory=BlockRam(words=3)), {"a": (16, 40)})
    assert placement.fit == "none"
    for fit in ("all", "layers"):
        with pytest.raises(CapacityError) as caught:
            placement.require(fit)
        assert str(caught.value) == (
            "no part of the model fits the device, not even a part of a (16 × 40): it has 3 words "
            "and 4 layer slots free; use a larger device"
        )


def test_strict() -> None:
    placement = place_layers(CONFIG, {"a": (16, 40), "b": (16, 40)})
    placement.require("layers")
    with pytest.raises(CapacityError) as caught:
        placement.require("all")
    assert str(caught.value) == (
        "the model does not fit the device, b (16 × 40) is too much for its 60 words and 4 layer "
        'slots; give fit="layers" (--fit layers) to leave the rest on the host, or use a larger '
        "device"
    )


def test_text_and_json() -> None:
    placement = place_layers(CONFIG, {"a": (16, 40), "long.name": (12, 50)})
    assert str(placement).splitlines() == [
        "layer        shape  on the device  words",
        "a          16 × 40          100 %     32",
        "long.name  12 × 50           80 %     24",
        (
            "90 % of the weights on the device (1 of 2 layers and a part of 1), in 56 of 60 "
            "words and 2 of 4 layer slots; the host computes the rest"
        ),
    ]
    values = json.loads(json.dumps(placement.to_dict()))
    assert values["fit"] == "part"
    assert values["layers"][0]["where"] == "device"
    assert values["layers"][1]["on_device"] == [{"row": 0, "rows": 12, "column": 0, "columns": 40}]
    whole = place_layers(CONFIG, {"a": (16, 40)})
    assert whole.summary == (
        "100 % of the weights on the device (1 of 1 layers), in 32 of 60 words and 1 of 4 layer "
        "slots"
    )


def test_order() -> None:
    """A model's first block stays whole, unless the largest layers alone bring more weights."""
    block = {"a": (8, 40), "b": (16, 40), "c": (4, 40)}
    two = {f"{n}.{name}": shape for n in (0, 1) for name, shape in block.items()}
    config = replace(CONFIG, memory=BlockRam(words=56), max_layers=8)
    placement = place_layers(config, two)
    assert not placement.largest_first
    assert [layer.name for layer in placement.load_order] == ["0.a", "0.b", "0.c"]
    config = replace(CONFIG, memory=BlockRam(words=64), max_layers=2)
    placement = place_layers(config, two)
    assert placement.largest_first
    assert [layer.name for layer in placement.load_order] == ["0.b", "1.b"]


def test_deterministic_and_without_effect() -> None:
    allocator = Allocator(CONFIG)
    allocator.take("mine", allocator.place(8, 40))
    before = allocator.free_runs
    shapes = {"a": (16, 40), "b": (16, 50), "c": (7, 33)}
    placements = [place_layers(CONFIG, shapes, allocator) for _ in range(2)]
    assert placements[0] == placements[1]
    assert placements[0].free_words == 44
    assert placements[0].free_slots == 3
    assert allocator.free_runs == before


def random_layer(shape: tuple[int, int], seed: int) -> TernaryLayer:
    random = np.random.default_rng(seed)
    return TernaryLayer.from_trits(
        random.integers(-1, 2, shape).astype(np.int8),
        random.uniform(0.5, 2, shape[0]).astype(np.float32),
        bias=random.standard_normal(shape[0]).astype(np.float32),
    )


def load_model(
    device: Device, shapes: dict[str, tuple[int, int]], seed: int
) -> tuple[Placement, dict[str, TernaryLayer]]:
    layers = {name: random_layer(shape, seed + n) for n, (name, shape) in enumerate(shapes.items())}
    return place_layers(device.info.config, shapes, device.allocation()), layers


@pytest.mark.parametrize("seed", range(12))
def test_every_sum_is_exact(seed: int) -> None:
    """Random memories, shapes and slots, on a device that may hold another layer."""
    random = np.random.default_rng(seed)
    config = replace(
        CONFIG,
        memory=BlockRam(words=int(random.integers(4, 150))),
        max_layers=int(random.integers(1, 12)),
    )
    shapes = {f"l{i}": (int(random.integers(1, 40)), int(random.integers(1, 90))) for i in range(5)}
    with connect("golden", config=config) as device:
        if seed % 3 == 0 and config.memory_words > 8:
            device.unload(device.load(random_layer((2, 10), 0)))
            device.load(random_layer((4, 20), 0))
        free = device.info.free_words
        placement, layers = load_model(device, shapes, seed)
        placed = {
            layer.name: load_placed(device, layers[layer.name], layer)
            for layer in [
                *placement.load_order,
                *(layer for layer in placement.layers if not layer.on_device),
            ]
        }
        assert device.info.free_words == free - placement.words
        assert placement.words == sum(layer.words for layer in placed.values())
        for name, layer in layers.items():
            codes = random.integers(-128, 128, (3, layer.in_features)).astype(np.int8)
            sums = placed[name].matmul(codes)
            assert sums.dtype == np.int32
            assert np.array_equal(sums, numerics.matmul(layer.trits, codes))
            x = random.standard_normal((2, layer.in_features)).astype(np.float32)
            y = numerics.bitlinear(x, layer.trits, layer.scale, bias=layer.bias)
            assert placed[name].linear(x).tobytes() == y.tobytes()
            stats = placed[name].stats
            assert stats.tokens == 5
            assert (stats.runs > 0) == bool(placed[name].placement.on_device)
        for layer in placed.values():
            layer.unload()
            layer.unload()
        assert device.info.free_words == free


def test_a_layer_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with connect("golden", config=replace(CONFIG, memory=BlockRam(words=45))) as device:
        placement, layers = load_model(device, {"a": (20, 50)}, 0)
        load, calls = device.load, []

        def failing(layer: TernaryLayer) -> object:
            calls.append(layer)
            if len(calls) == 2:
                raise CapacityError("full")
            return load(layer)

        monkeypatch.setattr(device, "load", failing)
        with pytest.raises(CapacityError, match="full"):
            load_placed(device, layers["a"], placement.layers[0])
        assert device.info.free_words == 45


def test_linear_of_one_feature_keeps_the_sign_of_zero() -> None:
    """A layer with one input, of which the device holds some rows."""
    with connect("golden", config=replace(CONFIG, memory=BlockRam(words=3))) as device:
        placement, layers = load_model(device, {"a": (16, 1)}, 1)
        layer = replace(layers["a"], bias=None)
        placed = load_placed(device, layer, placement.layers[0])
        x = np.array([[-1.5], [0], [2]], np.float32)
        y = placed.linear(x)
        assert np.signbit(y[y == 0]).any()
        assert different(y, golden_linear("a", layer, x)) == 0


def test_the_device_works_for_each_part() -> None:
    """A wrong weight on the device shows in the sums: they are not computed on the host."""
    with connect("golden", config=replace(CONFIG, memory=BlockRam(words=45))) as device:
        placement, layers = load_model(device, {"a": (20, 50)}, 1)
        other = random_layer((20, 50), 99)
        placed = load_placed(device, other, placement.layers[0])
        placed._host_trits = layers["a"].trits.copy()
        for part in placement.layers[0].on_device:
            placed._host_trits[part.slices] = 0
        codes = np.full((1, 50), 100, np.int8)
        wrong = placed.matmul(codes) != numerics.matmul(layers["a"].trits, codes)
        assert wrong.any()
