"""Facts of the link `udp`: gigabit Ethernet, one packet of the protocol in each UDP datagram."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import Config, Link, Storage, require, require_integer

__all__ = [
    "ADDRESSED",
    "ANNOUNCED",
    "ASK",
    "DISCOVERY_PORT",
    "ETHERNET_HZ",
    "FRAME_OVERHEAD_BYTES",
    "FRAME_SLOTS",
    "HOST_BITS",
    "LEAST_FRAME_BYTES",
    "MAGIC",
    "MAX_DATAGRAM",
    "PACKET_PORT",
    "PEER_BITS",
    "SET_ADDRESS",
    "Announcement",
    "Udp",
    "address_request",
    "discovery_request",
    "is_host_address",
    "parse_announcement",
]

PACKET_PORT = 21586
"""UDP port for packets; every datagram to it holds one packet and nothing else."""
DISCOVERY_PORT = 21587
"""UDP port for discovery and for setting the address."""
MAX_DATAGRAM = 1472
"""Most bytes of a datagram: an Ethernet frame of 1,500 bytes without the IP and UDP headers."""
MAGIC = b"TRITLOOM"
"""The first bytes of each datagram of discovery. Numbers follow with their high byte first."""
ASK, SET_ADDRESS = 1, 2
"""What a host asks: who is there; take this address."""
ANNOUNCED, ADDRESSED = 0x8001, 0x8002
"""What a device answers to each."""
MAC_BYTES, ADDRESS_BYTES, DIGEST_BYTES = 6, 4, 8
ANNOUNCEMENT_BYTES = len(MAGIC) + 2 + MAC_BYTES + ADDRESS_BYTES + DIGEST_BYTES

ETHERNET_HZ = 125_000_000
"""Bytes a second in each direction, and the frequency of the PHY's clock."""
LEAST_FRAME_BYTES = 60
"""Fewest bytes of a frame without its FCS; shorter ones are padded."""
FRAME_OVERHEAD_BYTES = 14 + 20 + 8 + 4 + 8 + 12
"""Byte times beside a datagram: Ethernet, IP and UDP headers, FCS, preamble, gap."""
PEER_BITS = 96
"""A sender: UDP port in the low bits, then its IP address, then its MAC address."""
HOST_BITS = 80
"""The upper bits of a sender, which name its host: without the port."""
SLOT_WORDS = 1024
"""16-bit words of a slot of the frame store: room for the longest frame and its length."""
FRAME_SLOTS = 4
"""Slots of the frame store, a power of two."""
BEAT_BYTES = 2


def discovery_request() -> bytes:
    """The datagram that asks every device to announce itself."""
    return MAGIC + ASK.to_bytes(2, "big")


def address_request(mac: bytes, address: bytes) -> bytes:
    """The datagram that gives the device of a MAC address another IP address.

    Parameters
    ----------
    mac : 6 bytes
    address : 4 bytes
    """
    if len(mac) != MAC_BYTES or len(address) != ADDRESS_BYTES:
        raise ConfigError(
            f"a MAC address has {MAC_BYTES} bytes and an IP address {ADDRESS_BYTES}, "
            f"not {len(mac)} and {len(address)}"
        )
    if not is_host_address(address):
        raise ConfigError(
            f"{ipaddress.IPv4Address(address)} is no address of a device; take one of your network"
        )
    return MAGIC + SET_ADDRESS.to_bytes(2, "big") + mac + address


def is_host_address(address: bytes) -> bool:
    """Whether a device takes the IP address: not 0.x, 127.x, nor 224.x and above."""
    return address[0] not in (0, 127) and address[0] < 224


@dataclass(frozen=True, kw_only=True, slots=True)
class Announcement:
    """What a device says of itself.

    Members
    -------
    mac : its MAC address, 6 bytes
    address : its IP address, 4 bytes
    build_digest : of its configuration, 8 bytes
    addressed : it answers to `address_request`, not to `discovery_request`
    """

    mac: bytes
    address: bytes
    build_digest: bytes
    addressed: bool

    def to_bytes(self) -> bytes:
        """The payload of the datagram."""
        kind = ADDRESSED if self.addressed else ANNOUNCED
        return MAGIC + kind.to_bytes(2, "big") + self.mac + self.address + self.build_digest


def parse_announcement(payload: bytes) -> Announcement | None:
    """What a datagram announces; None if it is another datagram."""
    kind = int.from_bytes(payload[len(MAGIC) : len(MAGIC) + 2], "big")
    if (
        len(payload) != ANNOUNCEMENT_BYTES
        or not payload.startswith(MAGIC)
        or kind not in (ANNOUNCED, ADDRESSED)
    ):
        return None
    rest = payload[len(MAGIC) + 2 :]
    return Announcement(
        mac=rest[:MAC_BYTES],
        address=rest[MAC_BYTES : MAC_BYTES + ADDRESS_BYTES],
        build_digest=rest[MAC_BYTES + ADDRESS_BYTES :],
        addressed=kind == ADDRESSED,
    )


@dataclass(frozen=True, kw_only=True)
class Udp(Link):
    """Gigabit Ethernet.

    Parameters
    ----------
    address : the device's IP address after power-up; `SET_ADDRESS` changes it
    mac : its MAC address. Two devices on a network need two.
    hold_ms : how long the device belongs to a host that is silent: a RESET of another host is
        refused for so long after the owner was heard; in milliseconds, 0 refuses none
    """

    name: ClassVar[str] = "udp"
    component: ClassVar[str] = "tritloom.rtl.links.udp:UdpLink"
    pins: ClassVar = MappingProxyType(
        {
            "rx_clk": "receive clock of the PHY, 125 MHz; all other pads of the link belong to it",
            "rx": "byte from the PHY",
            "rx_dv": "rx holds a byte of a frame or of its preamble",
            "rx_er": "the PHY has found an error in the frame",
            "tx": "byte to the PHY",
            "tx_en": "tx holds a byte of a frame or of its preamble",
        }
    )
    resource: ClassVar[str] = "eth_rgmii"
    clocks: ClassVar = MappingProxyType({"rx_clk": ETHERNET_HZ})
    tie: ClassVar[str] = "tritloom.boards.pins.rgmii:tie"

    address: str = "10.77.0.2"
    mac: str = "02:54:52:49:54:02"
    hold_ms: int = 1000

    def check(self, config: Config) -> None:
        try:
            usable = is_host_address(ipaddress.IPv4Address(self.address).packed)
        except ValueError:
            usable = False
        require(
            isinstance(self.address, str) and usable,
            f"link: address must be an IPv4 address of a host, not {self.address!r}",
        )
        pattern = "[0-9a-f]{2}(:[0-9a-f]{2}){5}"
        named = isinstance(self.mac, str) and re.fullmatch(pattern, self.mac) is not None
        require(
            named and not int(self.mac[:2], 16) & 1,
            "link: mac must be six bytes such as 02:54:52:49:54:02, the first one even, "
            f"not {self.mac!r}",
        )
        require_integer("link: hold_ms", self.hold_ms, 0, 60_000)
        least = ETHERNET_HZ // BEAT_BYTES
        require(
            config.clock_hz >= least,
            f"clock_hz must be at least {least} for the udp link, which takes {BEAT_BYTES} bytes "
            f"a cycle, not {config.clock_hz}",
        )

    @property
    def beat_bytes(self) -> int:
        return BEAT_BYTES

    @property
    def command_bytes(self) -> int:
        return BEAT_BYTES

    @property
    def address_bytes(self) -> bytes:
        """`address` as 4 bytes."""
        return ipaddress.IPv4Address(self.address).packed

    @property
    def mac_bytes(self) -> bytes:
        """`mac` as 6 bytes."""
        return bytes.fromhex(self.mac.replace(":", ""))

    def title(self) -> str:
        return f"gigabit Ethernet, UDP at {self.address}"

    def storage(self, config: Config) -> tuple[Storage, ...]:
        """The frames to send, and the payload of an echo."""
        return (Storage(16, FRAME_SLOTS * SLOT_WORDS), Storage(16, SLOT_WORDS))

    def cycles_per_byte(self, config: Config) -> float:
        return config.clock_hz / ETHERNET_HZ

    def framed_bytes(self, packet_bytes: int) -> int:
        """Byte times on the wire, from a preamble to the next one."""
        return max(packet_bytes, LEAST_FRAME_BYTES - 42) + FRAME_OVERHEAD_BYTES

    def most_packet_bytes(self, config: Config) -> int:
        return min(config.packet_bytes, MAX_DATAGRAM)

    def peer_bits(self, config: Config) -> int:
        return PEER_BITS

    def host_bits(self, config: Config) -> int:
        return HOST_BITS

    def hold_cycles(self, config: Config) -> int:
        return self.hold_ms * config.clock_hz // 1000
