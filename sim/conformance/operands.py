"""Random weights and activations, in the forms in which components take them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS
from tritloom.rtl.spec.packing import act_limits, pack_weights

__all__ = ["Trits", "random_codes", "random_trits", "weight_words"]

Trits = NDArray[np.int8]


def random_trits(
    config: AcceleratorConfig, rng: np.random.Generator, shape: tuple[int, ...]
) -> Trits:
    """int8 weights of the configuration's alphabet."""
    return rng.choice(np.array(ALPHABETS[config.alphabet], np.int8), shape)


def random_codes(
    config: AcceleratorConfig, rng: np.random.Generator, shape: tuple[int, ...]
) -> Trits:
    """int8 activations within the configuration's `act_bits`."""
    least, most = act_limits(config)
    return rng.integers(least, most + 1, shape).astype(np.int8)


def weight_words(config: AcceleratorConfig, trits: Trits) -> list[int]:
    """The weight words of int8 [out, in], in the order in which an engine reads them."""
    image, size = pack_weights(config, trits), config.word_bytes
    return [int.from_bytes(image[at : at + size], "little") for at in range(0, len(image), size)]
