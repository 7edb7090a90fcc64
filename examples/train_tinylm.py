"""Train a small BitNet language model on text files and write it as transformers would.

    pip install -e ".[torch]"
    python examples/train_tinylm.py --text novels/ --output tinylm

The model is transformers' `BitNetForCausalLM`, trained with its own `AutoBitLinear` (ternary
weights, int8 activations, straight-through gradient) and written packed, `linear_class:
autobitlinear`, offline: `AutoModelForCausalLM.from_pretrained` and
`tritloom.host.load_checkpoint` both read it. The last twentieth of the
text is not trained on; it is written to heldout.txt. The default takes a few hours on two CPU
cores.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    BitNetConfig,
    BitNetForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.integrations.bitnet import AutoBitLinear, pack_weights

from tritloom.host import load_checkpoint
from tritloom.host.models.bitnet import BitNetModel
from tritloom.host.models.tokenizer import load_tokenizer, stream_text
from tritloom.rtl.spec.numerics import absmean_ternarize

VOCABULARY = 512
WINDOW = 256
BATCH = 8


def read_text(path: Path) -> str:
    """A text file, or all of a directory's .txt files in the order of their names."""
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    return "\n\n".join(file.read_text(encoding="utf-8") for file in files)


def train_tokenizer(text: str) -> Tokenizer:
    """Byte-level byte-pair encoding; id 0 ends a sequence."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<eos>"], show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def make_model() -> BitNetForCausalLM:
    """A model with fresh weights, every projection an `AutoBitLinear` that quantizes online."""
    config = BitNetConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
    )
    model = BitNetForCausalLM(config)
    for name, module in list(model.model.named_modules()):
        if isinstance(module, nn.Linear):
            layer = AutoBitLinear(
                module.in_features, module.out_features, bias=False, online_quant=True
            )
            layer.weight = module.weight
            model.model.set_submodule(name, layer)
    return model


def train(model: PreTrainedModel, ids: torch.Tensor, steps: int) -> None:
    """Next-token training on random windows of `ids`, int64 `[tokens]`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2e-3, total_steps=steps + 1, pct_start=0.05
    )
    model.train()
    for step in range(steps):
        starts = torch.randint(len(ids) - WINDOW + 1, (BATCH, 1))
        batch = ids[starts + torch.arange(WINDOW)]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:5}: loss {loss.item():.3f}", flush=True)


def export(model: BitNetForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer's files."""
    tensors = {
        key: tensor.detach().clone().contiguous()
        for key, tensor in model.state_dict().items()
        if key != "lm_head.weight"
    }
    for name, module in model.named_modules():
        if isinstance(module, AutoBitLinear):
            trits, scale = absmean_ternarize(module.weight.detach().numpy())
            tensors[f"{name}.weight"] = pack_weights(torch.from_numpy(trits))
            tensors[f"{name}.weight_scale"] = torch.tensor([float(scale)])
    config = model.config.to_dict() | {
        "architectures": ["BitNetForCausalLM"],
        "dtype": "float32",
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
            "modules_to_not_convert": ["lm_head"],
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model.generation_config.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--text", type=Path, required=True, help="a text file, or a directory of .txt files"
    )
    parser.add_argument("--output", type=Path, default=Path("tinylm"), help="directory to write")
    parser.add_argument("--steps", type=int, default=6000, help="training steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (%(default)s)")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    text = read_text(arguments.text)
    split = text.rfind("\n", 0, len(text) * 19 // 20) + 1
    tokenizer = train_tokenizer(text[:split])
    ids = torch.tensor(tokenizer.encode(text[:split]).ids)
    if len(ids) < 2 * WINDOW:
        parser.error(f"{arguments.text} has {len(ids)} tokens to train on, too few")
    model = make_model()
    train(model, ids, arguments.steps)
    export(model, tokenizer, arguments.output)
    (arguments.output / "heldout.txt").write_text(text[split:], encoding="utf-8")

    loaded = BitNetModel(load_checkpoint(arguments.output))
    reader = load_tokenizer(arguments.output)
    rest = reader.encode(text[split:]).ids
    if windows := min(8, len(rest) // WINDOW):
        print(f"held-out text: {loaded.nll(rest, windows, WINDOW):.3f} nats a token")
    prompt = rest[:8]
    drawn = loaded.generate(prompt, 60, temperature=0.7, seed=arguments.seed)
    print(reader.decode(prompt), *stream_text(reader, drawn, prompt), sep="")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
