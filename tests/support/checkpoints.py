"""Checkpoint files for tests, and the one line that a bad one gives."""

from collections.abc import Callable

import numpy as np
import pytest

from tritloom.rtl.spec.errors import CheckpointError

__all__ = ["message", "packed"]


def packed(trits: np.ndarray) -> np.ndarray:
    quarter = len(trits) // 4
    codes = (trits + 1).astype(np.uint8).reshape(4, quarter, -1)
    return codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6


def message(call: Callable[[], object]) -> str:
    with pytest.raises(CheckpointError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
