"""A session that finds out how long a packet may be on its way to the device."""

from __future__ import annotations

from tritloom.host.command import Command
from tritloom.host.session import Session
from tritloom.rtl.spec.commands import OVERHEAD_BYTES, Opcode, Response, Status
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["ProvedSession"]

SIZES = (1472, 1200, 508)
"""Packets that are tried after the device's longest one: a whole Ethernet frame, what passes most
tunnels, and what passes every IPv4 network."""
TRIES = 3
"""How often a size is tried, in case that a packet is lost for another reason."""
FIRST_PROBE = 0x8000
"""The first seq of a probe, far from those of the first commands."""


class ProvedSession(Session):
    """A session whose packets are as long as the link carries, if the transport does not know it.

    A transport with `packet_bytes` carries packets of that size in general. Its network may carry
    longer ones, or none of that size. So the session tries: RESET with its own number changes
    nothing, and its payload may be as long as any.
    """

    _proved_bytes: int | None = None

    def prove(self, config: AcceleratorConfig) -> None:
        """Find the longest packet that passes; call it when no command waits for a response.

        If none of the sizes passes, packets are as short as on a bad link.

        Raises
        ------
        DeviceError : the link broke
        """
        if not hasattr(self._transport, "packet_bytes"):
            return
        longest = config.max_payload + OVERHEAD_BYTES
        self._proved_bytes = 0
        for number, size in enumerate([longest, *(size for size in SIZES if size < longest)]):
            if self._passes(size, FIRST_PROBE + TRIES * number):
                self._proved_bytes = size
                return

    def payload_limit(self, most: int) -> int:
        """As `Session.payload_limit`, with what was proved."""
        if self._proved_bytes is None:
            return super().payload_limit(most)
        return self._limit(most, self._proved_bytes)

    def _passes(self, size: int, first_seq: int) -> bool:
        """Whether a packet of that many bytes gets to the device."""
        for seq in range(first_seq, first_seq + TRIES):
            self._send(
                [Command(opcode=Opcode.RESET, seq=seq, payload=bytes(size - OVERHEAD_BYTES))]
            )
            self._passed = self._packets
            for _ in range(self._useless_limit):
                if not self._received:
                    self._receive(self._transport.timeout_s)
                if not self._received:
                    break
                response = Response.parse(self._received.popleft())
                if (
                    response is not None
                    and (response.session, response.opcode) == (self.number, Opcode.RESET)
                    and (response.seq, response.status) == (seq, Status.OK)
                ):
                    return True
                self.discarded += 1
        return False
