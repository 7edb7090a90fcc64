"""What the openers of simulated devices share."""

from __future__ import annotations

from typing import Protocol

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError

__all__ = ["DeviceUrl", "require_config"]


class DeviceUrl(Protocol):
    """What an opener reads of the URL of a device."""

    @property
    def scheme(self) -> str: ...


def require_config(url: DeviceUrl, config: AcceleratorConfig | None) -> AcceleratorConfig:
    """The configuration to simulate; a simulated device has none of its own."""
    if config is None:
        raise ConfigError(f"{url.scheme} needs a configuration; name a board or pass config=")
    return config
