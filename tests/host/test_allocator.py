"""Where layers lie: whole, cut into pieces, refused, and given back."""

from dataclasses import replace

import pytest

from tests.support.line_store import TestLines
from tritloom.host.allocator import Allocator
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.errors import CapacityError


def test_an_empty_device():
    allocator = Allocator(TINY)
    assert allocator.free_runs == [(0, TINY.memory_words)]
    assert allocator.free_words == TINY.memory_words
    assert allocator.free_indices == [0, 1, 2, 3]
    assert allocator.layers_used == 0
    assert allocator.pieces("nobody") is None
    allocator.release("nobody")


def test_to_place_is_not_to_take():
    allocator = Allocator(TINY)
    pieces = allocator.place(16, 20)
    assert allocator.place(16, 20) == pieces
    assert allocator.free_words == TINY.memory_words
    allocator.take("a", pieces)
    assert allocator.pieces("a") == pieces
    assert allocator.free_runs == [(32, 32)]
    assert allocator.free_indices == [1, 2, 3]


def test_gaps_are_used_first_and_join():
    allocator = Allocator(TINY)
    for owner in "abc":
        allocator.take(owner, allocator.place(8, 20))
    allocator.release("b")
    assert allocator.free_runs == [(16, 16), (48, 16)]
    (piece,) = allocator.place(2, 20)
    assert (piece.base, piece.index) == (16, 1)
    allocator.take("d", (piece,))
    assert allocator.free_runs == [(20, 12), (48, 16)]
    allocator.release("c")
    assert allocator.free_runs == [(20, 44)]


def test_pieces_cover_a_layer_once():
    config = replace(TINY, max_in_features=13, max_out_features=9, max_layers=16)
    pieces = Allocator(config).place(20, 23)
    covered = sorted(
        (row, column)
        for piece in pieces
        for row in range(piece.row, piece.row + piece.rows)
        for column in range(piece.column, piece.column + piece.columns)
    )
    assert covered == [(row, column) for row in range(20) for column in range(23)]
    words = sorted(
        word for piece in pieces for word in range(piece.base, piece.base + piece.shape.words)
    )
    assert words == list(range(len(words))), "no word twice"
    assert len({piece.index for piece in pieces}) == len(pieces)
    assert max(piece.columns for piece in pieces) == 10, "whole tiles"
    assert max(piece.rows for piece in pieces) == 8, "whole row groups"


@pytest.mark.parametrize(
    ("occupied", "wanted", "message"),
    [
        ([(16, 20)], (16, 25), "32 words .* the largest run 32, and 3 of 4 slots"),
        ([(2, 5)] * 4, (2, 5), "free are 60 words .* and 0 of 4 slots"),
        ([], (33, 20), "and 3 layer slots; free are 64 words .* and 4 of 4 slots"),
    ],
)
def test_no_room(occupied, wanted, message):
    allocator = Allocator(TINY)
    for number, shape in enumerate(occupied):
        allocator.take(number, allocator.place(*shape))
    runs, indices = allocator.free_runs, allocator.free_indices
    with pytest.raises(CapacityError, match=f"^layer {wanted[0]} × {wanted[1]} needs .*{message}"):
        allocator.place(*wanted)
    assert (allocator.free_runs, allocator.free_indices) == (runs, indices)


def test_a_layer_occupies_whole_blocks():
    config = replace(TINY, lanes=15, memory=TestLines(words=64, line_bits=64, beat_bits=64))
    assert config.align == 4
    allocator = Allocator(config)
    for owner, rows, base in (("a", 6, 0), ("b", 10, 4), ("c", 16, 12), ("d", 1, 20)):
        (piece,) = allocator.place(rows, 15)
        assert (piece.base, piece.shape.words) == (base, -(-rows // 2))
        allocator.take(owner, (piece,))
    assert allocator.free_runs == [(24, 40)]
    allocator.release("b")
    assert allocator.free_runs == [(4, 8), (24, 40)]
