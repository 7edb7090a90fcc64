"""The command set: packets, opcodes, status codes. The checks of every command stand here too.

Hardware, driver, reference device, benches, C header and documentation read this module.

A packet is a header of 16 bytes, a payload, and the CRC-32 (IEEE 802.3, as in `zlib`)
of both. All numbers are little-endian. `length` counts the whole packet and must agree with it. The
device drops a packet whose checksum or length is wrong, and a packet longer than `packet_bytes`;
it sends no response to it. Every response repeats the session, seq and opcode of its request.

The device executes only the command whose `seq` is the next one. It keeps the responses
to the last `window` commands. A command with one of their numbers is not executed again: the device
sends the stored response. Any other number gets `NAK`, with the number that the device waits for in
`expected`.

RESET sets the session number. A request with another session number gets
`NO_SESSION`, so a command that was sent before a RESET cannot be executed after it. RESET with a
new number forgets the layers, the results and the stored responses, but not the weights and
activations in memory. RESET with the current number changes nothing. RESET ignores its payload.

`CHECKS` lists the checks of each opcode in their order; `check_table` prints them. The
status of the first check that fails is the status of the response. An opcode without an entry is
`BAD_OPCODE`. WRITE and LOAD store each whole word before they look at the next one, so the words
before the failing one stay. A response that is not OK has no payload, and its `value` is 0, except
that `BAD_CHECKSUM` puts the checksum of the layer there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import lru_cache

from tritloom.rtl.spec.config import CRC_BYTES, HEADER_BYTES, OVERHEAD_BYTES, AcceleratorConfig

__all__ = [
    "ACTIVATION_WORDS",
    "CHECKS",
    "COUNTERS",
    "CRC_BYTES",
    "HEADER",
    "HEADER_BYTES",
    "IDENTITY",
    "IDENTITY_BYTES",
    "LAYER",
    "LAYERS_END",
    "MAGIC",
    "MAX_ROW_GROUPS",
    "MAX_TILES",
    "MEMORY_WORDS",
    "OVERHEAD_BYTES",
    "PAYLOAD_LIMIT",
    "PAYLOAD_RESULTS",
    "PAYLOAD_WORDS",
    "PROTOCOL_VERSION",
    "TOKENS",
    "TOKENS_END",
    "UNITS",
    "UNLIMITED",
    "Bound",
    "Check",
    "LayerState",
    "Limit",
    "Opcode",
    "Quantity",
    "Request",
    "Response",
    "Stage",
    "State",
    "Status",
    "check_table",
    "first_failure",
    "identity",
    "seal",
    "sound",
    "value_of",
]

PROTOCOL_VERSION = 1
HEADER = struct.Struct("<HHIBBHI")
assert HEADER.size == HEADER_BYTES
LAYER = struct.Struct("<IHH")
"""Payload of DEFINE: base (in words), tiles, row groups."""
IDENTITY = struct.Struct("<4sHH8s8s")
"""Head of the identity: magic, protocol version, bytes of JSON, layout and build digest."""
MAGIC = b"TRIT"


class Opcode(IntEnum):
    """What a command does, which header fields it reads, and: its payload → the response's."""

    RESET = 1
    """Start a session: the next seq is 1, no layer is defined; `value`: PROTOCOL_VERSION."""
    IDENTIFY = 2
    """Read `count` bytes of the identity from byte `address`: nothing → bytes."""
    DEFINE = 3
    """Give layer `index` a place and a shape (`LAYER`); the layer is then open to WRITE."""
    WRITE = 4
    """Write whole words to the open layer `index` from its word `address`: words → nothing."""
    READ = 5
    """Read `count` words of layer `index` from its word `address`: nothing → words."""
    COMMIT = 6
    """Close the open layer `index` if `address` is the CRC-32 of its words; `value` is it."""
    LOAD = 7
    """Write activations of token `index` from buffer word `address`, `fill` bytes a word."""
    RUN = 8
    """Compute the committed layer `index` for `count` tokens; `value`: the cycles it took."""
    RESULTS = 9
    """Read `count` results of token `index` of the last RUN from row group `address`."""
    COUNTERS = 10
    """Read the counters (`COUNTERS`): nothing → 64 bits each."""


class Status(IntEnum):
    """How a command ended."""

    OK = 0
    NAK = 1
    """Not the next command; the next one is `expected`, as in every response."""
    NO_SESSION = 2
    """The packet belongs to another session; send RESET."""
    BAD_OPCODE = 3
    BAD_LENGTH = 4
    """The payload or `count` is not what the command takes."""
    OUT_OF_RANGE = 5
    """An index or address is beyond the end of the device or of the layer."""
    BAD_STATE = 6
    """The layer is not defined, not committed (RUN), or not open (WRITE, COMMIT)."""
    BAD_CHECKSUM = 7
    """The layer has another checksum (`value`); the layer stays open."""


COUNTERS = ("cycles", "run_cycles", "stall_cycles", "packets", "bad_packets", "dropped_packets")
"""Counted since power-up: clock cycles; cycles of RUN; cycles of RUN that waited for weights; sound
packets, executed or not; packets with a wrong checksum or length; packets that were dropped because
the receive buffer was full."""
COUNTERS_STRUCT = struct.Struct(f"<{len(COUNTERS)}Q")
"""Payload of the response to COUNTERS: 64 bits each, in that order."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command as its packet holds it."""

    opcode: int
    seq: int = 0
    session: int = 0
    index: int = 0
    count: int = 0
    address: int = 0
    payload: bytes = b""

    def pack(self) -> bytes:
        length = OVERHEAD_BYTES + len(self.payload)
        return seal(
            HEADER.pack(
                length, self.seq, self.session, self.opcode, self.index, self.count, self.address
            )
            + self.payload
        )

    @classmethod
    def parse(cls, packet: bytes) -> Request | None:
        """The request in a packet, or `None` if its checksum or length is wrong."""
        if not sound(packet):
            return None
        _, seq, session, opcode, index, count, address = HEADER.unpack_from(packet)
        return cls(opcode, seq, session, index, count, address, packet[HEADER_BYTES:-CRC_BYTES])


@dataclass(frozen=True, slots=True)
class Response:
    """A response as its packet holds it."""

    opcode: int
    seq: int = 0
    session: int = 0
    status: int = Status.OK
    expected: int = 0
    value: int = 0
    payload: bytes = b""

    def pack(self) -> bytes:
        length = OVERHEAD_BYTES + len(self.payload)
        return seal(
            HEADER.pack(
                length, self.seq, self.session, self.opcode, self.status, self.expected, self.value
            )
            + self.payload
        )

    @classmethod
    def parse(cls, packet: bytes) -> Response | None:
        """The response in a packet, or `None` if its checksum or length is wrong."""
        if not sound(packet):
            return None
        _, seq, session, opcode, status, expected, value = HEADER.unpack_from(packet)
        return cls(opcode, seq, session, status, expected, value, packet[HEADER_BYTES:-CRC_BYTES])


def seal(body: bytes) -> bytes:
    """The packet of a header and a payload: both with their checksum behind them."""
    return body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")


def sound(packet: bytes) -> bool:
    """Whether a packet's checksum and length are right."""
    return (
        len(packet) >= OVERHEAD_BYTES
        and int.from_bytes(packet[:2], "little") == len(packet)
        and zlib.crc32(packet[:-CRC_BYTES]) == int.from_bytes(packet[-CRC_BYTES:], "little")
    )


@lru_cache(maxsize=16)
def identity(config: AcceleratorConfig) -> bytes:
    """The identity that IDENTIFY reads: `IDENTITY`, then the configuration as JSON."""
    text = config.to_json().encode()
    head = IDENTITY.pack(
        MAGIC, PROTOCOL_VERSION, len(text), config.layout_digest, config.build_digest
    )
    return head + text


class LayerState(IntEnum):
    """What has been done with a layer; DEFINE opens it, COMMIT commits it, RESET forgets it."""

    UNDEFINED = 0
    OPEN = 1
    COMMITTED = 2


class Stage(IntEnum):
    """When a check can be made. The stages come in this order."""

    HEADER = 0
    """Before the payload: the header, the length and the device's state decide. Nothing changed."""
    PAYLOAD = 1
    """When the payload has come: its fields decide. Nothing changed."""
    WORD = 2
    """For each word before it moves. The words before it have moved."""
    END = 3
    """After the last word. All words have moved."""


class Quantity(StrEnum):
    """A number that a check compares; its value is the text that `check_table` prints."""

    PAYLOAD_BYTES = "payload bytes"
    INDEX = "index"
    COUNT = "count"
    ADDRESS = "address"
    TILES = "tiles"
    ROW_GROUPS = "row groups"
    MEMORY_END = "base + tiles × row groups"
    ITEMS_END = "address + count"
    """The end of what IDENTIFY (bytes) and READ (words) read."""
    WORDS_END = "address + words"
    """The end of the whole words that WRITE and LOAD store; 0 if the payload has none."""
    ROW_GROUPS_END = "address + row groups of count"
    """The end of the row groups that RESULTS reads, the last of them perhaps in part."""
    REST_BYTES = "payload bytes beyond whole words"
    LAYER_STATE = "layer"
    """The `LayerState` of layer `index`."""
    LAYER_WORDS = "words of the layer"
    LAYER_CHECKSUM = "CRC-32 of the layer's words"
    RESULT_ROW_GROUPS = "row groups of the last RUN"
    """0 if no RUN came in this session."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound that follows from the configuration.

    Members
    -------
    text : how `check_table` shows it
    of : its value for a configuration
    """

    text: str
    of: Callable[[AcceleratorConfig], int]


Bound = int | Limit | Quantity
"""A number, a number of the configuration, or a number of the device's state."""


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: `least` ≤ `quantity` ≤ `most`; else the command fails with `status`."""

    stage: Stage
    quantity: Quantity
    least: Bound
    most: Bound
    status: Status

    def bounds(self, config: AcceleratorConfig, request: Request, state: State) -> tuple[int, int]:
        """The values of `least` and `most`."""
        return (
            _bound(self.least, config, request, state),
            _bound(self.most, config, request, state),
        )

    def holds(self, config: AcceleratorConfig, request: Request, state: State) -> bool:
        """Whether a request in a state of the device passes this check."""
        least, most = self.bounds(config, request, state)
        return least <= value_of(self.quantity, config, request, state) <= most

    def __str__(self) -> str:
        if self.quantity == Quantity.LAYER_STATE:
            assert isinstance(self.least, int) and isinstance(self.most, int)
            states = range(self.least, self.most + 1)
            names = [LayerState(state).name.lower() for state in states]
            return f"{self.quantity} is {' or '.join(names)}"
        least, most = _bound_text(self.least), _bound_text(self.most)
        if least == most:
            return f"{self.quantity} = {least}"
        if self.most == UNLIMITED:
            return f"{self.quantity} ≥ {least}"
        return (
            f"{self.quantity} ≤ {most}" if least == "0" else f"{least} ≤ {self.quantity} ≤ {most}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the checks of one request read of the device: layer `index` of the request, results."""

    layer: LayerState = LayerState.UNDEFINED
    layer_words: int = 0
    layer_checksum: int = 0
    result_row_groups: int = 0


UNLIMITED = (1 << 32) - 1
"""The largest number of any field: a bound that nothing exceeds."""

IDENTITY_BYTES = Limit("bytes of the identity", lambda config: len(identity(config)))
LAYERS_END = Limit("max_layers - 1", lambda config: config.max_layers - 1)
TOKENS_END = Limit("tokens - 1", lambda config: config.tokens - 1)
TOKENS = Limit("tokens", lambda config: config.tokens)
MAX_TILES = Limit("max_tiles", lambda config: config.max_tiles)
MAX_ROW_GROUPS = Limit("max_row_groups", lambda config: config.max_row_groups)
MEMORY_WORDS = Limit("memory_words", lambda config: config.memory_words)
ACTIVATION_WORDS = Limit("activation_words", lambda config: config.activation_words)
PAYLOAD_LIMIT = Limit("max_payload", lambda config: config.max_payload)
PAYLOAD_WORDS = Limit(
    "max_payload // word_bytes", lambda config: config.max_payload // config.word_bytes
)
PAYLOAD_RESULTS = Limit(
    "max_payload // acc_bytes", lambda config: config.max_payload // config.acc_bytes
)

UNITS = {
    Opcode.WRITE: Limit("word_bytes", lambda config: config.word_bytes),
    Opcode.LOAD: Limit("fill", lambda config: config.fill),
}
"""Bytes of a word in the payload of the commands that store words."""


def _payload(size: int) -> Check:
    return Check(Stage.HEADER, Quantity.PAYLOAD_BYTES, size, size, Status.BAD_LENGTH)


def _index(most: Limit) -> Check:
    return Check(Stage.HEADER, Quantity.INDEX, 0, most, Status.OUT_OF_RANGE)


def _count(most: Limit) -> Check:
    return Check(Stage.HEADER, Quantity.COUNT, 1, most, Status.BAD_LENGTH)


def _layer(least: LayerState, most: LayerState) -> Check:
    return Check(Stage.HEADER, Quantity.LAYER_STATE, least, most, Status.BAD_STATE)


def _within(stage: Stage, quantity: Quantity, most: Bound, least: int = 0) -> Check:
    return Check(stage, quantity, least, most, Status.OUT_OF_RANGE)


_WHOLE_WORDS = Check(Stage.END, Quantity.REST_BYTES, 0, 0, Status.BAD_LENGTH)

CHECKS: dict[Opcode, tuple[Check, ...]] = {
    Opcode.RESET: (),
    Opcode.IDENTIFY: (
        _payload(0),
        _count(PAYLOAD_LIMIT),
        _within(Stage.HEADER, Quantity.ITEMS_END, IDENTITY_BYTES),
    ),
    Opcode.DEFINE: (
        _payload(LAYER.size),
        _index(LAYERS_END),
        _within(Stage.PAYLOAD, Quantity.TILES, MAX_TILES, least=1),
        _within(Stage.PAYLOAD, Quantity.ROW_GROUPS, MAX_ROW_GROUPS, least=1),
        _within(Stage.PAYLOAD, Quantity.MEMORY_END, MEMORY_WORDS),
    ),
    Opcode.WRITE: (
        _index(LAYERS_END),
        _layer(LayerState.OPEN, LayerState.OPEN),
        _within(Stage.WORD, Quantity.WORDS_END, Quantity.LAYER_WORDS),
        _WHOLE_WORDS,
    ),
    Opcode.READ: (
        _payload(0),
        _index(LAYERS_END),
        _count(PAYLOAD_WORDS),
        _layer(LayerState.OPEN, LayerState.COMMITTED),
        _within(Stage.HEADER, Quantity.ITEMS_END, Quantity.LAYER_WORDS),
    ),
    Opcode.COMMIT: (
        _payload(0),
        _index(LAYERS_END),
        _layer(LayerState.OPEN, LayerState.OPEN),
        Check(
            Stage.END,
            Quantity.ADDRESS,
            Quantity.LAYER_CHECKSUM,
            Quantity.LAYER_CHECKSUM,
            Status.BAD_CHECKSUM,
        ),
    ),
    Opcode.LOAD: (
        _index(TOKENS_END),
        _within(Stage.WORD, Quantity.WORDS_END, ACTIVATION_WORDS),
        _WHOLE_WORDS,
    ),
    Opcode.RUN: (
        _payload(0),
        _index(LAYERS_END),
        _count(TOKENS),
        _layer(LayerState.COMMITTED, LayerState.COMMITTED),
    ),
    Opcode.RESULTS: (
        _payload(0),
        _index(TOKENS_END),
        _count(PAYLOAD_RESULTS),
        Check(Stage.HEADER, Quantity.RESULT_ROW_GROUPS, 1, UNLIMITED, Status.BAD_STATE),
        _within(Stage.WORD, Quantity.ROW_GROUPS_END, Quantity.RESULT_ROW_GROUPS),
    ),
    Opcode.COUNTERS: (_payload(0),),
}
"""The checks of each opcode, in the order in which they are made. No other opcode exists."""


def value_of(quantity: Quantity, config: AcceleratorConfig, request: Request, state: State) -> int:
    """The value of a quantity for a request in a state of the device.

    Raises
    ------
    struct.error
        The quantity is a field of DEFINE's payload, and the payload has another size.
    """
    match quantity:
        case Quantity.PAYLOAD_BYTES:
            return len(request.payload)
        case Quantity.INDEX:
            return request.index
        case Quantity.COUNT:
            return request.count
        case Quantity.ADDRESS:
            return request.address
        case Quantity.TILES | Quantity.ROW_GROUPS | Quantity.MEMORY_END:
            base, tiles, row_groups = LAYER.unpack(request.payload)
            if quantity == Quantity.MEMORY_END:
                return int(base + tiles * row_groups)
            return int(tiles if quantity == Quantity.TILES else row_groups)
        case Quantity.ITEMS_END:
            return request.address + request.count
        case Quantity.WORDS_END:
            words = len(request.payload) // UNITS[Opcode(request.opcode)].of(config)
            return request.address + words if words else 0
        case Quantity.REST_BYTES:
            return len(request.payload) % UNITS[Opcode(request.opcode)].of(config)
        case Quantity.ROW_GROUPS_END:
            return request.address + -(-request.count // config.rows)
        case Quantity.LAYER_STATE:
            return state.layer
        case Quantity.LAYER_WORDS:
            return state.layer_words
        case Quantity.LAYER_CHECKSUM:
            return state.layer_checksum
        case Quantity.RESULT_ROW_GROUPS:
            return state.result_row_groups


def first_failure(config: AcceleratorConfig, request: Request, state: State) -> Check | None:
    """The first check of `CHECKS` that a request fails, or `None` if it passes all of them.

    Parameters
    ----------
    config : the configuration of the device
    request : a request whose opcode is in `CHECKS`
    state : what the checks read of the device
    """
    checks = CHECKS[Opcode(request.opcode)]
    return next((check for check in checks if not check.holds(config, request, state)), None)


def check_table() -> str:
    """All of `CHECKS` as a Markdown table, one line a check."""
    lines = ["| opcode | must hold | else |", "|---|---|---|"]
    for opcode, checks in CHECKS.items():
        lines += [f"| {opcode.name} | {check} | {check.status.name} |" for check in checks]
    return "\n".join(lines) + "\n"


def _bound(bound: Bound, config: AcceleratorConfig, request: Request, state: State) -> int:
    if isinstance(bound, Limit):
        return bound.of(config)
    if isinstance(bound, Quantity):
        return value_of(bound, config, request, state)
    return bound


def _bound_text(bound: Bound) -> str:
    return bound.text if isinstance(bound, Limit) else str(bound)
