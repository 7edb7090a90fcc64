"""The golden model and the decoder against transformers as it is installed here."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support import ROOT
from tritloom.host import load_checkpoint, load_npz
from tritloom.host.models.bitnet import BitNetModel
from tritloom.host.models.tokenizer import load_tokenizer

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]

TINYLM = ROOT / "models" / "tinylm"


@pytest.fixture(scope="module")
def shared() -> ModuleType:
    """test_numerics.py, whose checks run here on live outputs."""
    spec = importlib.util.spec_from_file_location(
        "golden_checks", ROOT / "tests" / "rtl" / "spec" / "test_numerics.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model() -> Any:
    """tinylm as transformers loads it, its layers replaced by float32 BitLinear."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.integrations import bitnet

    model = AutoModelForCausalLM.from_pretrained(
        TINYLM, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        for name, module in list(model.named_modules()):
            if isinstance(module, bitnet.AutoBitLinear):
                layer = bitnet.BitLinear(
                    module.in_features, module.out_features, bias=False, dtype=torch.float32
                )
                layer.weight = bitnet.pack_weights(module.weight.clone())
                layer.weight_scale = 1 / module.weight_scale
                model.set_submodule(name, layer)
    return model


def test_committed_vectors_are_what_the_library_computes(shared: ModuleType) -> None:
    for key, array in shared.make_hf.outputs(shared.make_hf.inputs()).items():
        if key.startswith(("norm.", "model.")) or key.endswith("y_autobitlinear"):
            assert np.allclose(array, shared.COMMITTED[key], rtol=1e-5, atol=1e-4), key
        else:
            assert (array == shared.COMMITTED[key]).all(), key


@pytest.mark.parametrize("seed", range(10))
def test_golden_equals_the_library(shared: ModuleType, seed: int) -> None:
    given = shared.make_hf.inputs(seed)
    arrays = given | shared.make_hf.outputs(given)
    for kind, check in shared.CHECKS.items():
        for case in shared.make_hf.cases(arrays, kind).values():
            check(case)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["packed", "normed"])
def test_random_models_equal_the_library(
    shared: ModuleType, tmp_path: Path, name: str, seed: int
) -> None:
    given = shared.make_hf.inputs(100 + seed)
    arrays = given | shared.make_hf.outputs(given)
    case = shared.make_hf.cases(arrays, "model")[name]
    shared.make_hf.write_model(tmp_path, name, case)
    logits = BitNetModel(load_checkpoint(tmp_path)).logits(case["ids"])
    # A code that flips at a tie moves a few logits; the rest agree to the last bits.
    assert np.median(np.abs(logits - case["logits"])) < 1e-4


@pytest.mark.parametrize("prompt", [[28, 64, 491, 128], [1], [300, 2, 77], list(range(40, 60))])
def test_tinylm_equals_the_library(model: Any, prompt: list[int]) -> None:
    import torch

    decoder = BitNetModel(load_checkpoint(TINYLM))
    ids = torch.tensor([prompt])
    with torch.no_grad():
        logits = model(ids).logits[0].numpy()
        greedy = model.generate(ids, max_new_tokens=32, do_sample=False)[0].tolist()
    assert np.median(np.abs(decoder.logits(prompt) - logits)) < 1e-4
    assert [*prompt, *decoder.generate(prompt, 32)] == greedy


def run_example(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, ROOT / "examples" / name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def test_train_digits_writes_what_the_loader_reads(tmp_path: Path) -> None:
    text = run_example("train_digits.py", "--steps", "300", "--output", tmp_path)
    layers, data = load_npz(tmp_path / "digits_ternary.npz")
    assert [layer.trits.shape for layer in layers.values()] == [(128, 64), (128, 128), (16, 128)]
    assert data["x_test"].shape == (450, 64)
    assert float(text.split("npz: ")[1].split("%")[0]) > 85


def test_train_tinylm_writes_what_transformers_reads(tmp_path: Path) -> None:
    text = ROOT / "models" / "heldout.txt"
    run_example("train_tinylm.py", "--text", text, "--steps", "2", "--output", tmp_path)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(tmp_path).encode("It was a fine evening")
    assert ids == load_tokenizer(tmp_path).encode("It was a fine evening").ids
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].numpy()
    ours = BitNetModel(load_checkpoint(tmp_path)).logits(ids)
    assert np.median(np.abs(ours - logits)) < 1e-4
