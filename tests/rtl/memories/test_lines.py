"""Memories that move lines: the words that were written come back, and no cycle is lost."""

import random
from dataclasses import replace

import pytest

from tests.support import quick_first
from tests.support.line_store import RamStore, TestLines
from tests.support.memories import transfer
from tritloom.rtl.memories.line_facts import LineFormat
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.sim.conformance.memory import check_memory

# Lanes × rows of sym6x10 (10 bits each 6 lanes) or base3x5 (8 bits each 5), bits of line and beat.
SIZES = {
    "equal": ("base3x5", 20, 2, 64, 64),
    "word of 4 lines": ("base3x5", 20, 2, 16, 16),
    "word of 2 lines of 2 beats": ("base3x5", 20, 2, 32, 16),
    "word of 3 beats, 4 in a line": ("base3x5", 15, 1, 32, 8),
    "word of 1 beat, 4 in a line": ("base3x5", 10, 1, 64, 16),
    "2 words a beat": ("base3x5", 20, 1, 64, 64),
    "4 words a beat, 2 beats": ("base3x5", 5, 2, 128, 64),
    "70 bits from 64": ("sym6x10", 42, 1, 64, 64),
    "130 bits from 128": ("sym6x10", 78, 1, 128, 128),
    "130 bits from lines of 32": ("sym6x10", 78, 1, 32, 32),
    "30 bits from 2 beats of 16": ("sym6x10", 18, 1, 32, 16),
    "30 bits from beats of 64": ("sym6x10", 18, 1, 64, 64),
    "10 bits from beats of 64": ("sym6x10", 6, 1, 64, 64),
    "40 bits from beats of 64": ("base3x5", 25, 1, 64, 64),
    "24 bits from 2 beats of 128": ("base3x5", 15, 1, 256, 128),
}


FEW_BLOCKS = ("70", "130")  # bits of a word: a block has so many words that a test takes long
SMALL = sorted(name for name in SIZES if not name.startswith(FEW_BLOCKS))
CASES = [
    *((name, True, (0.2, 0.4)) for name in ("24 bits from 2 beats of 128", *SIZES)),
    *((name, False, (0.0, 0.4)) for name in SMALL),
]


def config_of(name: str, blocks: int = 3, **options: object) -> AcceleratorConfig:
    encoding, lanes, rows, line, beat = SIZES[name]
    bits = rows * (lanes // 5 * 8 if encoding == "base3x5" else lanes // 6 * 10)
    block = LineFormat(bits, line, beat, line).block_words
    return AcceleratorConfig(
        lanes=lanes,
        rows=rows,
        encoding=encoding,
        engine="select" if encoding == "base3x5" else "table",
        fill=1 if encoding == "base3x5" else lanes // 6,
        memory=TestLines(words=blocks * block, line_bits=line, beat_bits=beat, **options),
        max_in_features=2 * lanes,
        max_out_features=8,
        packet_bytes=4096,
    )


def bits_of(name: str) -> tuple[int, int, int]:
    """Bits of a word, a line and a beat."""
    encoding, lanes, rows, line, beat = SIZES[name]
    return rows * (lanes // 5 * 8 if encoding == "base3x5" else lanes // 6 * 10), line, beat


@quick_first(("name", "pauses", "flow"), CASES)
def test_words(name, pauses, flow):
    idle, pause = flow
    config = config_of(name, 1 if name.startswith(FEW_BLOCKS) else 2, pauses=pauses)
    check_memory(config, idle=idle, pause=pause, seed=len(name), deadline_cycles=100_000)


@quick_first("name", SMALL)
def test_no_cycle_is_lost(name):
    """Words come as fast as beats allow, but at most one a cycle, over two ranges in a row."""
    word, line, beat = bits_of(name)
    config = config_of(name, 8)
    align, count = config.align, config.memory_words
    first = max(align, count // 2 // align * align)
    ranges = [(0, first), (first, count - first)]
    asked, words = transfer(config, [(0, 0)], ranges)
    begun = words[0][0]
    sizes = LineFormat(word, line, beat, count)
    # The store gives its first beat a cycle after it takes the range.
    assert begun - asked[0] == sizes.first_word_cycles(RamStore.LATENCY)
    for number, (cycle, _, _) in enumerate(words):
        # A word that is longer than a beat comes with the beat that has its last bit.
        beats = -(-(number + 1) * word // beat) - -(-word // beat)
        assert cycle - begun == (beats if word >= beat else number)
    # The second range was taken before the first had all its words.
    assert asked[1] < words[first - 1][0]


def test_last_words_of_a_layer_leave_others_alone():
    """Words that end within a block: the rest of their line is 0, the next block unchanged."""
    config = config_of("30 bits from 2 beats of 16", 3)
    rng = random.Random(7)
    words = [rng.getrandbits(30) | 1 for _ in range(config.memory_words)]
    again = [rng.getrandbits(30) for _ in range(3)]
    align = config.align
    assert align == 16
    # Three words end after 90 bits, in the third line of 32. The fourth word loses 6 bits.
    writes = [*enumerate(words), *((align + n, word) for n, word in enumerate(again))]
    _, taken = transfer(config, writes, [(0, config.memory_words)])
    expected = [*words[:align], *again, words[align + 3] >> 6 << 6, *words[align + 4 :]]
    assert [word for _, word, _ in taken] == expected
    # A word elsewhere also ends the line, before any range comes.
    writes.append((0, words[0]))
    _, taken = transfer(config, writes, [(align, align)])
    assert [word for _, word, _ in taken] == expected[align : 2 * align]


@quick_first("name", SMALL)
def test_void_beats_make_void_words(name):
    """A word is void if one of its beats is; a range after it is whole again."""
    word, line, beat = bits_of(name)
    whole = config_of(name, 4)
    fails_at = LineFormat(word, line, beat, whole.memory_words).lines // 2 + 1
    config = config_of(name, 4, fails_at=fails_at)
    ranges = [(0, config.memory_words), (0, 1), (config.memory_words - 1, 1), (0, 1)]
    _, taken = transfer(config, [(0, 0)], ranges)
    numbers = [first + n for first, count in ranges for n in range(count)]
    assert [bool(error) for *_, error in taken] == [
        (number + 1) * word > fails_at * line for number in numbers
    ]


def test_refuses():
    with pytest.raises(ConfigError, match="line_bits must be a power of two, not 48"):
        LineFormat(30, 48, 16, 16)
    with pytest.raises(ConfigError, match="beat_bits must be a power of two, not 24"):
        LineFormat(30, 32, 24, 16)
    with pytest.raises(ConfigError, match="beat_bits must be at most line_bits = 32, not 64"):
        LineFormat(30, 32, 64, 16)
    with pytest.raises(
        ConfigError,
        match="words must be a multiple of 16 for words of 30 bits in lines of 32, not 24",
    ):
        LineFormat(30, 32, 16, 24)
    with pytest.raises(ConfigError, match="to hold a block of 64 weight words or the results"):
        replace(config_of("130 bits from 128"), packet_bytes=1024)
    record = config_of("70 bits from 64").memory
    assert list(record.full_sizes(config_of("70 bits from 64"), 200)) == [32, 64, 128]


def test_lines_of_a_range():
    sizes = LineFormat(30, 32, 16, 64)
    assert (sizes.block_words, sizes.block_lines, sizes.line_beats, sizes.lines) == (16, 15, 2, 60)
    assert sizes.range_lines(0, 1) == (0, 1)
    assert sizes.range_lines(0, 2) == (0, 2)
    assert sizes.range_lines(17, 15) == (15, 15)
    assert sizes.range_lines(35, 30) == (30, 31)
