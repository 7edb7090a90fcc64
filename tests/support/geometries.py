"""Configurations and operands that tests of several engines and encodings share."""

import random
from dataclasses import replace
from itertools import product

import numpy as np

from tritloom.rtl.engines.select_facts import SELECT
from tritloom.rtl.engines.table_facts import TABLE
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS, encodings
from tritloom.rtl.spec.packing import act_limits
from tritloom.sim.conformance.operands import random_codes, random_trits

KINDS = [(engine.name, name) for engine in (SELECT, TABLE) for name in engine.encodings]
"""Every engine with each encoding that it takes."""
VECTORS = 10_000


def geometry(
    engine: str,
    encoding: str,
    lanes: int,
    rows: int,
    tokens: int,
    fill: int,
    act_bits: int,
    groups: int,
    inputs: int | None = None,
) -> AcceleratorConfig:
    inputs = inputs or lanes
    return AcceleratorConfig(
        engine=engine,
        encoding=encoding,
        alphabet=encodings[encoding].alphabet,
        lanes=lanes,
        rows=rows,
        tokens=tokens,
        fill=fill,
        act_bits=act_bits,
        memory=BlockRam(words=groups * (inputs // lanes)),
        max_in_features=inputs,
        max_out_features=groups * rows,
    )


def two_codes(
    engine: str, encoding: str, act_bits: int, *, tokens: int = 4, fill: int = 2, tiles: int = 2
) -> AcceleratorConfig:
    """Two codes in a row, a few tiles, and outputs for every weight of one code, twice."""
    group = encodings[encoding].trits_per_code
    groups = len(ALPHABETS[encodings[encoding].alphabet]) ** group
    lanes = 2 * group
    return geometry(
        engine, encoding, lanes, 2, tokens, fill, act_bits, max(groups, 16), tiles * lanes
    )


def random_vectors(config: AcceleratorConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four rows of weights, and ten thousand vectors of activations."""
    rng = np.random.default_rng(seed)
    codes = random_codes(config, rng, (VECTORS, config.max_in_features))
    return random_trits(config, rng, (4, config.max_in_features)), codes


def extreme_vectors(config: AcceleratorConfig) -> list[tuple[np.ndarray, np.ndarray]]:
    """For `two_codes`: every weight of one code, and all extreme activations for it, the other
    code at its extremes; for either code."""
    group = encodings[config.encoding].trits_per_code

    def every(values: tuple[int, ...], first: int, second: int) -> np.ndarray:
        of_one = np.array(list(product(values, repeat=group)))
        other = np.tile([[first], [second]], (len(of_one), group))
        return np.concatenate([np.repeat(of_one, 2, axis=0), other], axis=1).astype(np.int8)

    trits = every(ALPHABETS[config.alphabet], -1, 1)
    codes = every(act_limits(config), *act_limits(config))
    return [(trits, codes), (trits[:, ::-1].copy(), codes[:, ::-1].copy())]


def random_config(rng: random.Random, engine: str, encoding: str) -> AcceleratorConfig:
    """A random valid configuration, small enough to simulate: every limit takes many values."""
    trits_per_code = encodings[encoding].trits_per_code
    codes = rng.randint(1, max(1, 12 // trits_per_code))
    rows, tokens = rng.randint(1, 3), rng.choice((1, 1, 2))
    fills = codes if engine == "table" else codes * trits_per_code
    fill = rng.choice([n for n in range(1, fills + 1) if fills % n == 0])
    draft = geometry(
        engine,
        encoding,
        codes * trits_per_code,
        rows,
        tokens,
        fill,
        rng.choice((4, 8)),
        rng.randint(1, 40),
        codes * trits_per_code * rng.randint(1, 5),
    )
    return replace(
        draft,
        max_layers=rng.choice((1, 2, 3, 16, 256)),
        packet_bytes=rng.choice((256, 512, 1024, 2048, 4096)),
        slots=rng.choice((2, 4, 8)),
        banks=rng.choice((1, 2, 2)),
    )
