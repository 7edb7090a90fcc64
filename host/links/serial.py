"""Device ``serial``: packets over a serial port, framed as ``tritloom.rtl.spec.frames`` says."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from typing import Any

from tritloom.host.links.contract import DeviceUrl
from tritloom.rtl.links.uart_facts import MAX_BAUD
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError, InputError, ToolError
from tritloom.rtl.spec.frames import decode_frame, encode_frame

__all__ = ["SerialTransport", "open_device", "serial_ports"]

MIN_BAUD = 1200
LINE_BITS = 10
"""Bits on the line for a byte."""
EXCHANGE_BYTES = 256
"""A short command and its answer in frames, and what the port may hold back."""
PATIENCE_S = 0.3
"""What the host's drivers, the USB bridge and the scheduler may add."""
HASTE_S = 0.002
"""Least timeout on a link that loses frames."""
SLOWER = 1.1
MOST_COPIES = 8
COPIES_BYTES = 512
"""Most copies of a packet that are sent at once, and what they may have together."""
GOOD_PACKETS = 256
"""So many in a row, and the link is no longer one that loses frames."""
FRAME_LIMIT_BYTES = 1 << 14
"""Longer than any frame: more bytes without an end are garbage."""
READ_BYTES = 1 << 12
TICK_S = 0.001
"""Between two looks at a port that cannot be waited for."""


class SerialTransport:
    """Frames on one serial port.

    Nothing blocks: what the port does not take is kept and written while ``receive`` waits, a
    frame that is sent again while it is still kept whole is kept once.

    A port that goes away is a ``DeviceError``; ``connect`` works again when it is back.
    """

    def __init__(self, path: str, baud: int) -> None:
        serial = _pyserial()
        self._path = path
        try:
            self._port: Any = serial.Serial(path, baud, timeout=0, write_timeout=0, exclusive=True)
        except (serial.SerialException, ValueError, OSError) as error:
            raise DeviceError(
                f"cannot open {path}: {_reason(error)}; `tritloom devices` lists the ports"
            ) from error
        self._unsent: deque[bytes] = deque()
        self._written = 0  # bytes of the first unsent frame
        self._received = bytearray()
        self._packets: deque[bytes] = deque()
        self._vain = 0  # waits in a row
        self._copies = 1
        self._patience = _Patience(PATIENCE_S + LINE_BITS * EXCHANGE_BYTES / baud)

    @property
    def timeout_s(self) -> float:
        """Seconds in which an idle device has answered a short command, as far as is known."""
        return self._patience.timeout_s

    def send(self, packet: bytes) -> None:
        """Queue a packet and write what the port takes.

        After waits in vain, the next goes out several times: the session then sends its oldest
        again, all behind it need that one, and the wait costs more than the bytes.
        """
        frame = encode_frame(packet)
        if frame not in list(self._unsent)[1:]:
            copies = 1 if self._unsent else min(self._copies, COPIES_BYTES // len(frame))
            self._unsent.extend([frame] * max(1, copies))
            self._copies = 1
        self._write()

    def receive(self, timeout_s: float) -> bytes | None:
        """The next whole packet; ``None`` when none came in ``timeout_s`` seconds."""
        if self._packets:
            return self._packets.popleft()
        started = now = time.monotonic()
        deadline = started + timeout_s
        while not self._packets:
            self._wait(deadline - now)
            self._write()
            damaged = self._read()
            now = time.monotonic()
            if damaged:  # that was an answer, maybe the last
                deadline = min(deadline, now + HASTE_S)
            if not self._packets and now >= deadline:
                self._patience.silent()
                self._vain += 1
                self._copies = min(1 + 2 * self._vain, MOST_COPIES)
                return None
        self._patience.heard(now - started)
        self._vain = 0
        self._copies = 1
        return self._packets.popleft()

    def close(self) -> None:
        """Close the port; calling it again does nothing."""
        self._port.close()

    def _wait(self, timeout_s: float) -> None:
        """Until the port has something, or takes something that waits; not longer."""
        if os.name != "posix":
            if not self._port.in_waiting:
                time.sleep(min(max(timeout_s, 0), TICK_S))
            return
        port = [self._port.fileno()]
        select.select(port, port if self._unsent else [], [], max(timeout_s, 0))

    def _write(self) -> None:
        try:
            while self._unsent and self._takes():
                self._written += self._port.write(self._unsent[0][self._written :]) or 0
                if self._written < len(self._unsent[0]):
                    return
                self._unsent.popleft()
                self._written = 0
        except Exception as error:
            if type(error).__name__ != "SerialTimeoutException":  # which is: the port is full
                raise self._broken(error) from error

    def _takes(self) -> bool:
        """Whether the port takes a byte now: pyserial's write spins while a port takes none."""
        return os.name != "posix" or bool(select.select([], [self._port.fileno()], [], 0)[1])

    def _read(self) -> bool:
        """Read what has come; whether a damaged frame was in it."""
        try:
            if os.name == "posix" and not select.select([self._port.fileno()], [], [], 0)[0]:
                return False
            chunk = self._port.read(READ_BYTES)
        except Exception as error:  # pyserial raises five kinds for a lost port
            raise self._broken(error) from error
        self._received += chunk
        *frames, rest = bytes(self._received).split(b"\0")
        self._received = bytearray(rest if len(rest) <= FRAME_LIMIT_BYTES else b"")
        found = [decode_frame(inside) for inside in frames if inside]
        self._packets.extend(packet for packet in found if packet is not None)
        damaged = None in found
        if damaged:
            self._patience.damaged()
        return damaged

    def _broken(self, error: Exception) -> DeviceError:
        return DeviceError(
            f"the link at {self._path} broke ({_reason(error)}); plug it in and connect again"
        )


class _Patience:
    """How long to wait for an answer: long on a good link, as measured on one that loses frames.

    Waiting too short costs a packet sent in vain, waiting too long costs the time; so it gets
    shorter only where frames were lost of late. Each wait in a row in which nothing at all was
    heard makes the next one longer, up to a quarter of the first.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._mean_s, self._deviation_s = longest_s / 20, longest_s / 80
        self._good = GOOD_PACKETS
        self._factor = 1.0

    @property
    def timeout_s(self) -> float:
        if self._good >= GOOD_PACKETS:
            return self._longest_s
        measured_s = max(HASTE_S, self._mean_s + 2 * self._deviation_s)
        return min(self._longest_s / 4, self._factor * measured_s)

    def heard(self, waited_s: float) -> None:
        """A packet came after a wait; mean and deviation are kept as TCP does (RFC 6298).

        One wait that is far too long, such as of a computer that was busy, is not believed.
        """
        waited_s = min(waited_s, 3 * max(self._mean_s, HASTE_S))
        self._good += 1
        self._factor = 1.0
        self._deviation_s += (abs(waited_s - self._mean_s) - self._deviation_s) / 4
        self._mean_s += (waited_s - self._mean_s) / 8

    def damaged(self) -> None:
        """A frame came that is not whole: the device answers, the link is bad."""
        self._good = 0
        self._factor = 1.0

    def silent(self) -> None:
        """A wait was in vain."""
        if self._good < GOOD_PACKETS:
            self._factor *= SLOWER
        self._good = 0


def open_device(url: DeviceUrl, config: AcceleratorConfig | None) -> SerialTransport:
    """Open ``serial://PATH?baud=N``; ``config``, if given, is what the device must have."""
    if not url.path:
        raise InputError('serial needs a port, as in "serial:///dev/ttyUSB0?baud=3000000"')
    for key in url.query:
        if key != "baud":
            raise InputError(f"unknown key {key!r} for device 'serial'; known are baud")
    text = url.query.get("baud", str(MAX_BAUD))
    # isdecimal alone takes digits of other scripts.
    if not (text.isascii() and text.isdecimal() and MIN_BAUD <= int(text) <= MAX_BAUD):
        raise InputError(f"baud must be {MIN_BAUD} to {MAX_BAUD}, not {text!r}")
    return SerialTransport(url.path, int(text))


def serial_ports() -> list[tuple[str, str]]:
    """The serial ports of this computer: device URL and description."""
    _pyserial()
    from serial.tools import list_ports

    return [(f"serial://{port.device}", port.description) for port in list_ports.comports()]


def _pyserial() -> Any:
    try:
        import serial
    except ImportError as error:
        raise ToolError("pyserial is missing; run pip install pyserial") from error
    return serial


def _reason(error: Exception) -> str:
    """An error's own words in one line."""
    number = getattr(error, "errno", None)
    text = os.strerror(number) if number else str(error)
    return text.strip().splitlines()[0] if text.strip() else "no reason"
