"""A layer in a device's weight memory, and how it gets there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tritloom.host.allocator import Allocator, Piece
from tritloom.host.layer import TernaryLayer
from tritloom.host.requests import Requests
from tritloom.host.session import Session
from tritloom.rtl.spec.commands import Status
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError, InputError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.numerics import MAX_FEATURES
from tritloom.rtl.spec.packing import check_group, check_trits, pack_weights

__all__ = ["COMMIT_TRIES", "Handle", "Image", "Stats", "Totals", "load_layer", "require_one_piece"]

Totals = tuple[int, int, int, int, int]
"""The numbers of `Stats` that are counted, from `tokens` to `bytes_rx`."""

Image = bytes | memoryview
"""Weight words of a piece, as `pack_weights` makes them."""

COMMIT_TRIES = 3
"""How often a layer is written before its memory is called faulty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What the products with one layer took. `+` adds two of them.

    Members
    -------
    out_features, in_features : of the layer
    tokens : tokens that were multiplied
    runs : RUN commands
    cycles : device cycles, from the start of each RUN to its end
    bytes_tx, bytes_rx : bytes of whole packets to and from the device, repeated ones included
    """

    out_features: int
    in_features: int
    tokens: int = 0
    runs: int = 0
    cycles: int = 0
    bytes_tx: int = 0
    bytes_rx: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layer, without padding."""
        return self.tokens * self.out_features * self.in_features

    def __add__(self, other: Stats) -> Stats:
        return Stats(
            out_features=self.out_features,
            in_features=self.in_features,
            tokens=self.tokens + other.tokens,
            runs=self.runs + other.runs,
            cycles=self.cycles + other.cycles,
            bytes_tx=self.bytes_tx + other.bytes_tx,
            bytes_rx=self.bytes_rx + other.bytes_rx,
        )


class Handle:
    """A layer in a device's memory, from `Device.load` to `Device.unload`.

    Members
    -------
    layer : what was loaded
    out_features, in_features : of the layer
    group : inputs that have a sum of their own; 0: a row has one sum
    scaled : the device applies scales to the sums, and its results are float32
    """

    def __init__(
        self,
        session: Session,
        allocator: Allocator,
        layer: TernaryLayer,
        group: int = 0,
        scaled: bool = False,
    ) -> None:
        self.layer = layer
        self.out_features = layer.out_features
        self.in_features = layer.in_features
        self.group = group
        self.scaled = scaled
        self._totals: Totals = (0, 0, 0, 0, 0)
        self._session = session
        self._allocator = allocator

    @property
    def stats(self) -> Stats:
        """Sum over the jobs whose result was asked for."""
        return self.stats_of(self._totals)

    def stats_of(self, totals: Totals) -> Stats:
        """What products with this layer took, from the numbers that were counted."""
        tokens, runs, cycles, bytes_tx, bytes_rx = totals
        return Stats(
            out_features=self.out_features,
            in_features=self.in_features,
            tokens=tokens,
            runs=runs,
            cycles=cycles,
            bytes_tx=bytes_tx,
            bytes_rx=bytes_rx,
        )

    def count(self, took: Totals) -> None:
        """Add what a job took, in one step that an interrupt cannot split."""
        tokens, runs, cycles, bytes_tx, bytes_rx = self._totals
        self._totals = (
            tokens + took[0],
            runs + took[1],
            cycles + took[2],
            bytes_tx + took[3],
            bytes_rx + took[4],
        )

    @property
    def words(self) -> int:
        """Words of weight memory that it takes; 0 after `unload`."""
        return sum(piece.shape.words for piece in self._allocator.pieces(self) or ())

    def pieces_on(self, session: Session) -> tuple[Piece, ...]:
        """Its pieces; `InputError` if they are on another device, or were unloaded."""
        if self._session is not session:
            raise InputError(f"the layer is on {self._session.name}, not here; load it here")
        pieces = self._allocator.pieces(self)
        if pieces is None:
            raise InputError("the layer was unloaded; load it again")
        return pieces


def load_layer(
    session: Session,
    config: AcceleratorConfig,
    allocator: Allocator,
    layer: TernaryLayer,
    images: Sequence[Image] | None = None,
    group: int = 0,
    scales: NDArray[np.uint16] | None = None,
) -> Handle:
    """Write a layer to the device's weight memory.

    Parameters
    ----------
    images : of its pieces, if they are packed already
    group : inputs that have a sum of their own; 0: a row has one sum
    scales : of a device with scales, patterns of half precision `[out_features, groups]`; None: the
        layer's results are sums

    Raises
    ------
    CapacityError : there is no room
    InputError : not a layer, or not one for this device
    DeviceError : the memory does not keep it, or the session ended
    """
    if not isinstance(layer, TernaryLayer):
        raise InputError(
            f"load takes a TernaryLayer, not {type(layer).__name__}; make one with "
            "TernaryLayer.from_trits(trits, scale)"
        )
    if layer.in_features > MAX_FEATURES:
        raise InputError(
            f"in_features must be at most {MAX_FEATURES} for sums that fit in int32, "
            f"not {layer.in_features}"
        )
    check_trits(config, layer.trits)
    check_group(config, layer.in_features, group)
    if scales is not None:
        require_one_piece(config, layer.in_features, group)
    pieces = allocator.place(layer.out_features, layer.in_features, group)
    sizes = [piece.shape.words * config.word_bytes for piece in pieces]
    if images is not None and [len(image) for image in images] != sizes:
        raise InputError(
            f"images must have {sizes} bytes for {layer.out_features} × {layer.in_features} on "
            f"this device, not {[len(image) for image in images]}; pack the layer for it"
        )
    handle = Handle(session, allocator, layer, group, scales is not None)
    try:
        allocator.take(handle, pieces)
        for number, piece in enumerate(pieces):
            if images is None:
                rows = slice(piece.row, piece.row + piece.rows)
                columns = slice(piece.column, piece.column + piece.columns)
                of_rows = None if scales is None else scales[rows]
                image: Image = pack_weights(config, layer.trits[rows, columns], group, of_rows)
            else:
                image = images[number]
            _write_piece(session, config, piece, image)
    except BaseException:
        allocator.release(handle)
        raise
    return handle


def require_one_piece(config: AcceleratorConfig, in_features: int, group: int) -> None:
    """A device makes a row's total in one run, so all its groups must lie in one layer of it."""
    tiles = LayerShape.of(config, 1, in_features, group).tiles
    if tiles > config.max_tiles:
        raise InputError(
            f"a layer with scales must have at most {config.max_tiles} tiles of {config.lanes} "
            f"inputs on this device, not {tiles}, because a row's total is made in one run; use a "
            f"device with max_in_features of at least {tiles * config.lanes}"
        )


def _write_piece(session: Session, config: AcceleratorConfig, piece: Piece, image: Image) -> None:
    """Write one piece, and again if the device has stored something else."""
    requests = Requests(session, config)
    for _ in range(COMMIT_TRIES):
        commit = requests.commit(piece.index, image)
        writes = [
            requests.define(piece.index, piece.base, piece.shape),
            *requests.write(piece.index, image),
        ]
        session.enqueue(*writes, commit)
        status = session.wait(commit).status
        for command in writes:  # they have their responses, because COMMIT has
            if command.response is None or command.response.status != Status.OK:
                session.require(command)
        if status != Status.BAD_CHECKSUM:
            session.require(commit)
            return
    raise DeviceError(
        f"{session.name} does not keep what is written to words {piece.base} to "
        f"{piece.base + piece.shape.words - 1}: wrong checksum {COMMIT_TRIES} times; "
        "run its self-test"
    )
