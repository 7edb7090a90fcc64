"""tinylm as a file that llama.cpp reads, its ternary layers in any of ggml's types.

llama.cpp's graph of `bitnet` has SiLU where tinylm has relu², so its texts are not tinylm's. They
are texts of one and the same model on the CPU and on a device.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support import ROOT
from tests.support.gguf_files import BLOCKS, IDS, block_data, write_gguf
from tritloom.host.checkpoints.huggingface import load_checkpoint

__all__ = ["write_tinylm"]

TINYLM = ROOT / "models" / "tinylm"
NORMAL, CONTROL = 1, 3
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.attn_sub_norm": "attn_sub_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.ffn_sub_norm": "ffn_sub_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""llama.cpp's name of each part of a block."""


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor of transformers, without the ending."""
    if name == "model.embed_tokens":
        return "token_embd"
    if name == "model.norm":
        return "output_norm"
    _, _, number, part = name.split(".", 3)
    return f"blk.{number}.{NAMES[part]}"


def write_tinylm(
    path: Path, layout: str, scales: Callable[[np.ndarray, float], np.ndarray] | None = None
) -> Path:
    """Write the model.

    Parameters
    ----------
    path : the file
    layout : of `BLOCKS`, for the ternary layers
    scales : trits and the layer's scale → scales `[out, groups]`; by default all are that scale
    """
    config = json.loads((TINYLM / "config.json").read_text())
    checkpoint = load_checkpoint(TINYLM)
    tensors = {}
    for name, layer in checkpoint.layers.items():
        scale = float(layer.scale)
        each = scale if scales is None else scales(layer.trits, scale)
        data = block_data(layout, layer.trits, each)
        tensors[f"{gguf_name(name)}.weight"] = BLOCKS[layout][0], layer.trits.shape, data
    for name, values in checkpoint.tensors.items():
        if name == "lm_head.weight":  # the embedding's
            continue
        stem = gguf_name(name.removesuffix(".weight"))
        tensors[f"{stem}.weight"] = IDS["F32"], values.shape, values.astype("<f4").tobytes()
    model = json.loads((TINYLM / "tokenizer.json").read_text())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    metadata = {
        "general.architecture": "bitnet",
        "general.name": "tinylm",
        "bitnet.context_length": config["max_position_embeddings"],
        "bitnet.embedding_length": config["hidden_size"],
        "bitnet.block_count": config["num_hidden_layers"],
        "bitnet.feed_forward_length": config["intermediate_size"],
        "bitnet.attention.head_count": config["num_attention_heads"],
        "bitnet.attention.head_count_kv": config["num_key_value_heads"],
        "bitnet.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "bitnet.rope.freq_base": config["rope_parameters"]["rope_theta"],
        "bitnet.vocab_size": config["vocab_size"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL, *[NORMAL] * (len(tokens) - 1)],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
        "tokenizer.ggml.add_bos_token": False,
    }
    return write_gguf(path, tensors, metadata)
