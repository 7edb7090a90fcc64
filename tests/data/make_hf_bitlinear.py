"""Writes hf_bitlinear.npz: what Hugging Face transformers itself computes for BitNet layers.

    pip install torch transformers accelerate numpy safetensors
    python tests/data/make_hf_bitlinear.py

The committed file was made with transformers 5.23.0 and torch 2.13.0 on a CPU. Inputs are made by
NumPy from fixed seeds, outputs by the functions of transformers.integrations.bitnet and
transformers.models.bitnet, all in float32 and without torch.compile.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
EPS = 1e-5

_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "float32",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "bos_token_id": 0,
    "eos_token_id": [1, 2],
}
MODELS: dict[str, dict[str, Any]] = {
    # Scales divide, a bias, its own head, heads wider than the hidden size.
    "packed": _LLAMA
    | {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "bitlinear",
            "use_rms_norm": False,
        },
    },
    # Scales multiply, biases too, a norm in each layer, the older keys for the rotary embedding.
    "normed": _LLAMA
    | {
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "rope_theta": 300.0,
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
            "use_rms_norm": True,
            "rms_norm_eps": 1e-3,
        },
    },
}


def inputs(seed: int = 2024) -> Arrays:
    """Test inputs, named `kind.case.what`. Another seed changes the random ones only."""
    rng = np.random.default_rng(seed)
    f32 = np.float32
    extreme = np.finfo(f32)
    arrays: Arrays = {}

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(f32)

    def ternary(*shape: int) -> np.ndarray:
        return rng.integers(-1, 2, shape).astype(np.int8)

    # Activations. A row with maximum 127 has scale 1, so x.5 is a tie.
    halves = np.arange(-127, 128, dtype=f32)
    ties = np.stack([np.clip(halves + f32(0.5), -127, 127), np.clip(halves - f32(0.5), -127, 127)])
    arrays["quant.normal.x"] = normal(64, 48) * 3
    arrays["quant.spread.x"] = normal(200, 16) * (10.0 ** rng.uniform(-8, 8, (200, 1))).astype(f32)
    arrays["quant.zero.x"] = np.zeros((2, 9), f32)
    arrays["quant.mixed_zero.x"] = np.stack([np.zeros(9, f32), normal(9), np.full(9, -0.0, f32)])
    arrays["quant.ties.x"] = np.concatenate([ties, ties / 2, ties * 64])
    arrays["quant.huge.x"] = np.array(
        [[extreme.max, -extreme.max, 1], [3e38, 1e38, -1e30], [-1.7e38, 1e37, 0]], f32
    )
    arrays["quant.tiny.x"] = np.array(
        [[1e-5, -1e-6, 5e-6], [9.9e-6, -9.9e-6, 0], [1e-38, 1e-45, -1e-40], [1.1e-5, 0, -1e-5]], f32
    )
    arrays["quant.negative.x"] = np.full((3, 33), -2.7, f32)
    arrays["quant.one.x"] = np.array([[1], [-1], [0.1], [-3e-5]], f32)

    # Weights. On the grid every float32 sum is exact, so the mean does not depend on its order.
    arrays["weight.grid.w"] = (rng.integers(-2000, 2001, (48, 60)) / 1024).astype(f32)
    arrays["weight.normal.w"] = normal(64, 96) * f32(0.02)
    arrays["weight.zero.w"] = np.zeros((4, 8), f32)
    arrays["weight.tiny.w"] = (rng.integers(-8, 9, (8, 16)) * 2.0**-30).astype(f32)
    arrays["weight.ties.w"] = np.tile(np.array([[0.5, -0.5, 1.5, -1.5]], f32), (4, 4))

    # Products: codes that a float32 quantizer never makes (-128) are here.
    for name, features in {"one": 1, "odd": 37, "wide": 2560}.items():
        arrays[f"product.{name}.trits"] = ternary(8, features)
        arrays[f"product.{name}.codes"] = rng.integers(-128, 128, (5, features)).astype(np.int8)
    arrays["product.extreme.trits"] = np.repeat(np.array([[1], [-1], [0]], np.int8), 6912, 1)
    arrays["product.extreme.codes"] = np.repeat(np.array([[-128], [127]], np.int8), 6912, 1)

    # Layers: out_features in fours, as the packed format stores them.
    for name, (tokens, outs, ins, bias) in {
        "small": (3, 4, 16, False),
        "single": (4, 4, 1, False),
        "bias": (5, 24, 40, True),
        "odd": (7, 36, 301, False),
        "wide": (2, 8, 2560, True),
    }.items():
        arrays[f"layer.{name}.x"] = normal(tokens, ins) * f32(10.0 ** rng.uniform(-3, 3))
        arrays[f"layer.{name}.trits"] = ternary(outs, ins)
        arrays[f"layer.{name}.scale"] = np.array([rng.uniform(0.01, 60)], f32)
        if bias:
            arrays[f"layer.{name}.bias"] = normal(outs)
    arrays["layer.extreme.x"] = np.stack([np.full(512, -9, f32), np.zeros(512, f32)])
    arrays["layer.extreme.trits"] = np.repeat(np.array([[1], [-1], [1], [0]], np.int8), 512, 1)
    arrays["layer.extreme.scale"] = np.array([0.37], f32)

    # Every byte of four trits once.
    digits = np.arange(81)
    arrays["pack.all.trits"] = np.stack([digits // 3**i % 3 - 1 for i in range(4)]).astype(np.int8)
    arrays["pack.tall.trits"] = ternary(40, 7)

    arrays["norm.normal.x"] = normal(16, 256) * 4
    arrays["norm.spread.x"] = normal(40, 96) * (10.0 ** rng.uniform(-6, 6, (40, 1))).astype(f32)
    arrays["norm.zero.x"] = np.zeros((2, 8), f32)
    for name in ("normal", "spread", "zero"):
        arrays[f"norm.{name}.weight"] = normal(arrays[f"norm.{name}.x"].shape[1])

    for name, config in MODELS.items():
        hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
        queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
        tensors = {"model.embed_tokens": normal(config["vocab_size"], hidden)}
        if not config["tie_word_embeddings"]:
            tensors["lm_head"] = normal(config["vocab_size"], hidden)
        tensors["model.norm"] = rng.uniform(0.5, 2, hidden).astype(f32)
        for block in (f"model.layers.{index}" for index in range(config["num_hidden_layers"])):
            tensors[f"{block}.input_layernorm"] = rng.uniform(0.5, 2, hidden).astype(f32)
            tensors[f"{block}.post_attention_layernorm"] = rng.uniform(0.5, 2, hidden).astype(f32)
            for part, outs, ins in (
                ("self_attn.q_proj", queries, hidden),
                ("self_attn.k_proj", keys, hidden),
                ("self_attn.v_proj", keys, hidden),
                ("self_attn.o_proj", hidden, queries),
                ("mlp.gate_proj", inner, hidden),
                ("mlp.up_proj", inner, hidden),
                ("mlp.down_proj", hidden, inner),
            ):
                codes = rng.integers(0, 3, (4, outs // 4, ins)).astype(np.uint8)
                tensors[f"{block}.{part}"] = sum(codes[i] << 2 * i for i in range(4))
                scale = rng.uniform(0.05, 0.2, 1).astype(f32)
                divides = config["quantization_config"]["linear_class"] == "bitlinear"
                arrays[f"model.{name}.{block}.{part}.weight_scale"] = (
                    1 / scale if divides else scale
                )
                if config["attention_bias"] and "attn" in part:
                    arrays[f"model.{name}.{block}.{part}.bias"] = normal(outs)
                if config["quantization_config"]["use_rms_norm"]:
                    tensors[f"{block}.{part}.rms_norm"] = rng.uniform(0.5, 2, ins).astype(f32)
        for key, tensor in tensors.items():
            arrays[f"model.{name}.{key}.weight"] = tensor
        arrays[f"model.{name}.ids"] = rng.integers(0, config["vocab_size"], 24)
    return arrays


def write_model(folder: Path, name: str, case: Arrays) -> None:
    """A model directory as transformers writes it, of one case of kind `model`."""
    from safetensors.numpy import save_file

    (folder / "config.json").write_text(json.dumps(MODELS[name]))
    tensors = {key: array for key, array in case.items() if key not in ("ids", "logits")}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def cases(arrays: Arrays, kind: str) -> dict[str, Arrays]:
    """The arrays of one kind: case → what → array."""
    results: dict[str, Arrays] = {}
    for key, array in arrays.items():
        if key.startswith(kind + "."):
            _, case, what = key.split(".", 2)
            results.setdefault(case, {})[what] = array
    return results


def outputs(given: Arrays) -> Arrays:
    """What transformers computes from `given`."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.integrations import bitnet
    from transformers.models.bitnet.modeling_bitnet import BitNetRMSNorm

    def tensor(array: np.ndarray, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.from_numpy(array.copy()).to(dtype)

    def packed(trits: np.ndarray) -> torch.Tensor:
        return bitnet.pack_weights(tensor(trits, torch.float32))

    arrays: Arrays = {}
    with torch.no_grad():
        for name, case in cases(given, "quant").items():
            x = tensor(case["x"])
            layer = bitnet.BitLinear(x.shape[1], 4, bias=False, dtype=torch.float32)
            codes, s = layer.activation_quant(x)
            arrays[f"quant.{name}.codes"] = codes.numpy()
            arrays[f"quant.{name}.s"] = s.numpy()
            arrays[f"quant.{name}.dequantized"] = bitnet.ActQuant.apply(x).numpy()
        for name, case in cases(given, "weight").items():
            arrays[f"weight.{name}.dequantized"] = bitnet.WeightQuant.apply(
                tensor(case["w"])
            ).numpy()
        for name, case in cases(given, "product").items():
            arrays[f"product.{name}.acc"] = torch.nn.functional.linear(
                tensor(case["codes"], torch.float32), tensor(case["trits"], torch.float32)
            ).numpy()
        for name, case in cases(given, "pack").items():
            arrays[f"pack.{name}.packed"] = packed(case["trits"]).numpy()
            arrays[f"pack.{name}.unpacked"] = bitnet.unpack_weights(
                packed(case["trits"]), dtype=torch.int8
            ).numpy()
        for name, case in cases(given, "layer").items():
            outs, ins = case["trits"].shape
            x, scale = tensor(case["x"]), tensor(case["scale"])
            divides = bitnet.BitLinear(ins, outs, bias="bias" in case, dtype=torch.float32)
            divides.weight, divides.weight_scale = packed(case["trits"]), scale
            multiplies = bitnet.AutoBitLinear(ins, outs, bias="bias" in case, dtype=torch.float32)
            multiplies.weight.copy_(tensor(case["trits"], torch.float32))
            multiplies.weight_scale = scale
            if "bias" in case:
                divides.bias = tensor(case["bias"])
                multiplies.bias.copy_(tensor(case["bias"]))
            arrays[f"layer.{name}.y_bitlinear"] = divides(x).numpy()
            arrays[f"layer.{name}.y_autobitlinear"] = multiplies(x).numpy()
        for name, case in cases(given, "norm").items():
            norm = BitNetRMSNorm(case["x"].shape[1], eps=EPS)
            norm.weight.copy_(tensor(case["weight"]))
            arrays[f"norm.{name}.y"] = norm(tensor(case["x"])).numpy()
        for name, case in cases(given, "model").items():
            with tempfile.TemporaryDirectory() as folder:
                write_model(Path(folder), name, case)
                model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            arrays[f"model.{name}.logits"] = model(tensor(case["ids"])[None]).logits[0].numpy()
    return arrays


def main() -> None:
    given = inputs()
    np.savez_compressed(Path(__file__).with_name("hf_bitlinear.npz"), **given, **outputs(given))


if __name__ == "__main__":
    main()
