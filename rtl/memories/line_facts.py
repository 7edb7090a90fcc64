"""Facts of memories that move lines: how weight words lie in lines, beats and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd

from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import Config, Memory

__all__ = ["LineFormat", "LineRecord"]


@dataclass(frozen=True)
class LineFormat:
    """How weight words lie in the lines of a memory: one after the other, without a gap.

    A *line* is what the memory writes as a whole. It comes back as one or several *beats*, the
    lowest bits first. A *block* is the least number of words that fill whole lines. A line has a
    power of two of bits, so a block has a power of two of words: an address is split into block and
    word by its bits, and a constant multiplication gives the block's first line.

    Parameters
    ----------
    word_bits : bits of a weight word
    line_bits : bits of a line, a power of two
    beat_bits : bits of a beat, a power of two up to `line_bits`
    words : weight words that the memory holds, whole blocks
    """

    word_bits: int
    line_bits: int
    beat_bits: int
    words: int

    def __post_init__(self) -> None:
        for name, value in (("line_bits", self.line_bits), ("beat_bits", self.beat_bits)):
            if value < 1 or value & (value - 1):
                raise ConfigError(f"{name} must be a power of two, not {value}")
        if self.beat_bits > self.line_bits:
            raise ConfigError(
                f"beat_bits must be at most line_bits = {self.line_bits}, not {self.beat_bits}"
            )
        if self.words < 1 or self.words % self.block_words:
            raise ConfigError(
                f"memory: words must be a multiple of {self.block_words} for words of "
                f"{self.word_bits} bits in lines of {self.line_bits}, not {self.words}"
            )

    @cached_property
    def block_words(self) -> int:
        """Words of a block, a power of two."""
        return self.line_bits // gcd(self.word_bits, self.line_bits)

    @cached_property
    def block_lines(self) -> int:
        """Lines of a block."""
        return self.word_bits // gcd(self.word_bits, self.line_bits)

    @property
    def line_beats(self) -> int:
        """Beats of a line, a power of two."""
        return self.line_bits // self.beat_bits

    @property
    def lines(self) -> int:
        """Lines of the memory."""
        return self.words // self.block_words * self.block_lines

    def first_word_cycles(self, first_beat: int) -> int:
        """Cycles from an accepted range of whole blocks to its first word.

        Parameters
        ----------
        first_beat : cycles from a range that the `LineStore` accepts to its first beat; a beat
            follows in every later cycle
        """
        exact = self.block_words == 1
        ask = 1 if exact else 2  # a register; with blocks the additions
        # The last beat of the word passes the reader's own registers, then the output's.
        beats = max(1, -(-self.word_bits // self.beat_bits))
        moved = self.word_bits % self.beat_bits != 0  # a shifter has a cycle of its own
        return ask + first_beat + beats - 1 + moved + 1

    def range_lines(self, address: int, count: int) -> tuple[int, int]:
        """First line, and number of lines, that are read for a range of words.

        They begin with the range's first block, and end with the line of its last bit.
        """
        block, first = divmod(address, self.block_words)
        lines = -(-(first + count) * self.block_lines // self.block_words)
        return block * self.block_lines, lines


@dataclass(frozen=True, kw_only=True)
class LineRecord(Memory):
    """A memory that moves lines; a subclass gives `line_sizes`. `component` is a `LineMemory`."""

    def line_sizes(self, config: Config) -> tuple[int, int]:
        """Bits of a line, and of a beat; see `LineFormat`."""
        raise NotImplementedError

    def peak_bits(self, config: Config) -> float:
        """Bits that the memory brings in a cycle of the accelerator at most: a beat."""
        return self.line_sizes(config)[1]

    def line_format(self, config: Config) -> LineFormat:
        """How the words of a configuration lie in the memory's lines.

        Raises
        ------
        ConfigError : the memory does not hold whole blocks
        """
        return LineFormat(config.word_bits, *self.line_sizes(config), self.words)

    def check(self, config: Config) -> None:
        Memory.check(self, config)
        self.line_format(config)

    def align(self, config: Config) -> int:
        line_bits, _ = self.line_sizes(config)
        return line_bits // gcd(config.word_bits, line_bits)

    def padding_bits(self, config: Config, end: int) -> int:
        line_bits, _ = self.line_sizes(config)
        return -end * config.word_bits % line_bits

    def full_sizes(self, config: Config, most: int) -> Sequence[int]:
        """Powers of two of whole blocks."""
        block = self.align(config)
        return [block << n for n in range((most // block).bit_length())]
