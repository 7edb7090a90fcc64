"""The command set: packets, opcodes, status codes.

Hardware, driver, reference device, benches, C header and documentation read this module. The checks
of every command stand in `tritloom.rtl.spec.checks`.

A packet is a header of 16 bytes, a payload, and the CRC-32 (IEEE 802.3, as in `zlib`)
of both. All numbers are little-endian. `length` counts the whole packet and must agree with it. The
device drops a packet whose checksum or length is wrong, and a packet longer than `packet_bytes`;
it sends no response to it. Every response repeats the seq, session, `acknowledged`, opcode and
banks of its request.

Activations and results each lie in `banks` banks. LOAD and RUN name an activation bank, RUN and
RESULTS a result bank. A bank keeps its content until a command writes it, so several RUNs may read
one LOAD, and a LOAD may write a part of the bank only.

Every command has the result that it has if the commands run one by one in the order of their seq,
and the responses come in that order. A device may do several of them at once. It responds to RUN
when it has accepted it. The cycles of a RUN, and its failure, come with the RESULTS of its bank.
A weight memory outside the chip can fail to read a word. Then the RUN has no results: each RESULTS
of its bank gets `MEMORY_ERROR` until the next RUN of the bank. The session goes on.

The device executes only the command whose `seq` is the next one. It keeps the responses
to the last `window` commands. A command with one of their numbers is not executed again: the device
sends the stored response, or nothing while the first response is still on its way. Any other number
gets `NAK`, with the number that the device waits for in `expected`.
`acknowledged` is the low byte of a seq: the responses to this command and to all before it have
arrived, so the host sends none of these commands again. A device could free the memory of their
responses. No device does so yet: each ignores the byte, and repeats it in its response.

A device whose configuration has `vector` has a vector unit, and the commands PUT to EXECUTE; other
devices refuse them with `BAD_OPCODE`. Its program memory holds steps of
`tritloom.rtl.spec.vector_program`. COMMIT_PROGRAM commits its first `count` steps as a whole. A
program can have several beginnings: EXECUTE names the step that it begins with. A PROGRAM, and a
DEFINE or WRITE of a layer that a committed step names, leave no step committed. The device responds
to EXECUTE when it has accepted it, and begins no later command before the program has ended. It
computes tokens 0 to `index`, each in a vector memory of its own: first the steps up to a RUN for
one token after the other, then the layer for all of them, and so on. Each RUN step is a RUN of
these tokens, from and to the banks that EXECUTE names: codes fill the activation bank from its
first word on, and zeros follow up to the end of the layer's tiles. The cycles of the
program, NOT_FINITE, and `MEMORY_ERROR` come with each GET until the next EXECUTE.

A device whose configuration has `scale` multiplies each group's sum by the scale that its weight
words hold, and adds the products of a row. The kind `fixed` adds exactly, and rounds the total
once, to float32. The kind `float` multiplies by a scale of the activations too, and rounds each
operation. It has the command SCALES, which stores these scales in an activation bank, beside what
LOAD stores there; other devices refuse it with `BAD_OPCODE`. A scale of weights that is not finite
leaves the row's result unspecified, as does a code that stands for no trits. A scale of activations
that is not finite makes the row's result not finite.

Where weight words share lines of the memory, `align` words are a block, which fills whole lines. A
layer begins with a block. So does a WRITE, and it holds whole blocks or ends its layer. Else it
stores what it has, and fails. The rest of the last line behind its words becomes 0.

RESET sets the session number, of 24 bits. A request with another session number gets
`NO_SESSION`, so a command that was sent before a RESET cannot be executed after it. RESET with a
new number forgets the layers, the results of all banks, the program and the stored responses, but
not the weights, activations, their scales, vectors and steps in memory. RESET with the current
number changes nothing. RESET ignores its payload.

`CHECKS` lists the checks of each opcode in their order, `VECTOR_CHECKS` those of a vector unit,
`SCALE_CHECKS` those of the activations' scales. The status of the first failing check is the status
of the response. An opcode without an entry gets `BAD_OPCODE`. WRITE, LOAD, PUT, PROGRAM and SCALES
store each whole word before they look at the next one, so the words before the failing one stay. A
response that is not OK has no payload, and its `value` is 0, except that `BAD_CHECKSUM` puts the
checksum of the layer or of the steps there. A COMMIT_PROGRAM that gets
to read the steps leaves none committed if it fails.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from tritloom.rtl.spec.config import CRC_BYTES, HEADER_BYTES, OVERHEAD_BYTES, AcceleratorConfig

__all__ = [
    "COUNTERS",
    "CRC_BYTES",
    "FIRST_SEQ",
    "HEADER",
    "HEADER_BYTES",
    "IDENTITY",
    "LAYER",
    "MAGIC",
    "OPCODE_BITS",
    "OVERHEAD_BYTES",
    "PROTOCOL_VERSION",
    "SESSION_BITS",
    "Opcode",
    "Request",
    "Response",
    "Status",
    "counters_of",
    "identity",
    "pack_counters",
    "pack_response",
    "seal",
    "sound",
    "unpack_counters",
]

PROTOCOL_VERSION = 2
"""Later commands are announced by the configuration, not by another version."""
HEADER = struct.Struct("<HHIBBHI")
"""Length, seq, session and `acknowledged` (high byte), opcode and banks, index or status, count or
`expected`, address or `value`."""
assert HEADER.size == HEADER_BYTES
SESSION_BITS = 24
OPCODE_BITS = 6
"""Bits of the opcode in its byte. The activation bank is the next bit, the result bank the top."""
FIRST_SEQ = 1
"""The seq of the first command after RESET."""
LAYER = struct.Struct("<IHI")
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
    """Give layer `index` a place and a shape (`LAYER`); the layer is then open to WRITE. If the
    configuration has groups, `count` tiles are a group of inputs, which has sums of its own; 0: all
    tiles are one group. With scales 0 stands for the longest group, `most_group_tiles`."""
    WRITE = 4
    """Write whole words to the open layer `index` from its word `address`: words → nothing."""
    READ = 5
    """Read `count` words of layer `index` from its word `address`: nothing → words."""
    COMMIT = 6
    """Close the open layer `index` if `address` is the CRC-32 of its words; `value` is it."""
    LOAD = 7
    """Write activations of token `index` to a bank from its word `address`, `fill` bytes a word."""
    RUN = 8
    """Compute the committed layer `index` for `count` tokens, from one bank into another."""
    RESULTS = 9
    """Read `count` results of token `index` of a bank from row group `address`; `value`: the cycles
    that the last RUN of the bank took. The row groups of a layer's second group of inputs follow
    those of the first, and so on. With scales there is one result a row, a float32."""
    COUNTERS = 10
    """Read the counters (`counters_of`): nothing → 64 bits each."""
    PUT = 11
    """Write float32 words to the vector memory of token `index` from its word `address`: words →
    nothing."""
    GET = 12
    """Read `count` words of the vector memory of token `index` from its word `address`: nothing →
    words; `value`: the cycles that the last EXECUTE of the session took, 0 before the first one."""
    PROGRAM = 13
    """Write steps to the program memory from its step `address`: steps → nothing."""
    COMMIT_PROGRAM = 14
    """Commit the first `count` steps if `address` is their CRC-32; `value` is it."""
    EXECUTE = 15
    """Execute the committed program from its step `address` for tokens 0 to `index`, with one bank
    of each kind."""
    SCALES = 16
    """Write scales of the activations of token `index` to a bank from its group of inputs
    `address`: float32 → nothing."""


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
    """An index or address is beyond the end of the device, of the layer or of the program."""
    BAD_STATE = 6
    """The layer is not defined, not committed (RUN, COMMIT_PROGRAM), or not open (WRITE, COMMIT);
    or no step is committed (EXECUTE)."""
    BAD_CHECKSUM = 7
    """The layer or the steps have another checksum (`value`), and are not committed."""
    MEMORY_ERROR = 8
    """The weight memory could not read a word of READ or COMMIT, of the last RUN of the bank, or of
    the last EXECUTE (GET): there is nothing to read, and no layer is committed."""
    NOT_FINITE = 9
    """A result of the last EXECUTE was not finite, or 2^126 or more: there is nothing to read."""


COUNTERS = ("cycles", "run_cycles", "stall_cycles", "packets", "bad_packets", "dropped_packets")
"""Counted since power-up: clock cycles; cycles of RUN; cycles of RUN that waited for weights; sound
packets, executed or not; packets with a wrong checksum or length; packets that were dropped because
the receive buffer was full."""
VECTOR_COUNTERS = ("vector_cycles", "vector_stall_cycles")
"""Further counters of a device with a vector unit: cycles of EXECUTE; of those, cycles in which an
element waited for the core."""
COUNTER_BYTES = 8
CRC_RESIDUE = 0x2144DF1C
"""CRC-32 of any bytes with their own CRC-32 behind them, little end first."""
crc32, unpack = zlib.crc32, HEADER.unpack_from


@dataclass(slots=True, unsafe_hash=True)
class Request:
    """A command as its packet holds it."""

    opcode: int
    seq: int = 0
    session: int = 0
    index: int = 0
    count: int = 0
    address: int = 0
    payload: bytes = b""
    activation_bank: int = 0
    result_bank: int = 0
    acknowledged: int = 0

    def pack(self) -> bytes:
        return _pack(self, self.payload, self.index, self.count, self.address)

    @classmethod
    def parse(cls, packet: bytes) -> Request | None:
        """The request in a packet, or `None` if its checksum or length is wrong."""
        # As `sound`, without its call: the golden device does this for every packet.
        if len(packet) < OVERHEAD_BYTES or crc32(packet) != CRC_RESIDUE:
            return None
        length, seq, session, opcode, index, count, address = unpack(packet)
        if length != len(packet):
            return None
        return cls(
            opcode & _OPCODE_MASK,
            seq,
            session & _SESSION_MASK,
            index,
            count,
            address,
            packet[HEADER_BYTES:-CRC_BYTES],
            opcode >> OPCODE_BITS & 1,
            opcode >> OPCODE_BITS + 1,
            session >> SESSION_BITS,
        )


@dataclass(slots=True, unsafe_hash=True)
class Response:
    """A response as its packet holds it."""

    opcode: int
    seq: int = 0
    session: int = 0
    status: int = Status.OK
    expected: int = 0
    value: int = 0
    payload: bytes = b""
    activation_bank: int = 0
    result_bank: int = 0
    acknowledged: int = 0

    def pack(self) -> bytes:
        return _pack(self, self.payload, self.status, self.expected, self.value)

    @classmethod
    def parse(cls, packet: bytes) -> Response | None:
        """The response in a packet, or `None` if its checksum or length is wrong."""
        # As `sound`, without its call: a driver does this for every packet.
        if len(packet) < OVERHEAD_BYTES or crc32(packet) != CRC_RESIDUE:
            return None
        length, seq, session, opcode, status, expected, value = unpack(packet)
        if length != len(packet):
            return None
        return cls(
            opcode & _OPCODE_MASK,
            seq,
            session & _SESSION_MASK,
            status,
            expected,
            value,
            packet[HEADER_BYTES:-CRC_BYTES],
            opcode >> OPCODE_BITS & 1,
            opcode >> OPCODE_BITS + 1,
            session >> SESSION_BITS,
        )


_OPCODE_MASK = (1 << OPCODE_BITS) - 1
_SESSION_MASK = (1 << SESSION_BITS) - 1


def pack_response(
    request: Request, status: int, expected: int, value: int = 0, payload: bytes = b""
) -> bytes:
    """The packet of the response to a request, whose fields it repeats."""
    return _pack(request, payload, status, expected, value)


def _pack(packet: Request | Response, payload: bytes, byte: int, half: int, word: int) -> bytes:
    """A packet with a payload and the last three fields of its header."""
    length = OVERHEAD_BYTES + len(payload)
    session = packet.session | packet.acknowledged << SESSION_BITS
    banks = packet.activation_bank | packet.result_bank << 1
    opcode = packet.opcode | banks << OPCODE_BITS
    body = HEADER.pack(length, packet.seq, session, opcode, byte, half, word) + payload
    return body + crc32(body).to_bytes(CRC_BYTES, "little")  # as `seal`, without its call


def seal(body: bytes) -> bytes:
    """The packet of a header and a payload: both with their checksum behind them."""
    return body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")


def sound(packet: bytes) -> bool:
    """Whether a packet's checksum and length are right."""
    length = len(packet)
    return (
        length >= OVERHEAD_BYTES
        and packet[0] | packet[1] << 8 == length
        and zlib.crc32(packet) == CRC_RESIDUE
    )


def counters_of(config: AcceleratorConfig) -> tuple[str, ...]:
    """The counters of a device, in the order of the response to COUNTERS."""
    return COUNTERS if config.vector is None else COUNTERS + VECTOR_COUNTERS


def pack_counters(values: Iterable[int]) -> bytes:
    """The payload of the response to COUNTERS."""
    return b"".join(value.to_bytes(COUNTER_BYTES, "little") for value in values)


def unpack_counters(config: AcceleratorConfig, payload: bytes) -> dict[str, int]:
    """The counters in the payload of a response to COUNTERS, by name.

    Raises
    ------
    struct.error : the payload has another size
    """
    names = counters_of(config)
    return dict(zip(names, struct.unpack(f"<{len(names)}Q", payload), strict=True))


@lru_cache(maxsize=16)
def identity(config: AcceleratorConfig) -> bytes:
    """The identity that IDENTIFY reads: `IDENTITY`, then the configuration as JSON."""
    text = config.to_json().encode()
    head = IDENTITY.pack(
        MAGIC, PROTOCOL_VERSION, len(text), config.layout_digest, config.build_digest
    )
    return head + text
