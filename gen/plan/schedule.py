"""How many cycles a device takes for a product or for loading, its link included.

The commands are those of the driver, in its order. `tritloom.gen.plan.stages` says when each stage
of the device works on each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tritloom.gen.plan.stages import (
    FETCH_CYCLES,
    GET_CYCLES,
    GET_FETCH_CYCLES,
    ONE_BANK_FETCH_CYCLES,
    RUN_CYCLES,
    Copy,
    Exchange,
    schedule_cycles,
)
from tritloom.rtl.spec import requests
from tritloom.rtl.spec.commands import (
    COUNTER_BYTES,
    LAYER,
    OVERHEAD_BYTES,
    Opcode,
    Request,
    counters_of,
)
from tritloom.rtl.spec.config import PARTIAL_SUM_READ_CYCLES, AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES
from tritloom.rtl.spec.vector_facts import VECTOR_WORD_BYTES

__all__ = [
    "CommandCycles",
    "Rectangle",
    "exchange_of",
    "loading_cycles",
    "product_cycles",
    "run_cycles",
]

STORE_CYCLES = 1
"""The last word of a payload is stored, after its last byte."""
END_CYCLES = 1
"""It shows that no word is left, or that all tiles of a definition are added up."""


def exchange_of(
    config: AcceleratorConfig, request: Request, *, engine: int = 0, words: int = 0
) -> Exchange:
    """What a request and its response take on a device.

    Parameters
    ----------
    config : of the device
    request : the command
    engine : RUN's own cycles, or those of the program of EXECUTE
    words : weight words of the layer, for COMMIT

    Raises
    ------
    ConfigError : a command that no product and no loading needs
    """
    return Exchange(
        request.opcode,
        OVERHEAD_BYTES + len(request.payload),
        OVERHEAD_BYTES + requests.response_bytes(config, request),
        _store_cycles(config, request),
        _copy(config, request, words),
        engine,
        request.activation_bank,
        request.result_bank,
    )


def _store_cycles(config: AcceleratorConfig, request: Request) -> int:
    """Cycles of the acceptor from the choice of a command to that of its response."""
    size = len(request.payload)
    match request.opcode:
        case Opcode.LOAD | Opcode.PUT | Opcode.SCALES:
            return size + STORE_CYCLES + END_CYCLES
        case Opcode.WRITE:
            # The address needs a cycle after a word, in which a word of one byte waits.
            waits = size - 1 if config.word_bytes == 1 else 0
            return size + waits + STORE_CYCLES + END_CYCLES
        case Opcode.DEFINE:
            _, tiles, _ = LAYER.unpack(request.payload)
            return size + STORE_CYCLES + int(tiles) + END_CYCLES
        case Opcode.RUN:
            return RUN_CYCLES
        case Opcode.COMMIT | Opcode.RESULTS | Opcode.COUNTERS | Opcode.GET | Opcode.EXECUTE:
            return 0
    raise ConfigError(f"no formula gives the cycles of opcode {request.opcode}")


def _copy(config: AcceleratorConfig, request: Request, words: int) -> Copy | None:
    """What the responder copies for a command."""
    match request.opcode:
        case Opcode.COMMIT:
            return Copy(words, config.word_bytes, config.word_bytes)
        case Opcode.COUNTERS:
            return Copy(len(counters_of(config)), COUNTER_BYTES, COUNTER_BYTES)
        case Opcode.GET:
            size = VECTOR_WORD_BYTES
            return Copy(request.count, size, size, GET_FETCH_CYCLES, GET_CYCLES)
        case Opcode.RESULTS:
            if config.scale is not None:
                first = FETCH_CYCLES + config.scale.unit.float_cycles
                return Copy(request.count, FLOAT_BYTES, FLOAT_BYTES, first)
            groups = -(-request.count // config.rows)
            size = config.rows * config.acc_bytes
            last = request.count * config.acc_bytes - (groups - 1) * size
            if config.banks > 1:
                return Copy(groups, size, last, FETCH_CYCLES)
            # A row group is fetched when the totals of the one before are taken.
            late = max(0, config.engine_latency - PARTIAL_SUM_READ_CYCLES)
            fetch = ONE_BANK_FETCH_CYCLES + late
            return Copy(groups, size, last, fetch, fetch + 1)
    return None


Rectangle = tuple[int, int, int, int]
"""First row, rows, first column, columns; as `cut_layer` gives them."""


def _product(
    config: AcceleratorConfig, pieces: Iterable[Rectangle], tokens: int, group: int = 0
) -> Iterator[Exchange]:
    """The commands of a product, in the driver's order (`tritloom.host.job`)."""
    size = config.max_payload
    activations = results = 0  # the banks
    delayed: list[Exchange] = []  # RESULTS of the last RUN
    for start in range(0, tokens, config.tokens):
        batch = range(min(config.tokens, tokens - start))
        loaded_column = None
        for _, rows, column, columns in pieces:
            if column != loaded_column:
                loaded_column = column
                activations = (activations + 1) % config.banks
                scales = requests.count_scales(config, LayerShape.of(config, rows, columns, group))
                load = [
                    *requests.load_activations(
                        config, 0, np.zeros(columns, np.int8), size, activations, group
                    ),
                    *requests.load_scales(0, np.zeros(scales, np.float32), size, activations),
                ]
                yield from [exchange_of(config, request) for request in load] * len(batch)
            results = (results + 1) % config.banks
            run = requests.run_layer(0, len(batch), activations, results)
            shape = LayerShape.of(config, rows, columns, group)
            cycles = run_cycles(config, shape)
            yield from delayed[:1]
            yield exchange_of(config, run, engine=cycles)
            yield from delayed[1:]
            before = (shape.groups - 1) * shape.row_groups * config.rows
            sums = rows if config.scale is not None else before + rows
            read = requests.read_results(config, 0, sums, size, results)
            delayed = [exchange_of(config, request) for request in read] * len(batch)
            if config.banks == 1:
                yield from delayed
                delayed = []
    yield from delayed


def _writing(config: AcceleratorConfig, shape: LayerShape) -> Iterator[Exchange]:
    """The commands that load a piece of a layer, in the driver's order (`tritloom.host.handle`)."""
    image = bytes(shape.words * config.word_bytes)
    yield exchange_of(config, requests.define_layer(0, 0, shape))
    for request in requests.write_words(config, 0, image, config.max_payload):
        yield exchange_of(config, request)
    yield exchange_of(config, requests.commit_layer(0, image), words=shape.words)


def run_cycles(config: AcceleratorConfig, shape: LayerShape) -> int:
    """Cycles of RUN for a plan; `ConfigError` if the memory gives no bound."""
    cycles = config.planned_run_cycles(shape) or config.most_run_cycles(shape)
    if cycles is None:
        raise ConfigError(f"no formula gives the cycles with {config.memory} memory")
    return cycles


@dataclass(frozen=True, slots=True)
class CommandCycles:
    """Cycles and bytes of some commands.

    Members
    -------
    cycles : from the first byte of the first command to the last byte of the last response
    link_in, link_out : in which the link is busy, in each direction
    front_end : in which the acceptor works, or the responder, whichever works longer
    engine : of RUN
    bytes_in, bytes_out : of whole packets
    commands : how many
    """

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
            math.ceil(each * sum(link.framed_bytes(exchange.bytes_in) for exchange in exchanges)),
            math.ceil(each * sum(link.framed_bytes(exchange.bytes_out) for exchange in exchanges)),
            max(
                sum(exchange.accept_cycles(config) for exchange in exchanges),
                sum(exchange.respond_cycles(config) for exchange in exchanges),
            ),
            sum(exchange.engine for exchange in exchanges),
            sum(exchange.bytes_in for exchange in exchanges),
            sum(exchange.bytes_out for exchange in exchanges),
            len(exchanges),
        )


@lru_cache(maxsize=4096)
def product_cycles(
    config: AcceleratorConfig, pieces: tuple[Rectangle, ...], tokens: int, group: int = 0
) -> CommandCycles:
    """A product of a layer in these pieces; `group` inputs have a sum of their own."""
    return CommandCycles.of(config, list(_product(config, pieces, tokens, group)))


@lru_cache(maxsize=4096)
def loading_cycles(config: AcceleratorConfig, shape: LayerShape) -> CommandCycles:
    """The loading of a piece; the driver waits for each piece before it sends the next one."""
    return CommandCycles.of(config, list(_writing(config, shape)))
