"""A model's tokenizer: token ids of a prompt, and the text of new ids."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tritloom.host.models.added_tokens import add_tokens_of_files
from tritloom.rtl.spec.errors import CheckpointError, InputError, ToolError
from tritloom.rtl.spec.remedies import package_remedy

__all__ = ["encode_prompt", "load_tokenizer", "stream_text"]


def load_tokenizer(path: str | Path) -> Any:
    """Load the `tokenizers.Tokenizer` of a model directory: `.encode(text).ids`, `.decode(ids)`.

    It gives the ids that transformers' `AutoTokenizer` gives: truncation and padding that are saved
    in the file are off, and special tokens of the other files are added.

    Raises
    ------
    ToolError : the package `tokenizers` is missing
    CheckpointError : a file is missing or broken, or transformers would build the tokenizer from
        more than tokenizer.json
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ToolError(
            f"tokenizers is missing; {package_remedy('tokenizers', 'models')}"
        ) from error
    file = Path(path) / "tokenizer.json"
    if not file.is_file():
        raise CheckpointError(f"no tokenizer.json in {path}; copy the whole model directory")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise CheckpointError(f"{file} is not a tokenizer; copy it again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    add_tokens_of_files(tokenizer, Path(path))
    return tokenizer


def encode_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Encode a prompt; raises `InputError` if it is not text."""
    check_text(prompt)
    ids: list[int] = tokenizer.encode(prompt).ids
    return ids


def check_text(prompt: str) -> None:
    """Check that a prompt is text; bytes that are not UTF-8 reach Python as lone surrogates."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the prompt is not text at character {error.start}; give it in UTF-8"
        ) from None


def stream_text(tokenizer: Any, ids: Iterable[int], prompt: Sequence[int] = ()) -> Iterator[str]:
    """Yield the text of `ids` piece by piece, never half a character.

    Parameters
    ----------
    tokenizer : as `load_tokenizer` gives it
    ids : the new token ids; they may be computed one by one
    prompt : the ids before them, which some tokenizers need for the space before the first word
    """
    seen = list(prompt)
    begin, done = 0, len(seen)
    for token in ids:
        seen.append(token)
        old, new = tokenizer.decode(seen[begin:done]), tokenizer.decode(seen[begin:])
        if len(new) > len(old) and not new.endswith("\ufffd"):
            yield new[len(old) :]
            begin, done = done, len(seen)
    rest = tokenizer.decode(seen[begin:])[len(tokenizer.decode(seen[begin:done])) :]
    if rest:
        yield rest
