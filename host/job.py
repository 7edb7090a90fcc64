"""A product on a device: the commands for it, and its sums."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritloom.host.allocator import Piece
from tritloom.host.handle import Handle, Stats, Totals
from tritloom.host.plan import Step, plan_product
from tritloom.host.session import Command, Session
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.packing import unpack_floats, unpack_results

__all__ = ["Job", "Loaded", "submit_product"]


class Job:
    """A product that the device computes; `result` waits for it."""

    def __init__(
        self,
        session: Session,
        config: AcceleratorConfig,
        handle: Handle,
        tokens: int,
        commands: list[Command],
        steps: tuple[Step, ...],
        pieces: tuple[Piece, ...],
        loads: list[Command],
    ) -> None:
        self._session = session
        self._config = config
        self._handle = handle
        self._tokens = tokens
        self._commands = commands
        self._steps = steps
        self._pieces = pieces
        self._loads = loads  # of another job, which sent them; without them these sums are wrong
        self._took: Totals | None = None
        self._sums: NDArray[Any] | None = None

    @property
    def stats(self) -> Stats | None:
        """What it took; None until `result` has returned."""
        return None if self._took is None else self._handle.stats_of(self._took)

    def result(self) -> NDArray[np.int32]:
        """Wait for the sums, int32 `[tokens, out_features]`; the same array in each call.

        Those of a layer with groups of inputs are int32 `[tokens, out_features, groups]`. Of a
        device that scales them, they are float32 `[tokens, out_features]`.

        Raises
        ------
        DeviceError : the device refused a command of this job, or the session ended before
        """
        if self._sums is not None:
            return self._sums
        with self._session.lock:
            return self._wait()

    def _wait(self) -> NDArray[np.int32]:
        if self._sums is not None:  # another thread has waited
            return self._sums
        for command in self._loads:
            self._session.require(command)
        runs = cycles = bytes_tx = bytes_rx = 0
        kind = np.float32 if self._handle.scaled else np.int32
        sums: NDArray[Any] = np.zeros((self._tokens, self._handle.out_features), kind)
        # The sums of a piece of a layer with groups have an array of their own first.
        of_pieces = [
            np.zeros((self._tokens, piece.shape.result_row_groups * self._config.rows), np.int32)
            for piece in self._pieces
            if self._handle.group and not self._handle.scaled
        ]
        for command, step in zip(self._commands, self._steps, strict=True):
            response = self._session.require(command)
            bytes_tx += command.bytes_tx
            bytes_rx += command.bytes_rx
            if step.place is None:
                continue
            token, row, first_of_run, piece = step.place
            if first_of_run:
                runs += 1
                cycles += response.value
            if self._config.scale is None:
                numbers: NDArray[Any] = unpack_results(self._config, response.payload)
            else:  # of a layer without scales they are whole numbers below 2^24, so exact
                numbers = unpack_floats(response.payload).astype(kind, copy=False)
            target = of_pieces[piece] if of_pieces else sums
            part = target[token, row : row + len(numbers)]
            if self._handle.scaled:  # in one piece; to add it would turn -0.0 into 0.0
                part[:] = numbers
            else:
                part += numbers
        if of_pieces:
            sums = self._by_groups(of_pieces)
        self._took = (self._tokens, runs, cycles, bytes_tx, bytes_rx)
        self._handle.count(self._took)
        self._sums = sums
        self._commands, self._steps, self._loads = [], (), []
        return sums

    def _by_groups(self, of_pieces: list[NDArray[np.int32]]) -> NDArray[np.int32]:
        """The sums of all pieces, int32 `[tokens, out_features, groups]`."""
        handle, group = self._handle, self._handle.group
        shape = (self._tokens, handle.out_features, handle.in_features // group)
        sums = np.empty(shape, np.int32)
        for piece, flat in zip(self._pieces, of_pieces, strict=True):
            groups = flat.reshape(self._tokens, piece.shape.groups, -1)[:, :, : piece.rows]
            first = piece.column // group
            rows = slice(piece.row, piece.row + piece.rows)
            sums[:, rows, first : first + piece.shape.groups] = groups.transpose(0, 2, 1)
        return sums


class Loaded(NamedTuple):
    """Activations in the bank that was used last, for a further product with the same codes.

    Members
    -------
    in_features : of the layer; more than there are codes if the device takes them twice
    group : inputs that have a sum of their own, or 0
    commands : that load them, and their scales
    """

    in_features: int
    group: int
    commands: list[Command]


def submit_product(
    session: Session,
    config: AcceleratorConfig,
    handle: Handle,
    pieces: tuple[Piece, ...],
    codes: NDArray[np.int8],
    loaded: Loaded | None = None,
    scales: NDArray[np.float32] | None = None,
) -> tuple[Job, Loaded | None]:
    """Enqueue the commands of a product, in the order of `tritloom.host.plan`.

    The codes, int8 `[tokens, in_features]`, and the scales must have been checked; they are copied.

    Parameters
    ----------
    pieces : of the layer, as `Handle.pieces_on` gives them
    loaded : what the product before this one left, if it had the same codes and scales
    scales : of the activations, float32 `[tokens, groups]`, for a device that takes them; None:
        they are 1

    Returns
    -------
    The job, and what it leaves; None if a further product must load its activations.
    """
    again = loaded is not None and loaded[:2] == (handle.in_features, handle.group)
    plan = plan_product(
        config,
        handle.out_features,
        handle.in_features,
        len(codes),
        session.payload_limit(config.max_payload),
        session.activation_bank,
        session.result_bank,
        handle.group,
        again,
    )
    commands = plan.commands(pieces, codes, scales)
    session.activation_bank, session.result_bank = plan.activation_bank, plan.result_bank
    loads = loaded.commands if loaded is not None and again else []
    job = Job(session, config, handle, len(codes), commands, plan.steps, pieces, loads)
    session.enqueue(*commands)
    if not plan.leaves_all(len(codes)):
        return job, None
    if not again:
        loads = [
            command for command, step in zip(commands, plan.steps, strict=True) if step.load_bytes
        ]
    return job, Loaded(handle.in_features, handle.group, loads)
