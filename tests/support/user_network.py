"""A host's network in user space: ARP, IPv4, ICMP echo and UDP, on a file of Ethernet frames.

Programs reach the board through sockets of the loopback interface: `relay` gives the address of
one, and what is sent there leaves as a datagram of this host.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

from tests.support.ethernet import (
    ARP,
    EVERYONE,
    HOST_ADDRESS,
    HOST_MAC,
    IPV4,
    checksum,
    ethernet,
)
from tests.support.ethernet import ipv4 as make_ipv4

FIRST_PORT = 40_000
LOOK_S = 0.05
MOST_FRAME_BYTES = 2048


class UserNetwork:
    """A host at the other end of a board's cable.

    Parameters
    ----------
    file : number of the file that gives and takes frames; it is closed in the end

    Members
    -------
    neighbours : MAC address of each IP address that has answered ARP
    """

    def __init__(self, file: int) -> None:
        self.neighbours: dict[bytes, bytes] = {}
        self._file = file
        os.set_blocking(file, False)
        self._relays: dict[int, tuple[socket.socket, bytes, int]] = {}
        self._apps: dict[int, tuple[str, int]] = {}
        self._echoes: dict[int, bytes] = {}
        self._ended = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        for relay, _, _ in self._relays.values():
            relay.close()
        os.close(self._file)

    def relay(self, address: bytes, port: int) -> tuple[str, int]:
        """Where programs send what is for a port of the board; 255.255.255.255 is a broadcast."""
        relay = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        relay.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        relay.bind(("127.0.0.1", 0))
        relay.setblocking(False)
        self._relays[FIRST_PORT + len(self._relays)] = (relay, address, port)
        name: tuple[str, int] = relay.getsockname()
        return name

    def ping(self, address: bytes, data: bytes, sequence: int, timeout_s: float) -> bool:
        """Whether the board sends the same data back."""
        message = struct.pack(">BBHHH", 8, 0, 0, 0x1234, sequence) + data
        message = message[:2] + checksum(message).to_bytes(2, "big") + message[4:]
        if not self._resolve(address, timeout_s):
            return False
        self._send_ipv4(address, 1, message)
        return self._wait(lambda: self._echoes.pop(sequence, None) == data, timeout_s)

    def _resolve(self, address: bytes, timeout_s: float = 1.0) -> bool:
        """Ask for the MAC address of an IP address, unless it is known."""
        if address in self.neighbours:
            return True
        body = bytes.fromhex("0001080006040001") + HOST_MAC + HOST_ADDRESS + bytes(6) + address
        self._write(ethernet(body, ARP, EVERYONE))
        return self._wait(lambda: address in self.neighbours, timeout_s)

    def _wait(self, happened: Callable[[], bool], timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while not (result := happened()) and time.monotonic() < deadline_s:
            if threading.current_thread() is self._thread:
                self._look(LOOK_S)
            else:
                time.sleep(0.001)
        return result

    def _serve(self) -> None:
        while not self._ended:
            self._look(LOOK_S, self._relays)

    def _look(self, timeout_s: float, relays: dict | None = None) -> None:
        files = {relay: port for port, (relay, _, _) in list((relays or {}).items())}
        for ready in select.select([self._file, *files], [], [], timeout_s)[0]:
            if ready is self._file or ready == self._file:
                self._take(os.read(self._file, MOST_FRAME_BYTES))
            else:
                port = files[ready]
                payload, self._apps[port] = ready.recvfrom(MOST_FRAME_BYTES)
                _, address, to_port = self._relays[port]
                self._send_udp(address, port, to_port, payload)

    def _take(self, frame: bytes) -> None:
        """A frame from the board, if it is for this host."""
        if frame[:6] not in (HOST_MAC, EVERYONE):
            return
        kind = int.from_bytes(frame[12:14], "big")
        if kind == ARP:
            operation, mac, address = frame[21], frame[22:28], frame[28:32]
            if operation == 2:
                self.neighbours[address] = mac
            elif frame[38:42] == HOST_ADDRESS:
                body = frame[14:21] + b"\2" + HOST_MAC + HOST_ADDRESS + mac + address
                self._write(ethernet(body, ARP, mac))
            return
        if kind != IPV4 or frame[30:34] != HOST_ADDRESS:
            return
        assert checksum(frame[14:34]) == 0, "checksum of the IP header"
        body = frame[34 : 14 + int.from_bytes(frame[16:18], "big")]
        if frame[23] == 1:
            assert checksum(body) == 0, "checksum of ICMP"
            if body[:2] == b"\0\0":
                self._echoes[int.from_bytes(body[6:8], "big")] = body[8:]
        elif frame[23] == 17:
            assert checksum(frame[26:34] + b"\0\x11" + body[4:6] + body) == 0, "checksum of UDP"
            source, to_port, size, _ = struct.unpack_from(">HHHH", body)
            relay, _, of_port = self._relays.get(to_port, (None, b"", 0))
            if relay is not None and source == of_port and size == len(body):
                relay.sendto(body[8:], self._apps[to_port])

    def _send_udp(self, address: bytes, port: int, to_port: int, payload: bytes) -> None:
        header = struct.pack(">HHHH", port, to_port, 8 + len(payload), 0)
        self._send_ipv4(address, 17, header + payload)

    def _send_ipv4(self, address: bytes, protocol: int, body: bytes) -> None:
        mac = EVERYONE
        if address != b"\xff" * 4:
            if not self._resolve(address):
                return
            mac = self.neighbours[address]
        self._write(ethernet(make_ipv4(protocol, body, to=address), to=mac))

    def _write(self, frame: bytes) -> None:
        select.select([], [self._file], [], 1.0)
        os.write(self._file, frame)
