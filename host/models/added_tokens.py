"""The tokens that a model's other tokenizer files add to tokenizer.json.

transformers loads tokenizer.json, then adds the special tokens that tokenizer_config.json names and
tokenizer.json does not list. Their ids, and where they split a text, follow from the order of
adding, which is the same here.

Source: `PreTrainedTokenizerBase._from_pretrained` and `TokenizersBackend.__init__` of transformers.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tritloom.host.checkpoints.values import read_json, show, yes_or_no
from tritloom.rtl.spec.errors import CheckpointError

__all__ = ["add_tokens_of_files"]

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Special tokens with a role of their own, in the order in which they are added."""
GENERIC = frozenset({"PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend"})
"""Classes that use tokenizer.json as it is; any other builds a tokenizer by rules of its own."""
LLAMA = frozenset({"LlamaTokenizer", "LlamaTokenizerFast"})
"""These use tokenizer.json as it is if it works on bytes."""


def add_tokens_of_files(tokenizer: Any, folder: Path) -> None:
    """Add the tokens to the `tokenizers.Tokenizer` of a folder, as transformers does.

    Raises
    ------
    CheckpointError : a file is broken, or it asks for a tokenizer that is not in tokenizer.json
    """
    config = _optional_json(folder / "tokenizer_config.json")
    _check_class(config, folder)
    content = read_json(folder / "tokenizer.json")
    try:
        tokens = _tokens(tokenizer, config, content, folder)
        tokenizer.add_tokens(tokens)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / 'tokenizer_config.json'} has special tokens of a wrong form ({error}); "
            "copy it again"
        ) from error
    tokenizer.encode_special_tokens = yes_or_no(config, "split_special_tokens", False)


def _optional_json(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _check_class(config: dict[str, Any], folder: Path) -> None:
    """Refuse a tokenizer that transformers would not read from tokenizer.json alone."""
    remedy = "give --runtime transformers"
    kind = config.get("tokenizer_class")
    if kind is None:
        kind = _optional_json(folder / "config.json").get("tokenizer_class")
    whole = kind is None or kind in GENERIC
    if not whole and kind in LLAMA:
        content = read_json(folder / "tokenizer.json")
        whole = any("ByteLevel" in repr(content.get(key)) for key in ("pre_tokenizer", "decoder"))
    if not whole:
        raise CheckpointError(
            f"tokenizer_class {show(kind)} is not one of {', '.join(sorted(GENERIC))}; {remedy}"
        )
    if config.get("auto_map") is not None:
        raise CheckpointError(f"tokenizer_config.json has its own code in auto_map; {remedy}")
    files = config.get("fast_tokenizer_files")
    if files not in (None, [], ["tokenizer.json"]):
        raise CheckpointError(f"tokenizer_config.json has the files {show(files)}; {remedy}")


def _tokens(
    tokenizer: Any, config: dict[str, Any], content: dict[str, Any], folder: Path
) -> list[Any]:
    """The tokens to add, in order."""
    from tokenizers import AddedToken

    named, extra = _special_tokens(config, folder)
    listed = config.get("added_tokens_decoder")
    if listed is None:
        tokens = _tokens_of_other_files(named, extra, content, folder)
    else:
        tokens = {int(number): AddedToken(**token) for number, token in listed.items()}
    by_content = {str(token.content): token for token in tokens.values()}
    for name in NAMED:
        if name in named:
            named[name] = by_content.get(_content(named[name]), named[name])

    present = tokenizer.get_added_tokens_decoder().values()
    forms = {repr(token) for token in present}
    added = [token for _, token in sorted(tokens.items()) if repr(token) not in forms]
    known = {token.content for token in [*present, *added]}
    for token in [*named.values(), *extra]:
        if _content(token) not in known:
            known.add(_content(token))
            added.append(token)
    roles = {_content(token) for token in named.values()}
    marked: list[AddedToken] = []
    for token in added:
        if isinstance(token, str):
            token = AddedToken(token, special=True)
        elif token.content in roles:
            token.special = True
        marked.append(token)
    return marked


def _special_tokens(config: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[Any]]:
    """The tokens with a role, and the other special tokens, of both files that have them."""
    values = dict(config)
    extra = values.get("extra_special_tokens") or values.get("additional_special_tokens") or []
    if config.get("added_tokens_decoder") is None:
        for key, value in _optional_json(folder / "special_tokens_map.json").items():
            if key in ("extra_special_tokens", "additional_special_tokens"):
                if isinstance(value, list):
                    extra = [*extra, *(_special(token) for token in value if token not in extra)]
            else:
                values[key] = _special(value)
    roles = {key: values[key] for key in NAMED if values.get(key) is not None}
    for key, value in values.items():
        if key.endswith("_token") and key not in NAMED and not isinstance(value, bool | None):
            roles[key] = value
    if isinstance(extra, dict):
        roles |= extra
        extra = []
    return {key: _token(value) for key, value in roles.items()}, [_token(each) for each in extra]


def _tokens_of_other_files(
    named: dict[str, Any], extra: Iterable[Any], content: dict[str, Any], folder: Path
) -> dict[int, Any]:
    """Tokens by id, of added_tokens.json and tokenizer.json, for a config that has no list."""
    from tokenizers import AddedToken

    special = {_content(token) for token in [*named.values(), *extra]}
    tokens = {
        number: AddedToken(text, normalized=text not in special, special=text in special)
        for text, number in _optional_json(folder / "added_tokens.json").items()
    }
    for each in content.get("added_tokens", []):
        options = {key: value for key, value in each.items() if key != "id"}
        tokens[each["id"]] = AddedToken(**options)
    return tokens


def _special(value: Any) -> Any:
    """A token of special_tokens_map.json, where an object is always special."""
    return value | {"__type": "AddedToken", "special": True} if isinstance(value, dict) else value


def _token(value: Any) -> Any:
    """A token as JSON writes it: text, or an object that says so."""
    from tokenizers import AddedToken

    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.get("__type") == "AddedToken":
        return AddedToken(**{key: each for key, each in value.items() if key != "__type"})
    raise TypeError(f"a special token must be text or an AddedToken, not {show(value)}")


def _content(token: Any) -> str:
    return token if isinstance(token, str) else str(token.content)
