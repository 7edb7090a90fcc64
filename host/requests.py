"""Commands for a device: requests of `tritloom.rtl.spec.requests`, and how long each may take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tritloom.host.session import Command, Session
from tritloom.rtl.spec import requests
from tritloom.rtl.spec.commands import Opcode, Request, unpack_counters
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import engines

__all__ = ["Counters", "Requests", "identity_command", "most_run_cycles"]

COMMIT_CYCLES_PER_BYTE = 2
"""Device cycles that COMMIT may take for each byte of its layer."""
STALL_FACTOR = 4
"""A run with a memory without a bound takes at most this many times as long, by far."""
STALL_TILE_CYCLES = 8
STALL_CYCLES = 1000
"""Least cycles of a tile, and further cycles of a run, with such a memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """The device's counters since power-up.

    Members
    -------
    cycles : clock cycles
    run_cycles : cycles in which a layer was computed
    stall_cycles : of those, cycles in which the engine waited for weights
    packets : packets that arrived whole, executed or not
    bad_packets : packets with a wrong checksum or length
    dropped_packets : packets that were lost because the receive buffer was full
    vector_cycles : cycles in which the vector unit executed a program; 0 without a unit
    vector_stall_cycles : of those, cycles in which an element waited for the core
    """

    cycles: int
    run_cycles: int
    stall_cycles: int
    packets: int
    bad_packets: int
    dropped_packets: int
    vector_cycles: int = 0
    vector_stall_cycles: int = 0


def identity_command(start: int, count: int) -> Command:
    """Read `count` bytes of the identity from byte `start`."""
    return _command(None, requests.read_identity(start, count))


class Requests:
    """Makes commands that suit the device's configuration and the state of its link."""

    def __init__(self, session: Session, config: AcceleratorConfig) -> None:
        self._session = session
        self._config = config

    @property
    def payload_bytes(self) -> int:
        """Most bytes of payload in a packet, at present."""
        return self._session.payload_limit(self._config.max_payload)

    def define(self, index: int, base: int, shape: LayerShape) -> Command:
        """Give layer `index` a place and a shape."""
        return self._one(requests.define_layer(index, base, shape))

    def write(self, index: int, image: bytes | memoryview) -> list[Command]:
        """Write the whole image of layer `index`."""
        opcode = Opcode.WRITE
        # A model has tens of thousands of these commands, so no request is made first.
        return [
            Command(opcode=opcode, index=index, address=address, payload=payload)
            for address, payload in requests.write_parts(self._config, image, self.payload_bytes)
        ]

    def commit(self, index: int, image: bytes | memoryview) -> Command:
        """Close layer `index` if it holds the image."""
        command = self._one(requests.commit_layer(index, image))
        command.cycles = COMMIT_CYCLES_PER_BYTE * len(image)
        return command

    def read(self, index: int, words: int) -> list[Command]:
        """Read the first `words` words of layer `index`."""
        return self._all(requests.read_words(self._config, index, words, self.payload_bytes))

    def put(self, address: int, words: NDArray[np.float32], token: int = 0) -> list[Command]:
        """Write float32 `[n]` to a token's vector memory from word `address`."""
        return self._all(requests.put_words(address, words, self.payload_bytes, token))

    def get(self, address: int, count: int, token: int = 0) -> list[Command]:
        """Read `count` words of a token's vector memory from word `address`."""
        return self._all(requests.get_words(address, count, self.payload_bytes, token))

    def write_steps(self, first: int, image: bytes) -> list[Command]:
        """Write encoded steps to the program memory from step `first`."""
        return self._all(requests.write_steps(image, self.payload_bytes, first))

    def commit_program(self, image: bytes) -> Command:
        """Commit the first steps of the program memory if they are those of the image."""
        command = self._one(requests.commit_program(image))
        command.cycles = COMMIT_CYCLES_PER_BYTE * len(image)
        return command

    def execute(self, step: int, cycles: int, tokens: int = 1) -> Command:
        """Execute the committed program from a step, for the first tokens.

        `cycles` is the most that this takes.
        """
        command = self._one(requests.execute_program(step, last_token=tokens - 1))
        command.cycles = cycles
        return command

    def counters(self) -> Counters:
        """Read the counters, and wait for them."""
        payload = self._session.call(self._one(requests.read_counters())).payload
        return Counters(**unpack_counters(self._config, payload))

    def _one(self, request: Request) -> Command:
        return _command(self._config, request)

    def _all(self, several: Iterable[Request]) -> list[Command]:
        return [_command(self._config, request) for request in several]


def most_run_cycles(config: AcceleratorConfig, shape: LayerShape) -> int:
    """Most cycles that RUN takes.

    If the memory may stall and gives no bound, far more than a run should take.
    """
    cycles = config.most_run_cycles(shape)
    if cycles is not None:
        return cycles
    tile_cycles = max(config.tile_cycles(shape.row_groups), STALL_TILE_CYCLES)
    fill_cycles = engines[config.engine].fill_cycles(config)
    return STALL_FACTOR * shape.tiles * tile_cycles + fill_cycles + STALL_CYCLES


def _command(config: AcceleratorConfig | None, request: Request) -> Command:
    return Command(
        opcode=cast(Opcode, request.opcode),  # requests are made with nothing else
        index=request.index,
        count=request.count,
        address=request.address,
        payload=request.payload,
        activation_bank=request.activation_bank,
        result_bank=request.result_bank,
        response_bytes=requests.response_bytes(config, request),
    )
