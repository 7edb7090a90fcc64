"""The commands that take a GGUF file, on files that the test writes."""

import json

import numpy as np
import pytest

from tests.support.gguf_files import IDS, block_data, i2s_data, write_gguf
from tritloom.boards.icebreaker import ICEBREAKER
from tritloom.gen.workloads import Layer, model_layers
from tritloom.rtl.spec.packing import pack_weights

RNG = np.random.default_rng(12)
SHAPES = {
    "attn_q": (8, 256),
    "attn_k": (4, 256),
    "attn_v": (4, 256),
    "attn_output": (6, 256),
    "ffn_gate": (5, 256),
    "ffn_up": (5, 256),
}
TRITS = {
    f"blk.{index}.{name}": RNG.integers(-1, 2, shape).astype(np.int8)
    for index in range(2)
    for name, shape in SHAPES.items()
}


def failed(text):
    return 1, "", f"tritloom: error: {text}\n"


def model(folder, scales=0.5, metadata=None):
    """A model of two blocks, with a float tensor before them."""
    tensors = {"token_embd.weight": (1, (3, 256), bytes(3 * 512))}
    for name, trits in TRITS.items():
        data = block_data("TQ2_0", trits, scales if name == "blk.1.attn_k" else 0.5)
        tensors[f"{name}.weight"] = (IDS["TQ2_0"], trits.shape, data)
    return write_gguf(folder / "model.gguf", tensors, metadata)


class TestInfo:
    def test_json(self, run, tmp_path):
        status, out, err = run("info", model(tmp_path), "--json")
        assert (status, err) == (0, "")
        output = json.loads(out)
        tensors = output.pop("tensors")
        assert output == {"file": "model.gguf", "version": 3, "architecture": "bitnet"}
        assert tensors[0] == {
            "name": "token_embd.weight",
            "type": "F16",
            "shape": [3, 256],
            "bytes": 1536,
            "group": None,
            "scales": None,
            "fits": False,
            "reason": "",
        }
        assert tensors[4] == {
            "name": "blk.0.attn_output.weight",
            "type": "TQ2_0",
            "shape": [6, 256],
            "bytes": 6 * 66,
            "group": 256,
            "scales": 1,
            "fits": True,
            "reason": "",
        }
        assert [each["name"] for each in tensors[1:]] == [f"{name}.weight" for name in TRITS]

    def test_text(self, run, tmp_path):
        scales = [[0.5], [0.5], [0.25], [2]]
        status, out, err = run("info", model(tmp_path, scales))
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert " ".join(lines[:2]) == (
            "model.gguf: GGUF 3, architecture bitnet, 13 tensors, of these 12 ternary; 11 with "
            "15,360 weights fit a device of today"
        )
        rows = [line.split() for line in lines[3:17]]
        assert rows[0] == ["tensor", "type", "shape", "bytes", "scales", "fits"]
        assert rows[1] == ["token_embd.weight", "F16", "3", "×", "256", "1,536"]
        assert rows[2] == ["blk.0.attn_q.weight", "TQ2_0", "8", "×", "256", "528", "1", "yes"]
        assert rows[9][5:] == ["264", "3", "by", "256", "no"]
        assert " ".join(" ".join(lines[17:]).split()) == (
            "blk.1.attn_k.weight has scales by groups of 256 (0.5, but 0.25 in row 2, group 0), "
            "and a device takes one scale a tensor; keep this layer on the host"
        )

    def test_wrong(self, run, tmp_path):
        missing = tmp_path / "none.gguf"
        assert run("info", missing) == failed(f"no model file {missing}; give a GGUF file")
        file = model(tmp_path)
        assert run("info", file, "--device", "golden") == failed(
            "FILE goes without --device, --selftest and --report; leave one out"
        )
        file.write_bytes(file.read_bytes()[:100])
        assert run("info", file, "--json") == failed(
            f"{file} is truncated, its 100 bytes end in the header; copy it again"
        )
        text = tmp_path / "text"
        text.write_text("some text")
        assert run("info", text) == failed(
            f"{text} begins with b'some', not GGUF; give a GGUF file"
        )


class TestPack:
    @pytest.mark.parametrize("order", ["arm", "x86-rows"])
    def test_pack(self, run, tmp_path, order):
        trits = TRITS["blk.1.attn_k"][:, :64]
        tensor = IDS["I2_S"], trits.shape, i2s_data(trits, 1.0, order)
        file, out = write_gguf(tmp_path / "i2s", {"a.weight": tensor}), tmp_path / "out"
        arguments = ("pack", file, "--board", "icebreaker", "-o", out)
        status, _, err = run(*arguments, "--i2s-order", order, "--json")
        assert (status, err) == (0, "")
        assert (out / "layer.bin").read_bytes() == pack_weights(ICEBREAKER.config, trits)
        assert run(*arguments)[2].startswith(
            "tritloom: error: a.weight is I2_S, and the file does not say in which order its codes"
        )
        assert run(*arguments, "--i2s-order", "z80") == failed(
            "the order of I2_S must be x86, arm, x86-rows, not 'z80'"
        )

    def test_names(self, run, tmp_path):
        file, out = model(tmp_path), tmp_path / "out"
        arguments = ("pack", file, "--board", "icebreaker", "-o", out)
        names = list(TRITS)
        assert run(*arguments) == failed(
            f"{file} holds 12 layers; name one with --layer: {', '.join(names[:8])}, …"
        )
        assert run(*arguments, "--layer", "x") == failed(
            f"{file} has no layer 'x'; it has {', '.join(names[:8])}, …"
        )
        write_gguf(file, {})
        assert run(*arguments) == failed(
            f"{file} holds no ternary layer, only no tensor; convert the model to TQ2_0"
        )

    def test_order_of_another_source(self, run, tmp_path):
        source = tmp_path / "a.npz"
        np.savez(source, **{"a.trits": TRITS["blk.0.attn_q"], "a.scale": np.float32(1)})
        arguments = ("pack", source, "--board", "icebreaker", "-o", tmp_path)
        assert run(*arguments, "--i2s-order", "arm") == failed(
            f"--i2s-order goes with a GGUF file, and {source} is none; leave it out"
        )


class TestAuto:
    LAYERS = (Layer("attn_qkv", 256, 16, 2), Layer("attn_output", 256, 6, 2))

    def test_layers(self, tmp_path):
        file = str(model(tmp_path))
        assert model_layers(file) == [*self.LAYERS, Layer("ffn_gate_up", 256, 10, 2)]

    def test_layers_that_are_not_stacked(self, tmp_path):
        """Where a part is missing or has other inputs, the others stay alone."""
        tensors = {}
        for name, shape in {"ffn_gate": (5, 256), "ffn_up": (5, 512), "attn_q": (3, 256)}.items():
            data = block_data("TQ1_0", np.ones(shape, np.int8), 1.0)
            tensors[f"blk.0.{name}.weight"] = (IDS["TQ1_0"], shape, data)
        file = write_gguf(tmp_path / "model.gguf", tensors)
        assert model_layers(str(file)) == [
            Layer("ffn_gate", 256, 5),
            Layer("ffn_up", 512, 5),
            Layer("attn_q", 256, 3),
        ]

    @pytest.mark.sim
    def test_choice(self, run, tmp_path):
        status, out, err = run(
            *("auto", "--board", "ulx3s-85f", "--model", model(tmp_path), "--json")
        )
        assert (status, err) == (0, "")
        assert json.loads(out)["cpu"]["macs"] == sum(trits.size for trits in TRITS.values())

    def test_scales_by_group(self, run, tmp_path):
        file = model(tmp_path, [[0.5], [0.5], [0.25], [2]])
        auto = ("auto", "--board", "ulx3s-85f", "--model", file, "--json")
        status, out, err = run(*auto)
        assert (status, err) == (0, "")
        config = json.loads(out)["config"]
        assert config["max_group_sums"] >= config["max_out_features"]
        status, out, err = run(*auto, "--group", "0")
        assert (status, out) == (1, "")
        assert err.startswith("tritloom: error: blk.1.attn_k.weight has scales by groups of 256 (")
        status, out, err = run(*auto, "--group", "100")
        assert (status, out) == (1, "")
        assert err.startswith("tritloom: error: group must divide the 256 inputs of ")

    def test_rotation(self, run, tmp_path):
        file = model(tmp_path, metadata={"prism.hadamard.block_size": 1024})
        status, _, err = run("auto", "--family", "ecp5", "--model", file)
        assert status == 1
        assert "blk.0.attn_q.weight: the file declares prism.hadamard.block_size = 1024, a " in err


def test_run(run, tmp_path):
    file = model(tmp_path)
    assert run("run", file, "--prompt", "Emma") == failed(
        f"{file} is a GGUF file, whose tokenizer and norms are not read yet; give the path of a "
        "folder with config.json, model.safetensors and tokenizer.json"
    )
