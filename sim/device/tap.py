"""A simulated board with an Ethernet port on a network of this computer, behind a TAP device.

The network card that the system then has is the other end of the board's cable. So every program
can reach the board, and the system's own ARP, IP and UDP meet it. `tritloom sim --tap` runs it for
a person. Needs Linux.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import queue
import re
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from tritloom.rtl.links.udp_facts import ETHERNET_HZ, Udp
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError, InputError, ToolError
from tritloom.sim.device.ethernet import EthernetBoard

__all__ = ["EthernetBridge", "host_address", "network_config", "open_tap"]

TUN = "/dev/net/tun"
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
IFF_UP = 1
NETMASK = "255.255.255.0"
MOST_NAME = 15
STEP_CYCLES = 4096
"""Cycles between two looks at the network; they take a few milliseconds."""
QUIET_CYCLES = 1 << 20
"""Cycles that the clock runs on after the last frame moved. Then it stops until one comes. A device
that reads a large layer back moves nothing meanwhile."""
MOST_FRAME_BYTES = 1 << 14
MOST_FRAMES = 64
"""Frames that are taken at once, so that a fast sender cannot keep the clock from running."""
JOIN_S = 30.0
"""The longest wait for the bridge's thread, in seconds."""


class EthernetBridge:
    """Frames between a simulated board and a file, in a thread; use `with`.

    Parameters
    ----------
    board : the simulated board; the bridge closes it
    file : number of the file whose reads and writes are frames, such as a TAP device's; the bridge
        closes it

    Members
    -------
    bytes_in, bytes_out : bytes so far of frames to the board, and from it
    """

    def __init__(self, board: EthernetBoard, file: int) -> None:
        self.bytes_in = self.bytes_out = 0
        self._board = board
        self._file = file
        os.set_blocking(file, False)
        self._quiet_cycles = 0
        self._pulled = False
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake, self._waker = os.pipe()
        self._ended = False
        # A daemon thread, so that a test that fails without closing does not keep Python running.
        self._thread = threading.Thread(target=self._serve, name="ethernet bridge", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What `connect` takes, until the board gets another address."""
        link = self._board.config.link
        assert isinstance(link, Udp)
        return f"udp://{link.address}"

    @property
    def config(self) -> AcceleratorConfig:
        """The device's."""
        return self._board.config

    @property
    def is_running(self) -> bool:
        """Whether the simulated board still serves its port."""
        return self._thread.is_alive()

    def __enter__(self) -> EthernetBridge:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and free everything. A second call does nothing."""
        if self._thread.is_alive():
            self._do(lambda: setattr(self, "_ended", True))
            self._thread.join(JOIN_S)
        if self._wake >= 0:
            os.close(self._wake)
            os.close(self._waker)
            self._wake = self._waker = -1

    def pull(self) -> None:
        """Pull the cable: frames of both directions are lost."""
        self._do(lambda: setattr(self, "_pulled", True))

    def plug(self, *, power_up: bool = False) -> None:
        """Put the cable back; with `power_up` the board has been without power and starts anew."""
        if power_up:
            self._do(self._power_up)
        self._do(self._plug)

    def _plug(self) -> None:
        while self._read():  # what came while the cable was out is lost
            pass
        self._pulled = False

    def _power_up(self) -> None:
        config = self._board.config
        self._board.close()
        self._board = EthernetBoard(config)

    def _do(self, order: Callable[[], None]) -> None:
        """Let the thread execute `order`, and wait until it has."""
        done = threading.Event()

        def run() -> None:
            order()
            done.set()

        if not self._thread.is_alive():
            raise DeviceError("the bridge is closed; make a new one")
        self._orders.put(run)
        os.write(self._waker, b"\0")
        if not done.wait(JOIN_S):
            raise DeviceError("the bridge does not respond; its thread has failed, make a new one")

    def _serve(self) -> None:
        try:
            while not self._ended:
                self._step()
        finally:
            os.close(self._file)
            self._board.close()

    def _step(self) -> None:
        busy = self._quiet_cycles < QUIET_CYCLES
        readable, _, _ = select.select([self._wake, self._file], [], [], 0 if busy else None)
        if self._wake in readable:
            os.read(self._wake, 64)
        while not self._orders.empty():
            self._orders.get()()
            self._quiet_cycles = 0
        moved = False
        for _ in range(MOST_FRAMES if self._file in readable else 0):
            frame = self._read()
            if not frame:
                break
            if not self._pulled:
                self._board.simulation.send(frame)
                self.bytes_in += len(frame)
                moved = True
        if not (busy or moved):
            return
        before = self._board.cycles
        for frame in self._board.simulation.run(limit_cycles=STEP_CYCLES, idle_cycles=STEP_CYCLES):
            if not self._pulled:
                self.bytes_out += len(frame)
                self._write(frame)
            moved = True
        self._quiet_cycles = 0 if moved else self._quiet_cycles + self._board.cycles - before

    def _read(self) -> bytes:
        """The next frame; empty if there is none, or if the network card is switched off."""
        try:
            return os.read(self._file, MOST_FRAME_BYTES)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EIO):
                return b""
            raise

    def _write(self, frame: bytes) -> None:
        """Hand out a frame; it is lost if nobody takes it."""
        try:
            os.write(self._file, frame)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EIO, errno.ENOBUFS, errno.ECONNREFUSED):
                raise


def network_config(config: AcceleratorConfig) -> AcceleratorConfig:
    """The configuration with an Ethernet port, if it has another link."""
    if isinstance(config.link, Udp):
        return config
    least_hz = -(-ETHERNET_HZ // Udp().beat_bytes)
    return replace(config, link=Udp(), clock_hz=max(config.clock_hz, least_hz))


def host_address(config: AcceleratorConfig) -> str:
    """The address of this computer's end of the cable: the first one beside the board's."""
    assert isinstance(config.link, Udp)
    board = ipaddress.IPv4Address(config.link.address)
    network = ipaddress.IPv4Network((board, NETMASK), strict=False)
    return str(next(address for address in network.hosts() if address != board))


def open_tap(name: str, address: str) -> int:
    """A TAP device that is switched on.

    It goes away when the file is closed, unless it was made before with `ip tuntap add`.

    Parameters
    ----------
    name : of the network card that this computer then has
    address : its IPv4 address, in a network of 256 addresses

    Returns
    -------
    The number of the file that gives and takes its frames.

    Raises
    ------
    InputError : no such name
    ToolError : this system has no TAP devices, or the user may not make one
    """
    if not re.fullmatch(rf"[A-Za-z0-9_.-]{{1,{MOST_NAME}}}", name):
        raise InputError(
            f"the name of a network card has 1 to {MOST_NAME} letters, digits, '_', '.' or '-', "
            f"not {name!r}"
        )
    if sys.platform != "linux":
        raise ToolError("only Linux has TAP devices; connect to --device sim instead")
    import fcntl

    try:
        file = os.open(TUN, os.O_RDWR)
    except OSError as error:
        raise ToolError(_open_error(error)) from error
    try:
        request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI)
        fcntl.ioctl(file, TUNSETIFF, request)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
            for call, text in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, NETMASK)):
                packed = struct.pack("16sHH4s8x", name.encode(), socket.AF_INET, 0, _packed(text))
                fcntl.ioctl(port, call, packed)
            answer = fcntl.ioctl(port, SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
            (flags,) = struct.unpack_from("H", answer, 16)
            up = struct.pack("16sH22x", name.encode(), flags | IFF_UP)
            fcntl.ioctl(port, SIOCSIFFLAGS, up)
    except OSError as error:
        os.close(file)
        raise ToolError(_make_error(name, error)) from error
    return file


def _packed(address: str) -> bytes:
    return ipaddress.IPv4Address(address).packed


def _open_error(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return (
            f"this system has no {TUN}; load its module with `sudo modprobe tun`, or in a "
            "container start it with `--device /dev/net/tun`"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"you may not open {TUN}; run the command as root"
    return f"cannot open {TUN}: {error.strerror}"


def _make_error(name: str, error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return (
            "you may not make a network card here; run the command as root, or in a network of "
            "your own: `unshare -rn` starts a shell there"
        )
    if error.errno == errno.EBUSY:
        return f"another program has the TAP device {name}; give another name"
    if error.errno in (errno.EINVAL, errno.EEXIST):
        return f"{name} is a network card, but no TAP device; give another name"
    return f"cannot make the TAP device {name}: {error.strerror}"
