"""How long this computer's CPU takes for a model's layers, measured with NumPy.

The yardstick beside a device's time: the same products, exact too, as `tritloom.host` computes them
where a layer does not fit the device, but with weights that were turned into float32 before.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from tritloom.gen.workloads import Layer

__all__ = ["Cpu", "cpu_name", "measure_cpu"]

MOST_BYTES = 1 << 25
"""Weights in use at a time: more than a core's own caches hold."""
FLOAT_BYTES = 4
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
    """

    name: str
    tokens: int
    macs: int
    total_s: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.total_s

    def to_dict(self) -> dict[str, Any]:
        """The measurement as JSON can hold it."""
        return {
            "name": self.name,
            "method": "NumPy, float32",
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


def measure_cpu(layers: Sequence[Layer], tokens: int = 1) -> Cpu:
    """Time the layers: one product for each, the median of a few rounds.

    It takes one to two seconds at most, however large the model is: of a layer larger than
    `MOST_BYTES` only some rows are computed, of many equal layers only some, and the time is
    counted in proportion.

    Parameters
    ----------
    layers : of the model
    tokens : tokens that go through each layer together
    """
    total_s = sum(_layer_s(layer, tokens, BUDGET_S / len(layers)) for layer in layers)
    macs = tokens * sum(layer.weights for layer in layers)
    return Cpu(name=cpu_name(), tokens=tokens, macs=macs, total_s=total_s)


def _layer_s(layer: Layer, tokens: int, budget_s: float) -> float:
    """Seconds for all layers of this shape."""
    rows = max(1, min(layer.out_features, MOST_BYTES // (FLOAT_BYTES * layer.in_features)))
    copies = min(layer.count, ceil(MOST_BYTES / (FLOAT_BYTES * rows * layer.in_features)))
    batch = min(tokens, MOST_TOKENS)
    codes = np.ones((batch, layer.in_features), np.float32)
    weights = [np.ones((rows, layer.in_features), np.float32) for _ in range(copies)]
    rounds: list[float] = []
    begin = time.perf_counter()
    for number in range(ROUNDS + 1):
        started = time.perf_counter()
        for matrix in weights:
            (codes @ matrix.T).astype(np.int32)
        ended = time.perf_counter()
        if number:  # the first round brings the weights into the caches
            rounds.append(ended - started)
        if rounds and ended - begin > budget_s:
            break
    share = (layer.out_features / rows) * (layer.count / copies) * (tokens / batch)
    return statistics.median(rounds) * share
