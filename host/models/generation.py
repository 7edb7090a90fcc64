"""What generation_config.json says about new tokens, for both runtimes.

The options of `tritloom run` decide how many tokens are made and how they are drawn, so the file's
values for that are not used. A value that would change the most likely token is refused by name:
the runtimes do not compute it, and the text would silently be another one.
"""

from collections.abc import Mapping
from typing import Any

from tritloom.host.checkpoints.values import show
from tritloom.rtl.spec.errors import CheckpointError

__all__ = ["CHANGES_TOKENS", "NOT_USED", "end_of_sequence_ids"]

CHANGES_TOKENS: dict[str, tuple[object, ...]] = {
    "bad_words_ids": (None,),
    "begin_suppress_tokens": (None, []),
    "constraints": (None,),
    "diversity_penalty": (None, 0.0),
    "dola_layers": (None,),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "exponential_decay_length_penalty": (None,),
    "force_words_ids": (None,),
    "forced_bos_token_id": (None,),
    "forced_decoder_ids": (None, []),
    "forced_eos_token_id": (None,),
    "guidance_scale": (None, 1.0),
    "length_penalty": (None, 0.0, 1.0),
    "max_time": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "no_repeat_ngram_size": (None, 0),
    "num_beam_groups": (None, 1),
    "num_beams": (None, 1),
    "num_return_sequences": (None, 1),
    "penalty_alpha": (None, 0.0),
    "repetition_penalty": (None, 1.0),
    "sequence_bias": (None,),
    "stop_strings": (None,),
    "suppress_tokens": (None, []),
    "token_healing": (None, False),
    "watermarking_config": (None,),
}
"""Keys that can change the text, and their values that do not."""

NOT_USED = frozenset(
    {
        # How tokens are drawn and how many: the command's options.
        *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p"),
        *("epsilon_cutoff", "eta_cutoff", "renormalize_logits", "max_length", "max_new_tokens"),
        # How transformers computes and stores, which does not change the tokens.
        *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "low_memory"),
        *("compile_config", "disable_compile", "prefill_chunk_size", "continuous_batching_config"),
        *("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "use_mtp"),
        *("assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind"),
        *("assistant_ensemble_weight", "target_lookbehind", "speculation_type"),
        *("prompt_lookup_num_tokens", "max_matching_ngram_size", "early_stopping"),
        *("remove_invalid_values", "output_attentions", "output_hidden_states", "output_scores"),
        *("output_logits", "return_dict_in_generate"),
        # Tokens that play no part in continuing one prompt.
        *("pad_token_id", "bos_token_id", "decoder_start_token_id"),
        # About the file itself.
        *("transformers_version", "_from_model_config", "_commit_hash"),
    }
)
"""Keys that change nothing in a run; `eos_token_id` is the one that is used."""


def end_of_sequence_ids(
    config: Mapping[str, Any], generation: Mapping[str, Any] | None
) -> tuple[int, ...]:
    """Check what a model says about new tokens, and return the ids that end a text.

    Parameters
    ----------
    config : config.json; as in transformers, it counts only without a generation_config.json
    generation : generation_config.json, None if there is none

    Raises
    ------
    CheckpointError : a key asks for other tokens than the most likely ones, or `eos_token_id` is
        neither an id nor a list of ids nor null; the message names the key
    """
    source = "generation_config.json"
    if generation is None:
        generation, source = config, "config.json"
    for key, neutral in CHANGES_TOKENS.items():
        value = generation.get(key)
        if not any(value == other and type(value) in _like(other) for other in neutral):
            raise CheckpointError(
                f"{source} has {key} {show(value)}, which tritloom does not compute; "
                f"take {key} out for a text without it"
            )
    value = generation.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token in ids:
        if type(token) is not int or token < 0:
            raise CheckpointError(f"eos_token_id must be a token id or a list, not {show(value)}")
    return tuple(ids)


def _like(neutral: object) -> tuple[type, ...]:
    """Types in which JSON may write this value: `1` and `1.0` are one number, `true` is none."""
    return (int, float) if type(neutral) in (int, float) else (type(neutral),)
