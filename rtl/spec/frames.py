"""Frames on a byte link such as a UART: where a packet begins and ends, and whether it came whole.

A frame is `0 · body · check · 0`: the packet by COBS (Cheshire and Baker, "Consistent Overhead
Byte Stuffing", 1999), so that a 0 appears nowhere inside; then the CRC-32 of those encoded bytes,
seven bits a byte, low first, bit 7 set. A CRC over the packet alone would not do: one wrong bit in
a COBS length moves zeros far apart, which no CRC is sure to find.

In a frame whose two zeros arrive, every burst of at most 32 wrong bits is found for certain. Bytes
lost or added, and longer errors, pass with probability 2⁻³² here, and must then also agree with
the packet's own length, CRC-32, session and sequence number. After any garbage the next 0 starts
afresh, and each frame brings its own.
"""

import zlib

CHECK_BYTES = 5
BLOCK_BYTES = 254
"""A COBS block holds at most this many bytes that are not 0."""


def cobs_encode(packet: bytes) -> bytes:
    """COBS of a packet; a full last block is not followed by an empty one."""
    out = bytearray()
    blocks = packet.split(b"\0")
    for number, block in enumerate(blocks):
        full = block
        while len(full) >= BLOCK_BYTES:
            out += b"\xff" + full[:BLOCK_BYTES]
            full = full[BLOCK_BYTES:]
        # The last block ends the packet, so after full blocks it may be left out.
        if full or number < len(blocks) - 1 or len(block) == 0:
            out += bytes([len(full) + 1]) + full
    return bytes(out)


def cobs_decode(body: bytes) -> bytes | None:
    """Inverse of `cobs_encode`; `None` if a block is cut short or holds a 0."""
    out = bytearray()
    position = 0
    while position < len(body):
        code = body[position]
        block = body[position + 1 : position + code]
        if code == 0 or 0 in block or len(block) != code - 1:
            return None
        out += block
        position += code
        if code != BLOCK_BYTES + 1 and position < len(body):
            out.append(0)
    return bytes(out)


def check_bytes(body: bytes) -> bytes:
    crc = zlib.crc32(body)
    return bytes(0x80 | (crc >> (7 * n)) & 0x7F for n in range(CHECK_BYTES))


def encode_frame(packet: bytes) -> bytes:
    body = cobs_encode(packet)
    return b"\0" + body + check_bytes(body) + b"\0"


def most_frame_bytes(packet_bytes: int) -> int:
    """Bytes of the longest frame of a packet of that many bytes; only its zeros save any."""
    codes = max(1, -(-packet_bytes // BLOCK_BYTES))
    return 1 + packet_bytes + codes + CHECK_BYTES + 1


def decode_frame(inside: bytes) -> bytes | None:
    """The packet in what stands between two zeros, or `None` if it did not come whole."""
    body, check = inside[:-CHECK_BYTES], inside[-CHECK_BYTES:]
    if not body or check != check_bytes(body):
        return None
    return cobs_decode(body)
