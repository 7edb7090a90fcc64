"""Ethernet frames for tests, and a link alone behind them. Scapy checks what the link sends."""

import functools
import random
import struct
from dataclasses import replace

from amaranth.back import rtlil

from tritloom.gen.measure.link_loop import LinkLoop
from tritloom.rtl.links.udp_facts import PACKET_PORT, Udp
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.sim.device.ethernet import EthernetSimulation

LINK = Udp(hold_ms=1)
CONFIG = AcceleratorConfig(
    lanes=20,
    rows=2,
    fill=5,
    memory=BlockRam(words=512),
    max_in_features=320,
    max_out_features=256,
    max_layers=4,
    packet_bytes=2048,
    slots=8,
    link=LINK,
    clock_hz=80_000_000,
)
"""A device on a network; its packets fill a frame."""
EVERYONE = b"\xff" * 6
MAC, ADDRESS = LINK.mac_bytes, LINK.address_bytes
HOST_MAC, HOST_ADDRESS = bytes.fromhex("0a0b0c0d0e0f"), bytes((10, 77, 0, 1))
IPV4, ARP = 0x0800, 0x0806


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(body: bytes, kind: int = IPV4, to: bytes = MAC, source: bytes = HOST_MAC) -> bytes:
    return to + source + kind.to_bytes(2, "big") + body


def ipv4(
    protocol: int,
    body: bytes,
    *,
    to: bytes = ADDRESS,
    source: bytes = HOST_ADDRESS,
    first: int = 0x45,
    fragment: int = 0x4000,
    length: int | None = None,
    options: bytes = b"",
    wrong_sum: int = 0,
) -> bytes:
    size = 20 + len(options) + len(body) if length is None else length
    header = struct.pack(">BBHHHBBH", first, 0, size, 7, fragment, 64, protocol, 0)
    header += source + to + options
    total = checksum(header) ^ wrong_sum
    return header[:10] + total.to_bytes(2, "big") + header[12:] + body


def udp(
    payload: bytes, *, port: int = 5000, to_port: int = PACKET_PORT, length: int | None = None
) -> bytes:
    size = 8 + len(payload) if length is None else length
    return struct.pack(">HHHH", port, to_port, size, 0) + payload


def datagram(payload: bytes, *, port: int = 5000, to_port: int = PACKET_PORT) -> bytes:
    """A frame to the device."""
    return ethernet(ipv4(17, udp(payload, port=port, to_port=to_port)))


def ping(size: int, sequence: int = 1, seed: int = 0) -> bytes:
    """An echo request with so many bytes of data."""
    data = random.Random(seed).randbytes(size)
    message = struct.pack(">BBHHH", 8, 0, 0, 0x1234, sequence) + data
    message = message[:2] + checksum(message).to_bytes(2, "big") + message[4:]
    return ethernet(ipv4(1, message))


def arp_request(address: bytes = ADDRESS, to: bytes = EVERYONE) -> bytes:
    body = bytes.fromhex("0001080006040001") + HOST_MAC + HOST_ADDRESS + bytes(6) + address
    return ethernet(body, ARP, to)


def packet_of(rng: random.Random, size: int) -> bytes:
    """Random bytes that begin with their number, as a packet does."""
    return size.to_bytes(2, "little") + rng.randbytes(size - 2)


def payload_of(frame: bytes) -> bytes:
    """The payload of a datagram, without padding."""
    return frame[42 : 14 + int.from_bytes(frame[16:18], "big")]


@functools.cache
def _rtlil() -> str:
    text: str = rtlil.convert(LinkLoop(CONFIG), name="top", emit_src=False)
    return text


def link_alone(clock_hz: int = CONFIG.clock_hz) -> EthernetSimulation:
    """The link, which sends every packet back."""
    assert replace(CONFIG, clock_hz=clock_hz).link == LINK
    return EthernetSimulation(_rtlil, None, clock_hz, running=False)
