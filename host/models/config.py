"""The shape of a language model, as config.json describes it."""

from dataclasses import dataclass
from typing import Any

from tritloom.host.checkpoints.huggingface import Checkpoint
from tritloom.host.checkpoints.quantization import Quantization
from tritloom.host.checkpoints.values import choice, count, number, show, yes_or_no
from tritloom.host.models.generation import end_of_sequence_ids
from tritloom.rtl.spec.errors import CheckpointError

__all__ = ["FUSED", "BitNetConfig"]

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Layers that read the same input; each row of the table may be computed as one layer."""
HEAD = "lm_head"
"""The linear layer that makes the logits."""

DEFAULT_ROPE_THETA = {"bitnet": 500_000.0, "llama": 10_000.0}
"""Base of the rotary embedding by model type, for a config.json without it; as in transformers."""
FULL_ATTENTION = "full_attention"
MAX_BLOCKS = 10_000
"""More blocks than any model has; a wrong number must not take all memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BitNetConfig:
    """What the runtime needs of config.json; `from_checkpoint` reads it.

    Members
    -------
    vocab_size, hidden_size, intermediate_size : widths of the model
    num_hidden_layers : blocks of attention and feed-forward layers
    num_attention_heads, num_key_value_heads : several query heads may share one key head
    head_dim : width of one head
    max_position_embeddings : most tokens that the model was trained for
    rms_norm_eps : epsilon of the norms between the layers
    rope_theta : base of the rotary embedding
    hidden_act : `relu2` or `silu`, of the gate
    sub_norms : whether there are norms before o_proj and down_proj, as in BitNet
    attention_bias, mlp_bias : whether the layers of these blocks have a bias
    quantization : which layers are ternary
    eos_token_ids : ids that end the text
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    hidden_act: str
    sub_norms: bool
    attention_bias: bool
    mlp_bias: bool
    quantization: Quantization
    eos_token_ids: tuple[int, ...]

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> "BitNetConfig":
        """Read and check a checkpoint's config.json, as `from_files`."""
        return cls.from_files(checkpoint.config, checkpoint.generation)

    @classmethod
    def from_files(
        cls, config: dict[str, Any], generation: dict[str, Any] | None = None
    ) -> "BitNetConfig":
        """Read and check config.json; no weights are needed.

        Parameters
        ----------
        config : config.json
        generation : generation_config.json; without it, `eos_token_ids` are those of config.json

        Raises
        ------
        CheckpointError : a key is missing, has a wrong value, or asks for what the runtime does not
            compute
        """
        if config.get("model_type") is None:
            raise CheckpointError("config.json has no model_type; copy the model again")
        kind = choice("model_type", config["model_type"], tuple(DEFAULT_ROPE_THETA))
        _check_attention(config)
        heads = count(config, "num_attention_heads")
        hidden = count(config, "hidden_size")
        shape = cls(
            vocab_size=count(config, "vocab_size"),
            hidden_size=hidden,
            intermediate_size=count(config, "intermediate_size"),
            num_hidden_layers=count(config, "num_hidden_layers"),
            num_attention_heads=heads,
            num_key_value_heads=count(config, "num_key_value_heads", heads),
            head_dim=count(config, "head_dim", max(1, hidden // heads)),
            max_position_embeddings=count(config, "max_position_embeddings"),
            rms_norm_eps=number(config, "rms_norm_eps"),
            rope_theta=_rope_theta(config, DEFAULT_ROPE_THETA[kind]),
            hidden_act=choice("hidden_act", config.get("hidden_act"), ("relu2", "silu")),
            sub_norms=kind == "bitnet",
            attention_bias=yes_or_no(config, "attention_bias", False),
            mlp_bias=yes_or_no(config, "mlp_bias", False) and kind == "llama",
            quantization=Quantization.from_config(config, "config.json"),
            eos_token_ids=end_of_sequence_ids(config, generation),
        )
        if shape.num_hidden_layers > MAX_BLOCKS:
            raise CheckpointError(
                f"num_hidden_layers must be at most {MAX_BLOCKS}, not {shape.num_hidden_layers}"
            )
        if heads % shape.num_key_value_heads:
            raise CheckpointError(
                f"num_attention_heads must be a multiple of num_key_value_heads, not {heads} "
                f"and {shape.num_key_value_heads}"
            )
        if shape.head_dim % 2:
            raise CheckpointError(f"head_dim must be even, not {shape.head_dim}")
        if shape.sub_norms and heads * shape.head_dim != hidden:
            raise CheckpointError(
                f"hidden_size of a bitnet model must be num_attention_heads · head_dim, not "
                f"{hidden} for {heads} · {shape.head_dim}"
            )
        return shape

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """out_features and in_features of each linear layer by its name, in the order of use.

        Source
        ------
        `transformers.models.bitnet` and `transformers.models.llama`
        """
        hidden, inner = self.hidden_size, self.intermediate_size
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        block = {
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        shapes = {
            f"model.layers.{index}.{name}": shape
            for index in range(self.num_hidden_layers)
            for name, shape in block.items()
        }
        return shapes | {HEAD: (self.vocab_size, hidden)}

    @property
    def may_fuse(self) -> bool:
        """Whether layers of `FUSED` compute the same as one; not if each has its own norm."""
        return self.quantization.norm_eps is None

    @property
    def ternary_shapes(self) -> dict[str, tuple[int, int]]:
        """out_features and in_features of the layers that a device computes, in the order of use.

        The rows of `FUSED` whose layers are all ternary are one layer, as `BitNetModel` loads them.
        """
        shapes = {
            name: shape
            for name, shape in self.linear_shapes.items()
            if not self.quantization.is_float(name)
        }
        stacked: dict[str, tuple[int, int]] = {}
        for name, shape in shapes.items():
            block, _, last = name.rpartition(".")
            fused = next((each for each, parts in FUSED.items() if last in parts), None)
            parts = [f"{block}.{part}" for part in FUSED[fused]] if fused else []
            if fused and self.may_fuse and all(part in shapes for part in parts):
                stacked[f"{block}.{fused}"] = sum(shapes[part][0] for part in parts), shape[1]
            else:
                stacked[name] = shape
        return stacked


def _check_attention(config: dict[str, Any]) -> None:
    """Refuse attention to a part of the tokens; the runtime has none, and would be wrong."""
    for key in ("sliding_window", "attention_chunk_size"):
        if config.get(key) is not None:
            raise CheckpointError(
                f"{key} is {show(config[key])}, but each token attends to all before it here; "
                "set it to null if the model was trained so"
            )
    kinds = config.get("layer_types")
    if kinds is not None and (
        not isinstance(kinds, list) or any(kind != FULL_ATTENTION for kind in kinds)
    ):
        raise CheckpointError(f"layer_types must all be {FULL_ATTENTION}, not {show(kinds)}")


def _rope_theta(config: dict[str, Any], default: float) -> float:
    """Base of the rotary embedding.

    transformers 5 writes `rope_parameters`; older versions wrote `rope_scaling` and `rope_theta`.
    """
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise CheckpointError(f"rope_parameters must be an object, not {show(rope)}")
    for key, value in rope.items():
        if isinstance(value, dict):
            raise CheckpointError(f"rope_parameters must be the same for all layers, not by {key}")
    choice("rope_type", rope.get("rope_type", rope.get("type", "default")), ("default",))
    return number(rope, "rope_theta", number(config, "rope_theta", default))
