"""The archive reader: every good layout, and one line for every bad file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import ROOT
from tests.support.checkpoints import message
from tritloom.host.checkpoints.npz import load_npz
from tritloom.rtl.spec.errors import CheckpointError

MODELS = ROOT / "models"
TRITS = np.random.default_rng(11).integers(-1, 2, (8, 6)).astype(np.int8)


def test_digits() -> None:
    layers, rest = load_npz(MODELS / "digits_ternary.npz")
    assert [layer.trits.shape for layer in layers.values()] == [(128, 64), (128, 128), (16, 128)]
    assert list(layers) == ["l1", "l2", "l3"]
    assert not any(layer.scale_divides for layer in layers.values())
    assert {key: array.shape for key, array in rest.items()} == {
        "x_test": (450, 64),
        "y_test": (450,),
    }


def test_npz_with_bias_and_dividing_scale(tmp_path: Path) -> None:
    arrays = {"a.trits": TRITS, "a.scale": 3.0, "a.scale_divides": True, "a.bias": np.ones(8)}
    np.savez(tmp_path / "m.npz", **arrays)
    layers, rest = load_npz(tmp_path / "m.npz")
    assert layers["a"].scale_divides
    assert layers["a"].bias is not None
    assert rest == {}


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"a.trits": TRITS}, "a.trits has no a.scale; save both"),
        ({"x": TRITS}, "holds no NAME.trits; save int8 trits and a float32 scale"),
        ({"a.trits": TRITS * 2, "a.scale": 1.0}, "a: trits must be -1, 0 or 1, not"),
        ({"a.trits": TRITS * 1.0, "a.scale": 1.0}, "a: trits must be int8, not float64"),
        (
            {"a.trits": TRITS, "a.scale": 1.0, "a.scale_divides": [True, False]},
            "a.scale_divides must be one bool, not bool (2,)",
        ),
        (
            {"a.trits": TRITS, "a.scale": 1.0, "a.scale_divides": "no"},
            "a.scale_divides must be one bool, not <U2 ()",
        ),
        (
            {"a.trits": TRITS, "a.scale": 1.0, "a.scale_divides": 1},
            "a.scale_divides must be one bool, not int64 ()",
        ),
        ({"a.trits": np.array([None]), "a.scale": 1.0}, "is not a whole .npz archive"),
    ],
)
def test_bad_npz(tmp_path: Path, arrays: dict[str, Any], expected: str) -> None:
    np.savez(tmp_path / "m.npz", **arrays)
    assert expected in message(lambda: load_npz(tmp_path / "m.npz"))


@pytest.mark.parametrize("keep", [0, 10, 600, -30])
def test_truncated_npz(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "m.npz"
    file.write_bytes((MODELS / "digits_ternary.npz").read_bytes()[:keep])
    assert message(lambda: load_npz(file)) == f"{file} is not a whole .npz archive; copy it again"


@pytest.mark.parametrize("seed", range(5))
def test_npz_with_wrong_bytes_is_whole_or_refused(tmp_path: Path, seed: int) -> None:
    """Zip checks its members: whatever still loads has the same trits."""
    file = tmp_path / "m.npz"
    rng = np.random.default_rng(seed)
    np.savez_compressed(file, **{"a.trits": TRITS, "a.scale": 1.0})
    content = file.read_bytes()
    for _ in range(60):
        broken = bytearray(content)
        broken[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(broken)
        try:
            layers, _ = load_npz(file)
        except CheckpointError:
            continue
        assert (layers["a"].trits == TRITS).all()


def test_npz_that_is_not_one(tmp_path: Path) -> None:
    file = tmp_path / "m.npz"
    assert message(lambda: load_npz(file)).startswith(f"no model file {file}")
    with file.open("wb") as stream:
        np.save(stream, TRITS)
    assert message(lambda: load_npz(file)) == f"{file} is not a whole .npz archive; copy it again"
