"""Reads JSON files, and checks the values in them; every fault is one line."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tritloom.rtl.spec.errors import CheckpointError

__all__ = ["choice", "count", "number", "read_json", "show", "yes_or_no"]

LONGEST_SHOWN = 60
"""Characters of a wrong value that an error message shows."""


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises
    ------
    CheckpointError : the file is missing, or it is not JSON, or it does not hold an object
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"no {file.name} in {file.parent}; copy the whole model") from error
    except RecursionError:
        raise CheckpointError(f"{file} is nested too deeply for a model; copy it again") from None
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON; copy it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} must hold a JSON object, not {type(content).__name__}")
    return content


def show(value: object) -> str:
    """The value as Python writes it, on one line and cut after `LONGEST_SHOWN` characters."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def choice(key: str, value: object, allowed: Sequence[str]) -> str:
    """Check that `value` is one of the `allowed` words; raises `CheckpointError`."""
    if not isinstance(value, str) or value not in allowed:
        raise CheckpointError(f"{key} must be {' or '.join(allowed)}, not {show(value)}")
    return value


def count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """The positive integer `config[key]`; raises `CheckpointError`.

    A key that is absent or null has the value `default`; without a default it is an error.
    """
    value = config.get(key)
    if value is None:
        value = default
    if value is None:
        raise CheckpointError(f"config.json has no {key}; copy the model again")
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{key} must be a positive integer, not {show(value)}")
    return value


def number(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """The positive number `config[key]`; defaults and errors are those of `count`."""
    value = config.get(key)
    if value is None:
        value = default
    if value is None:
        raise CheckpointError(f"config.json has no {key}; copy the model again")
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise CheckpointError(f"{key} must be a positive number, not {show(value)}")
    try:
        return float(value)
    except OverflowError:
        raise CheckpointError(f"{key} must be a positive number, not {show(value)}") from None


def yes_or_no(config: Mapping[str, Any], key: str, default: bool) -> bool:
    """The boolean `config[key]`, `default` if it is absent or null; raises `CheckpointError`."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CheckpointError(f"{key} must be true or false, not {show(value)}")
    return value
