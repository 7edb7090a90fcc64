"""The model with a scale for each group of 64 inputs, and what its page says of it."""

import re
import subprocess
import sys

import numpy as np
import pytest

from tests.support import ROOT
from tritloom.host import connect
from tritloom.host.checkpoints.gguf import GgufFile
from tritloom.host.group_layer import GroupLayer
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig

FILE = ROOT / "models" / "tinygroup.gguf"


def test_its_tensors():
    file = GgufFile(FILE)
    assert len(file.layer_names) == 14
    for facts in file.facts():
        if facts.group is not None:
            assert (facts.type, facts.group, facts.fits) == ("Q2_0", 64, False)
            assert facts.scales is not None and facts.scales > 100
    assert file.floats("token_embd.weight").shape == (512, 256)
    assert file.floats("blk.1.attn_q_norm.weight").shape == (64,)
    assert file.floats("output.weight") is None  # the embedding is the head


def test_a_layer_is_the_sum_of_its_groups():
    """Scales applied to group sums give the layer, as a host would compute it in float64."""
    tensor = GgufFile(FILE).tensor("blk.0.attn_k.weight")
    config = AcceleratorConfig(
        lanes=65,
        rows=4,
        memory=BlockRam(words=1024),
        max_in_features=260,
        max_out_features=128,
        max_group_sums=512,
    )
    codes = np.random.default_rng(1).integers(-127, 128, (3, 256)).astype(np.int8)
    with connect("golden", config=config) as device:
        handle = device.load(GroupLayer.from_weights(tensor.weights, group=64))
        sums = device.matmul_groups(handle, codes)
    weights = tensor.weights * np.repeat(tensor.scales, 64, axis=1).astype(np.float64)
    assert (
        np.einsum("tng,ng->tn", sums, tensor.scales.astype(np.float64)) == codes @ weights.T
    ).all()


@pytest.mark.torch
def test_what_codes_cost():
    """The recipe prints the page's table; torch's last digits are its own."""
    ran = subprocess.run(
        [sys.executable, "examples/train_tinygroup.py", "--evaluate", FILE],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    page = (ROOT / "docs" / "explanation" / "groups.md").read_text(encoding="utf-8")
    table = [float(number) for number in re.findall(r"^\|.*\| (\d\.\d{5}) \|$", page, re.MULTILINE)]
    printed = [float(number) for number in re.findall(r"(\d\.\d{5}) nats a token", ran.stdout)]
    assert len(table) == 3
    assert np.allclose(printed, table, rtol=0, atol=5e-5)
    assert printed == sorted(printed)
