"""Ethernet frames for tests, and a link alone behind them. Scapy checks what the link sends."""

import functools
import random
import struct
import zlib
from collections import Counter
from dataclasses import replace

from amaranth.back import rtlil

from tritloom.gen.measure.link_loop import LinkLoop
from tritloom.rtl.links.udp_facts import PACKET_PORT, Udp
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.sim.device.ethernet import ERROR, VALID, EthernetSimulation
from tritloom.sim.device.frame_transport import FrameTransport as Frames
from tritloom.sim.device.frame_transport import checksum, payload_of

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
__all__ = ["checksum", "payload_of"]


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


@functools.cache
def _rtlil() -> str:
    text: str = rtlil.convert(LinkLoop(CONFIG), name="top", emit_src=False)
    return text


def link_alone(clock_hz: int = CONFIG.clock_hz) -> EthernetSimulation:
    """The link, which sends every packet back."""
    assert replace(CONFIG, clock_hz=clock_hz).link == LINK
    return EthernetSimulation(_rtlil, None, clock_hz, running=False)


class FrameTransport(Frames):
    """A driver's transport over frames; `damage` of a frame gives what is on the wire.

    `damage`: direction and frame → frames, or cycles on the wire as `wire_of` gives them.
    """

    def __init__(self, board, *, mac=HOST_MAC, address=HOST_ADDRESS, port=5000, damage=None):
        super().__init__(board, mac=mac, address=address, port=port)
        self._damage = damage or (lambda direction, frame: [frame])

    def give(self, frame):
        for item in self._damage("tx", frame):
            if isinstance(item, bytes):
                super().give(item)
            else:
                self.board.simulation.send_wire(item)

    def take(self, frame):
        return [item for item in self._damage("rx", frame) if isinstance(item, bytes)]


def wire_of(
    frame: bytes,
    *,
    flip: tuple[int, int] | None = None,
    cut: int | None = None,
    error: int | None = None,
    preamble: int = 7,
) -> list[int]:
    """A frame's cycles on the wire, with FCS, and with damage.

    `flip`: byte and bit to invert after the FCS was computed; `cut`: bytes that are sent; `error`:
    the byte in which the PHY finds an error.
    """
    frame += bytes(max(0, 60 - len(frame)))
    whole = bytearray(frame + zlib.crc32(frame).to_bytes(4, "little"))
    if flip is not None:
        whole[flip[0]] ^= 1 << flip[1]
    cycles = [VALID | byte for byte in (*[0x55] * preamble, 0xD5, *whole[:cut])]
    if error is not None:
        cycles[preamble + 1 + error] |= ERROR
    return cycles + [0] * 12


def hostile(rng, good):
    """What is on the wire of a frame that must have no effect, made from one that has."""
    kind = rng.randrange(16)
    packet = payload_of(good)
    if kind == 0:
        return wire_of(good, cut=rng.randrange(len(good) + 4))
    if kind == 1:
        return wire_of(good, flip=(rng.randrange(len(good) + 4), rng.randrange(8)))
    if kind == 2:
        return wire_of(good, error=rng.randrange(len(good) + 4))
    body = udp(packet)
    fragment = rng.choice([0x2000, 0x0001, 0x3FFF, 0x8000])
    options = rng.randbytes(4 * rng.randrange(1, 11))
    length = rng.choice([0, 7, 19, 20, 27, 28, len(body) + 19, len(body) + 21, 1501, 65535])
    short = rng.choice([0, 7, 8, len(body) - 1, len(body) + 1, 65535])
    frames = {
        3: ethernet(ipv4(17, body, fragment=fragment)),
        4: ethernet(ipv4(17, body, first=0x45 + len(options) // 4, options=options)),
        5: ethernet(ipv4(17, body, length=length)),
        6: ethernet(ipv4(17, udp(packet, length=short))),
        7: ethernet(ipv4(17, udp(packet, to_port=PACKET_PORT ^ 1 << rng.randrange(1, 16)))),
        8: ethernet(ipv4(17, body, to=rng.randbytes(4))),
        9: ethernet(ipv4(rng.choice([0, 2, 6, 41, 132, 255]), body)),
        10: ethernet(b"\x60" + rng.randbytes(80), 0x86DD),
        11: ethernet(b"\0\1\x08\0" + ipv4(17, body), 0x8100),
        12: ethernet(ipv4(17, body), to=rng.choice([EVERYONE, rng.randbytes(6)])),
        13: ethernet(ipv4(17, body, wrong_sum=1 << rng.randrange(16))),
        14: ethernet(ipv4(17, udp((len(packet) ^ 1).to_bytes(2, "little") + packet[2:]))),
        15: ethernet(rng.randbytes(rng.randrange(46, 3000)), rng.randrange(65536)),
    }
    return wire_of(frames[kind])


class Cable:
    """Damages one frame in a hundred in each way, from a seed; counts what it did.

    `lose`, `repeat`, `late` (comes after the next frame), `flip` (a wrong bit, so a wrong FCS),
    `deep` (a wrong bit in the packet with a right FCS, as a switch with a bad memory sends it).
    """

    KINDS = ("lose", "repeat", "late", "flip", "deep")

    def __init__(self, rate: float, seed: int) -> None:
        self.rate = rate
        self.faults: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._held: dict[str, list[bytes | list[int]]] = {"tx": [], "rx": []}

    def __call__(self, direction: str, frame: bytes) -> list[bytes | list[int]]:
        rng = self._random
        kinds = {kind for kind in self.KINDS if rng.random() < self.rate}
        self.faults.update(f"{direction} {kind}" for kind in kinds)
        if "lose" in kinds:
            return []
        item: bytes | list[int] = frame
        if "deep" in kinds:
            place = rng.randrange(42, len(frame))
            frame = (
                frame[:place] + bytes([frame[place] ^ 1 << rng.randrange(8)]) + frame[place + 1 :]
            )
            # The IP header's checksum is still right; the datagram's is not sent.
            item = frame[:40] + b"\0\0" + frame[42:]
        if "flip" in kinds:
            item = wire_of(frame, flip=(rng.randrange(len(frame)), rng.randrange(8)))
        items = [item] * (1 + ("repeat" in kinds))
        if "late" in kinds:
            self._held[direction] += items
            return []
        items += self._held[direction]
        self._held[direction] = []
        return items
