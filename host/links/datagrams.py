"""Blocks of datagrams over a connected UDP socket.

On Linux, one system call sends or receives a block (`sendmmsg`, `recvmmsg`); Python has no function
for these calls, so `ctypes` makes them. On other systems each datagram is a call of its own. Both
give the same results.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

__all__ = ["BLOCK", "LONGEST_BYTES", "Datagrams", "ManyDatagrams", "PlainDatagrams", "datagrams"]

BLOCK = 32
"""Most datagrams of one call."""
LONGEST_BYTES = 4096
"""Longest datagram that is received whole: no packet of any device is longer."""
PITCH_BYTES = LONGEST_BYTES + 64
"""Bytes of a datagram's place. A longer datagram is cut off there, so no packet fits in it."""
FEW = 2
"""Up to so many datagrams, a call for each of them is quicker."""
BUFFER_BYTES = 4 << 20
"""Buffer that is asked for in each direction. The system gives as much of it as it allows; its
default holds about 90 datagrams of 1 kB."""
TIMEOUT_STEP = 1 / 8
"""A wait may be longer by this share than was asked for. So the socket's time-out is seldom set."""
LEAST_TIMEOUT_S = 1e-4
MSG_WAITFORONE = 0x10000
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2
LOST = frozenset(
    getattr(errno, name)
    for name in (
        *("ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "EHOSTDOWN", "ENETDOWN", "ENETUNREACH"),
        *("ENOBUFS", "EAGAIN", "EMSGSIZE", "EPERM", "ENONET"),
    )
    if hasattr(errno, name)
)
"""Errors that mean that a datagram was lost, but that later ones may arrive. The system reports
some of them in a later call, about a datagram that it had already taken."""


class Datagrams(Protocol):
    """What moves datagrams.

    Members
    -------
    trouble : what the system said when a datagram was lost; empty if it said nothing since the last
        datagram came
    """

    trouble: str

    def send(self, packets: Sequence[bytes]) -> None:
        """Send datagrams, at most `BLOCK`. The system may lose some of them."""

    def receive(self, timeout_s: float) -> list[bytes]:
        """The next datagrams, at most `BLOCK`; none if none has come after `timeout_s` seconds."""


def datagrams(port: socket.socket) -> Datagrams:
    """The quickest way to move datagrams over a connected socket on this system.

    The socket gets large buffers, and none of its datagrams is fragmented, because a board drops
    fragments.
    """
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        size = BUFFER_BYTES
        while size > port.getsockopt(socket.SOL_SOCKET, option):
            try:
                port.setsockopt(socket.SOL_SOCKET, option, size)
                break
            except OSError:  # some systems refuse more than they allow
                size //= 2
    if sys.platform != "linux":
        return PlainDatagrams(port)
    port.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    return ManyDatagrams(port)


class PlainDatagrams:
    """A system call for each datagram.

    Parameters
    ----------
    port : a connected socket
    """

    def __init__(self, port: socket.socket) -> None:
        self.trouble = ""
        self._port = port

    def send(self, packets: Sequence[bytes]) -> None:
        """Send datagrams, at most `BLOCK`."""
        self._port.setblocking(True)
        for packet in packets:
            try:
                self._port.send(packet)
            except OSError as error:
                self.trouble = _trouble(error)

    def receive(self, timeout_s: float) -> list[bytes]:
        """The next datagrams, at most `BLOCK`; none if none has come after `timeout_s` seconds."""
        packets: list[bytes] = []
        self._port.settimeout(max(timeout_s, LEAST_TIMEOUT_S))
        while len(packets) < BLOCK:
            try:
                packets.append(self._port.recv(PITCH_BYTES))
            except (TimeoutError, BlockingIOError):
                break
            except OSError as error:
                self.trouble = _trouble(error)
                if packets:
                    break
                continue
            self._port.setblocking(False)
        if packets:
            self.trouble = ""
        return packets


class _Vector(ctypes.Structure):
    """The system's `struct iovec`: a place in memory."""

    _fields_ = (("base", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """The system's `struct msghdr`: a datagram."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_bytes", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_bytes", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """The system's `struct mmsghdr`: a datagram, and how many bytes of it have come."""

    _fields_ = (("header", _Header), ("received", ctypes.c_uint))


class _Places:
    """`BLOCK` places for datagrams, as the system calls take them.

    Members
    -------
    messages : what the calls take
    view : the bytes of all places, `PITCH_BYTES` each
    bytes : uint64 `[BLOCK]`, the size of each place, or of the datagram in it
    received : uint32 `[BLOCK]`, how many bytes of each datagram have come
    """

    def __init__(self) -> None:
        self._memory = bytearray(BLOCK * PITCH_BYTES)
        self.view = memoryview(self._memory)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._vectors = (_Vector * BLOCK)()
        self.messages = (_Message * BLOCK)()
        for number, (vector, message) in enumerate(zip(self._vectors, self.messages, strict=True)):
            vector.base, vector.bytes = start + number * PITCH_BYTES, PITCH_BYTES
            message.header.vectors = ctypes.addressof(vector)
            message.header.vector_count = 1
        self.bytes = _column(self._vectors, _Vector, "bytes")
        self.received = _column(self.messages, _Message, "received")


def _column(records: Any, kind: type[ctypes.Structure], name: str) -> np.ndarray[Any, Any]:
    """A field of all records, as an array over the same memory."""
    place = getattr(kind, name)
    field = np.dtype(
        {
            "names": [name],
            "formats": [f"u{place.size}"],
            "offsets": [place.offset],
            "itemsize": ctypes.sizeof(kind),
        }
    )
    column: np.ndarray[Any, Any] = np.frombuffer(records, field)[name]
    return column


class ManyDatagrams:
    """A system call for each block, on Linux.

    Parameters
    ----------
    port : a connected socket
    """

    def __init__(self, port: socket.socket) -> None:
        self.trouble = ""
        self._port = port
        self._file = port.fileno()
        self._calls = ctypes.CDLL(None, use_errno=True)
        self._calls.sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
        self._calls.recvmmsg.argtypes = [*self._calls.sendmmsg.argtypes, ctypes.c_void_p]
        self._out, self._in = _Places(), _Places()
        self._out_start = ctypes.addressof(self._out.messages)
        self._in_start = ctypes.addressof(self._in.messages)
        self._starts = range(0, BLOCK * PITCH_BYTES, PITCH_BYTES)
        self._sizes: list[int] = []
        self._timeout_s = -1.0  # the socket waits without end
        port.setblocking(True)

    def send(self, packets: Sequence[bytes]) -> None:
        """Send datagrams, at most `BLOCK`."""
        if len(packets) <= FEW:
            for packet in packets:
                try:
                    self._port.send(packet)
                except OSError as error:
                    self.trouble = _trouble(error)
            return
        view = self._out.view
        sizes = list(map(len, packets))
        for start, size, packet in zip(self._starts, sizes, packets, strict=False):
            view[start : start + size] = packet
        if sizes != self._sizes:
            self._out.bytes[: len(sizes)] = sizes
            self._sizes = sizes
        first, count = 0, len(packets)
        while first < count:
            at = self._out_start + first * ctypes.sizeof(_Message)
            sent = self._calls.sendmmsg(self._file, at, count - first, 0)
            if sent < 0:
                number = ctypes.get_errno()
                if number == errno.EINTR:
                    continue
                self.trouble = _trouble(OSError(number, os.strerror(number)))
                sent = 1  # this one is lost
            first += sent

    def receive(self, timeout_s: float) -> list[bytes]:
        """The next datagrams, at most `BLOCK`; none if none has come after `timeout_s` seconds."""
        if not timeout_s <= self._timeout_s <= timeout_s * (1 + TIMEOUT_STEP):
            self._set_timeout(max(timeout_s * (1 + TIMEOUT_STEP / 2), LEAST_TIMEOUT_S))
        while True:
            count = self._calls.recvmmsg(self._file, self._in_start, BLOCK, MSG_WAITFORONE, None)
            if count > 0:
                self.trouble = ""
                view = self._in.view
                sizes = self._in.received[:count].tolist()
                return [
                    bytes(view[start : start + size])
                    for start, size in zip(self._starts, sizes, strict=False)
                ]
            number = ctypes.get_errno()
            if number == errno.EAGAIN:
                return []
            if number != errno.EINTR:
                self.trouble = _trouble(OSError(number, os.strerror(number)))

    def _set_timeout(self, timeout_s: float) -> None:
        whole = int(timeout_s)
        interval = struct.pack("@ll", whole, int(1e6 * (timeout_s - whole)))
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
        self._timeout_s = timeout_s


def _trouble(error: OSError) -> str:
    """What the system says of a lost datagram; any other error is raised."""
    if error.errno not in LOST:
        raise error
    return str(error.strerror)
