"""Facts of the link `uart`: a serial line, 8N1."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from tritloom.rtl.spec.frames import BLOCK_BYTES, most_frame_bytes
from tritloom.rtl.spec.plugins import Config, Link, Storage, require, require_integer

__all__ = ["BITS_PER_BYTE", "MAX_BAUD", "MIN_BAUD", "Uart"]

BITS_PER_BYTE = 10
"""Bits on the line for each byte: one start bit, eight data bits, one stop bit."""
MIN_BAUD = 1200
MAX_BAUD = 3_000_000
MAX_BAUD_ERROR = 0.02
"""Half of what 8N1 bears: the last bit is sampled within half a bit, ten bits after the start."""
LEAST_DIVISOR = 4
"""Fewest clock cycles of a bit for which the receiver still samples in its middle."""


@dataclass(frozen=True, kw_only=True)
class Uart(Link):
    """A serial line.

    Parameters
    ----------
    baud : bits a second in each direction
    """

    name: ClassVar[str] = "uart"
    component: ClassVar[str] = "tritloom.rtl.links.uart:UartLink"
    pins: ClassVar = MappingProxyType(
        {
            "rx": "serial line to the accelerator, asynchronous, idle high",
            "tx": "serial line from the accelerator, idle high",
        }
    )

    resource: ClassVar[str] = "uart"
    tie: ClassVar[str] = "tritloom.boards.pins.uart:tie"

    baud: int

    def check(self, config: Config) -> None:
        high = min(MAX_BAUD, config.clock_hz // LEAST_DIVISOR)
        require_integer("link: baud", self.baud, MIN_BAUD, high)
        real = config.clock_hz / self.divisor(config)
        require(
            abs(real - self.baud) <= MAX_BAUD_ERROR * self.baud,
            f"link: baud must be within {MAX_BAUD_ERROR:.0%} of clock_hz / n: the nearest to "
            f"{self.baud} is {real:.0f}",
        )

    def title(self) -> str:
        return f"UART at {self.baud / 1e6:g} Mbaud"

    def divisor(self, config: Config) -> int:
        """Clock cycles of a bit."""
        return round(config.clock_hz / self.baud)

    def storage(self, config: Config) -> tuple[Storage, ...]:
        """The block of a frame that waits for its length."""
        return (Storage(8, BLOCK_BYTES),)

    def cycles_per_byte(self, config: Config) -> int:
        return BITS_PER_BYTE * self.divisor(config)

    def framed_bytes(self, packet_bytes: int) -> int:
        return most_frame_bytes(packet_bytes)
