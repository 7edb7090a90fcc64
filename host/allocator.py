"""Where layers lie in a device's weight memory."""

from __future__ import annotations

from dataclasses import dataclass

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import CapacityError
from tritloom.rtl.spec.layer_shape import LayerShape

__all__ = ["Allocator", "Piece", "cut_layer"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of a layer's weights, which the device has as a layer of its own.

    Members
    -------
    index : the device's layer number
    base : its first weight word
    shape : its tiles and row groups
    row, rows : first row in the whole layer, and how many
    column, columns : first column in the whole layer, and how many
    """

    index: int
    base: int
    shape: LayerShape
    row: int
    rows: int
    column: int
    columns: int


class Allocator:
    """Weight words and layer numbers of a device, and which owner has them.

    A layer begins with a block of words, so it occupies whole blocks (`AcceleratorConfig.align`).

    What is free follows from what is owned. So there is one state, and each change of it is a
    single operation that an interrupt cannot split.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        self._pieces: dict[object, tuple[Piece, ...]] = {}

    def place(self, out_features: int, in_features: int, group: int = 0) -> tuple[Piece, ...]:
        """Where a layer of this size, with groups of inputs, would lie; it takes nothing.

        Raises
        ------
        CapacityError : there is no room
        """
        pieces = self.find(out_features, in_features, group)
        if pieces is None:
            raise self._no_room(out_features, in_features, group)
        return pieces

    def find(self, out_features: int, in_features: int, group: int = 0) -> tuple[Piece, ...] | None:
        """Where a layer of this size would lie, or `None` if there is no room; it takes nothing.

        Each piece of `cut_layer` goes to the first free words that hold it.
        """
        config = self._config
        runs = self.free_runs
        indices = self.free_indices
        pieces: list[Piece] = []
        for rectangle in cut_layer(config, out_features, in_features, group):
            _, rows, _, columns = rectangle
            shape = LayerShape.of(config, rows, columns, group)
            place = next((i for i, (_, words) in enumerate(runs) if words >= shape.words), None)
            if place is None or len(pieces) == len(indices):
                return None
            base, words = runs[place]
            stored = config.stored_words(shape.words)
            runs[place] = (base + stored, words - stored)
            pieces.append(Piece(indices[len(pieces)], base, shape, *rectangle))
        return tuple(pieces)

    def copy(self) -> Allocator:
        """The same owners with the same pieces; a change of one does not change the other."""
        copied = Allocator(self._config)
        copied._pieces = dict(self._pieces)
        return copied

    def take(self, owner: object, pieces: tuple[Piece, ...]) -> None:
        """Give the words and layer numbers of these pieces to an owner."""
        self._pieces[owner] = pieces

    def release(self, owner: object) -> None:
        """Take back what an owner has, if anything."""
        self._pieces.pop(owner, None)

    def pieces(self, owner: object) -> tuple[Piece, ...] | None:
        """What an owner has; None if nothing."""
        return self._pieces.get(owner)

    @property
    def free_runs(self) -> list[tuple[int, int]]:
        """Free words, as first word and number of words of each run, in order."""
        used = sorted(
            (piece.base, self._config.stored_words(piece.shape.words))
            for pieces in self._pieces.values()
            for piece in pieces
        )
        runs = []
        start = 0
        for base, words in [*used, (self._config.memory_words, 0)]:
            if base > start:
                runs.append((start, base - start))
            start = base + words
        return runs

    @property
    def free_words(self) -> int:
        """Free words in all."""
        return sum(words for _, words in self.free_runs)

    @property
    def free_indices(self) -> list[int]:
        """Layer numbers that no piece has."""
        used = {piece.index for pieces in self._pieces.values() for piece in pieces}
        return [index for index in range(self._config.max_layers) if index not in used]

    @property
    def layers_used(self) -> int:
        """Layer numbers that pieces have."""
        return self._config.max_layers - len(self.free_indices)

    def _no_room(self, out_features: int, in_features: int, group: int) -> CapacityError:
        config = self._config
        rectangles = cut_layer(config, out_features, in_features, group)
        shapes = [LayerShape.of(config, rows, columns, group) for _, rows, _, columns in rectangles]

        def amount(words: int) -> str:
            return f"{words} words ({words * config.word_bytes} bytes)"

        longest = max((words for _, words in self.free_runs), default=0)
        return CapacityError(
            f"layer {out_features} × {in_features} needs "
            f"{amount(sum(shape.words for shape in shapes))}, the largest piece "
            f"{max(shape.words for shape in shapes)} in one run, and {len(shapes)} layer slots; "
            f"free are {amount(self.free_words)}, the largest run {longest}, and "
            f"{len(self.free_indices)} of {config.max_layers} slots; "
            "unload layers, use a larger device, or leave a part of the model on the host: "
            'fit="layers" of offload, --fit layers of tritloom run'
        )


def cut_layer(
    config: AcceleratorConfig, out_features: int, in_features: int, group: int = 0
) -> list[tuple[int, int, int, int]]:
    """The pieces of a layer that exceeds the device's feature limits; one piece if it does not.

    With groups of inputs, a piece has whole groups, and as many rows as a result bank holds sums
    of. `group` must be one that `check_group` allows.

    Returns
    -------
    First row, number of rows, first column and number of columns of each piece.
    """
    most_columns, most_rows = config.max_in_features, config.max_out_features
    if group:
        groups = min(in_features // group, config.max_tiles // -(-group // config.lanes))
        if config.scale is None:
            groups = min(groups, config.result_row_groups)
        most_columns = groups * group
        if config.scale is None:
            most_rows = min(most_rows, config.result_row_groups // groups * config.rows)
    return [
        (row, rows, column, columns)
        for column, columns in _cuts(in_features, most_columns, group or config.lanes)
        for row, rows in _cuts(out_features, most_rows, config.rows)
    ]


def _cuts(features: int, limit: int, step: int) -> list[tuple[int, int]]:
    """First feature and number of features of each piece, at most `limit` each.

    If there are several pieces, all but the last are whole steps, if `limit` allows.
    """
    if features > limit >= step:
        limit -= limit % step
    return [(start, min(limit, features - start)) for start in range(0, features, limit)]
