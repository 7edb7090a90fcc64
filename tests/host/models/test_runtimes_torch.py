"""The NumPy runtime against transformers as it is installed here, on edited copies of a model."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.integrations.bitnet import AutoBitLinear, BitLinear

from tests.support import ROOT
from tritloom.boards.board import load_board
from tritloom.host.checkpoints.huggingface import load_checkpoint
from tritloom.host.models import offload as offload_module
from tritloom.host.models.bitnet import BitNetModel
from tritloom.host.models.offload import run_offloaded
from tritloom.host.models.run import run_model
from tritloom.rtl.spec.errors import CheckpointError
from tritloom.rtl.spec.vector_facts import VectorConfig

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]

torch.set_num_threads(1)

TINYLM = ROOT / "models" / "tinylm"
IDS = [28, 64, 491, 128, 115, 90, 84]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINYLM, tmp_path / "m"))


def edit(file: Path, **changes: Any) -> None:
    """Set keys of a JSON file; the value `...` removes one."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def make_online(folder: Path, patterns: list[str] | None, *, tie: bool = True) -> None:
    """Full random weights, which transformers ternarizes as it goes."""
    random = np.random.default_rng(5)
    tensors = load_file(folder / "model.safetensors")
    for key in list(tensors):
        if key.endswith("_scale"):
            shape = tensors[key.removesuffix("_scale")].shape
            tensors[key.removesuffix("_scale")] = (
                random.standard_normal((4 * shape[0], shape[1])).astype(np.float32) / 16
            )
            del tensors[key]
    if not tie:
        tensors["lm_head.weight"] = random.standard_normal((512, 256)).astype(np.float32) / 16
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    quantization = {"linear_class": "autobitlinear", "quantization_mode": "online"}
    quantization |= {"quant_method": "bitnet"}
    edit(
        folder / "config.json",
        quantization_config=quantization | {"modules_to_not_convert": patterns},
        tie_word_embeddings=tie,
    )


def theirs(folder: Path) -> tuple[set[str], np.ndarray]:
    """The names of the ternary layers, and the logits."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    names = {
        name
        for name, module in model.named_modules()
        if isinstance(module, BitLinear | AutoBitLinear)
    }
    with torch.no_grad():
        return names, model(torch.tensor([IDS])).logits[0].numpy()


def assert_same(folder: Path) -> None:
    names, logits = theirs(folder)
    model = BitNetModel(load_checkpoint(folder), fuse=False)
    assert set(model.layers) == names
    # `AutoBitLinear` sums floats, so a code may flip at a tie. That moves the logits of its token
    # and of later ones by about 0.01. A layer that is computed wrongly moves them by 0.1 and more.
    difference = np.abs(model.logits(IDS) - logits)
    assert np.median(difference) < 0.01


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize(
    "patterns",
    [
        None,
        [],
        ["lm_head"],
        ["mlp"],
        ["self_attn", "lm_head"],
        ["n_proj", "lm_head"],
        ["model.layers.*.self_attn", "lm_head"],
        ["model.layers.1.", "lm_head"],
        ["model.layers.1|lm_head"],
        ["model.layers.0.mlp.up", ".*q_proj$"],
        ["layers.0.mlp.down_proj"],
    ],
)
def test_modules_to_not_convert(folder: Path, patterns: list[str] | None, tie: bool) -> None:
    make_online(folder, patterns, tie=tie)
    assert_same(folder)


@pytest.mark.parametrize("prefix", ["", "model.model."])
def test_other_prefixes(folder: Path, prefix: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors = {prefix + key.removeprefix("model."): value for key, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert_same(folder)


def test_a_stale_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone"}}')
    assert_same(folder)


@pytest.mark.parametrize("tie", [True, False])
def test_a_head_of_its_own(folder: Path, tie: bool) -> None:
    """Used although config.json ties it, if the files have both."""
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = -tensors["model.embed_tokens.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", tie_word_embeddings=tie)
    assert_same(folder)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_parameters": ...},
        {"rope_parameters": ..., "rope_theta": 100.0},
        {"rope_parameters": {"rope_theta": 50.0}, "rope_theta": 100.0},
        {"rope_parameters": {"rope_theta": 50.0}, "rope_scaling": {"type": "default"}},
    ],
)
def test_rotary_base(folder: Path, rope: dict[str, Any]) -> None:
    edit(folder / "config.json", **rope)
    assert_same(folder)


def ids_of(run: Any, folder: Path) -> tuple[int, ...] | str:
    try:
        result = run(folder, "golden", "It was", 12)
    except CheckpointError as error:
        return str(error)
    assert isinstance(result.ids, tuple)
    return result.ids


class TestGeneration:
    """Both runtimes give the ids that transformers gives, or refuse the same key."""

    @pytest.mark.parametrize(
        ("config", "generation"),
        [
            ({}, {}),
            ({"eos_token_id": 65}, {}),
            ({"eos_token_id": 65}, None),
            ({"eos_token_id": [65, 106]}, None),
            ({}, {"eos_token_id": [65]}),
            ({"eos_token_id": 106}, {"eos_token_id": 65}),
            ({"eos_token_id": 106}, {"eos_token_id": None}),
            ({"repetition_penalty": 1.5}, {}),
            ({}, {"do_sample": False, "temperature": 0.6, "top_k": 3, "top_p": 0.5}),
            ({}, {"max_new_tokens": 3, "max_length": 5, "use_cache": False}),
        ],
    )
    def test_used(
        self, folder: Path, config: dict[str, Any], generation: dict[str, Any] | None
    ) -> None:
        edit(folder / "config.json", **config)
        file = folder / "generation_config.json"
        if generation is None:
            file.unlink()
        else:
            file.write_text(json.dumps(generation))
        numpy, offloaded = (ids_of(run, folder) for run in (run_model, run_offloaded))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        prompt = torch.tensor([run_model(folder, "golden", "It was", 1).prompt_ids])
        with torch.no_grad():
            expected = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=12,
                do_sample=False,
                pad_token_id=0,
            )
        assert numpy == offloaded == tuple(expected[0, prompt.shape[1] :].tolist())

    @pytest.mark.parametrize(
        ("key", "value"),
        [("repetition_penalty", 1.5), ("num_beams", 3), ("stop_strings", ["a"])],
    )
    def test_refused(self, folder: Path, key: str, value: object) -> None:
        edit(folder / "generation_config.json", **{key: value})
        messages = {ids_of(run, folder) for run in (run_model, run_offloaded)}
        (message,) = messages
        assert isinstance(message, str)
        assert f"generation_config.json has {key} {value!r}" in message
        (folder / "generation_config.json").unlink()
        edit(folder / "config.json", **{key: value})
        (message,) = {ids_of(run, folder) for run in (run_model, run_offloaded)}
        assert isinstance(message, str)
        assert f"config.json has {key} {value!r}" in message

    def test_a_broken_model(self, folder: Path) -> None:
        edit(folder / "config.json", rms_norm_eps=True)
        message = ids_of(run_offloaded, folder)
        assert isinstance(message, str)
        assert message.startswith(f"transformers cannot load {folder}: Validation error for field")
        assert "rms_norm_eps" in message
        assert "\n" not in message


@pytest.mark.parametrize("words", [0, 3072, 1632])
def test_feed_forwards_on_a_vector_unit(monkeypatch: pytest.MonkeyPatch, words: int) -> None:
    """The same ids, and what ran where."""
    vector = VectorConfig(words=words) if words else None
    config = replace(load_board("ulx3s-85f").build_config, vector=vector)
    connect = offload_module.connect
    monkeypatch.setattr(offload_module, "known_config", lambda url: None)
    monkeypatch.setattr(offload_module, "connect", lambda url: connect(url, config=config))
    reference = np.load(TINYLM.parent / "tinylm_reference.npz")
    result = run_offloaded(TINYLM, "golden", str(reference["p0.prompt"]), 5)
    expected = reference["p0.greedy_autobitlinear"].tolist()
    assert [*result.prompt_ids, *result.ids] == expected[: len(result.prompt_ids) + 5]
    tokens = len(result.prompt_ids) + 4
    names = ["model.layers.0.mlp", "model.layers.1.mlp"][: {0: 0, 1632: 1, 3072: 2}[words]]
    blocks = result.blocks
    assert [routine.name for routine in blocks.routines] == names
    assert {routine.executions for routine in blocks.routines} <= {tokens}
    assert {layer.tokens for layer in result.layers} == {tokens}
    assert result.timing.run_cycles > 0
    assert result.timing.bytes == sum(layer.bytes for layer in result.layers) + sum(
        routine.bytes for routine in blocks.routines
    )
    assert blocks.form == ("feed_forward" if names else "none")
    if words == 0:
        assert blocks.summary == (
            "Transformers computes all floats (the device has no vector unit)."
        )
    elif words == 3072:
        assert blocks.summary == (
            "Floats on the device: feed-forward between its norm and residual of "
            "model.layers.0.mlp, model.layers.1.mlp; transformers computes the others."
        )
    else:
        assert "; transformers computes the others (model.layers.1.mlp: the v" in blocks.summary
