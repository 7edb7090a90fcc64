"""Measures the CPU time that the driver takes on this computer, without a device.

The transport responds at once. Its own time is measured alone, with the same packets, and taken
off, so that what is left is the driver's.
"""

from __future__ import annotations

import gc
import platform
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tritloom.host.device import Device
from tritloom.host.layer import TernaryLayer
from tritloom.host.session import Command, Session
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import (
    CRC_BYTES,
    FIRST_SEQ,
    HEADER_BYTES,
    PROTOCOL_VERSION,
    Opcode,
    Request,
    Response,
    identity,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.requests import response_bytes

__all__ = ["CRC_CALLS", "InstantTransport", "crc_us", "make_checksums", "measure_host"]

SLOTS = (8, 16, 32, 64)
"""Packets that the device buffers; one less is the window."""
FEATURES = 64
"""Inputs and outputs of the small layer: one LOAD, one RUN and one RESULTS a call."""
CONFIG = AcceleratorConfig(
    lanes=20,
    rows=2,
    memory=BlockRam(words=1024),
    max_in_features=256,
    max_out_features=256,
    slots=SLOTS[0],
)
PAYLOAD = bytes(64)
"""Of each command."""
CALLS = 100
COMMANDS = 1000
CRC_CALLS = 2000
ROUNDS = 40
"""How often everything is measured. The least time counts: other work on the computer only adds."""
REPEATED = slice(2, 9)
"""Bytes of a packet's header that a response repeats: from the seq to the opcode."""


class InstantTransport:
    """A transport whose device responds OK to every packet at once, with a payload of zeros.

    It makes each response from the request's header and what it made before for the same command,
    so that it costs little more than one checksum.

    Parameters
    ----------
    config : the device's
    identity_bytes : payload of the response to IDENTIFY, instead of the identity

    Members
    -------
    packets : what was sent, in order, if `records` is set
    """

    timeout_s = 1.0

    def __init__(self, config: AcceleratorConfig, identity_bytes: int | None = None) -> None:
        self._identity_bytes = identity_bytes
        self.packets: list[bytes] = []
        self.records = False
        self._config = config
        self._known: dict[bytes, tuple[bytes, bytes]] = {}
        self._responses: deque[bytes] = deque()

    def send(self, packet: bytes) -> None:
        """Make the response to a packet."""
        command = packet[REPEATED.stop - 1 : HEADER_BYTES]
        known = self._known.get(command)
        if known is None:
            known = self._known[command] = self._parts(packet)
        length, rest = known
        body = length + packet[REPEATED] + rest
        self._responses.append(body + zlib.crc32(body).to_bytes(CRC_BYTES, "little"))
        if self.records:
            self.packets.append(packet)

    def receive(self, timeout_s: float) -> bytes | None:
        """The oldest response that was not received yet."""
        return self._responses.popleft() if self._responses else None

    def close(self) -> None:
        """Nothing is open."""

    def _parts(self, packet: bytes) -> tuple[bytes, bytes]:
        """What stands before and behind the bytes of the response that `packet` gives."""
        request = Request.parse(packet)
        if request is None:
            raise ValueError("the packet is not sound")
        start, size = request.address, response_bytes(self._config, request)
        about = identity(self._config)[start : start + size]
        payload = about if request.opcode == Opcode.IDENTIFY else bytes(size)
        if request.opcode == Opcode.IDENTIFY and self._identity_bytes is not None:
            payload = bytes(self._identity_bytes)
        value = PROTOCOL_VERSION if request.opcode == Opcode.RESET else 0
        response = Response(request.opcode, expected=FIRST_SEQ, value=value, payload=payload).pack()
        return response[: REPEATED.start], response[REPEATED.stop : -CRC_BYTES]


@dataclass(slots=True)
class _Work:
    """Something to measure: `run` does it `count` times."""

    run: Callable[[], object]
    count: int
    least_us: float = float("inf")

    def measure(self) -> None:
        """Do it, and remember the CPU time of one, if it is the least so far."""
        start_s = time.process_time()
        self.run()
        self.least_us = min(self.least_us, 1e6 * (time.process_time() - start_s) / self.count)


def make_checksums() -> None:
    """The yardstick of a computer: `CRC_CALLS` times `zlib.crc32` of 1024 bytes."""
    block = bytes(1024)
    for _ in range(CRC_CALLS):
        zlib.crc32(block)


def crc_us() -> float:
    """Microseconds of CPU time that one of these checksums takes."""
    start_s = time.process_time()
    make_checksums()
    return 1e6 * (time.process_time() - start_s) / CRC_CALLS


def measure_host(rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure the driver on this computer, in microseconds of CPU time.

    Parameters
    ----------
    rounds : how often everything is measured; the least time of each counts

    Returns
    -------
    dict[str, Any]
        `cpu_us_per_call`, of `Device.matmul` with a small layer; `cpu_us_per_command` by `slots`,
        of one of many commands that keep the window full; both without the transport, whose share
        was `transport_us_per_call` and `transport_us_per_command`. `crc32_us_per_kb` is a yardstick
        of the same computer: `zlib.crc32` of 1024 bytes.
    """
    call, call_transport = _calls()
    commands = {slots: _commands(slots) for slots in SLOTS}
    crc = _Work(make_checksums, CRC_CALLS)
    for _ in range(rounds):
        for work in (call, call_transport, crc, *sum(commands.values(), ())):
            gc.collect()  # what earlier work has left behind is not this one's
            work.measure()
    _, command_transport = commands[SLOTS[0]]
    return {
        "cpu_us_per_call": _difference(call, call_transport),
        "cpu_us_per_command": {
            str(slots): _difference(*works) for slots, works in commands.items()
        },
        "crc32_us_per_kb": round(crc.least_us, 3),
        "transport_us_per_call": round(call_transport.least_us, 2),
        "transport_us_per_command": round(command_transport.least_us, 2),
        "python": platform.python_version(),
        "command": "tritloom measure host --json",
    }


def _difference(whole: _Work, transport: _Work) -> float:
    return round(whole.least_us - transport.least_us, 2)


def _calls() -> tuple[_Work, _Work]:
    """Products with a small layer, and the work of the transport in them."""
    transport = InstantTransport(CONFIG)
    device = Device(transport, url="instant", config=CONFIG)
    trits = np.ones((FEATURES, FEATURES), np.int8)
    handle = device.load(TernaryLayer.from_trits(trits, 1.0))
    codes = np.ones((1, FEATURES), np.int8)

    def calls() -> None:
        for _ in range(CALLS):
            device.matmul(handle, codes)

    return _Work(calls, CALLS), _Work(_replay(transport, calls), CALLS)


def _commands(slots: int) -> tuple[_Work, _Work]:
    """Commands of one session that keep the window full, and the work of the transport in them."""
    config = replace(CONFIG, slots=slots)
    transport = InstantTransport(config)
    session = Session(transport, "instant")
    session.open()
    session.configure(config)

    def commands() -> None:
        made = [Command(opcode=Opcode.LOAD, payload=PAYLOAD) for _ in range(COMMANDS)]
        session.enqueue(*made)
        for command in made:
            session.require(command)

    return _Work(commands, COMMANDS), _Work(_replay(transport, commands), COMMANDS)


def _replay(transport: InstantTransport, run: Callable[[], object]) -> Callable[[], None]:
    """The packets of a run, sent to the transport and their responses received, by nobody else."""
    transport.records = True
    run()
    transport.records = False
    packets: Sequence[bytes] = transport.packets

    def replay() -> None:
        for packet in packets:
            transport.send(packet)
            transport.receive(0.0)

    return replay
