"""The table of shipped models: the shapes of the files, and what fits which board."""

from dataclasses import replace

import pytest

from tests.support import ROOT
from tritloom.boards.board import load_board
from tritloom.host.checkpoints.huggingface import load_checkpoint
from tritloom.host.checkpoints.npz import load_npz
from tritloom.host.models.bitnet import BitNetModel
from tritloom.host.models.shipped import SHIPPED, shipped_models_that_fit

MODELS = ROOT / "models"


def test_shapes_are_those_of_the_files() -> None:
    layers = {
        "tinylm": BitNetModel(load_checkpoint(MODELS / "tinylm")).layers,
        "digits": load_npz(MODELS / "digits_ternary.npz")[0],
    }
    assert {
        model: {name: layer.trits.shape for name, layer in each.items()}
        for model, each in layers.items()
    } == SHIPPED
    for model, each in layers.items():
        assert list(SHIPPED[model]) == list(each)


@pytest.mark.parametrize(
    ("board", "tinylm"),
    [
        ("icebreaker", "part"),
        ("ulx3s-12f", "part"),
        ("ulx3s-25f", "part"),
        ("ulx3s-45f", "part"),
        ("ulx3s-85f", "all"),
    ],
)
def test_boards(board: str, tinylm: str) -> None:
    config = load_board(board).config
    assert shipped_models_that_fit(config) == {"tinylm": tinylm, "digits": "all"}


def test_devices_for_other_models() -> None:
    config = load_board("icebreaker").config
    none = {"tinylm": "none", "digits": "none"}
    assert shipped_models_that_fit(replace(config, act_bits=4)) == none
    binary = replace(config, alphabet="binary", encoding="sign2", engine="select", lanes=20)
    assert shipped_models_that_fit(binary) == none
