"""A driver's transport to a simulated board's UART, bit by bit, in the board's time."""

from __future__ import annotations

from collections import deque

from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.frames import decode_frame, encode_frame
from tritloom.sim.device.cxxrtl import UartSimulation, build
from tritloom.sim.device.simulated import SimulatedDesign

__all__ = ["UartTransport"]


class UartTransport:
    """Packets as frames on the lines of a simulated UART. The host takes no time.

    Parameters
    ----------
    config : of a device whose link is a UART

    Members
    -------
    timeout_s : time in which an idle device responds to a short command
    cycles : of the device's clock, since power-up
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        if not isinstance(config.link, Uart):
            raise ConfigError(f"a UART is needed, not {config.link.name!r}")
        self._byte_cycles = config.link.cycles_per_byte(config)
        self._clock_hz = config.clock_hz
        byte_s = self._byte_cycles / config.clock_hz
        self.timeout_s = 4 * byte_s * config.slots * config.packet_bytes
        design = SimulatedDesign(config)
        library = build(
            design.rtlil, design.recipe, config.link.divisor(config), macros=design.macros
        )
        self._simulation = UartSimulation(library, rules=design.rules)
        self._part = b""  # of a frame
        self._received: deque[bytes] = deque()

    @property
    def cycles(self) -> int:
        return self._simulation.cycles

    def send(self, packet: bytes) -> None:
        """Queue a packet's frame."""
        self._simulation.send(encode_frame(packet))

    def receive(self, timeout_s: float) -> bytes | None:
        """The next packet, or `None` if none has come after that much time of the device."""
        end = self.cycles + max(1, round(timeout_s * self._clock_hz))
        while not self._received and self.cycles < end:
            *frames, self._part = (self._part + self._simulation.run(self._byte_cycles)).split(
                b"\0"
            )
            self._received += filter(None, (decode_frame(frame) for frame in frames if frame))
        return self._received.popleft() if self._received else None

    def close(self) -> None:
        """Free the simulation."""
        self._simulation.close()
