"""Which groups of inputs the layers of a GGUF file need, and what `auto` counts of them."""

import json

import numpy as np
import pytest

from tests.support.gguf_files import BLOCKS, block_data, write_gguf
from tritloom.gen.workloads import Layer, model_layers
from tritloom.host.checkpoints.gguf import GgufFile
from tritloom.rtl.spec.errors import CheckpointError

RNG = np.random.default_rng(8)
TRITS = RNG.integers(-1, 2, (6, 768)).astype(np.int8)
TWOS = np.where(TRITS > 0, np.int8(2), TRITS)
NAMES = ("blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v", "blk.0.ffn_up")


def write(path, layout, weights, scales, metadata=None, more=None):
    """A file whose layers all have the same weights; `scales` are those of each one."""
    tensors = {
        f"{name}.weight": (BLOCKS[layout][0], each.shape, block_data(layout, each, scale))
        for name, each, scale in zip(NAMES, weights, scales, strict=True)
    }
    return write_gguf(path / "m.gguf", tensors | (more or {}), metadata)


def scales_of(layout):
    return RNG.uniform(0.5, 1, (6, 768 // BLOCKS[layout][1]))


@pytest.mark.parametrize("layout", BLOCKS)
def test_the_groups_are_those_that_share_a_scale(tmp_path, layout):
    group = BLOCKS[layout][1]
    file = write(tmp_path, layout, [TRITS] * 4, [0.5, scales_of(layout), 0.25, scales_of(layout)])
    shapes = GgufFile(file).grouped_shapes()
    assert list(shapes) == list(NAMES)
    assert list(shapes.values()) == [(6, 768, each, 1) for each in (0, group, 0, group)]
    with pytest.raises(CheckpointError, match="has scales by groups of"):
        model_layers(str(file))
    # q, k and v read the same input, but only layers of one kind are stacked.
    assert model_layers(str(file), None) == [
        Layer("attn_q", 768, 6, 2, 0),
        Layer("attn_k", 768, 6, 2, group),
    ]


def test_a_weight_of_2_is_a_second_pass(tmp_path):
    same = scales_of("Q2_0")
    file = write(tmp_path, "Q2_0", [TWOS, TWOS, TWOS, TWOS], [0.5, same, same, same])
    assert set(GgufFile(file).grouped_shapes().values()) == {(6, 768, 64, 2)}
    assert model_layers(str(file), None) == [
        Layer("attn_qkv", 768, 18, 2, 64),
        Layer("ffn_up", 768, 6, 2, 64),
    ]
    assert model_layers(str(file), 128)[0] == Layer("attn_qkv", 768, 18, 2, 128)
    # With scales both passes are one layer; if sums are rounded, each group has both.
    assert model_layers(str(file), None, scale="fixed")[0] == Layer("attn_qkv", 1536, 18, 1, 64)
    assert model_layers(str(file), None, scale="float")[0] == Layer("attn_qkv", 1536, 18, 1, 128)


def test_refusals(tmp_path):
    scales = [scales_of("TQ2_0")] * 4
    rotated = write(tmp_path, "TQ2_0", [TRITS] * 4, scales, {"prism.hadamard.block_size": 1024})
    with pytest.raises(CheckpointError, match=r"prism\.hadamard\.block_size = 1024"):
        GgufFile(rotated).grouped_shapes()
    bad = TRITS.copy()
    bad[3, 5] = 2  # code 3, which TQ2_0 does not have
    file = write(tmp_path, "TQ2_0", [TRITS, bad, TRITS, TRITS], scales)
    with pytest.raises(CheckpointError, match=r"^blk\.0\.attn_k\.weight .*code 3"):
        GgufFile(file).grouped_shapes()
    second = {"blk.0.attn_k.scale": (0, (1,), np.float32(3).tobytes())}
    file = write(tmp_path, "TQ2_0", [TRITS] * 4, scales, more=second)
    with pytest.raises(CheckpointError, match=r"^blk\.0\.attn_k\.weight"):
        GgufFile(file).grouped_shapes()


def test_both_passes_on_the_command_line(run, tmp_path):
    """The kind of scales says how long the units' groups must be."""
    file = write(tmp_path, "Q2_0", [TWOS] * 4, [scales_of("Q2_0")] * 4)
    for kind, group in (("fixed", 64), ("float", 128)):
        part = ("--family", "ecp5", "--model", file, "--scale", kind, "--json")
        status, out, _ = run("auto", *part)
        config = json.loads(out)["config"]
        assert status == 0 and config["scale"] == {"kind": kind, "group": group}
        assert config["max_in_features"] >= 2 * 768
