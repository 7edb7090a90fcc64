"""What an accelerator takes of a part, by a model that is fitted to the measured table.

Block RAM follows from the memories that there are, by the rule by which yosys maps them
(`memory_libmap`); LUTs and flip-flops are sums of bits that the hardware has (adders, registers,
tables), each with a weight of its own, never negative, by least squares of the relative error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, log2
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tritloom.boards.families.family import load_family
from tritloom.gen.measure.table import Point
from tritloom.rtl.spec.commands import IDENTITY
from tritloom.rtl.spec.config import PARTIAL_SUM_READ_CYCLES, AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import Memory, Storage, engines
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES, SCALE_BITS, SLICE_BITS

__all__ = [
    "Cost",
    "CostModel",
    "around_memories",
    "core_memories",
    "mapped",
    "weight_memories",
]

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of LUTs, flip-flops, block RAMs and multipliers, as `Part.available` counts them."""

    luts: float
    ffs: float
    block_rams: int
    multipliers: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.luts + other.luts,
            self.ffs + other.ffs,
            self.block_rams + other.block_rams,
            self.multipliers + other.multipliers,
        )


class Unit(NamedTuple):
    """A scaling unit, as `tritloom measure scale` measured it on ECP5, and its median clock."""

    luts: int
    ffs: int
    multipliers: int
    mhz: float


REACH = 2
"""Predictions stop at this multiple of the largest measured core of an engine, because beyond it
the clock is unknown. Measured means routed, or synthesised if no core was routed. The multiple
holds for LUTs, bits of a word and fill."""
UNITS = {"fixed": Unit(185, 524, 1, 186.5), "float": Unit(930, 1339, 4, 129.38)}
"""By the kind of scales."""
MUX_COST, BIT_COST = 0.5, 1.0


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a memory becomes: blocks, LUT RAM cells, bits of the multiplexers behind them, logic."""

    blocks: int = 0
    cells: int = 0
    muxed: int = 0
    bits: int = 0


@cache
def mapped(family: str, memory: Storage) -> Mapped:
    """As yosys maps one such memory: to what costs least by its own count."""
    bits = memory.width * memory.words
    facts = load_family(family)
    each = facts.rom_bit_cost if memory.rom else BIT_COST
    best, cheapest = bits * each, Mapped(bits=bits)
    for ram in facts.rams:
        if memory.rom and not ram.blocks:
            continue
        for width in ram.widths:
            words = ram.words(width)
            byte = 1 if memory.rom else min(ram.byte or width, width)
            field = memory.width // memory.fields
            padded = memory.fields * ceil(field / byte) * byte
            deep = ceil(memory.words / words)
            units = ceil(deep * padded / width)
            muxed = (deep - 1) * memory.width
            cost = (ram.cost - ram.by_width) * units + MUX_COST * muxed
            cost += ram.by_width * deep * memory.width / width
            cost += MUX_COST * deep * memory.fields * (deep > 1 and not memory.rom)
            if cost < best:
                cells = 0 if ram.blocks else units
                best, cheapest = cost, Mapped(units * ram.blocks, cells, muxed)
    return cheapest


def _sum(family: str, memories: Iterable[Storage]) -> Mapped:
    each = [(mapped(family, memory), memory.number) for memory in memories]
    return Mapped(
        sum(one.blocks * number for one, number in each),
        sum(one.cells * number for one, number in each),
        sum(one.muxed * number for one, number in each),
        sum(one.bits * number for one, number in each),
    )


def core_memories(config: AcceleratorConfig) -> list[Storage]:
    """The memories of a core: activations and their scales, partial sums, and the engine's.

    The activation banks share one memory; each begins at a power of two. Each result bank has a
    memory of its own.
    """
    stored = [(config.fill * config.act_bits, config.activation_words)]
    if config.scales_activations:
        stored.append((8 * FLOAT_BYTES, config.max_tiles))
    return [
        *(
            Storage(config.tokens * bits, _in_banks(config, words), fields=config.tokens)
            for bits, words in stored
        ),
        *_sum_memories(config),
        *engines[config.engine].storage(config),
    ]


def _in_banks(config: AcceleratorConfig, words: int) -> int:
    """Depth of a memory of banks of that many words, each of which begins at a power of two."""
    return ((config.banks - 1) << (words - 1).bit_length()) + words


def _sum_memories(config: AcceleratorConfig) -> list[Storage]:
    """Partial sums, and with scales the totals of each row: those that grow, and the results."""
    sums = config.tokens * config.rows
    if config.scale is None:
        return [Storage(sums * config.acc_bits, config.result_row_groups, number=config.banks)]
    of_groups = [Storage(sums * config.acc_bits, config.result_row_groups)]
    slices, rest = divmod(config.result_bits, SLICE_BITS)
    depth = _in_banks(config, config.max_row_groups)
    result_slices, result_rest = divmod(sums * config.result_bits, SLICE_BITS)
    return [
        *(of_groups if config.most_group_tiles > 1 else []),
        Storage(SLICE_BITS, config.max_row_groups, number=sums * slices),
        *([Storage(rest, config.max_row_groups, number=sums)] if rest else []),
        Storage(SLICE_BITS, depth, number=result_slices),
        *([Storage(result_rest, depth)] if result_rest else []),
    ]


def weight_memories(config: AcceleratorConfig) -> list[Storage]:
    """The memories of the weight memory."""
    return list(config.memory.storage(config))


def around_memories(config: AcceleratorConfig) -> list[Storage]:
    """Packets in both directions, the link's memories, the layer table, the identity."""
    entry = 2 * config.memory_words.bit_length() + (config.max_tiles - 1).bit_length()
    entry += (config.max_row_groups - 1).bit_length() + 2
    if config.has_groups:
        entry += (config.max_tiles - 1).bit_length()
    if config.max_group_sums:
        entry += (config.result_row_groups - 1).bit_length()
    return [
        Storage(8, config.slots * config.packet_bytes, number=2),
        *config.link.storage(config),
        Storage(entry, config.max_layers),
        Storage(8, _identity_bytes(config), rom=True),
    ]


def _identity_bytes(config: AcceleratorConfig) -> int:
    """Length of `commands.identity(config)`, without making it."""
    return IDENTITY.size + len(config.to_json())


def core_features(config: AcceleratorConfig, family: str) -> dict[str, float]:
    """What a core's LUTs and flip-flops depend on, in bits by name.

    The names depend on the engine alone. What the measured cores do not have is not among them:
    `second_bank`.
    """
    rows, tokens, fill = config.rows, config.tokens, config.fill
    memory = _sum(family, core_memories(config))
    return {
        "constant": 1,
        "counted": config.max_row_groups.bit_length() + config.max_tiles.bit_length(),
        "addressed": log2(config.activation_words),
        "loaded": fill * tokens * config.act_bits,
        "partial": rows * tokens * config.acc_bits,
        "word": config.word_bits,
        "cells": memory.cells,
        "muxed": memory.muxed,
        "logic": memory.bits,
        "selected": log2(1 + memory.bits),
        **engines[config.engine].cost_features(config),
    }


def second_bank(config: AcceleratorConfig) -> tuple[int, int]:
    """LUTs and flip-flops of a core's second bank, beside its memories.

    Each bit of a sum has a LUT that chooses the bank of the layer that runs, a LUT that chooses the
    bank that is read, and a register behind the second memory. Each memory's address has two
    sources.
    """
    if config.scale is not None:  # the sums of a group have one bank
        return 0, 0
    sums = config.tokens * config.rows * config.acc_bits
    address = (config.result_row_groups - 1).bit_length()
    more = config.banks - 1
    return more * 2 * (sums + address), more * sums


def scale_units(config: AcceleratorConfig) -> Cost:
    """A core's scaling units, beside their memories.

    A unit takes what `tritloom measure scale` says; the scales of a row wait for its sum.
    """
    if config.scale is None:
        return Cost(0, 0, 0)
    unit = UNITS[config.scale.kind]
    number = config.rows * config.tokens
    waits = max(config.engine_latency, PARTIAL_SUM_READ_CYCLES) + 2
    ffs = number * unit.ffs + config.rows * waits * SCALE_BITS
    return Cost(number * unit.luts, ffs, 0, number * unit.multipliers)


def around_features(config: AcceleratorConfig, family: str) -> dict[str, float]:
    """The same for what is around a core: link, packets, commands, weight memory."""
    weights = weight_memories(config)
    memory = _sum(family, [*weights, *around_memories(config)])
    return {
        "constant": 1,
        "word": config.word_bits,
        "banked": sum(bank.number for bank in weights) * config.word_bits,
        "result": config.tokens * config.rows * config.acc_bits,
        "loaded": config.fill * config.act_bits,
        "addressed": log2(config.slots * config.packet_bytes),
        "cells": memory.cells,
        "muxed": memory.muxed,
    }


def nonnegative(a: F64, b: F64) -> F64:
    """The x ≥ 0 [n] for which a [m, n] · x is nearest to b [m]: Lawson and Hanson's algorithm."""
    count = a.shape[1]
    x = np.zeros(count)
    used = np.zeros(count, bool)
    tolerance = 1e-9 * max(1.0, float(np.abs(a.T @ b).max()))
    for _ in range(20 * count):
        slope = a.T @ (b - a @ x)
        slope[used] = -np.inf
        if used.all() or slope.max() <= tolerance:
            break
        used[int(slope.argmax())] = True
        while True:
            trial = np.zeros(count)
            trial[used] = np.linalg.lstsq(a[:, used], b, rcond=None)[0]
            if not used.any() or trial[used].min() > 0:
                break
            low = used & (trial <= 0)
            step = (x[low] / (x[low] - trial[low])).min()
            x = x + step * (trial - x)
            used &= x > 1e-12
            x[~used] = 0.0
        x = trial
    return x


Fit = tuple[Mapping[str, float], Mapping[str, float]]
"""Weights of LUTs and of flip-flops by feature."""


def _fit(rows: Sequence[Mapping[str, float]], counts: Sequence[float]) -> dict[str, float]:
    """Weights with which the rows' features give the counts, errors relative to each count."""
    names = list(rows[0])
    matrix = np.array([[row[name] for name in names] for row in rows], np.float64)
    matrix /= np.array(counts, np.float64)[:, None]
    scale = np.maximum(matrix.max(axis=0), 1e-12)
    weights = nonnegative(matrix / scale, np.ones(len(counts))) / scale
    return dict(zip(names, weights.tolist(), strict=True))


def _apply(weights: Mapping[str, float], features: Mapping[str, float]) -> float:
    return sum(weights[name] * value for name, value in features.items())


class CostModel:
    """Predicts what a family's accelerators take, from its measured points.

    `ConfigError` for a family without points; `engines` are those that can be predicted.
    """

    def __init__(self, family: str, points: Iterable[Point]) -> None:
        own = [point for point in points if point.family == family]
        cores = [point for point in own if not point.memory_words]
        if not cores:
            raise ConfigError(
                f"nothing is measured for {family}; run tritloom measure table --family {family}"
            )
        self.family = family
        self.paired = load_family(family).measure.paired
        self.points = cores
        self.encodings = sorted({(point.engine, point.encoding) for point in cores})
        self._cores: dict[str, Fit] = {}
        self._largest: dict[str, tuple[int, int, int]] = {}
        for engine in sorted({point.engine for point in cores}):
            of = [point for point in cores if point.engine == engine]
            routed = [point for point in of if point.mhz is not None] or of
            self._largest[engine] = (
                max(point.luts for point in routed),
                max(point.config.word_bits for point in routed),
                max(point.fill * point.tokens for point in of),
            )
            self._cores[engine] = self._both([core_features(p.config, family) for p in of], of)
        whole = [point for point in own if point.memory_words]
        measured = {point.key: point for point in cores}
        differences = []
        for point in whole:
            core = measured[_core_key(point)]
            differences.append((point.luts - core.luts, point.ffs - core.ffs))
        rows = [around_features(point.config, family) for point in whole]
        self._around: Fit | None = None
        if rows:
            luts, ffs = zip(*differences, strict=True)
            self._around = _fit(rows, luts), _fit(rows, ffs)

    def blocks(self, config: AcceleratorConfig) -> int:
        """Block RAMs of the whole accelerator but its weights'."""
        return _sum(self.family, core_memories(config) + around_memories(config)).blocks

    def within(self, config: AcceleratorConfig, luts: float) -> bool:
        """Whether a core of `luts` LUTs is within `REACH` of what was measured."""
        most_luts, most_bits, _ = self._largest[config.engine]
        return luts <= REACH * most_luts and config.word_bits <= REACH * most_bits

    def most_filled(self, engine: str) -> int:
        """Most activations a cycle that an engine like those measured is filled with."""
        return REACH * self._largest[engine][2]

    def mhz(self, config: AcceleratorConfig) -> float | None:
        """The clock of the nearest point that was routed; `None` if none was.

        Of the same engine and the same encoding if there are any; nearest in doublings of the size,
        then of the lanes. Scaling units may be slower than the engine.
        """
        routed = [point for point in self.points if point.mhz is not None]
        routed = [p for p in routed if p.engine == config.engine] or routed
        routed = [p for p in routed if p.encoding == config.encoding] or routed

        def distance(point: Point) -> float:
            size = log2(point.lanes * point.rows * point.tokens / config.macs_per_cycle)
            return abs(size) + abs(log2(point.lanes / config.lanes)) / 4

        reached = min(routed, key=distance).mhz if routed else None
        if reached is None or config.scale is None:
            return reached
        return min(reached, UNITS[config.scale.kind].mhz)

    def _both(self, rows: Sequence[Mapping[str, float]], points: Sequence[Point]) -> Fit:
        return _fit(rows, [p.luts for p in points]), _fit(rows, [p.ffs for p in points])

    def core(self, config: AcceleratorConfig) -> Cost:
        """The core alone, as `tritloom measure engine` counts it."""
        features = core_features(config, self.family)
        luts, ffs = self._cores[config.engine]
        blocks = _sum(self.family, core_memories(config)).blocks
        more_luts, more_ffs = second_bank(config)
        engine = Cost(_apply(luts, features) + more_luts, _apply(ffs, features) + more_ffs, blocks)
        return engine + scale_units(config)

    def around(self, config: AcceleratorConfig, *, weights: bool = True) -> Cost:
        """All but the core; without `weights` there is no memory for them."""
        if self._around is None:
            raise ConfigError(
                f"no accelerator is measured for {self.family}; "
                f"run tritloom measure table --family {self.family}"
            )
        if not weights:
            config = config.with_words(1)
        features = around_features(config, self.family)
        luts, ffs = self._around
        blocks = _sum(self.family, around_memories(config) + weight_memories(config)).blocks
        return Cost(_apply(luts, features), _apply(ffs, features), blocks)


def _core_key(point: Point) -> tuple[object, ...]:
    """Of the core that an accelerator has."""
    return replace(point, memory_words=0, max_layers=0, packet_bytes=0, slots=0).key


def weight_blocks(family: str, memory: Memory, config: AcceleratorConfig) -> int:
    """Block RAMs of a weight memory in a configuration whose own memory may be another."""
    return _sum(family, memory.storage(config)).blocks
