"""Random weights and activations, in the forms in which components take them."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS
from tritloom.rtl.spec.packing import act_limits, pack_weights

__all__ = [
    "Trits",
    "random_act_scales",
    "random_codes",
    "random_image",
    "random_scales",
    "random_trits",
    "weight_words",
]

Trits = NDArray[np.int8]
EXTREME_SCALES = np.array([0x0001, 0x03FF, 0x0000, 0x8000, 0x7BFF, 0xFBFF, 0x8001], np.uint16)
"""Subnormal numbers, both zeros, the greatest numbers."""
EXTREME_FLOATS = np.array(
    [0x00000000, 0x80000000, 0x00000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF],
    np.uint32,
)
"""Both zeros, subnormal numbers, the least normal one, the greatest ones."""
NOT_FINITE = np.array([0x7F800000, 0xFF800000, 0x7FC00000], np.uint32)


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


def random_scales(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Patterns of finite half-precision numbers, some of them extreme, sometimes all the same."""
    scales = rng.integers(0, 0x7C00, shape).astype(np.uint16) | rng.choice([0, 0x8000], shape)
    extreme = rng.random(shape) < rng.choice([0.2, 1.0])
    return np.where(extreme, rng.choice(EXTREME_SCALES, shape), scales).astype("u2")


def random_act_scales(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint32]:
    """Patterns of float32: numbers of usual size, or extreme ones, or any, rarely not finite."""
    usual = rng.standard_normal(shape).astype(np.float32).view(np.uint32)
    scales = rng.choice(EXTREME_FLOATS, shape)
    scales = np.where(rng.random(shape) < 0.5, rng.integers(0, 1 << 32, shape), scales)
    scales = np.where(rng.random(shape) < rng.choice([0.5, 0.9, 1.0]), usual, scales)
    broken = rng.random(shape) < rng.choice([0.0, 0.0, 0.1])
    return np.where(broken, rng.choice(NOT_FINITE, shape), scales).astype("u4")


def random_image(config: AcceleratorConfig, rng: random.Random, words: int) -> bytes:
    """Weight words of random trits, some rows of one extreme only; with scales any finite ones."""
    generator = np.random.default_rng(rng.getrandbits(32))
    alphabet = np.array(ALPHABETS[config.alphabet], np.int8)
    trits = generator.choice(alphabet, (words * config.rows, config.lanes))
    for row in trits:
        if rng.random() < 0.3:
            row[:] = rng.choice((-1, 1))
    scales = None if config.scale is None else random_scales(generator, (len(trits), 1))
    return pack_weights(config, trits, 0, scales)


def weight_words(config: AcceleratorConfig, trits: Trits) -> list[int]:
    """The weight words of int8 [out, in], in the order in which an engine reads them."""
    image, size = pack_weights(config, trits), config.word_bytes
    return [int.from_bytes(image[at : at + size], "little") for at in range(0, len(image), size)]
