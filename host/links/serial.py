"""Device `serial`: packets over a serial port, framed as in `tritloom.rtl.spec.frames`."""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from collections import deque
from typing import Any

from tritloom.host.links.contract import DeviceUrl
from tritloom.host.links.patience import Patience
from tritloom.rtl.links.uart_facts import BITS_PER_BYTE, MAX_BAUD, MIN_BAUD
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError, InputError, ToolError
from tritloom.rtl.spec.frames import decode_frame, encode_frame
from tritloom.rtl.spec.remedies import package_remedy

__all__ = ["SerialTransport", "open_device", "serial_ports"]

EXCHANGE_BYTES = 256
"""Bytes of a short command and its response in frames, and of what the port may hold back."""
PATIENCE_S = 0.3
"""Time that drivers, USB bridge and scheduler may add to an exchange."""
MOST_COPIES = 8
COPIES_BYTES = 512
"""Most copies of a packet that are sent at once, and most bytes of all copies together."""
RECENT_FRAMES = 32
"""Frames by which one that is sent again is known: more than are under way on a bad link."""
FRAME_LIMIT_BYTES = 1 << 14
"""Longer than any frame: more bytes without an end are garbage."""
READ_BYTES = 1 << 12
TICK_S = 0.001
"""Time between two looks at a port, where the system cannot wait for it."""


class SerialTransport:
    """Packets over one serial port.

    Nothing blocks. Bytes that the port does not accept are stored, and written while `receive`
    waits. If a stored frame is sent again before its first byte was written, it is stored once.

    Parameters
    ----------
    path : of the port, such as `/dev/ttyUSB0`
    baud : bits a second

    Raises
    ------
    DeviceError : the port cannot be opened; later also, if it goes away
    """

    def __init__(self, path: str, baud: int) -> None:
        serial = _pyserial()
        self._path = path
        try:
            self._port: Any = serial.Serial(path, baud, timeout=0, write_timeout=0, exclusive=True)
        except (serial.SerialException, ValueError, OSError) as error:
            raise DeviceError(f"cannot open {path}: {_open_error(path, error)}") from error
        self._unsent: deque[bytes] = deque()
        self._written = 0  # bytes of the first unsent frame
        self._recent: deque[bytes] = deque(maxlen=RECENT_FRAMES)
        self._received = bytearray()
        self._packets: deque[bytes] = deque()
        self._silences = 0  # time-outs in a row
        self._copies = 1
        self._patience = Patience(PATIENCE_S + BITS_PER_BYTE * EXCHANGE_BYTES / baud)

    @property
    def timeout_s(self) -> float:
        """Seconds in which an idle device responds to a short command, as far as is known."""
        return self._patience.timeout_s

    def send(self, packet: bytes) -> None:
        """Store a packet, and write what the port accepts.

        After a time-out, the session first sends its oldest packet again. That packet goes out
        several times at once: every later command waits for it, and another time-out would cost
        more than the extra bytes.
        """
        frame = encode_frame(packet)
        if frame not in self._recent:  # the session sends new commands as the earlier ones are done
            self._recent.append(frame)
            self._patience.advanced()
        if frame not in list(self._unsent)[1:]:
            copies = 1 if self._unsent else min(self._copies, COPIES_BYTES // len(frame))
            self._unsent.extend([frame] * max(1, copies))
            self._copies = 1
        self._write()

    def receive(self, timeout_s: float) -> bytes | None:
        """The next whole packet; `None` if none has come after `timeout_s` seconds."""
        if self._packets:
            return self._packets.popleft()
        started_s = now_s = time.monotonic()
        deadline_s = started_s + timeout_s
        while not self._packets:
            self._wait(deadline_s - now_s)
            self._write()
            damaged = self._read()
            now_s = time.monotonic()
            if damaged:  # this was a response, maybe the last one
                deadline_s = min(deadline_s, now_s + self._patience.haste_s)
            if not self._packets and now_s >= deadline_s:
                self._patience.silent()
                self._silences += 1
                self._copies = min(1 + 2 * self._silences, MOST_COPIES)
                return None
        self._patience.heard(now_s - started_s)
        self._silences = 0
        self._copies = 1
        return self._packets.popleft()

    def close(self) -> None:
        """Close the port. A second call does nothing."""
        self._port.close()

    def _wait(self, timeout_s: float) -> None:
        """Wait until the port can be read, or can be written if frames are stored."""
        if os.name == "posix":
            _ready(self._port.fileno(), bool(self._unsent), max(timeout_s, 0))
        elif not self._port.in_waiting:
            time.sleep(min(max(timeout_s, 0), TICK_S))

    def _write(self) -> None:
        try:
            while self._unsent and self._is_writable():
                self._written += self._port.write(self._unsent[0][self._written :]) or 0
                if self._written < len(self._unsent[0]):
                    return
                self._unsent.popleft()
                self._written = 0
        except Exception as error:
            if type(error).__name__ != "SerialTimeoutException":  # it means that the port is full
                raise self._broken(error) from error

    def _is_writable(self) -> bool:
        """Whether the port accepts a byte now: pyserial's `write` spins until it does."""
        return os.name != "posix" or _ready(self._port.fileno(), True, 0)[1]

    def _read(self) -> bool:
        """Read what has come. Returns whether there was a damaged frame."""
        try:
            chunk = self._read_bytes()
        except Exception as error:  # pyserial raises five kinds for a port that went away
            raise self._broken(error) from error
        self._received += chunk
        *frames, rest = bytes(self._received).split(b"\0")
        self._received = bytearray(rest if len(rest) <= FRAME_LIMIT_BYTES else b"")
        packets = [decode_frame(inside) for inside in frames if inside]
        self._packets.extend(packet for packet in packets if packet is not None)
        damaged = None in packets
        if damaged:
            self._patience.damaged()
        return damaged

    def _read_bytes(self) -> bytes:
        if os.name != "posix":
            return bytes(self._port.read(READ_BYTES))
        port = self._port.fileno()
        if not _ready(port, False, 0)[0]:
            return b""
        # Not pyserial's `read`, which fails for file numbers from 1024 on.
        chunk = os.read(port, READ_BYTES)
        if not chunk:  # it can be read, and yet there is nothing: the other end is gone
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return chunk

    def _broken(self, error: Exception) -> DeviceError:
        return DeviceError(
            f"the link at {self._path} broke ({_reason(error)}); plug it in and connect again"
        )


def open_device(url: DeviceUrl, config: AcceleratorConfig | None) -> SerialTransport:
    """Open `serial://PATH?baud=N`. The device has its own configuration; `config` is not used."""
    if not url.path:
        raise InputError('serial needs a port, as in "serial:///dev/ttyUSB0?baud=3000000"')
    for key in url.query:
        if key != "baud":
            raise InputError(f"unknown key {key!r} for device 'serial'; known are baud")
    text = url.query.get("baud", str(MAX_BAUD))
    # isdecimal alone accepts digits of other scripts.
    if not (text.isascii() and text.isdecimal() and MIN_BAUD <= int(text) <= MAX_BAUD):
        raise InputError(f"baud must be {MIN_BAUD} to {MAX_BAUD}, not {text!r}")
    return SerialTransport(url.path, int(text))


def serial_ports() -> list[tuple[str, str]]:
    """The serial ports of this computer: device URL and description of each."""
    _pyserial()
    from serial.tools import list_ports

    return [(f"serial://{port.device}", port.description) for port in list_ports.comports()]


def _pyserial() -> Any:
    try:
        import serial
    except ImportError as error:
        raise ToolError(f"pyserial is missing; {package_remedy('pyserial')}") from error
    return serial


def _ready(port: int, write: bool, timeout_s: float) -> tuple[bool, bool]:
    """Wait until a port can be read, or if `write` is set, written.

    A port that is broken counts as both, so that reading or writing it shows the error.

    Returns
    -------
    readable, writable : both False if `timeout_s` has passed
    """
    if sys.platform == "darwin":  # its poll does not take terminals
        readers, writers, _ = select.select([port], [port] if write else [], [], timeout_s)
        return bool(readers), bool(writers)
    # Not select, which takes only file numbers below 1024.
    poll = select.poll()
    poll.register(port, select.POLLIN | (select.POLLOUT if write else 0))
    events = 0
    for _, mask in poll.poll(1000 * timeout_s):
        events |= mask
    broken = events & (select.POLLERR | select.POLLHUP | select.POLLNVAL)
    return bool(events & select.POLLIN or broken), bool(events & select.POLLOUT or broken)


def _open_error(path: str, error: Exception) -> str:
    """Why a port cannot be opened, and the remedy."""
    number = getattr(error, "errno", None)
    if number in (errno.EAGAIN, errno.EBUSY) or "PermissionError" in str(error):  # on Windows
        return "another program has it open; close that program"
    if number in (errno.EACCES, errno.EPERM):
        group = _group(path)
        return (
            f"you may not use it; join the group {group} with `sudo usermod -aG {group} $USER`, "
            "then log in again"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return "too many files are open; close some, or raise the limit with `ulimit -n`"
    reason = _reason(error)
    if reason.startswith("Could not configure port"):  # pySerial, where termios fails
        reason = "it is no serial port, or nothing is behind it"
    return f"{reason}; `tritloom devices` lists the ports"


def _group(path: str) -> str:
    """The group that may use a port: mostly dialout, on some systems uucp."""
    try:
        import grp

        group = grp.getgrgid(os.stat(path).st_gid).gr_name
    except (ImportError, KeyError, OSError):
        return "dialout"
    return "dialout" if group == "root" else group


def _reason(error: Exception) -> str:
    """An error's own words in one line."""
    number = getattr(error, "errno", None)
    text = os.strerror(number) if number else str(error)
    return text.strip().splitlines()[0] if text.strip() else "no reason"
