"""Shapes of known ternary models, as data: what a plan must know of a model.

A folder with a config.json, or a GGUF file, gives the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritloom.gen.workloads import MIXES, Layer, model_layers
from tritloom.host.checkpoints.values import read_json
from tritloom.host.models.run import find_model
from tritloom.rtl.spec.errors import CheckpointError

__all__ = ["SHAPES", "ModelShape", "find_shape"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder with ternary layers.

    Parameters
    ----------
    name : of the model
    source : where the numbers are published
    hidden : elements of the hidden vector
    intermediate : elements between the feed-forward layers, of an expert if there are experts
    layers : blocks
    heads, kv_heads, head_size : of the attention
    vocabulary : tokens, the rows of the head
    experts, active_experts : of each block, and how many of them compute a token; 1 and 1 is an
        ordinary feed-forward
    ternary_head : the head has ternary weights too
    """

    name: str
    source: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    experts: int = 1
    active_experts: int = 1
    ternary_head: bool = False

    def ternary_layers(self, *, stored: bool = False) -> list[Layer]:
        """The ternary layers by shape: those that compute a token, or with `stored` all of them.

        As the driver loads them: those that read the same input are one layer.
        """
        q, kv = self.heads * self.head_size, self.kv_heads * self.head_size
        experts = self.layers * (self.experts if stored else self.active_experts)
        each = [
            ("qkv_proj", self.hidden, q + 2 * kv, self.layers),
            ("o_proj", q, self.hidden, self.layers),
            ("gate_up_proj", self.hidden, 2 * self.intermediate, experts),
            ("down_proj", self.intermediate, self.hidden, experts),
        ]
        counts = Counter[tuple[int, int]]()
        names: dict[tuple[int, int], list[str]] = {}
        for name, in_features, out_features, count in each:
            counts[in_features, out_features] += count
            names.setdefault((in_features, out_features), []).append(name)
        return [Layer(", ".join(names[shape]), *shape, count) for shape, count in counts.items()]

    @property
    def head(self) -> Layer:
        """The head: hidden vector to logits."""
        return Layer("lm_head", self.hidden, self.vocabulary)

    def cache_values(self, positions: int) -> int:
        """Keys and values that a token reads at that many positions."""
        return 2 * self.layers * self.kv_heads * self.head_size * positions


def _shape(name: str, source: str, sizes: str, **more: Any) -> ModelShape:
    """A shape from seven numbers in the order of `ModelShape`."""
    fields = ("hidden", "intermediate", "layers", "heads", "kv_heads", "head_size", "vocabulary")
    numbers: dict[str, Any] = dict(zip(fields, map(int, sizes.split()), strict=True))
    return ModelShape(name=name, source=source, **numbers, **more)


_HUB = "config.json of huggingface.co/"
SHAPES = {
    shape.name: shape
    for shape in (
        _shape("tinylm", "models/tinylm/config.json", "256 512 2 4 2 64 512"),
        _shape(
            "bitnet-2b-4t",
            f"{_HUB}microsoft/bitnet-b1.58-2B-4T",
            "2560 6912 30 20 5 128 128256",
        ),
        _shape(
            "bitnet-b1.58-700m",
            f"{_HUB}1bitLLM/bitnet_b1_58-large",
            "1536 4096 24 16 16 96 32002",
        ),
        _shape(
            "bitnet-b1.58-1.3b",
            f"{_HUB}1bitLLM/bitnet_b1_58-xl",
            "2048 5460 24 32 32 64 32002",
        ),
        _shape(
            "bitnet-b1.58-3b",
            f"{_HUB}1bitLLM/bitnet_b1_58-3B",
            "3200 8640 26 32 32 100 32002",
        ),
        _shape(
            "falcon3-1b",
            f"{_HUB}tiiuae/Falcon3-1B-Instruct-1.58bit",
            "2048 8192 18 8 4 256 131072",
        ),
        _shape(
            "falcon3-3b",
            f"{_HUB}tiiuae/Falcon3-3B-Instruct-1.58bit",
            "3072 9216 22 12 4 256 131072",
        ),
        _shape(
            "falcon3-7b",
            f"{_HUB}tiiuae/Falcon3-7B-Instruct-1.58bit",
            "3072 23040 28 12 4 256 131072",
        ),
        _shape(
            "falcon3-10b",
            f"{_HUB}tiiuae/Falcon3-10B-Instruct-1.58bit",
            "3072 23040 40 12 4 256 131072",
        ),
        _shape(
            "falcon-e-1b",
            f"{_HUB}Arvyniitb/1bitModel, which is of this shape; the 24 blocks agree with the "
            "tensors of Falcon-E-1B-Instruct that microsoft/BitNet pull request 268 lists",
            "2048 9216 24 16 2 128 32768",
        ),
        _shape(
            "falcon-e-3b",
            f"{_HUB}tiiuae/Falcon-E-3B-Base; its 999 MB agree",
            "2048 13312 32 16 2 128 32768",
        ),
        _shape(
            "ternary-bonsai-1.7b",
            f"{_HUB}Qwen/Qwen3-1.7B, on which prism-ml/Ternary-Bonsai-1.7B is based",
            "2048 6144 28 16 8 128 151936",
            ternary_head=True,
        ),
        _shape(
            "experts-30b-a3b",
            f"an example of many small experts, as if ternary: {_HUB}Qwen/Qwen3-30B-A3B",
            "2048 768 48 32 4 128 151936",
            experts=128,
            active_experts=8,
        ),
        _shape(
            "random-100m",
            "an example of 100 million parameters",
            "768 3072 12 12 4 64 4096",
        ),
    )
}
"""Known shapes by name; numbers that no source says are marked in `source`."""


def find_shape(model: str) -> tuple[ModelShape | None, list[Layer], list[Layer]]:
    """What a plan needs of a model.

    Parameters
    ----------
    model : a name of `SHAPES`, or a folder with a config.json, or a GGUF file

    Returns
    -------
    The shape, None where only the layers are known; the layers that compute a token; and those
    that are stored.

    Raises
    ------
    CheckpointError : it is none of these; see `model_layers`
    """
    if model in SHAPES:
        shape = SHAPES[model]
        return shape, shape.ternary_layers(), shape.ternary_layers(stored=True)
    if model in MIXES or Path(model).exists():
        layers = model_layers(model)
        return _from_folder(model), layers, layers
    raise CheckpointError(
        f"unknown model {model!r}; give a folder, a GGUF file, or one of {', '.join(SHAPES)}"
    )


def _from_folder(model: str) -> ModelShape | None:
    """The shape of a folder's config.json; None for a file."""
    if not Path(model).is_dir():
        return None
    values = read_json(find_model(model, "config.json") / "config.json")
    heads = int(values["num_attention_heads"])
    hidden = int(values["hidden_size"])
    return ModelShape(
        name=Path(model).resolve().name,
        source=f"{model}/config.json",
        hidden=hidden,
        intermediate=int(values["intermediate_size"]),
        layers=int(values["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(values.get("num_key_value_heads", heads)),
        head_size=int(values.get("head_dim") or hidden // heads),
        vocabulary=int(values["vocab_size"]),
    )
