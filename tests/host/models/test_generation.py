"""What generation_config.json says: used, without effect, or refused by its name."""

from typing import Any

import pytest

from tritloom.host.models.generation import CHANGES_TOKENS, NOT_USED, end_of_sequence_ids
from tritloom.rtl.spec.errors import CheckpointError

REFUSED: dict[str, Any] = {
    "bad_words_ids": [[3]],
    "begin_suppress_tokens": [5],
    "constraints": [1],
    "diversity_penalty": 0.5,
    "dola_layers": "high",
    "encoder_no_repeat_ngram_size": 2,
    "encoder_repetition_penalty": 1.1,
    "exponential_decay_length_penalty": [3, 1.1],
    "force_words_ids": [[3]],
    "forced_bos_token_id": 3,
    "forced_decoder_ids": [[1, 3]],
    "forced_eos_token_id": 3,
    "guidance_scale": 1.5,
    "length_penalty": 2.0,
    "max_time": 1.0,
    "min_length": 30,
    "min_new_tokens": 10,
    "no_repeat_ngram_size": 2,
    "num_beam_groups": 2,
    "num_beams": 4,
    "num_return_sequences": 2,
    "penalty_alpha": 0.6,
    "repetition_penalty": 1.3,
    "sequence_bias": [[[3], 1.0]],
    "stop_strings": ["Emma"],
    "suppress_tokens": [3],
    "token_healing": True,
    "watermarking_config": {"bias": 2.0},
}


@pytest.mark.parametrize("key", CHANGES_TOKENS)
def test_refused_by_name(key: str) -> None:
    value = REFUSED[key]
    remedy = f"which tritloom does not compute; take {key} out for a text without it"
    for config, generation, source in (
        ({}, {key: value}, "generation_config.json"),
        ({key: value}, None, "config.json"),
    ):
        with pytest.raises(CheckpointError) as caught:
            end_of_sequence_ids(config, generation)
        assert str(caught.value) == f"{source} has {key} {value!r}, {remedy}"


@pytest.mark.parametrize("key", CHANGES_TOKENS)
def test_neutral_values(key: str) -> None:
    for value in CHANGES_TOKENS[key]:
        assert end_of_sequence_ids({}, {key: value}) == ()
        if isinstance(value, float):
            assert end_of_sequence_ids({}, {key: int(value)}) == ()


@pytest.mark.parametrize(("key", "value"), [("num_beams", True), ("min_length", False)])
def test_a_boolean_is_no_number(key: str, value: bool) -> None:
    with pytest.raises(CheckpointError, match=f"has {key} {value}"):
        end_of_sequence_ids({}, {key: value})


def test_ends() -> None:
    """config.json counts only without the other file."""
    assert end_of_sequence_ids({"eos_token_id": 3}, None) == (3,)
    assert end_of_sequence_ids({"eos_token_id": [3, 4]}, None) == (3, 4)
    assert end_of_sequence_ids({"eos_token_id": 3}, {}) == ()
    assert end_of_sequence_ids({"eos_token_id": 3}, {"eos_token_id": None}) == ()
    assert end_of_sequence_ids({"eos_token_id": 3}, {"eos_token_id": 4}) == (4,)
    assert end_of_sequence_ids({"num_beams": 4}, {"eos_token_id": 4}) == (4,)
    assert end_of_sequence_ids({}, dict.fromkeys(NOT_USED, "x")) == ()


@pytest.mark.torch
@pytest.mark.filterwarnings("default")
def test_every_key_of_transformers_is_in_one_table() -> None:
    from transformers import GenerationConfig

    known = {*CHANGES_TOKENS, *NOT_USED, "eos_token_id"}
    assert not CHANGES_TOKENS.keys() & NOT_USED
    assert {key for key in vars(GenerationConfig()) if key not in known} == set()
