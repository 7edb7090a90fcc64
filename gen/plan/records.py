"""What `tritloom auto` finds: a plan, and the candidates that it was chosen from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tritloom.gen.plan.cost import Cost
from tritloom.gen.plan.timing import Times
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.plugins import Link

__all__ = ["Candidate", "Plan"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration with what is predicted of it.

    Members
    -------
    cost : LUTs, flip-flops, block RAMs and multipliers that count against the budget
    cycles : cycles of RUN of all layers, for all tokens
    mac_per_cycle : useful MACs in a cycle of RUN, on average over the layers
    utilization : `mac_per_cycle` ÷ the geometry's peak
    mhz : the clock; `None` if no engine of the family was routed
    bound : what keeps RUN from being faster, in words
    times : end to end, for all tokens; `None` without a clock, and for a core alone
    """

    config: AcceleratorConfig
    cost: Cost
    cycles: int
    mac_per_cycle: float
    utilization: float
    mhz: float | None
    bound: str
    times: Times | None = None

    @property
    def speed(self) -> float:
        """MAC/s in millions; MAC/cycle if no engine of the family was routed."""
        return self.mac_per_cycle * (self.mhz or 1.0)

    @property
    def gmac_per_s(self) -> float | None:
        """Of RUN alone."""
        return None if self.mhz is None else self.mac_per_cycle * self.mhz / 1e3

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it: `end_to_end` counts everything, all other rates RUN alone."""
        rate = self.gmac_per_s
        return {
            "end_to_end": None if self.times is None else self.times.to_dict(),
            "engine": self.config.engine,
            "encoding": self.config.encoding,
            "lanes": self.config.lanes,
            "rows": self.config.rows,
            "tokens": self.config.tokens,
            "fill": self.config.fill,
            "banks": self.config.banks,
            "word_bits": self.config.word_bits,
            "memory_words": self.config.memory_words,
            "luts": round(self.cost.luts),
            "ffs": round(self.cost.ffs),
            "block_rams": self.cost.block_rams,
            "multipliers": self.cost.multipliers,
            "run_cycles": self.cycles,
            "mac_per_cycle_peak": self.config.macs_per_cycle,
            "mac_per_cycle_run": round(self.mac_per_cycle, 2),
            "utilization_run": round(self.utilization, 4),
            "mhz": self.mhz,
            "gmac_per_s_run": None if rate is None else round(rate, 3),
            "bound": self.bound,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The choice for a part.

    Members
    -------
    budget : LUTs, flip-flops, block RAMs and multipliers that the whole accelerator may take
    ranked : the best candidate of each engine and encoding, the fastest first
    notes : what the reader must know, a line each
    link : the link that `Candidate.times` counts
    """

    family: str
    part: str
    budget: Cost
    ranked: tuple[Candidate, ...]
    notes: tuple[str, ...]
    link: Link

    @property
    def best(self) -> Candidate:
        return self.ranked[0]

    @property
    def config(self) -> AcceleratorConfig:
        return self.best.config

    def to_dict(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "part": self.part,
            "budget": {
                "luts": int(self.budget.luts),
                "ffs": int(self.budget.ffs),
                "block_rams": self.budget.block_rams,
                "multipliers": self.budget.multipliers,
            },
            "notes": list(self.notes),
            "link": self.link.to_dict(),
            "candidates": [each.to_dict() for each in self.ranked],
            "config": self.config.to_dict(),
        }
