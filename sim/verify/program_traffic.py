"""Random commands of the vector unit, as a part of random traffic."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from tritloom.rtl.spec.commands import Opcode, Request, Response, Status
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.requests import commit_program, execute_program, put_words, write_steps
from tritloom.rtl.spec.vector_facts import VECTOR_WORD_BYTES
from tritloom.rtl.spec.vector_program import STEP_BYTES, Operation, Step, encode_program
from tritloom.sim.verify.programs import ProgramMaker, unkept

__all__ = ["PROGRAM_CYCLES", "ProgramTraffic"]

PROGRAM_CYCLES = 600
"""About the most cycles of a random program, but for those of its layers."""
MOST_STEPS = 48
"""Steps that are committed at once."""
LAYER_WORDS = 32
"""A program runs only layers of at most this many words."""
USED_WORDS = 128
"""Words at the end of the vector memory that are used if not all of them are."""
PUT_WORDS = 24
"""Most words of a random PUT or GET."""
FAR = (0.0, -0.0, np.inf, -np.inf, np.nan, 2.0**126, -(2.0**125), 2.0**-126, 1e-40, 3e38)
"""Numbers at the edges of the format and of the contract."""


class _Numbers(Protocol):
    """Makes a number of some bits: mostly from `least` to `most`, else beside them or far away."""

    def __call__(self, least: int, most: int, bits: int) -> int: ...


class ProgramTraffic:
    """PUT, GET, PROGRAM, COMMIT_PROGRAM and EXECUTE, right and wrong.

    Only steps that are right and defined are ever committed.

    Parameters
    ----------
    config : of the device; it has `vector`
    rng : of everything random
    execute : sends a request as the next command; its response
    number : see `_Numbers`
    layers : the committed layers by index
    whole : all words of the vector memory are used; else the last `USED_WORDS`
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        rng: random.Random,
        execute: Callable[[Request], Response],
        number: _Numbers,
        layers: Callable[[], Mapping[int, LayerShape]],
        *,
        whole: bool,
    ) -> None:
        assert config.vector is not None
        self._config, self._vector, self._rng = config, config.vector, rng
        self._execute, self._number, self._layers = execute, number, layers
        first = 0 if whole else max(0, self._vector.words - USED_WORDS)
        self._first = first
        self._maker = ProgramMaker(self._vector, rng, first)
        self._steps: list[Step] = []  # of the last right program
        self._begins: list[int] = []  # where its parts begin; the last one is END alone

    def steps(self) -> list[tuple[int, Callable[[], object]]]:
        """Steps of traffic, each with its weight."""
        return [
            (7, self.put),
            (7, self._get),
            (5, self.commit),
            (4, self._wrong_program),
            (2, self._torn_program),
            (2, self._commit_again),
            (10, self._run_program),
            (2, self._payload_not_taken),
        ]

    def prepare(self) -> None:
        """Write all words that programs can read, and all steps that COMMIT_PROGRAM can."""
        payload = self._config.max_payload
        for token in range(self._config.tokens):
            for request in put_words(self._first, self._words(self._room), payload, token):
                self._execute(request)
        image = bytes(self._vector.steps * STEP_BYTES)
        for request in write_steps(image, payload):
            self._execute(request)

    def right(self, opcode: Opcode) -> Request:
        """A PUT, GET or EXECUTE that succeeds if a program is committed, in banks 0."""
        rng = self._rng
        if opcode == Opcode.EXECUTE:
            return Request(opcode, index=self._token(), address=rng.choice(self._begins))
        count = rng.randint(1, self._most_words())
        address = self._first + rng.randint(0, self._room - count)
        if opcode == Opcode.GET:
            return Request(opcode, index=self._token(), address=address, count=count)
        payload = self._words(count).tobytes()
        return Request(opcode, index=self._token(), address=address, payload=payload)

    def _token(self) -> int:
        """One of the core's tokens."""
        tokens = self._config.tokens
        return self._rng.randrange(tokens) if tokens > 1 else 0

    def end(self) -> Request:
        """An EXECUTE that only ends, so all that it leaves is finite."""
        return Request(Opcode.EXECUTE, address=self._begins[-1])

    def last_run(self, first: int) -> int | None:
        """The last layer that an EXECUTE from step `first` on has run."""
        layer = None
        for step in self._steps[first:]:
            if step.operation == Operation.END:
                break
            if step.operation == Operation.RUN:
                layer = step.a
        return layer

    def put(self) -> None:
        """A PUT; seldom with a part of a word, or with one beyond the memory."""
        words = self._words(self._rng.randint(0, self._most_words()))
        payload = words.tobytes()
        if self._rng.random() < 0.1:
            payload = payload[: self._rng.randrange(len(payload) + 1)]
        address = self._number(self._first, self._vector.words - len(words), 32)
        token = self._token()
        self._execute(Request(Opcode.PUT, index=token, address=address, payload=payload))

    def commit(self) -> None:
        """Write programs and commit them. There may be several, each with its END."""
        steps: list[Step] = []
        begins = []
        shapes = self._shapes()
        for _ in range(self._rng.randint(1, 3)):
            begins.append(len(steps))
            steps += self._maker.program(shapes, MOST_STEPS // 3, PROGRAM_CYCLES)
        begins.append(len(steps) - 1)
        self._steps, self._begins = steps, begins
        image = encode_program(steps)
        self._write(image)
        response = self._execute(commit_program(image))
        assert response.status == Status.OK

    def _get(self) -> None:
        count = self._number(1, self._most_words(), 16)
        address = self._number(self._first, self._vector.words - count, 32)
        # Words before the first one that is used may be unknown.
        address = max(address, self._first)
        self._execute(Request(Opcode.GET, index=self._token(), address=address, count=count))

    def _wrong_program(self) -> None:
        """Write a program with a fault. It is refused, or its checksum is wrong."""
        rng = self._rng
        committed = self._layers()
        open_layers = [index for index in range(256) if index not in committed]
        image = self._maker.wrong(
            self._maker.program(self._shapes(), MOST_STEPS // 3, PROGRAM_CYCLES), open_layers
        )
        self._write(image)
        right = commit_program(image)
        if rng.random() < 0.3:
            right = replace(right, address=right.address ^ 1 << rng.randrange(32))
        response = self._execute(right)
        assert response.status != Status.OK
        if rng.random() < 0.5:
            self._run_program()

    def _torn_program(self) -> None:
        """Write a program of which some bytes are missing or are those of another one."""
        image = encode_program([self._maker.step() for _ in range(self._rng.randint(2, 9))])
        requests = list(write_steps(image, self._rng.randint(STEP_BYTES, 3 * STEP_BYTES)))
        for request in self._rng.sample(requests, len(requests) - 1):
            self._execute(request)
        cut = self._rng.randrange(len(image))
        address = self._number(0, self._vector.steps - cut // STEP_BYTES, 32)
        self._execute(Request(Opcode.PROGRAM, address=address, payload=image[:cut]))
        checksum = zlib.crc32(image)
        count = self._number(1, MOST_STEPS, 16)
        self._execute(Request(Opcode.COMMIT_PROGRAM, count=count, address=checksum))

    def _commit_again(self) -> None:
        """Commit the last right program, which may have been written over."""
        if self._steps:
            self._execute(commit_program(encode_program(self._steps)))

    def _run_program(self) -> None:
        """An EXECUTE from where a program begins; seldom from elsewhere."""
        rng = self._rng
        if not self._begins or rng.random() < 0.1:
            self.commit()
        address = rng.choice(self._begins)
        if rng.random() < 0.2:
            address = self._number(0, len(self._steps) - 1, 32)
        activations, results = rng.getrandbits(1), rng.getrandbits(1)
        self._execute(execute_program(address, activations, results, self._token()))
        if rng.random() < 0.5:
            self._get()

    def _payload_not_taken(self) -> None:
        opcode = self._rng.choice((Opcode.GET, Opcode.COMMIT_PROGRAM, Opcode.EXECUTE))
        payload = self._rng.randbytes(self._rng.randint(1, self._config.max_payload))
        self._execute(Request(opcode, count=1, payload=payload))

    def _write(self, image: bytes) -> None:
        """Write a program from step 0 on, with noise in the bits that the device does not store."""
        size = self._rng.randint(STEP_BYTES, self._config.max_payload)
        for request in write_steps(unkept(self._vector, image, self._rng), size):
            self._execute(request)

    def _shapes(self) -> dict[int, tuple[int, int]]:
        """Results and codes of each layer that a program may run; seldom too many, or too few."""
        shapes = {}
        for index, shape in self._layers().items():
            if shape.words > LAYER_WORDS:
                continue
            results = shape.row_groups * self._config.rows
            codes = shape.tiles * self._config.lanes
            if self._rng.random() < 0.5:
                results = self._rng.randint(0, results + 2)
                codes = self._rng.randint(max(0, codes - self._config.lanes), codes + 2)
            shapes[index] = (results, codes)
        return shapes

    def _words(self, count: int) -> Any:
        """float32 `[count]`: numbers around 1, and seldom some at the edges of the format."""
        rng = np.random.default_rng(self._rng.getrandbits(32))
        words = (rng.standard_normal(count) * np.exp2(rng.uniform(-3, 3, count))).astype("<f4")
        if self._rng.random() < 0.1:
            far = rng.choice(np.array(FAR, "<f4"), count)
            words = np.where(rng.random(count) < 0.2, far, words)
        return words.astype("<f4")

    @property
    def _room(self) -> int:
        """Words that are used."""
        return self._vector.words - self._first

    def _most_words(self) -> int:
        return min(PUT_WORDS, self._room, self._config.max_payload // VECTOR_WORD_BYTES)
