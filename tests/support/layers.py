"""Configurations, layers and codes for the tests of the driver."""

from dataclasses import replace

import numpy as np

from tests.support import plugins
from tritloom.host import TernaryLayer
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import TINY, AcceleratorConfig

SMALL = AcceleratorConfig(
    lanes=10,
    rows=3,
    fill=5,
    tokens=2,
    memory=BlockRam(words=1024),
    max_in_features=100,
    max_out_features=60,
    max_layers=12,
    packet_bytes=128,
    slots=4,
)
ODD = AcceleratorConfig(
    lanes=5,
    rows=7,
    fill=5,
    memory=BlockRam(words=4096),
    max_in_features=200,
    max_out_features=200,
    packet_bytes=128,
    slots=8,
)
"""Activations and results take several packets, none of them full."""
PLUGGED = replace(
    SMALL,
    lanes=12,
    rows=3,
    fill=4,
    engine=plugins.ENGINE.name,
    encoding=plugins.ENCODING.name,
    memory=plugins.Stalling(words=SMALL.memory_words),
)
"""Words of 60 bits, no cycle formula."""
WIDE = AcceleratorConfig(
    lanes=10,
    rows=3,
    tokens=2,
    fill=2,
    memory=BlockRam(words=40),
    max_in_features=35,
    max_out_features=19,
    max_layers=3,
    packet_bytes=256,
    slots=4,
)
"""Also used with streams of 2, 4 and 8 bytes."""
GROUPS = replace(WIDE, max_group_sums=60, memory=BlockRam(words=80))
"""Has groups of inputs: a bank holds 20 row groups of sums, and a layer has at most 4 × 7."""
CONFIGS = {"tiny": TINY, "small": SMALL, "odd": ODD, "plugged": PLUGGED}


def layer_of(random: np.random.Generator, out_features: int, in_features: int) -> TernaryLayer:
    trits = random.integers(-1, 2, (out_features, in_features), np.int8)
    return TernaryLayer.from_trits(trits, 0.5)


def codes_of(random: np.random.Generator, tokens: int, in_features: int) -> np.ndarray:
    return random.integers(-128, 128, (tokens, in_features)).astype(np.int8)
