"""Device ``serial``: packets over a serial port, framed as ``tritloom.rtl.frames`` says."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from tritloom.host.transport import DeviceUrl
from tritloom.rtl.config import MAX_BAUD, AcceleratorConfig
from tritloom.rtl.errors import DeviceError, InputError, ToolError
from tritloom.rtl.frames import decode_frame, encode_frame

__all__ = ["SerialTransport", "open_device", "serial_ports"]

LINE_BITS = 10
"""Bits on the line for a byte."""
BUFFERED_BYTES = 1 << 15
"""Most bytes that may be on their way in both directions before an answer comes."""
PATIENCE_S = 0.2
"""What the host's drivers and the USB bridge may add."""
POLL_S = 0.02
FRAME_LIMIT_BYTES = 1 << 14
"""Longer than any frame: more bytes without an end are garbage."""


class SerialTransport:
    """Frames on one serial port.

    A port that goes away is a ``DeviceError``; ``connect`` works again when it is back.
    """

    def __init__(self, path: str, baud: int) -> None:
        serial = _pyserial()
        self._path = path
        try:
            # write_timeout 0: what the port does not take now is kept here, so nothing blocks.
            self._port: Any = serial.Serial(path, baud, timeout=POLL_S, write_timeout=0)
        except (serial.SerialException, ValueError, OSError) as error:
            raise DeviceError(
                f"cannot open {path}: {_reason(error)}; `tritloom devices` lists the ports"
            ) from error
        self.timeout_s = PATIENCE_S + LINE_BITS * BUFFERED_BYTES / baud
        self._unsent = bytearray()
        self._received = bytearray()
        self._packets: deque[bytes] = deque()

    def send(self, packet: bytes) -> None:
        """Queue a packet and write what the port takes."""
        self._unsent += encode_frame(packet)
        self._write()

    def receive(self, timeout_s: float) -> bytes | None:
        """The next whole packet; ``None`` when none came in ``timeout_s`` seconds."""
        deadline = time.monotonic() + timeout_s
        while not self._packets:
            self._write()
            self._read()
            if not self._packets and time.monotonic() >= deadline:
                return None
        return self._packets.popleft()

    def close(self) -> None:
        """Close the port; calling it again does nothing."""
        self._port.close()

    def _write(self) -> None:
        if not self._unsent:
            return
        try:
            taken = self._port.write(bytes(self._unsent))
        except Exception as error:
            if type(error).__name__ == "SerialTimeoutException":  # the port is full
                return
            raise self._broken(error) from error
        del self._unsent[: taken or 0]

    def _read(self) -> None:
        try:
            chunk = self._port.read(max(1, self._port.in_waiting))
        except Exception as error:  # pyserial raises five kinds for a port that is gone
            raise self._broken(error) from error
        self._received += chunk
        *frames, rest = bytes(self._received).split(b"\0")
        self._received = bytearray(rest if len(rest) <= FRAME_LIMIT_BYTES else b"")
        for inside in frames:
            packet = decode_frame(inside)
            if packet is not None:
                self._packets.append(packet)

    def _broken(self, error: Exception) -> DeviceError:
        return DeviceError(
            f"the link at {self._path} broke ({_reason(error)}); plug it in and connect again"
        )


def open_device(url: DeviceUrl, config: AcceleratorConfig | None) -> SerialTransport:
    """Open ``serial://PATH?baud=N``; ``config``, if given, is what the device must have."""
    if not url.path:
        raise InputError('serial needs a port, as in "serial:///dev/ttyUSB0?baud=3000000"')
    for key in url.query:
        if key != "baud":
            raise InputError(f"unknown key {key!r} for device 'serial'; known are baud")
    text = url.query.get("baud", str(MAX_BAUD))
    if not text.isdecimal() or not 1200 <= int(text) <= MAX_BAUD:
        raise InputError(f"baud must be 1200 to {MAX_BAUD}, not {text!r}")
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
    strerror = getattr(error, "strerror", None)
    return str(strerror or error).strip().splitlines()[0] if str(error).strip() else "no reason"
