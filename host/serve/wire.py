"""The messages between a process that holds a device and its clients.

A message is a header of 16 bytes and a body. The header is `MAGIC`, a `Kind` and the bytes of the
body, little-endian. The answer to a message has its kind, or is an `ERROR` whose body is a line of
text. Numbers in bodies are little-endian. A client sends a message, then takes its answer.

* `INFO`: empty. The answer is JSON: `url`, `free_words`, `max_out_features`, `max_in_features`,
  `act_bits`.
* `FITS`: uint32 out, in, group. The answer is uint32, a `Room`.
* `LOAD`: uint32 out, in, group; int8 weights `[out, in]`. The answer is uint32, the layer's number.
  A group is a run of inputs that are summed for themselves; 0 means all inputs.
* `UNLOAD`: uint32 layer. The answer is empty.
* `PRODUCTS`: uint32 tokens, in, n; uint32 layers `[n]`; int8 codes `[tokens, in]`. The answer is
  the int32 sums `[tokens, out, groups]` of each layer, one after the other.
* `LOAD_SCALED`: uint32 out, in, group; scales in half precision `[out, groups]`; int8 weights
  `[out, in]` of -1, 0, 1 and 2. The answer is as that of `LOAD`.
* `SCALED`: uint32 tokens, in, n, groups; uint32 layers `[n]`, of `LOAD_SCALED`; float32 scales of
  the activations `[tokens, groups]`; int8 codes `[tokens, in]`. The answer is the float32 results
  `[tokens, out]` of each layer, in the order of `tritloom.rtl.spec.groups.float_totals`.

One `PRODUCTS` or `SCALED` computes all layers that take the same activations, so these cross the
socket once. A layer belongs to the client that loaded it, and is unloaded when that client goes.
"""

from __future__ import annotations

import socket
import struct
import time
from enum import IntEnum

from tritloom.rtl.spec.errors import DeviceError

__all__ = ["HEADER", "MAGIC", "MOST_BYTES", "Kind", "Receiver", "Room", "send"]

MAGIC = 0x31574C54
"""`TLW1` in ASCII. Another number says that the other side speaks something else."""
HEADER = struct.Struct("<IIQ")
MOST_BYTES = 1 << 30
"""Of a body. A longer one is refused before it is received."""
READ_BYTES = 1 << 16
"""What is received at once: the message of a product, and more."""


class Kind(IntEnum):
    """What a message asks for."""

    ERROR = 0
    INFO = 1
    LOAD = 2
    UNLOAD = 3
    PRODUCTS = 4
    FITS = 5
    LOAD_SCALED = 6
    SCALED = 7


class Room(IntEnum):
    """What an empty device does with a layer."""

    NONE = 0
    """It has no room for it."""
    SUMS = 1
    """It gives sums of its groups: `LOAD` and `PRODUCTS`."""
    FLOATS = 2
    """It scales these sums, and gives floats: `LOAD_SCALED` and `SCALED`."""


def send(link: socket.socket, kind: int, *parts: bytes | memoryview) -> None:
    """Send a message whose body is made of these parts."""
    size = sum(len(part) for part in parts)
    link.sendall(b"".join([HEADER.pack(MAGIC, kind, size), *parts]))


class Receiver:
    """Takes messages from a socket. A short message takes one call of the system.

    Parameters
    ----------
    link : nobody else may read it
    awake_s : for how long it asks for more again and again before it sleeps until more comes. Who
        sends wakes it up, and on another processor that takes as long as a good part of a product
    """

    def __init__(self, link: socket.socket, awake_s: float = 0.0) -> None:
        self._link = link
        self._awake_s = awake_s
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._begin = self._end = 0  # of what has come and was not taken

    def receive(self) -> tuple[int, memoryview] | None:
        """The kind and the body of the next message; None if the other side has gone.

        The body is valid until the next call.

        Raises
        ------
        DeviceError : what comes is no message of this protocol
        """
        if self._begin == self._end:
            self._begin = self._end = 0
            if len(self._buffer) > READ_BYTES:
                self._buffer = memoryview(bytearray(READ_BYTES))
        header = self._take(HEADER.size)
        if header is None:
            return None
        magic, kind, size = HEADER.unpack(header)
        if magic != MAGIC or size > MOST_BYTES:
            raise DeviceError(
                f"the other side of the socket sent {bytes(header[:8]).hex()} with {size} bytes, "
                "which is no message of tritloom serve; use programs of one version"
            )
        body = self._take(size)
        return None if body is None else (kind, body)

    def _take(self, size: int) -> memoryview | None:
        """The next bytes; None if the other side goes before the last one."""
        if self._end - self._begin < size and not self._fill(size):
            return None
        begin = self._begin
        self._begin += size
        return self._buffer[begin : self._begin]

    def _fill(self, size: int) -> bool:
        """Receive until so many bytes have come; False if the other side goes before that."""
        if self._begin + size > len(self._buffer):
            rest = bytes(self._buffer[self._begin : self._end])
            if size > len(self._buffer):
                self._buffer = memoryview(bytearray(size))
            self._buffer[: len(rest)] = rest
            self._begin, self._end = 0, len(rest)
        while self._end - self._begin < size:
            count = self._receive_into(self._buffer[self._end :])
            if not count:
                return False
            self._end += count
        return True

    def _receive_into(self, room: memoryview) -> int:
        """Wait for bytes; how many came, or 0 if the other side has gone."""
        if self._awake_s:
            end = time.perf_counter() + self._awake_s
            while time.perf_counter() < end:
                try:
                    return self._link.recv_into(room, 0, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    pass
        return self._link.recv_into(room)
