"""Train a small language model whose ternary weights have a scale for each group of 64 inputs.

    pip install -e ".[torch]"
    python examples/train_tinygroup.py --text novels/ --output models/tinygroup.gguf
    python examples/train_tinygroup.py --evaluate models/tinygroup.gguf

The model has the shape of Qwen3 (transformers' `Qwen3ForCausalLM`) and tinylm's tokenizer. Only
its weights are quantized while it trains, as in the group-scaled models that people run; a scale is
the mean magnitude of its 64 weights, as half precision. The file is GGUF with Q2_0 tensors, which
llama.cpp and `tritloom` read. The last twentieth of the text is not trained on. The default
takes about half an hour on one CPU core.

`--evaluate` prints what the activations' codes cost, in nats a token of heldout.txt: none (floats),
codes per block (q8_0, 32 inputs) and per token (BitLinear).
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import nn
from torch.nn import functional
from train_tinylm import WINDOW, read_text, train
from transformers import Qwen3Config, Qwen3ForCausalLM

from tritloom.host.checkpoints.gguf import GgufFile
from tritloom.host.models.tokenizer import load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
TOKENIZER = ROOT / "models" / "tinylm"
HELD_OUT = ROOT / "models" / "heldout.txt"
GROUP = 64
Q2_0 = 42
"""Id of the type in GGUF files; a block is the scale as half, then 16 bytes of four codes."""

PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""llama.cpp's name of each part of a block."""


def gguf_name(name: str) -> str:
    """llama.cpp's name of a parameter of transformers."""
    stem = name.removesuffix(".weight")
    if stem in ("model.embed_tokens", "model.norm"):
        return {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}[stem] + ".weight"
    _, _, number, part = stem.split(".", 3)
    return f"blk.{number}.{PARTS[part]}.weight"


def ternary(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Trits `[out, groups, 64]` and scales `[out, groups, 1]` of weights `[out, in]`."""
    groups = weight.reshape(len(weight), -1, GROUP)
    scales = groups.abs().mean(dim=-1, keepdim=True).clamp(min=1e-4).half().float()
    return (groups / scales).round().clamp(-1, 1), scales


class GroupLinear(nn.Linear):
    """A layer that computes with its ternary weights; the gradient passes straight through."""

    codes = "floats"
    exact = False
    """The weights are trits times scales already."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        if not self.exact:
            trits, scales = ternary(weight.detach())
            weight = weight + ((trits * scales).reshape(weight.shape) - weight).detach()
        return functional.linear(CODES[self.codes](x), weight)


def per_block(x: torch.Tensor) -> torch.Tensor:
    """What q8_0 leaves of activations `[..., in]`: int8 codes, a half-precision scale for 32."""
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    scale = blocks.abs().amax(dim=-1, keepdim=True) / 127
    codes = torch.where(scale > 0, blocks / scale, 0.0).round()
    return (codes * scale.half().float()).reshape(x.shape)


def per_token(x: torch.Tensor) -> torch.Tensor:
    """What BitLinear leaves of activations `[..., in]`: int8 codes, one scale."""
    scale = 127 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
    return (x * scale).round().clamp(-128, 127) / scale


CODES = {"floats": lambda x: x, "per block": per_block, "per token": per_token}


def make_model() -> Qwen3ForCausalLM:
    """A model with fresh weights."""
    config = Qwen3Config(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    for name, module in list(model.model.named_modules()):
        if isinstance(module, nn.Linear):
            layer = GroupLinear(module.in_features, module.out_features, bias=False)
            layer.weight = module.weight
            model.model.set_submodule(name, layer)
    return model


def q2_0(weight: torch.Tensor) -> np.ndarray:
    """Bytes of a Q2_0 tensor, uint8 `[out, 18 · groups]`."""
    trits, scales = ternary(weight)
    codes = (trits + 1).numpy().astype(np.uint8).reshape(*trits.shape[:2], GROUP // 4, 4)
    packed = (codes << np.array([0, 2, 4, 6], np.uint8)).sum(axis=-1, dtype=np.uint8)
    halves = scales.numpy().astype("<f2").view(np.uint8)
    return np.concatenate([halves, packed], axis=-1).reshape(len(weight), -1)


def export(model: Qwen3ForCausalLM, path: Path) -> None:
    """Write the file that llama.cpp reads."""
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_name("tinygroup")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    tokenizer = json.loads((TOKENIZER / "tokenizer.json").read_text())["model"]
    tokens = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL, *[kinds.NORMAL] * (len(tokens) - 1)])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    data = []
    layers = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, GroupLinear)}
    for name, tensor in model.named_parameters():
        tensor = tensor.detach()
        if name in layers:
            raw = q2_0(tensor)
            writer.add_tensor_info(
                gguf_name(name), tensor.shape, np.dtype(np.int8), raw.nbytes, Q2_0
            )
        else:
            raw = tensor.numpy().astype(np.float32 if tensor.ndim == 1 else np.float16)
            writer.add_tensor_info(gguf_name(name), raw.shape, raw.dtype, raw.nbytes)
        data.append(raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for raw in data:
        writer.write_tensor_data(raw)
    writer.close()


def restore(path: Path) -> Qwen3ForCausalLM:
    """The model of a file that `export` wrote."""
    model = make_model()
    file = GgufFile(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            key = gguf_name(name)
            if key.removesuffix(".weight") in file.layer_names:
                tensor = file.tensor(key)
                values = tensor.weights * np.repeat(tensor.scales, tensor.group, axis=1)
            else:
                values = file.floats(key)
            parameter.copy_(torch.from_numpy(values))
    for module in model.modules():
        if isinstance(module, GroupLinear):
            module.exact = True
    return model


def nll(model: Qwen3ForCausalLM, ids: torch.Tensor, codes: str) -> float:
    """Mean nats a token of the windows of `ids`, with the activations of every layer in `codes`."""
    for module in model.modules():
        if isinstance(module, GroupLinear):
            module.codes = codes
    windows = ids[: len(ids) // WINDOW * WINDOW].reshape(-1, WINDOW)
    model.eval()
    with torch.no_grad():
        return model(input_ids=windows, labels=windows).loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", type=Path, help="train on a text file, or a directory of them")
    what.add_argument("--evaluate", type=Path, metavar="FILE", help="compare codes on a GGUF file")
    parser.add_argument("--output", type=Path, default=Path("tinygroup.gguf"), help="file to write")
    parser.add_argument("--steps", type=int, default=4000, help="training steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (%(default)s)")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    tokenizer = load_tokenizer(TOKENIZER)
    if arguments.text:
        text = read_text(arguments.text)
        split = text.rfind("\n", 0, len(text) * 19 // 20) + 1
        model = make_model()
        train(model, torch.tensor(tokenizer.encode(text[:split]).ids), arguments.steps)
        export(model, arguments.output)
        print(f"written to {arguments.output}")
    model = restore(arguments.evaluate or arguments.output)
    held_out = torch.tensor(tokenizer.encode(HELD_OUT.read_text(encoding="utf-8")).ids)
    for codes in CODES:
        print(f"{codes:9}: {nll(model, held_out, codes):.5f} nats a token")


if __name__ == "__main__":
    main()
