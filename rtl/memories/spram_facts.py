"""Facts of the weight memory in the SPRAM of an iCE40 UltraPlus."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tritloom.rtl.spec.plugins import Config, Memory, require

__all__ = ["Spram"]


@dataclass(frozen=True, kw_only=True)
class Spram(Memory):
    """Weight words in the four SPRAM blocks of an iCE40 UltraPlus: 64 bits a cycle, one port.

    A word takes one, two or four blocks side by side, or several reads of all four. Narrower words
    share an address of the blocks; a write leaves the other blocks alone. So words of 16, 32 and 64
    bits, and of multiples of 64, leave no bit unused.

    Source
    ------
    Lattice FPGA-TN-02022, iCE40 SPRAM Usage Guide.
    """

    name: ClassVar[str] = "spram"
    component: ClassVar[str] = "tritloom.rtl.memories.spram:SpramMemory"

    BLOCKS: ClassVar[int] = 4
    BLOCK_BITS: ClassVar[int] = 16
    """Bits that a block reads or writes in a cycle."""
    BLOCK_DEPTH: ClassVar[int] = 1 << 14
    LATENCY: ClassVar[int] = 3
    """Cycles from an accepted range to its first word, if a word takes one read."""

    def columns(self, config: Config) -> int:
        """Blocks side by side that a read takes: 1, 2 or 4."""
        blocks = -(-config.word_bits // self.BLOCK_BITS)
        return min(self.BLOCKS, 1 << (blocks - 1).bit_length())

    def reads(self, config: Config) -> int:
        """Reads, and writes, that a word takes."""
        return -(-config.word_bits // (self.BLOCKS * self.BLOCK_BITS))

    def capacity(self, config: Config) -> int:
        """Words that the four blocks hold."""
        return self.BLOCK_DEPTH * (self.BLOCKS // self.columns(config)) // self.reads(config)

    def check(self, config: Config) -> None:
        """Also: the four blocks hold the words."""
        super().check(config)
        most = self.capacity(config)
        require(
            self.words <= most,
            f"memory: words must be at most {most} for words of {config.word_bits} bits in SPRAM, "
            f"not {self.words}",
        )

    def full_sizes(self, config: Config, most: int) -> Sequence[int]:
        """The blocks are there, used or not: as many words as they hold."""
        return (min(most, self.capacity(config)),)

    def latency(self, config: Config) -> int | None:
        """`LATENCY`; `None` if a word takes several reads: then there are cycles between words."""
        return self.LATENCY if self.reads(config) == 1 else None

    def most_cycles(self, config: Config, words: int) -> int:
        """Exactly these: nothing else uses the blocks."""
        return self.LATENCY - 1 + words * self.reads(config)

    def expected(self, config: Config) -> tuple[int, float]:
        """Exactly these, too."""
        reads = self.reads(config)
        return self.LATENCY + reads - 1, 1 / reads
