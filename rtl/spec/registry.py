"""Registries: plug-ins of one kind by name, found through entry points of installed packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.remedies import known_module

__all__ = ["Registry", "load_component"]

T = TypeVar("T")


class Registry(Generic[T]):
    """The plug-ins of one kind.

    A package adds a plug-in with one entry point in the registry's group:
    `name = "module:object"`. Those that ship are found the same way. Nothing is imported before
    somebody asks for the name, so a broken package stops only those who ask for its plug-in.

    Parameters
    ----------
    kind : what a plug-in is called in messages, such as `engine`
    group : group of entry points, such as `tritloom.engines`
    fault : gets the loaded object; returns what is wrong with it, or an empty string
    """

    def __init__(self, kind: str, group: str, fault: Callable[[Any], str]) -> None:
        self.kind = kind
        self.group = group
        self._fault = fault
        self._loaded: dict[str, T] = {}
        self._entries: dict[str, list[EntryPoint]] | None = None

    def add(self, item: T) -> T:
        """Register a plug-in of this program alone, such as a notebook's; returns it.

        Raises
        ------
        ConfigError : it breaks the contract, or another plug-in has its name
        """
        name = str(getattr(item, "name", ""))
        if fault := self._fault(item):
            raise ConfigError(f"{self.kind} {name!r}: {fault}")
        known = self._loaded.get(name)
        if (known is not None and known != item) or (known is None and name in self._found()):
            raise ConfigError(f"{self.kind} {name!r} is already registered; choose a new name")
        self._loaded[name] = item
        return item

    def __getitem__(self, name: str) -> T:
        """The plug-in of that name.

        Raises
        ------
        ConfigError : the name is unknown (the message lists the known ones), two packages have it,
            or the package that has it is broken; the message names the package and the remedy
        """
        if isinstance(name, str):
            if name in self._loaded:
                return self._loaded[name]
            if name in self._found():
                self._loaded[name] = self._load(name)
                return self._loaded[name]
        raise ConfigError(f"{self.kind} must be one of {', '.join(self)}, not {name!r}")

    def __iter__(self) -> Iterator[str]:
        """All names, sorted; nothing is imported."""
        return iter(sorted({*self._loaded, *self._found()}))

    def package(self, name: str) -> str:
        """The package that brings a plug-in; empty if this program added it."""
        entries = self._found().get(name, [])
        return _package(entries[0]) if entries else ""

    def _found(self) -> dict[str, list[EntryPoint]]:
        if self._entries is None:
            self._entries = {}
            for entry in entry_points(group=self.group):
                self._entries.setdefault(entry.name, []).append(entry)
        return self._entries

    def _load(self, name: str) -> T:
        entries = self._found()[name]
        packages = sorted({_package(entry) for entry in entries})
        if len(packages) > 1:
            raise ConfigError(
                f"{self.kind} {name!r} is in two packages, {' and '.join(packages)}; uninstall one"
            )
        (package,) = packages
        try:
            item = entries[0].load()
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"{self.kind} {name!r} of the package {package} does not import ({_line(error)}); "
                f"repair or uninstall {package}"
            ) from error
        fault = self._fault(item)
        own = getattr(item, "name", name)
        if not fault and own != name:
            fault = f"its name is {own!r}, its entry point's {name!r}"
        if fault:
            raise ConfigError(
                f"{self.kind} {name!r} of the package {package}: {fault}; "
                f"repair or uninstall {package}"
            )
        return cast(T, item)


def load_component(path: str) -> Any:
    """The class or function that `"module:name"` names.

    Raises
    ------
    ConfigError : it does not import
    ModuleNotFoundError : it needs a package that Tritloom itself uses and that is not installed
    """
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if known_module((error.name or "").partition(".")[0]):
            raise
        raise ConfigError(f"{path} does not import ({_line(error)}); repair its package") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{path} does not import ({_line(error)}); repair its package") from error


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "(unknown)"


def _line(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
