"""What tests of several modules share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
"""The project's folder."""


def quick_first(
    names: str | tuple[str, ...], values: Iterable[Any], ids: Iterable[str] | None = None
) -> pytest.MarkDecorator:
    """
    Parametrize a test that takes long: `make check` runs the first case, `make test` all of them.

    Parameters
    ----------
    names : of the test's parameter, or of several
    values : one value a case; for several names a tuple of their values
    ids : names of the cases, if not made from the values

    Returns
    -------
    `pytest.mark.parametrize` with the mark `sim` on every case except the first
    """
    cases = [value if isinstance(names, tuple) else (value,) for value in values]
    marks = [(), *[(pytest.mark.sim,)] * (len(cases) - 1)]
    parameters = [pytest.param(*case, marks=m) for case, m in zip(cases, marks, strict=True)]
    return pytest.mark.parametrize(names, parameters, ids=ids)
