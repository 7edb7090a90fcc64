"""How many cycles a device takes for a product or for loading, its link included.

The schedule of the packets: a packet arrives, the command processor executes it, its response
leaves. Each of the three stages takes one packet at a time, and a packet is sent only when the
window has room. On the packet streams the schedule equals the simulated FPGA cycle for cycle, which
a test holds. What a command costs in the command processor stands in `front_end_cycles` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tritloom.rtl.spec import requests
from tritloom.rtl.spec.commands import (
    COUNTERS,
    COUNTERS_STRUCT,
    HEADER_BYTES,
    LAYER,
    OVERHEAD_BYTES,
    Opcode,
    Request,
)
from tritloom.rtl.spec.config import PARTIAL_SUM_READ_CYCLES, AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape

__all__ = [
    "CommandCycles",
    "Exchange",
    "Rectangle",
    "exchange_of",
    "front_end_cycles",
    "loading_cycles",
    "product_cycles",
    "schedule_cycles",
]

DECIDE_CYCLES = 4
"""From a whole header to the command itself: its order, two states of checks, the choice."""
RESPOND_CYCLES = 2 + HEADER_BYTES
"""The response's header, byte by byte, a cycle before it and one that hands over the response."""
STORE_CYCLES = 2
"""A word that came byte by byte is complete, and is stored."""
END_CYCLES = 1
"""It shows that no word is left."""
ASK_CYCLES = 1
"""The weight memory takes the range of words."""
START_CYCLES = 1
"""The core takes the layer."""
EXTENT_CYCLES = 1
"""It shows that all tiles of a definition are added up; each takes another one."""
SEND_CYCLES = 1
"""A word is put into the register from which it leaves byte by byte."""
FETCH_CYCLES = 5
"""From a row group's number to its totals, beside the cycles by which the engine is late."""
ARRIVE_CYCLES = 3
"""From a packet's last byte to its first byte in the command processor."""
CHECK_CYCLES = 1
"""After a packet's last byte, before the next packet's first."""
LEAVE_CYCLES = 2
"""From the cycle that hands over a response to its first byte."""
FREE_CYCLES = 1
"""After a response's last byte, to hand over the next response."""


def front_end_cycles(config: AcceleratorConfig, request: Request, words: int = 0) -> int:
    """Cycles of the command processor for a command that has all its bytes, without the engine's.

    From the first byte of its header to the cycle that hands over its response; the next command
    begins after that. `tritloom.rtl.control.processor` has the states in this order.

    Parameters
    ----------
    config : of the device
    request : the command
    words : weight words of the layer, for COMMIT

    Raises
    ------
    ConfigError : a command that no product and no loading needs
    """
    size = len(request.payload)
    cycles = HEADER_BYTES + DECIDE_CYCLES + RESPOND_CYCLES
    match request.opcode:
        case Opcode.LOAD:
            return cycles + size // config.fill * (config.fill + STORE_CYCLES) + END_CYCLES
        case Opcode.WRITE:
            words = size // config.word_bytes
            return cycles + words * (config.word_bytes + STORE_CYCLES) + END_CYCLES
        case Opcode.DEFINE:
            _, tiles, _ = LAYER.unpack(request.payload)
            return cycles + size + STORE_CYCLES + EXTENT_CYCLES + int(tiles)
        case Opcode.COMMIT:
            wait = (config.memory.latency(config) or 1) - 1
            each = SEND_CYCLES + config.word_bytes  # the bytes go into the checksum
            return cycles + ASK_CYCLES + wait + words * each + END_CYCLES
        case Opcode.RUN:
            return cycles + ASK_CYCLES + START_CYCLES
        case Opcode.RESULTS:
            groups = -(-request.count // config.rows)
            late = max(0, config.engine_latency - PARTIAL_SUM_READ_CYCLES)
            each = SEND_CYCLES + FETCH_CYCLES + late
            return cycles + groups * each + request.count * config.acc_bytes + END_CYCLES
        case Opcode.COUNTERS:
            return cycles + len(COUNTERS) * SEND_CYCLES + COUNTERS_STRUCT.size + END_CYCLES
    raise ConfigError(f"no formula gives the cycles of opcode {request.opcode}")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A command and its response: bytes of the packets, cycles of the command processor, of RUN."""

    bytes_in: int
    bytes_out: int
    front_end: int
    engine: int = 0


def schedule_cycles(config: AcceleratorConfig, exchanges: Sequence[Exchange]) -> int:
    """Cycles from the first byte of the first command to the last byte of the last response.

    The device is idle before. The host takes no time: each command is sent as soon as the link is
    free and the window has room.
    """
    link, each = config.link, config.link.cycles_per_byte(config)
    link_free = processed = 0
    left: list[int] = []  # when each response has left
    for number, exchange in enumerate(exchanges):
        room = left[number - config.window] if number >= config.window else 0
        arrived = max(link_free, room) + each * link.framed_bytes(exchange.bytes_in)
        link_free = arrived + CHECK_CYCLES
        begun = max(arrived + ARRIVE_CYCLES, processed)
        # The cycle that hands over a response comes after the one before has left.
        done = begun + exchange.front_end + exchange.engine
        processed = max(done, left[-1] + FREE_CYCLES) if left else done
        left.append(processed + LEAVE_CYCLES + each * link.framed_bytes(exchange.bytes_out))
    return left[-1]


def exchange_of(
    config: AcceleratorConfig, request: Request, *, engine: int = 0, words: int = 0
) -> Exchange:
    """What a request and its response take on a device.

    `engine` is RUN's own cycles, `words` the weight words of the layer for COMMIT.
    """
    return Exchange(
        OVERHEAD_BYTES + len(request.payload),
        OVERHEAD_BYTES + requests.response_bytes(config, request),
        front_end_cycles(config, request, words),
        engine,
    )


Rectangle = tuple[int, int, int, int]
"""First row, rows, first column, columns; as `cut_layer` gives them."""


def _product(
    config: AcceleratorConfig, pieces: Iterable[Rectangle], tokens: int
) -> Iterator[Exchange]:
    """The commands of a product, in the driver's order (`tritloom.host.job`)."""
    for start in range(0, tokens, config.tokens):
        batch = range(min(config.tokens, tokens - start))
        loaded_column = None
        for _, rows, column, columns in pieces:
            if column != loaded_column:
                loaded_column = column
                codes = np.zeros(columns, np.int8)
                load = [
                    exchange_of(config, request)
                    for request in requests.load_activations(config, 0, codes, config.max_payload)
                ]
                yield from load * len(batch)
            cycles = _run_cycles(config, LayerShape.of(config, rows, columns))
            yield exchange_of(config, requests.run_layer(0, len(batch)), engine=cycles)
            results = requests.read_results(config, 0, rows, config.max_payload)
            yield from [exchange_of(config, request) for request in results] * len(batch)


def _writing(config: AcceleratorConfig, shape: LayerShape) -> Iterator[Exchange]:
    """The commands that load a piece of a layer, in the driver's order (`tritloom.host.handle`)."""
    image = bytes(shape.words * config.word_bytes)
    yield exchange_of(config, requests.define_layer(0, 0, shape))
    for request in requests.write_words(config, 0, image, config.max_payload):
        yield exchange_of(config, request)
    yield exchange_of(config, requests.commit_layer(0, image), words=shape.words)


def _run_cycles(config: AcceleratorConfig, shape: LayerShape) -> int:
    cycles = config.most_run_cycles(shape)
    if cycles is None:
        raise ConfigError(f"no formula gives the cycles with {config.memory} memory")
    return cycles


@dataclass(frozen=True, slots=True)
class CommandCycles:
    """Cycles and bytes of some commands; `cycles` is from the first byte to the last."""

    cycles: int
    link_in: int
    link_out: int
    front_end: int
    engine: int
    bytes_in: int
    bytes_out: int
    commands: int

    @classmethod
    def of(cls, config: AcceleratorConfig, exchanges: Sequence[Exchange]) -> CommandCycles:
        link, each = config.link, config.link.cycles_per_byte(config)
        return cls(
            schedule_cycles(config, exchanges),
            each * sum(link.framed_bytes(exchange.bytes_in) for exchange in exchanges),
            each * sum(link.framed_bytes(exchange.bytes_out) for exchange in exchanges),
            sum(exchange.front_end for exchange in exchanges),
            sum(exchange.engine for exchange in exchanges),
            sum(exchange.bytes_in for exchange in exchanges),
            sum(exchange.bytes_out for exchange in exchanges),
            len(exchanges),
        )


@lru_cache(maxsize=4096)
def product_cycles(
    config: AcceleratorConfig, pieces: tuple[Rectangle, ...], tokens: int
) -> CommandCycles:
    """A product of a layer in these pieces."""
    return CommandCycles.of(config, list(_product(config, pieces, tokens)))


@lru_cache(maxsize=4096)
def loading_cycles(config: AcceleratorConfig, shape: LayerShape) -> CommandCycles:
    """The loading of a piece; the driver waits for each piece before it sends the next one."""
    return CommandCycles.of(config, list(_writing(config, shape)))
