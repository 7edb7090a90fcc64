"""The contract of a link on the host's side, and how a URL names a device.

A package adds a kind of device with one entry point in the group `tritloom.devices`:
`scheme = "module:open_device"`, where `open_device(url, config)` returns a `Transport`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl

from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError, InputError, ToolError
from tritloom.rtl.spec.registry import Registry
from tritloom.rtl.spec.remedies import package_remedy

__all__ = [
    "DEFAULT_BOARD",
    "BlockTransport",
    "DeviceUrl",
    "Transport",
    "in_blocks",
    "known_config",
    "open_transport",
]

DEFAULT_BOARD = "ulx3s-85f"
SIMULATED = ("golden", "sim")
"""Devices that are made from a configuration. Any other device has its own."""
SIMULATED_LINK = PacketStream(width=4)
"""The link of a simulated board, which has no pins. With a byte a cycle most cycles, and so most of
the simulator's time, would pass while the results of a layer leave."""


class Transport(Protocol):
    """A link to one device.

    It may lose, repeat, reorder and damage packets, but it invents none. If the link breaks, such
    as by a pulled cable, its methods raise `OSError` or `DeviceError`.

    A transport may have two more members. `remedy` says what to do about a device that does not
    respond. `packet_bytes` is the longest packet that the link carries in general; `connect` then
    tries which packets pass, because a network may carry longer ones or only shorter ones.
    """

    @property
    def timeout_s(self) -> float:
        """Seconds in which an idle device responds to a short command, link included."""

    def send(self, packet: bytes) -> None:
        """Send one whole packet. Returns without waiting for the device."""

    def receive(self, timeout_s: float) -> bytes | None:
        """The next packet from the device; `None` if none has come after `timeout_s` seconds.

        The seconds are those of the device, which is not real time if it is simulated.
        """

    def close(self) -> None:
        """Give the link back to the system. A second call does nothing."""


class BlockTransport(Transport, Protocol):
    """A transport that moves several packets in one call, which costs less than a call each.

    The packets of a block are as independent as those of several calls: each may be lost.
    """

    @property
    def block(self) -> int:
        """Most packets of one call."""

    def send_block(self, packets: Sequence[bytes]) -> None:
        """Send whole packets, at most `block`, in their order."""

    def receive_block(self, timeout_s: float) -> list[bytes]:
        """The next packets, at most `block`; none if none has come after `timeout_s` seconds."""


def in_blocks(transport: Transport) -> BlockTransport | None:
    """The transport, if it moves blocks of packets."""
    return cast(BlockTransport, transport) if hasattr(transport, "receive_block") else None


@dataclass(frozen=True, slots=True)
class DeviceUrl:
    """`scheme[://path][?key=value&…]`, such as `sim?board=icebreaker`, `serial:///dev/ttyUSB0`.

    Members
    -------
    text : the whole URL
    scheme : the kind of device
    path : what follows `://`, or an empty string
    query : the keys and values after the question mark
    """

    text: str
    scheme: str
    path: str
    query: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> DeviceUrl:
        """The parts of a URL; `InputError` if it has another form."""
        if not isinstance(text, str):
            raise InputError(f'device URL must be text such as "sim", not {text!r}')
        place, mark, tail = text.partition("?")
        scheme, _, path = place.partition("://")
        if not scheme or not scheme.isidentifier():
            raise InputError(
                f'device URL must be like "sim" or "scheme://path?key=value", not {text!r}'
            )
        try:
            pairs = parse_qsl(tail, keep_blank_values=True, strict_parsing=bool(mark))
        except ValueError:
            raise InputError(
                f"device URL {text!r} must have key=value pairs after the question mark"
            ) from None
        query = dict(pairs)
        if len(query) < len(pairs):
            raise InputError(f"device URL {text!r} must give each key once")
        return cls(text, scheme, path, MappingProxyType(query))


def open_transport(
    url: DeviceUrl, config: AcceleratorConfig | None
) -> tuple[Transport, AcceleratorConfig | None]:
    """Open the link to a device.

    Parameters
    ----------
    url : of the device
    config : what a simulated device is made from instead of a board, or what any other device must
        agree with in layout; may be None

    Returns
    -------
    transport : the link
    expected : the configuration that the device must agree with in layout; None if any will do

    Raises
    ------
    InputError : the URL is wrong
    ToolError : a package is missing that the device needs
    DeviceError : the link cannot be opened
    """
    config = known_config(url, config)
    device = _load_named(devices, url.scheme)
    transport: Transport = device(url, config)
    return transport, config


def known_config(
    url: DeviceUrl, config: AcceleratorConfig | None = None
) -> AcceleratorConfig | None:
    """The configuration that a device must have, as far as it is known before it is opened.

    A simulated device is made from `config` or from the board in its URL. Any other device has a
    configuration of its own: then this is `config`, or None.

    Raises
    ------
    InputError : the device or the board is unknown, or both a board and `config` are given
    """
    if url.scheme not in devices:
        raise InputError(f"unknown device {url.scheme!r}; known are {', '.join(devices)}")
    return _simulated_config(url, config) if url.scheme in SIMULATED else config


def _simulated_config(url: DeviceUrl, config: AcceleratorConfig | None) -> AcceleratorConfig:
    if url.path:
        raise InputError(f"device {url.scheme!r} takes no path, not {url.path!r}")
    for key in url.query:
        if key not in ("board", "preset"):
            raise InputError(
                f"unknown key {key!r} for device {url.scheme!r}; known are board, preset"
            )
    if config is None:
        board = _load_named(_boards, url.query.get("board", DEFAULT_BOARD))
        try:
            resolved: AcceleratorConfig = board.with_preset(url.query.get("preset")).config
        except ConfigError as error:
            raise InputError(str(error)) from None
        return replace(resolved, link=SIMULATED_LINK)
    for key in url.query:
        raise InputError(f"give either {key}= or config=, not both")
    return config


def _load_named(registry: Registry[Any], name: str) -> Any:
    if name not in registry:
        raise InputError(f"unknown {registry.kind} {name!r}; known are {', '.join(registry)}")
    try:
        return registry[name]
    except ConfigError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise _missing(name, error.__cause__) from error
        raise


def _missing(name: str, error: ModuleNotFoundError) -> ToolError:
    package = (error.name or "").partition(".")[0]
    remedy = package_remedy(package, "sim")
    return ToolError(f"{name!r} needs the module {error.name!r}; {remedy}")


def _no_device(item: Any) -> str:
    return "" if callable(item) else f"it is {item!r:.60}, not a function that opens a device"


def _no_board(item: Any) -> str:
    known = isinstance(getattr(item, "config", None), AcceleratorConfig)
    return "" if known else "it has no configuration"


devices: Registry[Any] = Registry("device", "tritloom.devices", _no_device)
_boards: Registry[Any] = Registry("board", "tritloom.boards", _no_board)
