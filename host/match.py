"""Which layers of a model a caller chooses, by their full names."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase

from tritloom.rtl.spec.errors import InputError

__all__ = ["Match", "name_matcher"]

Match = str | re.Pattern[str] | Callable[[str], bool]


def name_matcher(match: Match) -> Callable[[str], bool]:
    """The function that says whether a layer of a name is chosen.

    Parameters
    ----------
    match : a glob that the whole name matches (`"*.mlp.*"`), a compiled regular expression that
        matches somewhere in the name, or a function of the name

    Raises
    ------
    InputError : `match` is none of these
    """
    if isinstance(match, str):
        return lambda name: fnmatchcase(name, match)
    if isinstance(match, re.Pattern):
        return lambda name: match.search(name) is not None
    if callable(match):
        return match
    raise InputError(
        f"match must be a glob, a compiled pattern or a function, not {type(match).__name__}"
    )
