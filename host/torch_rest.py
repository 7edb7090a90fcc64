"""Layers that do not fit the device, which torch computes: what they cost."""

from __future__ import annotations

import threading
import time
from typing import Any, NoReturn

from tritloom.host.report import LayerReport
from tritloom.rtl.spec.errors import InputError

__all__ = ["RestLayer"]

WHERE = "host"


class RestLayer:
    """A module that torch computes, with hooks that count its calls, tokens and seconds.

    Parameters
    ----------
    name : of the module in the model
    module : a BitLinear or AutoBitLinear
    """

    def __init__(self, name: str, module: Any) -> None:
        self.name = name
        self._module = module
        self._lock = threading.Lock()
        self._began: dict[int, float] = {}
        self._calls = self._tokens = 0
        self._seconds = 0.0
        self._hooks: list[Any] = []

    def watch(self) -> None:
        """Count from now on."""
        self._hooks = [
            self._module.register_forward_pre_hook(self._begin),
            self._module.register_forward_hook(self._end),
        ]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InputError(f"{self.name}: offload counts its calls; restore() before a copy")

    def _begin(self, module: Any, arguments: tuple[Any, ...]) -> None:
        self._began[threading.get_ident()] = time.perf_counter()

    def _end(self, module: Any, arguments: tuple[Any, ...], output: Any) -> None:
        seconds = time.perf_counter() - self._began[threading.get_ident()]
        with self._lock:
            self._calls += 1
            self._tokens += output.numel() // module.out_features
            self._seconds += seconds

    def restore(self) -> None:
        """Take the hooks away; the counts stay."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def report(self) -> LayerReport:
        """What torch took for the layer."""
        return LayerReport(
            name=self.name,
            out_features=self._module.out_features,
            in_features=self._module.in_features,
            where=WHERE,
            calls=self._calls,
            tokens=self._tokens,
            seconds=self._seconds,
        )
