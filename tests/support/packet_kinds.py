"""Packets that a receiver must take, and packets of every kind that it must drop."""

import random

from tritloom.rtl.spec.commands import CRC_BYTES, HEADER_BYTES, OVERHEAD_BYTES, seal
from tritloom.rtl.spec.config import AcceleratorConfig


def packet_of(rng: random.Random, payload_bytes: int, length: int | None = None) -> bytes:
    size = OVERHEAD_BYTES + payload_bytes
    body = rng.randbytes(HEADER_BYTES + payload_bytes - 2)
    return seal((size if length is None else length).to_bytes(2, "little") + body)


def packets_of(config: AcceleratorConfig, rng: random.Random) -> list[bytes]:
    """Sound and wrong packets of every kind, shuffled."""
    most = config.max_payload
    packets = [packet_of(rng, size) for size in (0, 1, most, *rng.choices(range(most + 1), k=6))]
    for change in (-1, 1, 256, 65536 - 2 * OVERHEAD_BYTES):
        packets.append(packet_of(rng, 4, OVERHEAD_BYTES + 4 + change & 0xFFFF))
    for size in (1, 2, 300):  # right in all but its length
        packets.append(packet_of(rng, most + size))
    packets.append(packet_of(rng, most + 5, config.packet_bytes))
    packets.append(packet_of(rng, most + 2 * config.slots * config.packet_bytes))
    for size in range(1, OVERHEAD_BYTES, 3):
        packets.append(seal(size.to_bytes(2, "little") + bytes(20))[-size:])
        packets.append(seal((size + CRC_BYTES).to_bytes(2, "little") + bytes(max(0, size - 2))))
    for _ in range(8):
        damaged = bytearray(packet_of(rng, rng.randrange(40)))
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        packets.append(bytes(damaged))
    damaged = bytearray(packet_of(rng, 8))
    damaged[-1] ^= 0x80
    packets.append(bytes(damaged))
    rng.shuffle(packets)
    return packets
