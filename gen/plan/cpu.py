"""How long this computer's CPU takes for a model's layers, measured on the spot.

The yardstick beside a device's time: the same products, exact too, as `tritloom.host` computes them
where a layer does not fit the device, but with weights that were turned into float32 before.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tritloom.gen.workloads import Layer

__all__ = ["Cpu", "Products", "cpu_name", "measure_cpu", "measure_with"]

F32 = npt.NDArray[np.float32]

MOST_BYTES = 1 << 26
"""Weights in use at a time: more than the caches of most computers hold."""
MOST_TOKENS = 16
"""More tokens than this are measured as this many, and counted in proportion."""
ROUNDS = 5
BUDGET_S = 1.0
"""Time for the rounds of all layers; each has one round at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """What a CPU takes for a model's ternary layers.

    Members
    -------
    name : of the CPU
    tokens : tokens that go through each layer together
    macs : multiply-accumulates for them
    total_s : seconds for them
    method : what computed them
    """

    name: str
    tokens: int
    macs: int
    total_s: float
    method: str = "NumPy, float32"

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.total_s

    def to_dict(self) -> dict[str, Any]:
        """The measurement as JSON can hold it."""
        return {
            "name": self.name,
            "method": self.method,
            "tokens_per_s": float(f"{self.tokens_per_s:.4g}"),
            "gmac_per_s": float(f"{self.macs / self.total_s / 1e9:.4g}"),
            "total_s": round(self.total_s, 9),
            "tokens": self.tokens,
            "macs": self.macs,
        }


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the CPU calls itself, or else what Python calls its kind."""
    try:
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine() or "unknown CPU"


class Products(Protocol):
    """Makes products of a size, to be timed.

    Members
    -------
    weight_bytes : bytes that a weight takes
    """

    @property
    def weight_bytes(self) -> float: ...

    def products(
        self, rows: int, in_features: int, copies: int, tokens: int
    ) -> list[Callable[[], object]]:
        """Functions that each compute a product with weights of their own."""
        ...


class _NumPy:
    """Products of float32, exact for every layer of 8-bit codes and trits."""

    weight_bytes = 4.0

    def products(
        self, rows: int, in_features: int, copies: int, tokens: int
    ) -> list[Callable[[], object]]:
        codes = np.ones((tokens, in_features), np.float32)
        weights = [np.ones((rows, in_features), np.float32) for _ in range(copies)]
        return [partial(_sums, codes, matrix) for matrix in weights]


def _sums(codes: F32, matrix: F32) -> object:
    return (codes @ matrix.T).astype(np.int32)


def measure_cpu(layers: Sequence[Layer], tokens: int = 1) -> Cpu:
    """Time the layers with NumPy: one product for each, the median of a few rounds.

    Parameters
    ----------
    layers : of the model
    tokens : tokens that go through each layer together
    """
    macs = tokens * sum(layer.weights for layer in layers)
    total_s = measure_with(_NumPy(), layers, tokens)
    return Cpu(name=cpu_name(), tokens=tokens, macs=macs, total_s=total_s)


def measure_with(products: Products, layers: Sequence[Layer], tokens: int) -> float:
    """Seconds for one product with each layer.

    The rounds take one second or little more, however large the model is: of a layer larger than
    `MOST_BYTES` only some rows are computed, of many equal layers only some, and the time is
    counted in proportion.
    """
    budget_s = BUDGET_S / len(layers)
    return sum(_layer_s(products, layer, tokens, budget_s) for layer in layers)


def _layer_s(products: Products, layer: Layer, tokens: int, budget_s: float) -> float:
    """Seconds for all layers of this shape."""
    row_bytes = products.weight_bytes * layer.in_features
    rows = max(1, min(layer.out_features, int(MOST_BYTES / row_bytes)))
    copies = min(layer.count, ceil(MOST_BYTES / (row_bytes * rows)))
    batch = min(tokens, MOST_TOKENS)
    several = products.products(rows, layer.in_features, copies, batch)
    rounds: list[float] = []
    begin = time.perf_counter()
    for number in range(ROUNDS + 1):
        started = time.perf_counter()
        for product in several:
            product()
        ended = time.perf_counter()
        if number:  # the first round brings the weights into the caches
            rounds.append(ended - started)
        if rounds and ended - begin > budget_s:
            break
    share = (layer.out_features / rows) * (layer.count / copies) * (tokens / batch)
    return statistics.median(rounds) * share
