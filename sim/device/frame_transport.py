"""A driver's transport to a simulated board on a network, without an operating system between."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable

from tritloom.rtl.links.udp_facts import ETHERNET_HZ, PACKET_PORT, Udp
from tritloom.sim.device.ethernet import EthernetBoard

__all__ = ["FrameTransport", "checksum", "datagram_of", "payload_of"]

HOST_MAC = bytes.fromhex("025452495401")
HOST_ADDRESS = bytes((10, 77, 0, 1))
UDP_PROTOCOL = 17


class FrameTransport:
    """Puts packets into Ethernet frames, and gives these to a board at once.

    Time is the board's. The host takes none: a packet that is sent follows without a gap.

    Parameters
    ----------
    board : the simulated board
    mac, address, port : of this host

    Members
    -------
    timeout_s : time in which an idle device responds to a short command
    """

    def __init__(
        self,
        board: EthernetBoard,
        *,
        mac: bytes = HOST_MAC,
        address: bytes = HOST_ADDRESS,
        port: int = 5000,
    ) -> None:
        self.board = board
        self.mac, self.address, self.port = mac, address, port
        self.timeout_s = 4 * board.config.slots * board.config.packet_bytes / ETHERNET_HZ
        self._received: deque[bytes] = deque()

    def send(self, packet: bytes) -> None:
        """Queue a packet's frame."""
        link = self.board.config.link
        assert isinstance(link, Udp)
        self.give(
            datagram_of(
                packet,
                (self.mac, self.address, self.port),
                (link.mac_bytes, link.address_bytes, PACKET_PORT),
            )
        )

    def give(self, frame: bytes) -> None:
        """Give the board a frame."""
        self.board.simulation.send(frame)

    def take(self, frame: bytes) -> Iterable[bytes]:
        """What comes of a frame that the board has sent."""
        return (frame,)

    def receive(self, timeout_s: float) -> bytes | None:
        """The next packet to this host, or `None` if none has come after that much board time."""
        end = self.board.cycles + max(1, round(timeout_s * ETHERNET_HZ))
        while not self._received and (left := end - self.board.cycles) > 0:
            for frame in self.board.simulation.run(left, idle_cycles=left, most_frames=1):
                self._received += filter(None, map(self._packet, self.take(frame)))
        return self._received.popleft() if self._received else None

    def _packet(self, frame: bytes) -> bytes | None:
        """The packet in a frame, if it is whole and to this host."""
        right = (frame[:6], frame[12:14], frame[30:34]) == (self.mac, b"\x08\0", self.address)
        if not right or frame[23] != UDP_PROTOCOL or frame[36:38] != self.port.to_bytes(2, "big"):
            return None
        payload = payload_of(frame)
        pseudo = frame[26:34] + bytes((0, UDP_PROTOCOL)) + frame[38:40]
        if frame[40:42] != b"\0\0" and checksum(pseudo + frame[34:42] + payload) != 0:
            return None
        return payload

    def close(self) -> None:
        """The board goes on."""


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram_of(
    payload: bytes, source: tuple[bytes, bytes, int], to: tuple[bytes, bytes, int]
) -> bytes:
    """A frame with a datagram, without a UDP checksum, between two (MAC, IP address, port)."""
    size = 8 + len(payload)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + size, 0, 0x4000, 64, UDP_PROTOCOL, 0)
    header += source[1] + to[1]
    header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    ports = struct.pack(">HHHH", source[2], to[2], size, 0)
    return to[0] + source[0] + b"\x08\0" + header + ports + payload


def payload_of(frame: bytes) -> bytes:
    """The payload of a frame's datagram, without padding."""
    return frame[42 : 14 + int.from_bytes(frame[16:18], "big")]
