"""`tritloom measure block`: what is compared and counted; the reference device is the hardware."""

import json

import numpy as np
import pytest

from tests.support import ROOT
from tritloom.gen.measure import block
from tritloom.gen.measure.block import measure_block
from tritloom.host.models.golden_blocks import GoldenBlocks
from tritloom.rtl.spec.errors import ConfigError

TINYLM = ROOT / "models" / "tinylm"
URL = "golden?preset=bitlinear"
FLOATS = 2 * (256 + 512) + 2 * 256 + 2 * 256
"""Of a token: hidden vector and q/k/v before each block, what the last leaves, feed-forwards."""


@pytest.fixture
def golden(monkeypatch):
    """The golden model is the reference, also where torch is installed."""
    monkeypatch.setattr(
        block, "_reference", lambda decoder: ("golden model", GoldenBlocks(decoder))
    )


@pytest.mark.sim
def test_floats_cycles_and_bytes(golden):
    said = []
    result = measure_block(TINYLM, URL, 3, said.append)
    assert (result["float_bits_compared"], result["float_bits_different"]) == (3 * FLOATS, 0)
    assert (result["against"], result["final_norm_on_device"]) == ("golden model", True)
    assert result["link_bytes_per_token"] == 8872
    # The reference device counts no waits.
    assert result["cycles_layer"] == result["vector_cycles"] > result["engine_cycles"] > 0
    assert result["cycles_layer"] > result["cycles_feed_forward"] > 5036
    assert said[-1] == "3 of 3 tokens, 0 floats differ"


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


def test_a_device_without_a_unit():
    with pytest.raises(ConfigError) as error:
        measure_block(TINYLM, "golden", 1)
    message = "golden has no vector unit; name a device that has one, such as sim?preset=bitlinear"
    assert str(error.value) == message


@pytest.mark.torch
def test_transformers():
    """Against the library's own functions, float32."""
    result = measure_block(TINYLM, URL, 2)
    assert result["against"] == "transformers"
    assert (result["float_bits_compared"], result["float_bits_different"]) == (2 * FLOATS, 0)


@pytest.mark.slow
def test_simulated(golden):
    """The cycles of the real core, in tinylm's feed-forward."""
    result = measure_block(TINYLM, "sim?preset=bitlinear", 2)
    assert result["float_bits_different"] == 0
    assert result["cycles_feed_forward"] == 6515
