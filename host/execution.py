"""Executions of a program's routines on a device: their commands, checks and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tritloom.host.command import Command
from tritloom.host.program import Program, Vector, leaves_unit
from tritloom.host.requests import Requests
from tritloom.host.session import Session
from tritloom.rtl.spec.commands import Opcode, Status
from tritloom.rtl.spec.errors import InputError, NotFiniteError
from tritloom.rtl.spec.numerics import to_array

__all__ = ["Execution", "ProgramStats", "joined_vectors", "submit_routine"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramStats:
    """What executions of routines took. `+` adds two of them, `-` subtracts one.

    Members
    -------
    executions : tokens that were computed; an EXECUTE computes as many as the core has, at most
    cycles : device cycles of the executions, those of the layers included
    bytes_tx, bytes_rx : bytes of whole packets to and from the device, repeated ones included
    """

    executions: int = 0
    cycles: int = 0
    bytes_tx: int = 0
    bytes_rx: int = 0

    def __add__(self, other: ProgramStats) -> ProgramStats:
        return ProgramStats(
            executions=self.executions + other.executions,
            cycles=self.cycles + other.cycles,
            bytes_tx=self.bytes_tx + other.bytes_tx,
            bytes_rx=self.bytes_rx + other.bytes_rx,
        )

    def __sub__(self, other: ProgramStats) -> ProgramStats:
        return ProgramStats(
            executions=self.executions - other.executions,
            cycles=self.cycles - other.cycles,
            bytes_tx=self.bytes_tx - other.bytes_tx,
            bytes_rx=self.bytes_rx - other.bytes_rx,
        )


class Execution:
    """Tokens that a routine computes; `result` waits for them."""

    def __init__(
        self,
        session: Session,
        routine: str,
        commands: list[list[Command]],
        tokens: list[int],
        outputs: Sequence[tuple[str, Vector]],
        count: Callable[[ProgramStats], None],
    ) -> None:
        self._session = session
        self._routine = routine
        self._commands = commands  # of the tokens of each EXECUTE; the last ones are GET
        self._tokens = tokens
        self._outputs = outputs
        self._count = count
        self._result: dict[str, F32] | None = None
        self._error: str | None = None

    def result(self) -> dict[str, F32]:
        """Wait for the outputs, float32 `[tokens, count]` by name; the same arrays in each call.

        Raises
        ------
        NotFiniteError : a number was not finite, or 2^126 or more; the device can still be used
        DeviceError : the device refused a command, or the session ended before
        """
        with self._session.lock:
            if self._result is None and self._error is None:
                self._wait()
        if self._error is not None:
            raise NotFiniteError(self._error)
        assert self._result is not None
        return self._result

    def _wait(self) -> None:
        error = None
        took = ProgramStats()
        words: list[F32] = []
        first = 0
        for tokens, commands in zip(self._tokens, self._commands, strict=True):
            which = f"token {first}" if tokens == 1 else f"tokens {first} to {first + tokens - 1}"
            first += tokens
            read: list[bytes] = []
            cycles = 0
            for command in commands:
                response = self._session.wait(command)
                if response.status == Status.NOT_FINITE:
                    error = error or (
                        f"routine {self._routine}, {which}: a number was not finite or 2^126 "
                        "or more; compute this input on the host"
                    )
                else:
                    self._session.require(command)
                if command.opcode == Opcode.GET:
                    cycles = response.value
                    read.append(response.payload)
            took += ProgramStats(
                executions=tokens,
                cycles=cycles,
                bytes_tx=sum(command.bytes_tx for command in commands),
                bytes_rx=sum(command.bytes_rx for command in commands),
            )
            words.append(np.frombuffer(b"".join(read), "<f4").reshape(tokens, -1))
        self._count(took)
        self._commands = []
        self._error = error
        if error is None:
            self._result = self._split(np.concatenate(words).astype(np.float32))

    def _split(self, words: F32) -> dict[str, F32]:
        """The words of each output."""
        result = {}
        start = 0
        for name, vector in self._outputs:
            result[name] = words[:, start : start + vector.count].copy()
            start += vector.count
        return result


def submit_routine(
    session: Session,
    requests: Requests,
    program: Program,
    routine: str,
    inputs: Mapping[str, ArrayLike],
    outputs: Sequence[str],
    *,
    base: int,
    first: int,
    cycles: int,
    at_once: int,
    count: Callable[[ProgramStats], None],
) -> Execution:
    """Enqueue the commands of the tokens of each EXECUTE: their PUT, EXECUTE, their GET.

    Parameters
    ----------
    routine, inputs, outputs : as in `ProgramHandle.submit`
    base, first : the program's first vector word, and the first step of the routine
    cycles : most cycles that the routine takes for one token
    at_once : most tokens of an EXECUTE
    count : receives what the executions took
    """
    read = sorted(
        ((name, _vector(program, name)) for name in outputs), key=lambda each: each[1].address
    )
    arrays = _checked(program, inputs)
    commands, counts = [], []
    total = max(map(len, arrays.values()), default=1)
    for start in range(0, total, at_once):
        tokens = range(min(at_once, total - start))
        some = [
            command
            for token in tokens
            for address, words in _joined(
                [(_vector(program, name), x[start + token]) for name, x in arrays.items()]
            )
            for command in requests.put(base + address, words, token)
        ]
        some.append(requests.execute(first, cycles * len(tokens), len(tokens)))
        gets = [
            command
            for token in tokens
            for address, words in _runs([vector for _, vector in read])
            for command in requests.get(base + address, words, token)
        ]
        if gets:  # the device accepts EXECUTE at once, and waits here
            gets[0].cycles = cycles * len(tokens)
        commands.append(some + gets)
        counts.append(len(tokens))
    execution = Execution(session, routine, commands, counts, read, count)
    session.enqueue(*(command for some in commands for command in some))
    return execution


def _vector(program: Program, name: str) -> Vector:
    if name not in program.vectors:
        names = ", ".join(program.vectors)
        raise InputError(f"the program has no vector {name!r}; it has {names}")
    return program.vectors[name]


def _checked(program: Program, inputs: Mapping[str, ArrayLike]) -> dict[str, F32]:
    """The inputs as float32 `[tokens, count]` that the unit can compute with."""
    arrays: dict[str, F32] = {}
    for name, values in inputs.items():
        array, count = to_array(values, name), _vector(program, name).count
        if array.dtype.kind != "f":
            raise InputError(f"{name} must be float32, not {array.dtype}; use .astype(np.float32)")
        if array.ndim != 2 or array.shape[1] != count or not len(array):
            raise InputError(f"{name} must have shape [tokens, {count}], not {array.shape}")
        with np.errstate(over="ignore"):
            arrays[name] = array.astype(np.float32)
        wrong = leaves_unit(arrays[name])
        if wrong.any():
            token, place = np.argwhere(wrong)[0]
            raise NotFiniteError(
                f"{name} must be finite and below 2^126, not {array[token, place]:g} at "
                f"token {token}, position {place}; compute this input on the host"
            )
    tokens = {name: len(array) for name, array in arrays.items()}
    if len(set(tokens.values())) > 1:
        raise InputError(f"all inputs must have the same number of tokens, not {tokens}")
    runs = sorted((_vector(program, name).address, name) for name in arrays)
    for (_, one), (address, other) in pairwise(runs):
        vector = _vector(program, one)
        if vector.address + vector.count > address:
            raise InputError(f"inputs {one} and {other} lie in the same words; give one of them")
    return arrays


def _joined(written: list[tuple[Vector, F32]]) -> list[tuple[int, F32]]:
    """Address and words of each PUT: inputs that are neighbours are written together."""
    rows = sorted(written, key=lambda each: each[0].address)
    joined: list[tuple[int, F32]] = []
    for vector, words in rows:
        if joined and joined[-1][0] + len(joined[-1][1]) == vector.address:
            joined[-1] = (joined[-1][0], np.concatenate([joined[-1][1], words]))
        else:
            joined.append((vector.address, words))
    return joined


def joined_vectors(program: Program, names: Sequence[str]) -> list[tuple[int, int]]:
    """Address and number of words of each PUT or GET of these vectors, packets apart."""
    return _runs(sorted((_vector(program, name) for name in names), key=lambda each: each.address))


def _runs(vectors: Sequence[Vector]) -> list[tuple[int, int]]:
    """Address and number of words of each GET: outputs that are neighbours are read together."""
    runs: list[tuple[int, int]] = []
    for vector in vectors:
        if runs and sum(runs[-1]) == vector.address:
            runs[-1] = (runs[-1][0], runs[-1][1] + vector.count)
        else:
            runs.append((vector.address, vector.count))
    return runs
