"""Facts of the link `stream`: packet streams for logic of your own."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from tritloom.rtl.spec.plugins import Config, Link, require

__all__ = ["PacketStream"]


@dataclass(frozen=True, kw_only=True)
class PacketStream(Link):
    """No link: the accelerator's ports are the packet streams themselves.

    Parameters
    ----------
    width : bytes that the streams move in a cycle: 1, 2, 4 or 8
    """

    name: ClassVar[str] = "stream"
    component: ClassVar[str] = "tritloom.rtl.links.stream:StreamLink"
    pins: ClassVar = MappingProxyType(
        {"i": "packets of commands, to the accelerator", "o": "packets of responses, from it"}
    )

    width: int = 1

    def check(self, config: Config) -> None:
        widths = (1, 2, 4, 8)
        require(
            type(self.width) is int and self.width in widths,
            f"link: width must be 1, 2, 4 or 8 bytes, not {self.width!r}",
        )

    @property
    def beat_bytes(self) -> int:
        return self.width

    def cycles_per_byte(self, config: Config) -> float:
        return 1 / self.width

    def title(self) -> str:
        return "" if self.width == 1 else f"streams of {self.width} bytes"
