"""The pins of the design under test, by their meaning."""

from __future__ import annotations

import random
from typing import Any

from tritloom.rtl.links.port_names import StreamNames
from tritloom.rtl.spec.commands import sound
from tritloom.rtl.spec.registry import load_component
from tritloom.sim.verify.settings import config, held, port_names

__all__ = ["Pins", "StreamPins", "beats_of", "packet_of"]


class Pins:
    """The design's pins; its manifest has their names.

    Members
    -------
    clock, reset : pins of one bit
    memory_clock : the memory's clock; `clock` if it has none of its own
    reset_level : the level that resets
    i : stream of commands
    o : stream of responses
    held : the inputs that a plug-in brought; the benches hold them at 0
    """

    def __init__(self, dut: Any) -> None:
        names, beat_bytes = port_names(), config().link.beat_bytes
        self.clock = getattr(dut, names.clock)
        own_clock = config().memory.own_clock_hz(config()) > 0
        self.memory_clock = getattr(dut, names.memory_clock) if own_clock else self.clock
        self.reset = getattr(dut, names.reset)
        self.reset_level = int(names.reset_active == "high")
        self.i = StreamPins(dut, names.commands, beat_bytes)
        self.o = StreamPins(dut, names.responses, beat_bytes)
        self.held = [getattr(dut, name) for name in held()]
        self._dut = dut

    def surround(self, seed: str) -> None:
        """Put at the memory's pads what its record names as `bench`, if it does.

        It gets the clock of these pads.
        """
        memory = config().memory
        if memory.bench:
            attach = load_component(memory.bench)
            clock = self.memory_clock
            attach(self._dut, config(), clock, self.reset, bool(self.reset_level), seed)


class StreamPins:
    """The pins of one packet stream.

    A payload is a number: the bytes of a beat, the first one lowest, and above them the mark `last`
    of a packet's last beat. If the stream has the pin `keep`, its bits are above both.
    """

    def __init__(self, dut: Any, names: StreamNames, beat_bytes: int) -> None:
        self._bits = 8 * beat_bytes
        self.data = getattr(dut, names.data)
        self.last = getattr(dut, names.last)
        self.valid = getattr(dut, names.valid)
        self.ready = getattr(dut, names.ready)
        self.keep = getattr(dut, names.keep) if names.keep else None
        for name, bits in names.widths(beat_bytes).items():
            size = len(getattr(dut, name))
            assert size == bits, f"{name} must have {bits} bits, not {size}"

    def put(self, payload: int) -> None:
        """Offer a payload."""
        self.last.value = payload >> self._bits
        self.data.value = payload & ((1 << self._bits) - 1)

    def get(self) -> int:
        """The payload that is offered."""
        payload = int(self.data.value) | int(self.last.value) << self._bits
        if self.keep is not None:
            payload |= int(self.keep.value) << self._bits + 1
        return payload


def beats_of(packet: bytes, beat_bytes: int, rng: random.Random) -> list[int]:
    """The payloads that bring a packet.

    A design ignores the bytes after the packet's length in its last beat, so they are random. But
    they must not complete a packet that was cut short.
    """
    stated = int.from_bytes(packet[:2], "little")
    while True:
        whole = packet + rng.randbytes(-len(packet) % beat_bytes)
        if stated <= len(packet) or not sound(whole[:stated]):
            break
    beats = [
        int.from_bytes(whole[start : start + beat_bytes], "little")
        for start in range(0, len(whole), beat_bytes)
    ]
    beats[-1] |= 1 << 8 * beat_bytes
    return beats


def packet_of(whole: bytes, beat_bytes: int) -> bytes:
    """The packet in the bytes of its beats.

    It ends at the length that it states. If that is not in the last beat, nothing is cut off, and
    the packet is wrong.
    """
    stated = int.from_bytes(whole[:2], "little")
    return whole[:stated] if len(whole) - stated < beat_bytes else whole
