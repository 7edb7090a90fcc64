"""The ids of a prompt against transformers' AutoTokenizer, on edited copies of tinylm."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.support import ROOT
from tritloom.host.models.offload import run_offloaded
from tritloom.host.models.run import run_model
from tritloom.host.models.tokenizer import load_tokenizer
from tritloom.rtl.spec.errors import CheckpointError, InputError

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]

TINYLM = ROOT / "models" / "tinylm"
TEXTS = [
    "It was a very fine day, and Emma",
    " Emma  said<eos>\n“no”",
    "<s>She <|im_start|>user\nHello </s><pad> xyzzy<unk> <tool>",
    "naïve 日本語 🙂 XYZZY",
    "",
]
LISTED = {
    "content": "xyzzy",
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "single_word": False,
    "special": True,
}
EOS = {**LISTED, "content": "<eos>"}


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text()) if file.is_file() else {}
    content |= changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 64},
    "direction": "Left",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "<eos>",
}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<eos>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<eos>": {"id": "<eos>", "ids": [0], "tokens": ["<eos>"]}},
}
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": True,
}
OF = "tokenizer.json"
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "as it is": {},
    "truncation": {OF: {"truncation": TRUNCATION}},
    "padding": {OF: {"padding": PADDING}},
    "both": {OF: {"truncation": TRUNCATION, "padding": PADDING}},
    "a template": {OF: {"post_processor": TEMPLATE}},
    "no template": {OF: {"post_processor": None}, "tokenizer_config.json": {"add_bos_token": True}},
    "prefix space": {OF: {"pre_tokenizer": BYTE_LEVEL}},
    "prefix space in the config": {"tokenizer_config.json": {"add_prefix_space": True}},
    "add bos": {"tokenizer_config.json": {"bos_token": "<s>", "add_bos_token": True}},
    "add eos": {"tokenizer_config.json": {"add_eos_token": True}},
    "named": {
        "tokenizer_config.json": {
            "bos_token": "<s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "eos_token": "</s>",
        }
    },
    "named, out of order": {
        "tokenizer_config.json": {"pad_token": "<pad>", "bos_token": "<s>", "mask_token": "Emma"}
    },
    "extra": {"tokenizer_config.json": {"extra_special_tokens": ["<tool>", "Emma", "<tool>"]}},
    "extra by role": {"tokenizer_config.json": {"extra_special_tokens": {"tool_token": "<tool>"}}},
    "additional": {"tokenizer_config.json": {"additional_special_tokens": ["<|im_start|>"]}},
    "additional and extra": {
        "tokenizer_config.json": {
            "additional_special_tokens": ["<|im_start|>"],
            "extra_special_tokens": ["<tool>"],
        }
    },
    "a role of its own": {"tokenizer_config.json": {"image_token": "<tool>"}},
    "as objects": {
        "tokenizer_config.json": {
            "bos_token": {"__type": "AddedToken", **LISTED, "content": "<s>", "lstrip": True},
            "extra_special_tokens": [{"__type": "AddedToken", **LISTED, "single_word": True}],
        }
    },
    "listed": {"tokenizer_config.json": {"added_tokens_decoder": {"0": EOS, "512": LISTED}}},
    "listed otherwise": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "0": {**EOS, "lstrip": True, "rstrip": True},
                "700": {**LISTED, "normalized": True, "special": False},
                "600": {**LISTED, "content": "day", "rstrip": True},
            }
        }
    },
    "an empty list": {
        "tokenizer_config.json": {"added_tokens_decoder": {}, "bos_token": "<s>"},
        "special_tokens_map.json": {"pad_token": "<pad>"},
    },
    "a map": {"special_tokens_map.json": {"bos_token": "<s>", "pad_token": EOS}},
    "a map with objects": {
        "special_tokens_map.json": {
            "bos_token": {**LISTED, "content": "<s>"},
            "additional_special_tokens": ["<|im_start|>"],
        },
        "tokenizer_config.json": {"bos_token": "<t>"},
    },
    "a map with extras": {
        "special_tokens_map.json": {"extra_special_tokens": ["<tool>", {"content": "xyzzy"}]},
        "tokenizer_config.json": {"extra_special_tokens": ["<pad>"]},
    },
    "added_tokens.json": {
        "added_tokens.json": {"xyzzy": 513, "<s>": 512, "<tool>": 514},
        "tokenizer_config.json": {"bos_token": "<s>"},
    },
    "split": {"tokenizer_config.json": {"split_special_tokens": True}},
    "another class": {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}},
    "a Llama class": {"tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"}},
    "no class": {"tokenizer_config.json": {"tokenizer_class": ...}},
    "a short context": {"tokenizer_config.json": {"model_max_length": 4}},
    "sides": {"tokenizer_config.json": {"padding_side": "left", "truncation_side": "left"}},
}


@pytest.mark.parametrize("case", CASES)
def test_ids_are_those_of_transformers(tmp_path: Path, case: str) -> None:
    folder = Path(shutil.copytree(TINYLM, tmp_path / "m"))
    for name, changes in CASES[case].items():
        edit(folder / name, **changes)
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(folder)
    for text in TEXTS:
        ids = ours.encode(text).ids
        assert ids == theirs.encode(text), text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text


def test_without_a_config(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINYLM, tmp_path / "m"))
    (folder / "tokenizer_config.json").unlink()
    assert load_tokenizer(folder).encode(TEXTS[1]).ids == (
        AutoTokenizer.from_pretrained(folder).encode(TEXTS[1])
    )


@pytest.mark.parametrize("run", [run_model, run_offloaded])
def test_both_runtimes(tmp_path: Path, run: Callable[..., Any]) -> None:
    folder = Path(shutil.copytree(TINYLM, tmp_path / "m"))
    edit(folder / OF, truncation=TRUNCATION)
    edit(folder / "tokenizer_config.json", bos_token="fine")
    expected = AutoTokenizer.from_pretrained(folder).encode("It was a very good day, and Emma")
    result = run(folder, "golden", "It was a very good day, and Emma", 2)
    assert list(result.prompt_ids) == expected
    assert len(expected) > 10


@pytest.mark.parametrize("text", ["It was a very fine day", "fine"])
def test_a_token_that_the_model_does_not_have(tmp_path: Path, text: str) -> None:
    """An added token gets an id beyond the embedding; transformers itself ends in an IndexError."""
    folder = Path(shutil.copytree(TINYLM, tmp_path / "m"))
    edit(folder / "tokenizer_config.json", bos_token="fine")
    assert 512 in AutoTokenizer.from_pretrained(folder).encode(text)
    for run in (run_model, run_offloaded):
        with pytest.raises(InputError, match="token ids must be below 512, not 512"):
            run(folder, "golden", text, 2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tokenizer_class": "GPT2Tokenizer"}, "tokenizer_class 'GPT2Tokenizer' is not one of"),
        ({"tokenizer_class": 3}, "tokenizer_class 3 is not one of"),
        ({"auto_map": {"AutoTokenizer": ["a.B", None]}}, "has its own code in auto_map"),
        ({"fast_tokenizer_files": ["tokenizer.4.json"]}, r"has the files \['tokenizer.4.json'\]"),
    ],
)
def test_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    folder = Path(shutil.copytree(TINYLM, tmp_path / "m"))
    edit(folder / "tokenizer_config.json", **config)
    with pytest.raises(CheckpointError, match=message + ".*; give --runtime transformers$"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"bos_token": {"content": "<s>"}},
        {"bos_token": 3},
        {"extra_special_tokens": 3},
        {"extra_special_tokens": [3]},
        {"added_tokens_decoder": {"x": LISTED}},
        {"added_tokens_decoder": {"1": "a"}},
        {"added_tokens_decoder": [1]},
    ],
)
def test_wrong_forms(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = Path(shutil.copytree(TINYLM, tmp_path / "m"))
    edit(folder / "tokenizer_config.json", **config)
    with pytest.raises(CheckpointError, match="special tokens of a wrong form"):
        load_tokenizer(folder)
