"""Programs on a device's vector unit: where they lie, how they get there, and how they run.

The device commits its program memory as one whole, and forgets the commit when a layer that a step
names is defined again. So the driver compares what is committed with what must be before each
execution, and commits again if they differ. Steps of programs that were unloaded, or whose layers
were, become END.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tritloom.host.allocator import Allocator
from tritloom.host.command import Command
from tritloom.host.execution import Execution, ProgramStats, submit_routine
from tritloom.host.handle import COMMIT_TRIES, Handle
from tritloom.host.program import Program
from tritloom.host.requests import Requests, most_run_cycles
from tritloom.host.session import Session
from tritloom.rtl.spec.commands import Status
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import CapacityError, DeviceError, InputError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.vector_cycles import program_cycles
from tritloom.rtl.spec.vector_facts import WRAP_WORDS, VectorConfig
from tritloom.rtl.spec.vector_program import STEP_BYTES, Operation, Step, encode_program

__all__ = ["ProgramHandle", "Vectors"]

END = encode_program([Step(operation=Operation.END)])


class ProgramHandle:
    """A program on a device, from `Device.load_program` to `unload`.

    Members
    -------
    program : what was loaded
    layers : handles of the layers that its steps name
    """

    def __init__(self, vectors: Vectors, program: Program, layers: tuple[Handle, ...]) -> None:
        self.program = program
        self.layers = layers
        self._vectors = vectors
        self._stats: dict[str, ProgramStats] = {}

    @property
    def stats(self) -> ProgramStats:
        """Sum over the executions whose result was asked for."""
        return sum(list(self._stats.values()), ProgramStats())

    def stats_of(self, routine: str) -> ProgramStats:
        """The same for one routine."""
        return self._stats.get(routine, ProgramStats())

    def count(self, routine: str, took: ProgramStats) -> None:
        """Add what some executions took."""
        self._stats[routine] = self.stats_of(routine) + took

    def submit(
        self, routine: str, inputs: Mapping[str, ArrayLike], outputs: Sequence[str]
    ) -> Execution:
        """Start a routine; `Execution.result` waits for its outputs.

        The inputs of a token are written, the routine runs, its outputs are read. A core of several
        `tokens` computes so many of them together, each in vector words of its own, and a single
        token in those of the first. Vectors that are neither inputs nor outputs keep their words
        from execution to execution.

        Parameters
        ----------
        routine : its name in the program
        inputs : float `[tokens, count]` of each vector that is written first, by name
        outputs : names of the vectors that are read

        Raises
        ------
        NotFiniteError : a number that is not finite, or 2^126 or more
        InputError : an unknown name, another shape or dtype, or a program that was unloaded or
            whose layers were
        DeviceError : the device does not keep the program, or the session ended
        """
        return self._vectors.submit(self, routine, inputs, outputs)

    def run(
        self, routine: str, inputs: Mapping[str, ArrayLike], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """`submit`, and wait: float32 `[tokens, count]` of each output, by name."""
        return self.submit(routine, inputs, outputs).result()

    def unload(self) -> None:
        """Free its vector words and steps. The layers stay. A second call does nothing."""
        self._vectors.unload(self)


@dataclass(slots=True)
class _Loaded:
    """Where a program lies: its first vector word and step, and its encoded steps."""

    base: int
    first: int
    image: bytes
    cycles: dict[str, int]  # at most, of each routine


class Vectors:
    """The vector unit of a device: which programs it has, and where.

    Parameters
    ----------
    session, config : of the device, whose configuration has a vector unit
    allocator : of the device; layers that it no longer has make a program useless
    """

    def __init__(self, session: Session, config: AcceleratorConfig, allocator: Allocator) -> None:
        self._session = session
        self._config = config
        self._allocator = allocator
        self._loaded: dict[ProgramHandle, _Loaded] = {}
        self._written = bytearray()  # the first steps of the program memory
        self._committed = b""

    @property
    def free_words(self) -> int:
        """Vector words that no program has."""
        return sum(count for _, count in self._free_words())

    @property
    def free_steps(self) -> int:
        """Steps of the program memory that no program has."""
        return sum(count for _, count in self._free_steps())

    def load(self, program: Program, layers: Sequence[Handle]) -> ProgramHandle:
        """Write a program's constants, and commit its steps; see `Device.load_program`."""
        with self._session.lock:
            self._session.check()
            unit = self._config.vector
            if unit is None:
                raise InputError(
                    f"{self._session.name} has no vector unit; build it with vector, or compute "
                    "on the host"
                )
            program.check(unit)
            indices = self._indices(program, layers)
            base = _place(self._free_words(), program.words, WRAP_WORDS, "vector words", unit.words)
            first = _place(self._free_steps(), len(program.steps), 1, "steps", unit.steps)
            handle = ProgramHandle(self, program, tuple(layers))
            loaded = _Loaded(
                base=base,
                first=first,
                image=encode_program(program.moved(base, indices)),
                cycles={name: self._cycles(program, name, unit) for name in program.routines},
            )
            requests = Requests(self._session, self._config)
            constants_at = base + program.constants_at
            puts = [
                command
                for token in range(self._config.tokens)
                for command in requests.put(constants_at, program.constants, token)
            ]
            self._loaded[handle] = loaded
            try:
                self._session.enqueue(*puts)
                for command in puts:
                    self._session.require(command)
                self._commit()
            except BaseException:
                self._loaded.pop(handle, None)
                raise
            return handle

    def unload(self, handle: ProgramHandle) -> None:
        """Free what a program has."""
        with self._session.lock:
            self._loaded.pop(handle, None)

    def submit(
        self,
        handle: ProgramHandle,
        routine: str,
        inputs: Mapping[str, ArrayLike],
        outputs: Sequence[str],
    ) -> Execution:
        """Enqueue the commands of a routine; see `ProgramHandle.submit`."""
        with self._session.lock:
            self._session.check()
            loaded = self._loaded.get(handle)
            if loaded is None:
                raise InputError("the program was unloaded; load it again")
            if not self._is_live(handle):
                raise InputError("a layer of the program was unloaded; load both again")
            program = handle.program
            if routine not in program.routines:
                names = ", ".join(program.routines)
                raise InputError(f"the program has no routine {routine!r}; it has {names}")
            self._commit()
            return submit_routine(
                self._session,
                Requests(self._session, self._config),
                program,
                routine,
                inputs,
                outputs,
                base=loaded.base,
                first=loaded.first + program.routines[routine].first,
                cycles=loaded.cycles[routine],
                at_once=self._config.tokens,
                count=lambda took: handle.count(routine, took),
            )

    def _indices(self, program: Program, layers: Sequence[Handle]) -> list[int]:
        """The device's numbers of a program's layers."""
        if len(layers) != len(program.layers):
            raise InputError(f"the program has {len(program.layers)} layers, not {len(layers)}")
        indices = []
        for number, (layer, shape) in enumerate(zip(layers, program.layers, strict=True)):
            if not isinstance(layer, Handle):
                raise InputError(
                    f"layers must be what load returned, not {type(layer).__name__} ({number})"
                )
            pieces = layer.pieces_on(self._session)
            if (layer.out_features, layer.in_features) != shape:
                raise InputError(
                    f"layer {number} of the program must be {shape[0]} × {shape[1]}, "
                    f"not {layer.out_features} × {layer.in_features}"
                )
            if len(pieces) > 1:
                raise InputError(
                    f"layer {number} of the program lies in {len(pieces)} pieces, a program needs "
                    "it in one; build the device with greater feature limits"
                )
            indices.append(pieces[0].index)
        return indices

    def _cycles(self, program: Program, routine: str, unit: VectorConfig) -> int:
        """Most cycles that a routine takes."""
        steps = program.steps_of(routine)
        shapes = [program.layers[step.a] for step in steps if step.operation == Operation.RUN]
        return program_cycles(steps, unit) + sum(
            most_run_cycles(self._config, LayerShape.of(self._config, *shape)) for shape in shapes
        )

    def _is_live(self, handle: ProgramHandle) -> bool:
        """Whether the device still has the layers of a program."""
        return all(self._allocator.pieces(layer) is not None for layer in handle.layers)

    def _free_words(self) -> list[tuple[int, int]]:
        unit = self._config.vector
        used = [(each.base, handle.program.words) for handle, each in self._loaded.items()]
        return _free(used, 0 if unit is None else unit.words)

    def _free_steps(self) -> list[tuple[int, int]]:
        used = [(each.first, len(each.image) // STEP_BYTES) for each in self._loaded.values()]
        unit = self._config.vector
        return _free(used, 0 if unit is None else unit.steps)

    def _commit(self) -> None:
        """Let the device commit the steps of all programs that it can execute."""
        live = [each for handle, each in self._loaded.items() if self._is_live(handle)]
        end = max((each.first * STEP_BYTES + len(each.image) for each in live), default=0)
        wanted = bytearray(END * (end // STEP_BYTES))
        for each in live:
            start = each.first * STEP_BYTES
            wanted[start : start + len(each.image)] = each.image
        image = bytes(wanted)
        if image == self._committed:
            return
        self._committed = b""
        for _ in range(COMMIT_TRIES):
            if self._commit_once(image):
                self._committed = image
                return
        raise DeviceError(
            f"{self._session.name} does not keep the steps of a program: wrong checksum "
            f"{COMMIT_TRIES} times; run its self-test"
        )

    def _commit_once(self, image: bytes) -> bool:
        """Write what differs, and commit; False if the device has another checksum."""
        requests = Requests(self._session, self._config)
        writes: list[Command] = []
        for first, count in _different(self._written, image):
            part = image[first * STEP_BYTES : (first + count) * STEP_BYTES]
            writes += requests.write_steps(first, part)
        rest = bytes(self._written[len(image) :])
        self._written.clear()  # unknown until the device has the same checksum
        commit = requests.commit_program(image)
        self._session.enqueue(*writes, commit)
        for command in writes:
            self._session.require(command)
        if self._session.wait(commit).status == Status.BAD_CHECKSUM:
            return False
        self._session.require(commit)
        self._written[:] = image + rest
        return True


def _different(written: bytearray, image: bytes) -> list[tuple[int, int]]:
    """First step and number of steps of each run of steps that are not written yet."""
    runs: list[tuple[int, int]] = []
    for step in range(len(image) // STEP_BYTES):
        place = slice(step * STEP_BYTES, (step + 1) * STEP_BYTES)
        if written[place] == image[place]:
            continue
        if runs and sum(runs[-1]) == step:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((step, 1))
    return runs


def _free(used: list[tuple[int, int]], total: int) -> list[tuple[int, int]]:
    """First and number of each run of free places, given those that are used."""
    runs = []
    start = 0
    for first, count in [*sorted(used), (total, 0)]:
        if first > start:
            runs.append((start, first - start))
        start = first + count
    return runs


def _place(runs: list[tuple[int, int]], count: int, align: int, what: str, total: int) -> int:
    """The first free place for `count` of something; `CapacityError` if there is none."""
    for first, free in runs:
        start = -(-first // align) * align
        if start + count <= first + free:
            return start
    free = sum(each for _, each in runs)
    raise CapacityError(
        f"the program needs {count:,} {what}, free are {free:,} of {total:,}; unload programs, or "
        "compute on the host"
    )
