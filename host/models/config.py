"""The shape of a language model, as config.json describes it."""

from dataclasses import dataclass
from typing import Any

from tritloom.host.checkpoints.huggingface import Checkpoint
from tritloom.rtl.spec.errors import CheckpointError

__all__ = ["BitNetConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BitNetConfig:
    """What the decoder needs of config.json; `from_checkpoint` reads it.

    `sub_norms` tells BitNet's norms before o_proj and down_proj. `linear_norm_eps` is the epsilon
    of a norm inside each ternary layer, None without one.
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
    tie_word_embeddings: bool
    linear_norm_eps: float | None
    eos_token_ids: tuple[int, ...]

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> "BitNetConfig":
        """Read it; `CheckpointError` for a missing key or a model of another shape."""
        config = checkpoint.config

        def need(key: str) -> Any:
            if config.get(key) is None:
                raise CheckpointError(f"config.json has no {key}; copy the model again")
            return config[key]

        def count(key: str, default: int | None = None) -> int:
            value = config.get(key)
            value = default if value is None and default else need(key)
            if not isinstance(value, int) or value < 1:
                raise CheckpointError(f"{key} must be a positive integer, not {value!r}")
            return value

        def one_of(key: str, value: Any, allowed: tuple[str, ...]) -> str:
            if value not in allowed:
                raise CheckpointError(f"{key} must be {' or '.join(allowed)}, not {value!r}")
            return str(value)

        kind = one_of("model_type", need("model_type"), ("bitnet", "llama"))
        # transformers 5 has rope_parameters; before it were rope_scaling and rope_theta.
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        one_of("rope_type", rope.get("rope_type", rope.get("type", "default")), ("default",))
        heads = count("num_attention_heads")
        key_value_heads = count("num_key_value_heads", heads)
        if heads % key_value_heads:
            raise CheckpointError(
                f"num_attention_heads must be a multiple of num_key_value_heads, not {heads} "
                f"and {key_value_heads}"
            )
        quantization = config["quantization_config"]
        eos = checkpoint.generation.get("eos_token_id", config.get("eos_token_id"))
        return cls(
            vocab_size=count("vocab_size"),
            hidden_size=count("hidden_size"),
            intermediate_size=count("intermediate_size"),
            num_hidden_layers=count("num_hidden_layers"),
            num_attention_heads=heads,
            num_key_value_heads=key_value_heads,
            head_dim=count("head_dim", count("hidden_size") // heads),
            max_position_embeddings=count("max_position_embeddings"),
            rms_norm_eps=float(need("rms_norm_eps")),
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
            hidden_act=one_of("hidden_act", need("hidden_act"), ("relu2", "silu")),
            sub_norms=kind == "bitnet",
            tie_word_embeddings=bool(
                config.get("tie_word_embeddings", "lm_head.weight" not in checkpoint.tensors)
            ),
            linear_norm_eps=(
                float(quantization.get("rms_norm_eps", 1e-6))
                if quantization.get("use_rms_norm")
                else None
            ),
            eos_token_ids=tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,),
        )
