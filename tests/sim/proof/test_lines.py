"""The adapter between words and lines loses no word, and repeats, reorders or spoils none."""

from dataclasses import replace

import pytest

from tests.support.broken import broken
from tritloom.rtl.memories import line_reader, line_writer, lines
from tritloom.rtl.spec.config import TINY
from tritloom.sim.proof.formal import PropertyError, verify
from tritloom.sim.proof.lines import (
    OpenLines,
    OpenRecord,
    line_reads_contract,
    line_writes_contract,
)

pytestmark = pytest.mark.formal

DEPTH = 12
"""Cycles after reset that are proved: two ranges of words, or a block that is written."""
COVER = 20


def config(lanes, line_bits, beat_bits):
    """A memory of four words of 8 bits for each 5 lanes."""
    return replace(
        TINY,
        lanes=lanes,
        rows=1,
        memory=OpenRecord(words=4, line_bits=line_bits, beat_bits=beat_bits),
    )


JOINED = config(15, 16, 8)  # words of 24 bits: three beats, and a block is two words
SHIFTED_IN = config(15, 16, 16)  # a word and a half of a beat
SHIFTED_OUT = config(15, 32, 32)  # beats longer than words
WHOLE = config(20, 16, 16)  # a word is two lines, and shares none


@pytest.mark.parametrize("sizes", [JOINED, SHIFTED_IN, SHIFTED_OUT, WHOLE])
def test_reads(sizes):
    bench = line_reads_contract(OpenLines(sizes))
    verify(bench, depth=DEPTH, cover=COVER, induction=False)


@pytest.mark.parametrize(
    ("sizes", "depth"), [(SHIFTED_IN, DEPTH), (SHIFTED_OUT, DEPTH), (WHOLE, 8)]
)
def test_writes(sizes, depth):
    bench = line_writes_contract(OpenLines(sizes))
    verify(bench, depth=depth, cover=COVER, induction=False)


def refuted(bench):
    with pytest.raises(PropertyError) as raised:
        verify(bench, depth=DEPTH, cover=None, induction=False)
    return raised.value.names


@pytest.mark.parametrize(
    ("sizes", "module", "old", "new"),
    [
        # The last line of a range is not asked for.
        (SHIFTED_IN, lines, "(bits + sizes.block_words - 1) >> word_bits", "bits >> word_bits"),
        # A void beat spoils the words behind it too.
        (JOINED, line_reader, "[place.eq(0), void.eq(0)]", "place.eq(0)"),
    ],
)
def test_broken_reads_are_refuted(sizes, module, old, new, monkeypatch):
    copy = broken(module, old, new)
    if module is lines:
        monkeypatch.setattr(lines.LineMemory, "_ask_blocks", copy.LineMemory._ask_blocks)
    else:
        monkeypatch.setattr(lines, "LineReader", copy.LineReader)
    refuted(line_reads_contract(OpenLines(sizes)))


@pytest.mark.parametrize(
    ("sizes", "module", "old", "new"),
    [
        # A range is accepted while a word still moves into its line.
        (
            SHIFTED_IN,
            lines,
            "self.i_read.ready.eq(~added & writer.idle)",
            "self.i_read.ready.eq(~added)",
        ),
        # The second line of a word that has two goes to the first one's place.
        (
            WHOLE,
            line_writer,
            "number.eq(number + 1),\n            ]",
            "number.eq(number),\n            ]",
        ),
    ],
)
def test_broken_writes_are_refuted(sizes, module, old, new, monkeypatch):
    copy = broken(module, old, new)
    if module is lines:
        monkeypatch.setattr(lines.LineMemory, "_ask_blocks", copy.LineMemory._ask_blocks)
    else:
        monkeypatch.setattr(lines, "LineWriter", copy.LineWriter)
    assert "check_stored" in refuted(line_writes_contract(OpenLines(sizes)))
