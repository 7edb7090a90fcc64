"""The reference device as a board on a network: a UDP socket on the loopback interface."""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter, deque
from types import TracebackType

from tritloom.rtl.spec.commands import Opcode, Request
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.sim.device.reference import ReferenceDevice

LOOK_S = 0.02
"""Seconds after which datagrams that were held back leave anyway."""


class UdpBoard:
    """Serves a reference device in a thread, as a board does: each response goes to its asker.

    `lose`, `duplicate` and `reorder` are the probabilities of each for a datagram, in both
    directions; `faults` counts them. The network drops packets
    of more than `most_bytes`. `pulled` is the cable: nothing passes while it is set.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        *,
        lose: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        seed: int = 0,
        address: tuple[str, int] = ("127.0.0.1", 0),
        most_bytes: int = 1 << 16,
    ) -> None:
        self.config = config
        self.device = ReferenceDevice(config)
        self.faults: Counter[str] = Counter()
        self.pulled = False
        self.most_bytes = most_bytes
        self.executed: list[int] = []
        self.longest = 0
        self._rates = {"lose": lose, "duplicate": duplicate, "reorder": reorder}
        self._random = random.Random(seed)
        self._held: dict[str, deque[tuple[bytes, tuple[str, int]]]] = {
            "in": deque(),
            "out": deque(),
        }
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(address)
        self._socket.settimeout(LOOK_S)
        self.address: tuple[str, int] = self._socket.getsockname()
        self._ended = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"udp://{self.address[0]}:{self.address[1]}"

    def __enter__(self) -> UdpBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        self._socket.close()

    def reboot(self) -> None:
        """As after a power cut: no session, no layers."""
        self.device = ReferenceDevice(self.config)

    def _serve(self) -> None:
        while not self._ended:
            try:
                packet, asker = self._socket.recvfrom(1 << 16)
            except TimeoutError:
                for direction, held in self._held.items():
                    while held:
                        self._deliver(direction, *held.popleft())
                continue
            except ConnectionRefusedError:  # an asker has closed its socket
                continue
            if not self.pulled and len(packet) <= self.most_bytes:
                self.longest = max(self.longest, len(packet))
                self._through("in", packet, asker)

    def _through(self, direction: str, packet: bytes, asker: tuple[str, int]) -> None:
        if self._happens(direction, "lose") or len(packet) > self.most_bytes:
            return
        copies = 2 if self._happens(direction, "duplicate") else 1
        if self._happens(direction, "reorder"):
            self._held[direction].extend([(packet, asker)] * copies)
            return
        for _ in range(copies):
            self._deliver(direction, packet, asker)
        held = self._held[direction]
        for _ in range(len(held)):
            self._deliver(direction, *held.popleft())

    def _deliver(self, direction: str, packet: bytes, asker: tuple[str, int]) -> None:
        if direction == "out":
            self._socket.sendto(packet, asker)
            return
        request = Request.parse(packet)
        if request is not None and request.opcode == Opcode.RUN:
            self.executed.append(request.seq)
        response = self.device.process(packet)
        if response is not None:
            self._through("out", response, asker)

    def _happens(self, direction: str, kind: str) -> bool:
        happens = self._random.random() < self._rates[kind]
        self.faults[f"{direction} {kind}"] += happens
        return happens
