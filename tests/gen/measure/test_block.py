"""`tritloom measure block`: what is compared and counted; the reference device is the hardware."""

import json

import numpy as np
import pytest

from tests.support import ROOT
from tritloom.gen.measure import block
from tritloom.gen.measure.block import measure_block
from tritloom.gen.measure.operations import Recorder
from tritloom.host.models.golden_blocks import GoldenBlocks
from tritloom.rtl.spec.errors import ConfigError

TINYLM = ROOT / "models" / "tinylm"
URL = "golden?preset=bitlinear"
COUNTS = {
    "hidden": 3 * 256,
    "qkv": 2 * 512,
    "final norm": 256,
    "feed-forward": 2 * 256,
    "norm": 2 * (256 + 256 + 256 + 512) + 256,
    "linear": 2 * (512 + 256 + 1024 + 256),
    "activation": 2 * 512,
    "residual": 2 * 2 * 256,
}
"""Floats of a token, of the blocks' programs, then of each operation alone."""
FLOATS = sum(COUNTS.values())


@pytest.fixture
def golden(monkeypatch):
    """The golden model is the reference, also where torch is installed."""
    monkeypatch.setattr(block, "reference", lambda decoder: ("golden model", GoldenBlocks(decoder)))


@pytest.mark.sim
def test_floats_cycles_and_bytes(golden):
    said = []
    result = measure_block(TINYLM, URL, 3, said.append)
    assert (result["float_bits_compared"], result["float_bits_different"]) == (3 * FLOATS, 0)
    compared = {what: each["compared"] for what, each in result["operations"].items()}
    assert compared == {what: 3 * count for what, count in COUNTS.items()}
    assert (result["against"], result["final_norm_on_device"]) == ("golden model", True)
    assert result["link_bytes_per_token"] == 8872
    # The reference device counts no waits.
    assert result["cycles_layer"] == result["vector_cycles"] > result["engine_cycles"] > 0
    assert result["cycles_layer"] > result["cycles_feed_forward"] > 5074
    assert "3 of 3 tokens, 0 floats differ" in said
    assert said[-1] == "19 of 19 operations alone, 0 floats differ"


@pytest.mark.sim
def test_a_wrong_float_is_counted(golden, monkeypatch, run, tmp_path):
    """One bit of one float of each final norm; the status of the command says so."""
    right = GoldenBlocks.final

    def wrong(self, x):
        floats = right(self, x).copy()
        floats.view(np.uint32)[0, 7] ^= 1
        return floats

    monkeypatch.setattr(GoldenBlocks, "final", wrong)
    file = tmp_path / "block.json"
    words = ("measure", "block", TINYLM, "--device", URL, "--tokens", "2", "--output", file)
    status, out, _ = run(*words, "--json")
    result = json.loads(out)
    assert (status, result["float_bits_different"]) == (1, 1)
    assert json.loads(file.read_text()) == result
    monkeypatch.undo()


@pytest.mark.sim
@pytest.mark.parametrize("kind", ["norm", "linear", "activation", "residual"])
def test_a_wrong_operation_is_counted(golden, monkeypatch, kind):
    """Each kind of operation alone is compared with what the reference gave."""
    right = Recorder._keep

    def kept(self, other, weight, inputs, y):
        right(self, other, weight, inputs, -y if other == kind else y)
        return y

    monkeypatch.setattr(Recorder, "_keep", kept)
    result = measure_block(TINYLM, URL, 1)
    unlike = {what: count["different"] for what, count in result["operations"].items()}
    # The sign of a zero differs too.
    assert unlike == dict.fromkeys(COUNTS, 0) | {kind: COUNTS[kind]}


def test_a_device_without_a_unit():
    with pytest.raises(ConfigError) as error:
        measure_block(TINYLM, "golden", 1)
    message = "golden has no vector unit; name a device that has one, such as sim?preset=bitlinear"
    assert str(error.value) == message


@pytest.mark.torch
@pytest.mark.parametrize("bfloat16", [False, True])
def test_transformers(bfloat16):
    """Against the library's own functions."""
    result = measure_block(TINYLM, URL, 2, bfloat16=bfloat16)
    assert (result["against"], result["bfloat16"]) == ("transformers", bfloat16)
    assert (result["float_bits_compared"], result["float_bits_different"]) == (2 * FLOATS, 0)


@pytest.mark.slow
def test_simulated(golden):
    """The cycles of the real core, in tinylm's feed-forward."""
    result = measure_block(TINYLM, "sim?preset=bitlinear", 2)
    assert result["float_bits_different"] == 0
    assert result["cycles_feed_forward"] == 6551
