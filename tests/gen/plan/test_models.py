from dataclasses import replace

import pytest

from tests.support import ROOT
from tests.support.plugins import Stalling
from tritloom.boards.board import board_names, boards, load_board
from tritloom.boards.icebreaker import ICEBREAKER
from tritloom.gen.cli.figures import rate
from tritloom.gen.plan.models import MODELS, OnDevice, known_layers, on_device
from tritloom.gen.plan.timing import token_times
from tritloom.gen.workloads import model_layers
from tritloom.host.models.shipped import SHIPPED, shipped_models_that_fit


def test_layers(monkeypatch):
    """By shape, as those of the model's folder."""
    monkeypatch.chdir(ROOT)
    assert MODELS == ("tinylm", "digits", "bitnet-2b-4t")
    for model in ("tinylm", "bitnet-2b-4t"):
        shapes = [
            {(each.in_features, each.out_features): each.count for each in layers}
            for layers in (known_layers(model), model_layers(model))
        ]
        assert shapes[0] == shapes[1]
    assert sum(layer.weights for layer in known_layers("digits")) == 128 * 64 + 144 * 128


@pytest.mark.parametrize("name", board_names())
def test_boards(name):
    """With the board's link; nothing is loaded if all fits, and only then."""
    config = load_board(name).build_config
    models = on_device(config)
    assert list(models) == list(MODELS)
    assert {model: models[model].fits for model in SHIPPED} == shipped_models_that_fit(config)
    assert models["bitnet-2b-4t"].fits == "part"
    for model, each in models.items():
        assert each.times == token_times(config, known_layers(model))
        assert (each.times.loading_s == 0) == (each.fits == "all")
        assert each.to_dict() == {"fits": each.fits, "end_to_end": each.times.to_dict()}


def test_large_enough():
    """Of a memory that holds the whole model."""
    config = load_board("ulx3s-85f").build_config.with_words(1 << 24)
    config = replace(config, max_layers=256, max_in_features=6912, max_out_features=6912)
    assert on_device(config)["bitnet-2b-4t"].fits == "all"


def test_tokens_at_once():
    config = replace(ICEBREAKER.build_config, tokens=2)
    assert on_device(config)["digits"].times.tokens == 2


def test_no_figures():
    """Another alphabet, other activations, a memory without a bound."""
    config = ICEBREAKER.build_config
    none = dict.fromkeys(MODELS, OnDevice(fits="none", times=None))
    assert on_device(replace(config, act_bits=4)) == none
    assert on_device(replace(config, alphabet="binary", encoding="sign2")) == none
    stalling = on_device(replace(config, memory=Stalling(words=1536)))
    assert {each.times for each in stalling.values()} == {None}
    assert stalling["digits"].to_dict() == {"fits": "all", "end_to_end": None}


def test_readme():
    """Its table has the figures of today's model."""
    ours = [name for name in board_names() if boards.package(name) == "tritloom"]
    lines = [f"| board | {' | '.join(MODELS)} |", "|---|" + "---|" * len(MODELS)]
    for name in ours:
        models = on_device(load_board(name).build_config)
        cells = [f"{each.fits}, {rate(each.times.tokens_per_s)}" for each in models.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    assert "\n\n" + "\n".join(lines) + "\n\n" in (ROOT / "README.md").read_text(encoding="utf-8")
