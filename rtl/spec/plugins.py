"""Registries of dot engines and weight memories: the facts of each, and where its hardware is.

A plug-in is one file with its facts and components, and one call of ``engines.add`` or
``memories.add`` (``tritloom.rtl.spec.packing.encodings.add`` for a weight encoding). Nothing here
imports Amaranth: ``component`` is loaded only by the hardware.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tritloom.rtl.spec.errors import ConfigError

if TYPE_CHECKING:
    from tritloom.rtl.spec.config import AcceleratorConfig


class Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """Plug-ins of one kind by name; an unknown name is a ``ConfigError`` that lists the known."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def add(self, item: T) -> T:
        known = self._items.setdefault(item.name, item)
        if known != item:
            raise ConfigError(f"{self.kind} {item.name!r} is already registered; choose a new name")
        return item

    def __getitem__(self, name: str) -> T:
        if not isinstance(name, str) or name not in self._items:
            raise ConfigError(f"{self.kind} must be one of {', '.join(self)}, not {name!r}")
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))


def load_component(path: str) -> Any:
    """The class that ``"package.module:Class"`` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Facts of a dot engine; the contract of its component is in ``tritloom.rtl.engines.contract``.

    ``latency(config)``: cycles from an accepted weight word to its sums.
    ``fill_cycles(config)``: cycles from a layer's start to its first tile being ready.
    ``tile_cycles(config)``: least cycles from one tile's first word to the next one's, as far as
    loading the tiles bounds it.
    ``reload_cycles(config)``: cycles from a tile's last word to the next tile being ready, where
    that is not loaded meanwhile; else 0.
    ``code_stride(config)``: how far apart the inputs of a code lie.
    ``encodings``: the weight encodings that it takes.
    ``check(config)`` raises ``ConfigError`` for a geometry that it cannot have.
    """

    name: str
    component: str
    encodings: tuple[str, ...]
    latency: Callable[["AcceleratorConfig"], int]
    fill_cycles: Callable[["AcceleratorConfig"], int]
    tile_cycles: Callable[["AcceleratorConfig"], int]
    reload_cycles: Callable[["AcceleratorConfig"], int] = lambda config: 0
    code_stride: Callable[["AcceleratorConfig"], int] = lambda config: 1
    check: Callable[["AcceleratorConfig"], None] = lambda config: None


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Facts of a weight memory; the contract of its component is in ``tritloom.rtl.memories.bram``.

    ``latency(config)``: cycles from an accepted request to its first word, with one word in every
    cycle after it; ``None`` where no formula gives it (a memory that stalls).
    """

    name: str
    component: str
    latency: Callable[["AcceleratorConfig"], int] | None


engines: Registry[Engine] = Registry("engine")
memories: Registry[Memory] = Registry("memory")
