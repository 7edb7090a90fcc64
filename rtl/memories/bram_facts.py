"""Facts of the weight memory in block RAM."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from tritloom.rtl.spec.plugins import Config, Memory, Storage

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

    def storage(self, config: Config) -> tuple[Storage, ...]:
        whole, rest = divmod(self.words, self.BANK_WORDS)
        sizes = ((self.BANK_WORDS, whole), (rest, int(rest > 0)))
        return tuple(
            Storage(config.word_bits, words, number=number) for words, number in sizes if number
        )

    def full_sizes(self, config: Config, most: int) -> Sequence[int]:
        """A quarter and a half of a bank, then whole banks."""
        return _full_sizes(self.BANK_WORDS, most)

    def latency(self, config: Config) -> int:
        return self.LATENCY


@cache
def _full_sizes(bank: int, most: int) -> tuple[int, ...]:
    sizes = (bank // 4, bank // 2, *range(bank, most + 1, bank))
    return tuple(size for size in sizes if size <= most)
