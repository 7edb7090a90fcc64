"""Facts of the link `stream`: packet streams for logic of your own."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from tritloom.rtl.spec.plugins import Link

__all__ = ["PacketStream"]


@dataclass(frozen=True, kw_only=True)
class PacketStream(Link):
    """No link: the accelerator's ports are the packet streams themselves."""

    name: ClassVar[str] = "stream"
    component: ClassVar[str] = "tritloom.rtl.links.stream:StreamLink"
    pins: ClassVar = MappingProxyType(
        {"i": "packets of commands, to the accelerator", "o": "packets of responses, from it"}
    )

    def title(self) -> str:
        return ""
