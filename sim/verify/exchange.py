"""An exchange of packets with an accelerator: what a host sends, and what a link makes of it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from tritloom.rtl.spec.commands import (
    CRC_BYTES,
    HEADER,
    HEADER_BYTES,
    OVERHEAD_BYTES,
    SESSION_BITS,
    Opcode,
    Request,
    Response,
    Status,
    seal,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.sim.device.reference import ReferenceDevice
from tritloom.sim.verify.pairs import Pair, banks_read, pair_of

__all__ = ["Exchange"]

SEQ_MODULUS = 1 << 16


class Exchange:
    """Packets, sound and damaged, each with the response of the reference device.

    Parameters
    ----------
    config : the configuration of the device
    seed : of everything random

    Members
    -------
    packets : pairs of packet and response, in their order; `None` for a packet without a response
    pairs : the commands that have followed one another, of those that a device may overlap
    reference : the device that gave the responses
    """

    def __init__(self, config: AcceleratorConfig, seed: int | str) -> None:
        self.config = config
        self.reference = ReferenceDevice(config)
        self.packets: list[tuple[bytes, bytes | None]] = []
        self.pairs: set[Pair] = set()
        self._rng = random.Random(seed)
        self._session = 0
        self._seq = 1
        self._history: list[bytes] = []
        self._last: Request | None = None  # the last command, if it succeeded

    def exchange(self, packet: bytes) -> bytes | None:
        """Add a packet; its response, which is also followed: RESET begins a session."""
        packet_response = self.reference.process(packet)
        self.packets.append((packet, packet_response))
        request = Request.parse(packet)
        if packet_response is not None and request is not None and request.opcode == Opcode.RESET:
            if request.session != self._session:
                self._history.clear()
                self._last = None
                self._forget()
            response = Response.parse(packet_response)
            assert response is not None
            self._session, self._seq = request.session, response.expected
        return packet_response

    def command(self, opcode: int, **fields: Any) -> Response:
        """Add the next command in order; its response. Fields that it ignores are random."""
        return self._execute(Request(opcode, **fields))

    def _execute(self, command: Request) -> Response:
        """Add a request as the next command; its response."""
        request = self._noisy(replace(command, seq=self._seq, session=self._session))
        packet = request.pack()
        packet_response = self.exchange(packet)
        assert packet_response is not None
        self._history.append(packet)
        self._seq = (self._seq + 1) % SEQ_MODULUS
        response = Response.parse(packet_response)
        assert response is not None
        succeeded = response.status == Status.OK
        if succeeded and self._last is not None and (pair := pair_of(self._last, request)):
            self.pairs.add(pair)
        self._last = request if succeeded else None
        return response

    def _forget(self) -> None:
        """The device has forgotten its layers and results."""

    def _noisy(self, request: Request) -> Request:
        """A request with random bits in what its command, or every command, ignores."""
        ignored = {"activation_bank", "result_bank"} - banks_read(request.opcode)
        noise = {name: self._rng.getrandbits(1) for name in sorted(ignored)}
        noise["acknowledged"] = self._rng.getrandbits(8)
        return replace(request, **noise)  # type: ignore[arg-type]

    def reset(self, session: int) -> None:
        """Add a RESET."""
        request = Request(Opcode.RESET, self._rng.randrange(SEQ_MODULUS), session)
        self.exchange(self._noisy(request).pack())

    def _reset(self) -> None:
        payload = b""
        if self._rng.random() < 0.4:
            payload = self._rng.randbytes(self._rng.randint(1, self.config.max_payload))
        session = self._rng.choice((self._session, self._rng.getrandbits(SESSION_BITS)))
        request = Request(Opcode.RESET, 9, session, payload=payload)
        self.exchange(self._noisy(request).pack())

    def _other_session(self) -> None:
        session = self._session ^ 1 << self._rng.randrange(SESSION_BITS)
        opcode = self._rng.choice([opcode for opcode in Opcode if opcode != Opcode.RESET])
        payload = self._rng.randbytes(self._rng.randrange(self.config.max_payload + 1))
        request = Request(opcode, self._seq, session, payload=payload)
        self.exchange(self._noisy(request).pack())

    def _again(self) -> None:
        """One of the last commands, or another command with its number: neither is executed."""
        if not self._history:
            return
        age = self._rng.randint(1, min(len(self._history), self.config.window + 2))
        packet = self._history[-age]
        if self._rng.random() < 0.3:
            seq = (self._seq - age) % SEQ_MODULUS
            packet = Request(Opcode.LOAD, seq, self._session, payload=b"abc").pack()
        self.exchange(packet)

    def _gap(self) -> None:
        ahead = self._rng.choice((1, 2, 3, 1000, 32768, 65000))
        seq = (self._seq + ahead) % SEQ_MODULUS
        payload = self._rng.randbytes(self._rng.randrange(self.config.max_payload + 1))
        opcode = self._rng.choice((Opcode.WRITE, Opcode.LOAD))
        request = Request(opcode, seq, self._session, payload=payload)
        self.exchange(self._noisy(request).pack())

    def _sound(self) -> bytes:
        payload = self._rng.randbytes(self._rng.randrange(self.config.max_payload + 1))
        return Request(Opcode.LOAD, self._seq, self._session, payload=payload).pack()

    def _damaged(self) -> None:
        packet = bytearray(self._sound())
        match self._rng.randrange(4):
            case 0:
                packet[self._rng.randrange(len(packet))] ^= 1 << self._rng.randrange(8)
            case 1:
                del packet[self._rng.randrange(1, len(packet)) :]
            case 2:
                # A wide stream ignores what follows the length in the last beat, but no more.
                packet += self._rng.randbytes(self._rng.randrange(9) + self.config.link.beat_bytes)
            case _:  # only the length is wrong
                wrong = len(packet) + self._rng.choice((-1, 1, 256))
                packet = bytearray(seal(wrong.to_bytes(2, "little") + packet[2:-CRC_BYTES]))
        self.exchange(bytes(packet))

    def _tiny(self) -> None:
        """Too short for a header, with a right checksum."""
        size = self._rng.randrange(OVERHEAD_BYTES - CRC_BYTES)
        packet = seal((size + CRC_BYTES).to_bytes(2, "little")[:size] + bytes(max(0, size - 2)))
        self.exchange(packet[-self._rng.randint(1, len(packet)) :])

    def _overlong(self) -> None:
        """Right in everything, but longer than a packet may be."""
        size = self.config.packet_bytes + self._rng.choice((1, 2, 300))
        length = self._rng.choice((size, self.config.packet_bytes))
        head = HEADER.pack(length, self._seq, self._session, Opcode.LOAD, 0, 0, 0)
        self.exchange(seal(head + bytes(size - HEADER_BYTES - CRC_BYTES)))
