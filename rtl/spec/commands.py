"""The command set: packets, opcodes, status codes.

Hardware, driver, reference device, benches, C header and documentation read this module. The checks
of every command stand in `tritloom.rtl.spec.checks`.

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

`CHECKS` lists the checks of each opcode in their order. The status of the first check that fails is
the status of the response. An opcode without an entry in `CHECKS` gets `BAD_OPCODE`. WRITE and LOAD
store each whole word before they look at the next one, so the words before the failing one stay. A
response that is not OK has no payload, and its `value` is 0, except that `BAD_CHECKSUM` puts the
checksum of the layer there.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from tritloom.rtl.spec.config import CRC_BYTES, HEADER_BYTES, OVERHEAD_BYTES, AcceleratorConfig

__all__ = [
    "COUNTERS",
    "CRC_BYTES",
    "HEADER",
    "HEADER_BYTES",
    "IDENTITY",
    "LAYER",
    "MAGIC",
    "OVERHEAD_BYTES",
    "PROTOCOL_VERSION",
    "Opcode",
    "Request",
    "Response",
    "Status",
    "identity",
    "seal",
    "sound",
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
CRC_RESIDUE = 0x2144DF1C
"""CRC-32 of any bytes with their own CRC-32 behind them, little end first."""


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
    length = len(packet)
    return (
        length >= OVERHEAD_BYTES
        and packet[0] | packet[1] << 8 == length
        and zlib.crc32(packet) == CRC_RESIDUE
    )


@lru_cache(maxsize=16)
def identity(config: AcceleratorConfig) -> bytes:
    """The identity that IDENTIFY reads: `IDENTITY`, then the configuration as JSON."""
    text = config.to_json().encode()
    head = IDENTITY.pack(
        MAGIC, PROTOCOL_VERSION, len(text), config.layout_digest, config.build_digest
    )
    return head + text
