"""Shapes of known models: their layers, and that they are those of the shipped and mixed models."""

import pytest

from tests.support import ROOT
from tritloom.gen.plan.shapes import SHAPES, find_shape
from tritloom.gen.workloads import model_layers
from tritloom.rtl.spec.errors import CheckpointError

BILLIONS = {
    "bitnet-2b-4t": (2.08, 2.09),
    "bitnet-b1.58-700m": (0.67, 0.70),
    "bitnet-b1.58-1.3b": (1.2, 1.3),
    "bitnet-b1.58-3b": (3.2, 3.3),
    "falcon3-1b": (1.1, 1.2),
    "falcon3-3b": (2.3, 2.5),
    "falcon3-7b": (6.6, 6.7),
    "falcon3-10b": (9.4, 9.6),
    "falcon-e-1b": (1.58, 1.59),
    "falcon-e-3b": (2.9, 3.0),
    "ternary-bonsai-1.7b": (1.40, 1.42),
    "experts-30b-a3b": (2.7, 2.8),
    "random-100m": (0.10, 0.11),
    "tinylm": (0.00117, 0.00118),
}
"""Ternary weights that compute a token, least and most, by what the models are called."""


def test_weights():
    assert set(BILLIONS) == set(SHAPES)
    for name, (least, most) in BILLIONS.items():
        weights = sum(layer.weights for layer in SHAPES[name].ternary_layers())
        assert least <= weights / 1e9 <= most, name


def test_tinylm_is_the_folder():
    folder = ROOT / "models/tinylm"
    shape, layers, stored = find_shape(str(folder))
    known, known_layers, _ = find_shape("tinylm")
    assert (layers, stored) == (model_layers(str(folder)),) * 2
    sizes = [{(a.in_features, a.out_features): a.count for a in b} for b in (layers, known_layers)]
    assert sizes[0] == sizes[1]
    assert shape is not None and known is not None
    assert shape.head == known.head and shape.cache_values(64) == known.cache_values(64)
    assert shape.head.weights == 256 * 512
    assert shape.cache_values(64) == 2 * 2 * 2 * 64 * 64


def test_the_mix_has_the_same_weights():
    mixed = sum(layer.weights for layer in model_layers("bitnet-2b-4t"))
    assert mixed == sum(layer.weights for layer in find_shape("bitnet-2b-4t")[1])


def test_experts():
    """All are stored, and some compute a token."""
    shape, active, stored = find_shape("experts-30b-a3b")
    assert shape is not None
    assert [(a.in_features, a.out_features) for a in active] == [
        (b.in_features, b.out_features) for b in stored
    ]
    counts = {a.name: (a.count, b.count) for a, b in zip(active, stored, strict=True)}
    assert counts["gate_up_proj"] == counts["down_proj"] == (48 * 8, 48 * 128)
    assert counts["qkv_proj"] == (48, 48)


def test_unknown():
    with pytest.raises(CheckpointError, match=r"^unknown model 'bitnet'; give a folder, a GGUF "):
        find_shape("bitnet")
