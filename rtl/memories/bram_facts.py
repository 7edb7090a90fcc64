"""Facts of the weight memory in block RAM."""

from dataclasses import dataclass
from typing import ClassVar

from tritloom.rtl.spec.plugins import Config, Memory

__all__ = ["BlockRam"]


@dataclass(frozen=True, kw_only=True)
class BlockRam(Memory):
    """Weight words in the FPGA's block RAM; they come without a pause."""

    name: ClassVar[str] = "bram"
    component: ClassVar[str] = "tritloom.rtl.memories.bram:BlockRamMemory"

    LATENCY: ClassVar[int] = 4
    """Cycles from an accepted range to its first word."""
    BANK_WORDS: ClassVar[int] = 2048
    """Words of a bank: as deep as a block of at least 9 bits can be on every family."""

    def latency(self, config: Config) -> int:
        return self.LATENCY
