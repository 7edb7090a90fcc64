"""The cycles of the vector unit for one block of known shapes, counted by hand."""

import json

import pytest

from tritloom.gen.measure.unit_cycles import shaped_decoder, unit_cycles
from tritloom.gen.plan.shapes import SHAPES
from tritloom.host.models.blocks import decoder_program
from tritloom.rtl.spec.errors import CheckpointError, ConfigError
from tritloom.rtl.spec.vector_cycles import step_cycles
from tritloom.rtl.spec.vector_facts import VectorConfig

SHARE = {(1, 1): 28.5, (1, 2): 20.59, (2, 2): 10.98, (4, 2): 6.74}
"""Percent of the engine's time at 198 products a cycle, of 2B-4T, by lanes and multipliers."""


def unit(lanes=1, multipliers=2, model="bitnet-2b-4t", macs=198):
    return unit_cycles(
        model, lanes=lanes, multipliers=multipliers, bfloat16=False, macs_per_cycle=macs
    )


def test_elements():
    """Each vector's passes: norms, codes, results and the fold of the interleaved sums."""
    result = unit()
    hidden, inner, qkv = 2560, 6912, 3840
    # A norm of squares and one product; codes; results, twice for gate and up.
    norms = 2 * (3 * hidden + inner)
    codes = 3 * hidden + inner
    results = hidden + 2 * inner + hidden + qkv
    rest = result["elements"] - norms - codes - results
    # Of 2,560 = 5 · 512 squares four blocks, of 6,912 = 13.5 · 512 twelve are added to the second
    # level; each norm adds it to the first, or ends with it.
    folds = (3 * 4 + 12 + 1) * 32
    # 24 + 8 sums of a norm, and eps; 127 / absmax of four layers; a divisor for each of 7 scales.
    assert rest == folds + 4 * (24 + 7 + 1) + 4 + 7
    assert result["bound_cycles"] == result["elements"]
    macs = qkv * hidden + hidden * hidden + 2 * inner * hidden + inner * hidden
    assert result["engine_cycles"] == -(-macs // 198)


@pytest.mark.parametrize(("lanes", "multipliers"), SHARE)
def test_share(lanes, multipliers):
    result = unit(lanes, multipliers)
    assert result["share_percent"] == SHARE[lanes, multipliers]
    assert result["bound_percent"] == round(
        100 * -(-result["elements"] // lanes) / result["engine_cycles"], 2
    )


def test_cycles_are_those_of_the_steps():
    config = VectorConfig(words=4096, lanes=2, multipliers=2)
    decoder = shaped_decoder(SHAPES["tinylm"], bfloat16=False)
    steps = decoder_program(config, decoder).steps_of("block 0")
    assert unit(2, model="tinylm")["vector_cycles"] == 2 + sum(
        step_cycles(step, config) for step in steps
    )


def test_refused():
    with pytest.raises(CheckpointError, match="unknown shapes 'none'; give one of tinylm, "):
        unit(model="none")
    with pytest.raises(ConfigError, match="macs must be at least 1, not 0"):
        unit(macs=0)


def test_command(run):
    status, out, _ = run("measure", "block", "bitnet-2b-4t", "--cycles", "--lanes", 4, "--json")
    assert status == 0
    assert json.loads(out) == unit(4)
    status, out, _ = run(*unit(4)["command"].split()[1:])
    assert status == 0
    assert "6.74 % of the engine's; the bound is 4.81 %" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--macs", 5], "--macs is for --cycles; add --cycles or leave it out"),
        (["--multipliers", 1], "--multipliers is for --cycles; add --cycles or leave it out"),
        (["--cycles", "--rows", 5], "--rows is for random layers; leave it out"),
        (["--cycles", "--lanes", 3], "vector lanes must be 1, 2 or 4, not 3"),
        (
            ["--lanes", 2, "--device", "serial:///dev/none"],
            "serial:///dev/none has the lanes that it was built with; leave --lanes out",
        ),
    ],
)
def test_options_refused(run, arguments, message):
    status, _, error = run("measure", "block", "bitnet-2b-4t", *arguments)
    assert (status, error) == (1, f"tritloom: error: {message}\n")
