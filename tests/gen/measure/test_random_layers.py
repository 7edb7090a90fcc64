"""Random layers of known shapes: their inputs and sums are as hard as they are said to be."""

import json
from fractions import Fraction

import numpy as np
import pytest

from tests.support import ROOT
from tritloom.gen.measure import random_layers
from tritloom.gen.measure.random_layers import (
    hard_inputs,
    hard_layer,
    hard_sums,
    measure_random_layers,
    norm_inputs,
)
from tritloom.host.models.golden_blocks import GoldenBlocks
from tritloom.rtl.spec import numerics

URL = "golden?preset=bitlinear"
MODEL = "bitnet-2b-4t"


@pytest.fixture
def golden(monkeypatch):
    """The golden model is the reference, also where torch is installed."""
    monkeypatch.setattr(
        random_layers, "reference", lambda decoder: ("golden model", GoldenBlocks(decoder))
    )


def from_half(total, divisor):
    """Distance of a quotient from the half of its last place of 24 bits, by the divisor."""
    quotient = Fraction(total, divisor)
    while quotient < 1 << 23:
        quotient *= 2
    return abs(quotient % 1 - Fraction(1, 2)) * divisor


def test_hard_sums():
    """Each is within the distance that is asked for, and is no multiple of an easier one."""
    rng = np.random.default_rng(3)
    counts = []
    for _ in range(20):
        divisor = int(rng.integers(1 << 22, 1 << 23)) * 2 + 1
        sums = hard_sums(divisor, 1 << 20)
        distances = [from_half(total, divisor) for total in sums]
        assert all(0 < each <= Fraction(255, 2) for each in distances)
        assert distances == sorted(distances)
        assert all(0 < total < 1 << 20 for total in sums)
        counts.append(len(sums))
    # Of 2^20 random quotients 2^20 · 256 / 2^24 = 16 are as near.
    assert min(counts) > 3
    assert np.mean(counts) > 8


def test_inputs_and_layer():
    """Ties, zeros of both signs, subnormal numbers; and the layer's sums are the hard ones."""
    rng = np.random.default_rng(4)
    x, layer = hard_inputs(rng, 6912, 8), hard_layer(rng, 64, 6912)
    codes, s = numerics.absmax_quantize(x)
    assert (s[:2] == 1).all()
    assert (np.abs(x[1] % 1) == 0.5).sum() > 100
    assert not x[2].any()
    assert len(np.unique(np.signbit(x[2]))) == 2
    tiny = np.finfo(np.float32).tiny
    assert ((x[3:5] != 0) & (np.abs(x[3:5]) < tiny)).sum() > 500
    assert 2.0**100 < np.abs(x[5]).max() < 2.0**126
    assert np.abs(codes).max(axis=1)[[0, 1, 4, 5, 7]].tolist() == [127] * 5
    sums = layer.trits.astype(int) @ codes[0]
    hard = 0
    for rows in np.array_split(np.arange(64), 4):
        significand, _ = np.frexp(layer.scale[rows[0]])
        divisor = int(significand * (1 << 24))
        wanted = hard_sums(divisor, 127 * (6912 - 7))
        assert np.abs(sums[rows][: len(wanted)]).tolist() == wanted[: len(rows)]
        hard += min(len(wanted), len(rows))
    assert hard > 20


def test_norm_inputs():
    """Nothing leaves the numbers of the unit: neither squares nor outputs are subnormal."""
    x = norm_inputs(np.random.default_rng(5), 256, 64)
    assert not x[1].any()
    assert len(np.unique(x[2])) == 1
    assert np.abs(x[3]).max() > 2**10 * np.median(np.abs(x[3]))
    assert np.isfinite(x * x).all()


@pytest.mark.sim
@pytest.mark.parametrize("bfloat16", [False, True])
def test_floats(golden, bfloat16):
    result = measure_random_layers(MODEL, URL, 8, 8, bfloat16=bfloat16)
    assert result["float_bits_different"] == 0
    counts = {what: each["compared"] for what, each in result["operations"].items()}
    pair = 8 * (2560 + 6912)
    assert counts == {
        "norm": pair,
        "activation": pair,
        "residual": pair,
        "linear": 2 * 8 * 8,
    }
    assert (result["layers"], result["norms"]) == (["8 × 2560", "8 × 6912"], [2560, 6912])
    assert result["config"]["vector"]["bfloat16"] is bfloat16
    words = ["tritloom", "measure", "block", MODEL, "--device", f"'{URL}'"]
    words += ["--tokens", "8", "--rows", "8"] + ["--bfloat16"] * bfloat16
    assert result["command"] == " ".join(words)


@pytest.mark.sim
def test_a_wrong_float_is_counted(golden, monkeypatch, run):
    right = GoldenBlocks.linear

    def wrong(self, layer, x):
        floats = right(self, layer, x).copy()
        floats.view(np.uint32)[3, 1] ^= 1
        return floats

    monkeypatch.setattr(GoldenBlocks, "linear", wrong)
    words = ("measure", "block", MODEL, "--device", URL, "--tokens", "4", "--rows", "4", "--json")
    status, out, _ = run(*words)
    result = json.loads(out)
    assert (status, result["float_bits_different"]) == (1, 2)
    assert result["operations"]["linear"] == {"compared": 2 * 4 * 4, "different": 2}


def test_rows_of_a_model(run):
    words = ("measure", "block", ROOT / "models" / "tinylm", "--rows", "4")
    status, _, err = run(*words)
    assert (status, err) == (1, "tritloom: error: --rows is for random layers; leave it out\n")
