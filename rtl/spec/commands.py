"""The command set: packets, opcodes, status codes. Hardware, driver, headers and docs read it.

A packet is a header of 16 bytes, a payload, and the CRC-32 (IEEE 802.3, as in zlib) of both, all
little end first. ``length`` counts the whole packet and must agree with it.

The device executes only the command with the next ``seq``. One of the last ``window`` commands
again is answered with its first answer and not executed again; any other is answered ``NAK`` with
the ``expected`` number. ``session`` is a number that RESET sets: packets of another session are
answered ``NO_SESSION``, so nothing that was sent before can be executed after. RESET with the
session's own number changes nothing; RESET ignores its payload, and forgets layers and results but
not what is in memory. A packet with a wrong checksum or length, or longer than the device takes, is
dropped. Every answer repeats the request's session, seq and opcode.

A command is checked in this order, and the first that fails is its status: opcode; payload where
none is taken, or not 8 bytes for DEFINE (BAD_LENGTH); ``index`` (OUT_OF_RANGE); ``count``
(BAD_LENGTH); the layer's state, or for RESULTS that a RUN came before (BAD_STATE); addresses and
shape (OUT_OF_RANGE). WRITE and LOAD write whole words until one is out of range; a part of a word
left at the end is BAD_LENGTH. An answer that is not OK has no payload, and ``value`` is 0 but for
BAD_CHECKSUM.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

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
"""Payload of DEFINE: base (in words), tiles, groups."""
IDENTITY = struct.Struct("<4sHH8s8s")
"""Head of what IDENTIFY reads: magic, protocol version, bytes of JSON, layout and build digest."""
MAGIC = b"TRIT"


class Opcode(IntEnum):
    """What a command does; which header fields it uses; its payload → the answer's payload."""

    RESET = 1
    """Start a session: the next seq is 1, no layer is defined; ``value``: PROTOCOL_VERSION."""
    IDENTIFY = 2
    """Read ``count`` bytes of the identity from byte ``address``: nothing → bytes."""
    DEFINE = 3
    """Give layer ``index`` a place and shape (``LAYER``); it is then open to WRITE."""
    WRITE = 4
    """Write whole words to the open layer ``index`` from its word ``address``: words → nothing."""
    READ = 5
    """Read ``count`` words of layer ``index`` from its word ``address``: nothing → words."""
    COMMIT = 6
    """Close the open layer ``index`` if ``address`` is its words' CRC-32; ``value`` is it."""
    LOAD = 7
    """Write activations of token ``index`` from buffer word ``address``, ``fill`` bytes a word."""
    RUN = 8
    """Compute the committed layer ``index`` for ``count`` tokens; ``value``: the cycles it took."""
    RESULTS = 9
    """Read ``count`` results of token ``index`` of the last RUN from row group ``address``."""
    COUNTERS = 10
    """Read the counters (``COUNTERS``): nothing → 64 bits each."""


class Status(IntEnum):
    OK = 0
    NAK = 1
    """Not the next command; ``expected`` is. (In every answer: the next seq after it.)"""
    NO_SESSION = 2
    """The packet belongs to another session; send RESET."""
    BAD_OPCODE = 3
    BAD_LENGTH = 4
    """The payload or ``count`` is not what the command takes."""
    OUT_OF_RANGE = 5
    """An index or address beyond the device's or the layer's end."""
    BAD_STATE = 6
    """The layer is not defined, not committed (RUN), or not open (WRITE, COMMIT)."""
    BAD_CHECKSUM = 7
    """COMMIT found another checksum (``value``); the layer stays open."""


COUNTERS = ("cycles", "run_cycles", "stall_cycles", "packets", "bad_packets", "dropped_packets")
"""Since power-up: clock cycles; cycles in RUN; of those, waiting for weights; packets that came
and were sound, executed or not; packets with a wrong checksum or length; packets that found the
receive buffer full."""


@dataclass(frozen=True, slots=True)
class Request:
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
        """The request in a packet, or ``None`` if its checksum or length is wrong."""
        if not sound(packet):
            return None
        _, seq, session, opcode, index, count, address = HEADER.unpack_from(packet)
        return cls(opcode, seq, session, index, count, address, packet[HEADER_BYTES:-CRC_BYTES])


@dataclass(frozen=True, slots=True)
class Response:
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
        """The response in a packet, or ``None`` if its checksum or length is wrong."""
        if not sound(packet):
            return None
        _, seq, session, opcode, status, expected, value = HEADER.unpack_from(packet)
        return cls(opcode, seq, session, status, expected, value, packet[HEADER_BYTES:-CRC_BYTES])


def seal(body: bytes) -> bytes:
    """Header and payload → packet."""
    return body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")


def sound(packet: bytes) -> bool:
    """Whether a packet's checksum and length are right."""
    return (
        len(packet) >= OVERHEAD_BYTES
        and int.from_bytes(packet[:2], "little") == len(packet)
        and zlib.crc32(packet[:-CRC_BYTES]) == int.from_bytes(packet[-CRC_BYTES:], "little")
    )


def identity(config: AcceleratorConfig) -> bytes:
    """What IDENTIFY reads: ``IDENTITY``, then the configuration's JSON."""
    text = config.to_json().encode()
    head = IDENTITY.pack(
        MAGIC, PROTOCOL_VERSION, len(text), config.layout_digest, config.build_digest
    )
    return head + text
