"""Which order of I2_S is refused, by models whose neurons agree, disagree or say nothing."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.checkpoints import message
from tests.support.gguf_files import IDS, i2s_data, write_gguf
from tritloom.host.checkpoints.gguf import load_gguf

NEURONS, HIDDEN = 512, 128


def model(folder: Path, trits: dict[str, np.ndarray], order: str = "x86") -> Path:
    tensors = {
        f"blk.0.{name}.weight": (IDS["I2_S"], each.shape, i2s_data(each, 1.0, order))
        for name, each in trits.items()
    }
    return write_gguf(folder / "m.gguf", tensors)


def trained(sign: int) -> dict[str, np.ndarray]:
    """Neurons with few to many weights: equal in both layers, or opposite."""
    rng = np.random.default_rng(4)
    share = rng.random(NEURONS)
    trits = rng.choice([-1, 1], (NEURONS, HIDDEN)).astype(np.int8)
    up = trits * (rng.random((NEURONS, HIDDEN)) < share[:, None])
    down = trits * (rng.random((NEURONS, HIDDEN)) < (share if sign > 0 else 1 - share)[:, None])
    return {"ffn_up": up, "ffn_down": np.ascontiguousarray(down.T)}


@pytest.mark.parametrize("sign", [1, -1])
def test_correlated(tmp_path: Path, sign: int) -> None:
    """Neurons may also use few inputs where many outputs use them."""
    file = model(tmp_path, trained(sign))
    assert len(load_gguf(file, "x86")) == 2
    for wrong in ("arm", "x86-rows"):
        assert message(lambda wrong=wrong: load_gguf(file, wrong)).endswith("give --i2s-order x86")


@pytest.mark.parametrize("order", ["x86", "arm", "x86-rows"])
def test_no_zeros(tmp_path: Path, order: str) -> None:
    """Where all sums are equal nothing is known."""
    ones = np.ones((NEURONS, HIDDEN), np.int8)
    assert load_gguf(model(tmp_path, {"ffn_up": ones, "ffn_down": ones.T.copy()}), order)


def test_order_that_a_shape_excludes(tmp_path: Path) -> None:
    """192 inputs are no multiple of 128, so the file is not x86's; the others are compared."""
    trits = trained(1)
    trits = {"ffn_up": trits["ffn_up"][:192], "ffn_down": trits["ffn_down"][:, :192].copy()}
    file = model(tmp_path, trits, "arm")
    assert len(load_gguf(file, "arm")) == 2
    assert message(lambda: load_gguf(file, "x86-rows")).endswith("give --i2s-order arm")
    assert message(lambda: load_gguf(file, "x86")) == (
        "blk.0.ffn_down.weight has 192 inputs, the order x86 takes multiples of 128; "
        "give another order of I2_S"
    )


def test_other_shapes(tmp_path: Path) -> None:
    """Layers that do not belong together are not compared."""
    trits = trained(1)
    file = model(tmp_path, {"ffn_up": trits["ffn_up"][:256], "ffn_down": trits["ffn_down"]})
    for order in ("x86", "arm", "x86-rows"):
        assert len(load_gguf(file, order)) == 2
