"""Device `udp`: packets over Ethernet, one in each UDP datagram.

Datagrams may be lost, repeated and reordered; the session takes care of that. The socket is
connected, so that the system drops datagrams from any other address.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

from tritloom.host.links.contract import DeviceUrl
from tritloom.host.links.datagrams import BLOCK, Datagrams, datagrams
from tritloom.host.links.patience import Patience
from tritloom.rtl.links.udp_facts import MAX_DATAGRAM, PACKET_PORT
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError, InputError

__all__ = ["UdpTransport", "open_device"]

PATIENCE_S = 0.3
"""Time-out of a good link: network, scheduler and a busy computer."""
MOST_PORT = 0xFFFF


class UdpTransport:
    """Packets over one UDP socket.

    A datagram that the network does not take counts as lost. Only an error that says that the
    socket cannot be used any more is raised.

    Parameters
    ----------
    address, port : of the device
    mover : makes what moves the datagrams of a socket

    Members
    -------
    block : most packets of one call
    packet_bytes : the longest packet that most networks carry; `connect` tries which ones pass

    Raises
    ------
    DeviceError : no network of this computer leads to the address
    """

    block = BLOCK
    packet_bytes = MAX_DATAGRAM

    def __init__(
        self,
        address: str,
        port: int = PACKET_PORT,
        mover: Callable[[socket.socket], Datagrams] = datagrams,
    ) -> None:
        self._name = f"{address}:{port}"
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.connect((address, port))
            self._datagrams = mover(self._socket)
        except OSError as error:
            self._socket.close()
            raise DeviceError(_open_error(address, error)) from error
        self._patience = Patience(PATIENCE_S)
        self._kept: deque[bytes] = deque()  # of a block that `receive` has begun

    @property
    def timeout_s(self) -> float:
        """Seconds in which an idle device responds to a short command, as far as is known."""
        return self._patience.timeout_s

    @property
    def remedy(self) -> str:
        """What to do about a device that does not respond."""
        trouble = self._datagrams.trouble
        return (
            f"{'' if not trouble else f'the network says: {trouble}; '}check its power, bitstream "
            "and cable; `tritloom devices` shows the boards of this network"
        )

    def send(self, packet: bytes) -> None:
        """Send one packet."""
        self._datagrams.send((packet,))

    def receive(self, timeout_s: float) -> bytes | None:
        """The next packet; `None` if none has come after `timeout_s` seconds."""
        if not self._kept:
            self._kept += self.receive_block(timeout_s)
        return self._kept.popleft() if self._kept else None

    def send_block(self, packets: Sequence[bytes]) -> None:
        """Send packets, at most `block`."""
        self._datagrams.send(packets)

    def receive_block(self, timeout_s: float) -> list[bytes]:
        """The next packets, at most `block`; none if none has come after `timeout_s` seconds."""
        if self._kept:
            packets = list(self._kept)
            self._kept.clear()
            return packets
        started_s = time.monotonic()
        packets = self._datagrams.receive(timeout_s)
        if packets:
            self._patience.heard(time.monotonic() - started_s)
            self._patience.advanced()
        else:
            self._patience.silent()
        return packets

    def close(self) -> None:
        """Close the socket. A second call does nothing."""
        self._socket.close()


def open_device(url: DeviceUrl, config: AcceleratorConfig | None) -> UdpTransport:
    """Open `udp://ADDRESS[:PORT]`. The device has its own configuration; `config` is not used."""
    for key in url.query:
        raise InputError(f"unknown key {key!r} for device 'udp'; it takes none")
    address, colon, text = url.path.partition(":")
    if not address:
        raise InputError('udp needs an address, as in "udp://10.77.0.2"')
    port = PACKET_PORT
    if colon:
        # isdecimal alone accepts digits of other scripts.
        if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST_PORT):
            raise InputError(f"the port of a udp device must be 1 to {MOST_PORT}, not {text!r}")
        port = int(text)
    try:
        found = socket.getaddrinfo(address, port, socket.AF_INET, socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        raise InputError(
            f"udp needs an IPv4 address or a name that this computer knows, not {address!r}"
        ) from None
    return UdpTransport(str(found[0][4][0]), port)


def _open_error(address: str, error: OSError) -> str:
    """Why no socket leads to an address, and the remedy."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH):
        network = ".".join([*address.split(".")[:3], "1"])
        return (
            f"no network of this computer leads to {address} ({reason}); give its network card an "
            f"address beside it, such as `sudo ip addr add {network}/24 dev NAME`"
        )
    return f"cannot open a socket to {address}: {reason}"
