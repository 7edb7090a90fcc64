"""A link that loses, repeats, reorders and corrupts packets, in both directions, from a seed."""

import random
from collections import Counter, deque

from tritloom.host.links.contract import Transport

KINDS = ("lose", "duplicate", "reorder", "corrupt")


class FaultyTransport:
    """A transport around another one; `faults` counts what it did to packets.

    `rates`: probability of each of `KINDS` for a packet, drawn one after the other, so that
    several can befall the same packet. A reordered packet comes after the next one, a corrupt one
    has a bit flipped, bytes cut off or bytes added.
    """

    def __init__(
        self,
        inner: Transport,
        *,
        lose: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        corrupt: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.inner = inner
        self.rates = dict(zip(KINDS, (lose, duplicate, reorder, corrupt), strict=True))
        self.faults: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._held: dict[str, list[bytes]] = {"tx": [], "rx": []}
        self._received: deque[bytes] = deque()

    @property
    def timeout_s(self) -> float:
        return self.inner.timeout_s

    def send(self, packet: bytes) -> None:
        for damaged in self._through("tx", packet):
            self.inner.send(damaged)

    def receive(self, timeout_s: float) -> bytes | None:
        while not self._received:
            packet = self.inner.receive(timeout_s)
            if packet is None:
                self._received += self._held["rx"]
                self._held["rx"] = []
                break
            self._received += self._through("rx", packet)
        return self._received.popleft() if self._received else None

    def close(self) -> None:
        self.inner.close()

    def _happens(self, direction: str, kind: str) -> bool:
        happens = self._random.random() < self.rates[kind]
        self.faults[f"{direction} {kind}"] += happens
        return happens

    def _through(self, direction: str, packet: bytes) -> list[bytes]:
        """What comes out when a packet goes in."""
        if self._happens(direction, "lose"):
            return []
        packets = [packet]
        if self._happens(direction, "corrupt"):
            packets = [self._corrupted(packet)]
        if self._happens(direction, "duplicate"):
            packets = packets * 2
        if self._happens(direction, "reorder"):
            self._held[direction] += packets
            return []
        packets += self._held[direction]
        self._held[direction] = []
        return packets

    def _corrupted(self, packet: bytes) -> bytes:
        damaged = bytearray(packet)
        match self._random.randrange(3):
            case 0:
                place = self._random.randrange(8 * len(packet))
                damaged[place // 8] ^= 1 << place % 8
            case 1:
                del damaged[self._random.randrange(len(packet)) :]
            case _:
                damaged += self._random.randbytes(self._random.randrange(1, 9))
        return bytes(damaged)
