"""A product on a device: the commands for it, and its sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tritloom.host.handle import Handle, Stats
from tritloom.host.requests import Requests
from tritloom.host.session import Command, Session
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.packing import unpack_results

__all__ = ["Job", "submit_product"]


@dataclass(slots=True)
class _Slice:
    """A RESULTS command, and where its numbers belong in the sums.

    The first one of a RUN brings the cycles of the RUN.
    """

    command: Command
    token: int
    row: int
    first_of_run: bool


class Job:
    """A product that the device computes; `result` waits for it.

    Members
    -------
    stats : what it took; None until `result` has returned
    """

    def __init__(
        self,
        session: Session,
        config: AcceleratorConfig,
        handle: Handle,
        tokens: int,
        commands: list[Command],
        slices: list[_Slice],
    ) -> None:
        self.stats: Stats | None = None
        self._session = session
        self._config = config
        self._handle = handle
        self._tokens = tokens
        self._commands = commands
        self._slices = slices
        self._sums: NDArray[np.int32] | None = None

    def result(self) -> NDArray[np.int32]:
        """Wait for the sums, int32 `[tokens, out_features]`; the same array in each call.

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
        runs = cycles = bytes_tx = bytes_rx = 0
        for command in self._commands:
            self._session.require(command)
            bytes_tx += command.bytes_tx
            bytes_rx += command.bytes_rx
        handle = self._handle
        sums = np.zeros((self._tokens, handle.out_features), np.int32)
        for piece in self._slices:
            response = self._session.require(piece.command)
            if piece.first_of_run:
                runs += 1
                cycles += response.value
            numbers = unpack_results(self._config, response.payload)
            sums[piece.token, piece.row : piece.row + len(numbers)] += numbers
        stats = Stats(
            out_features=handle.out_features,
            in_features=handle.in_features,
            tokens=self._tokens,
            runs=runs,
            cycles=cycles,
            bytes_tx=bytes_tx,
            bytes_rx=bytes_rx,
        )
        self.stats = stats
        handle.count(stats)
        self._sums = sums
        self._commands, self._slices = [], []
        return sums


def submit_product(
    session: Session, config: AcceleratorConfig, handle: Handle, codes: NDArray[np.int8]
) -> Job:
    """Enqueue the commands of a product.

    The codes, int8 `[tokens, in_features]`, must have been checked; they are copied. As many tokens
    as the device takes are computed at once. The activations of a token are loaded once for all
    pieces of the layer that need the same ones.

    New activations go into the next bank, and so do the results of each RUN. So the device can load
    and read one bank while it computes with the other. With two banks, the results of a RUN are
    read only after the next RUN, so that no command of the window waits for them while the core has
    nothing to do. The first RESULTS comes before that RUN: then the device has something to copy
    while it takes the RUN.
    """
    pieces = handle.pieces_on(session)
    requests = Requests(session, config)
    commands: list[Command] = []
    slices: list[_Slice] = []
    delayed: list[Command] = []  # RESULTS of the last RUN
    delayed_cycles = 0  # of that RUN
    for start in range(0, len(codes), config.tokens):
        batch = codes[start : start + config.tokens]
        loaded_column = None
        for piece in pieces:
            if piece.column != loaded_column:
                loaded_column = piece.column
                session.activation_bank = (session.activation_bank + 1) % config.banks
                for token, row in enumerate(batch):
                    columns = row[piece.column : piece.column + piece.columns]
                    commands += requests.load(token, columns, session.activation_bank)
            session.result_bank = (session.result_bank + 1) % config.banks
            banks = (session.activation_bank, session.result_bank)
            run = requests.run(piece.index, piece.shape, len(batch), *banks)
            commands += [*delayed[:1], run, *delayed[1:]]
            delayed = []
            for token in range(len(batch)):
                for command in requests.results(token, piece.rows, session.result_bank):
                    row = command.address * config.rows
                    first_of_run = token == row == 0
                    if first_of_run:  # the device accepts RUN at once and waits with its results
                        command.cycles = run.cycles
                    slices.append(_Slice(command, start + token, piece.row + row, first_of_run))
                    delayed.append(command)
            # RUN waits for the one before, most of whose RESULTS come later.
            run.cycles, delayed_cycles = run.cycles + delayed_cycles, run.cycles
            if config.banks == 1:
                commands += delayed
                delayed, delayed_cycles = [], 0
    commands += delayed
    job = Job(session, config, handle, len(codes), commands, slices)
    session.enqueue(*commands)
    return job
