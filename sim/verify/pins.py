"""The pins of the design under test, by their meaning."""

from __future__ import annotations

from typing import Any

from tritloom.rtl.links.port_names import StreamNames
from tritloom.sim.verify.settings import port_names

__all__ = ["LAST", "Pins", "StreamPins"]

LAST = 0x100
"""The bit of a payload that ends a packet; the byte is below it."""


class Pins:
    """The design's pins; its manifest has their names.

    Members
    -------
    clock, reset : pins of one bit
    reset_level : the level that resets
    i : stream of commands
    o : stream of responses
    """

    def __init__(self, dut: Any) -> None:
        names = port_names()
        self.clock = getattr(dut, names.clock)
        self.reset = getattr(dut, names.reset)
        self.reset_level = int(names.reset_active == "high")
        self.i = StreamPins(dut, names.commands)
        self.o = StreamPins(dut, names.responses)


class StreamPins:
    """The pins of one packet stream."""

    def __init__(self, dut: Any, names: StreamNames) -> None:
        self.data = getattr(dut, names.data)
        self.last = getattr(dut, names.last)
        self.valid = getattr(dut, names.valid)
        self.ready = getattr(dut, names.ready)
        for name, bits in names.widths.items():
            size = len(getattr(dut, name))
            assert size == bits, f"{name} must have {bits} bits, not {size}"

    def put(self, payload: int) -> None:
        """Offer a byte, with `LAST` if it ends its packet."""
        self.data.value, self.last.value = payload & 0xFF, payload >> 8

    def get(self) -> int:
        """The byte that is offered, with `LAST` if it ends its packet."""
        return int(self.data.value) | int(self.last.value) << 8
