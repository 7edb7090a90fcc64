"""Pins of a UART."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import io

__all__ = ["tie"]


def tie(m: Module, accelerator: Any, ports: Any) -> None:
    """Put buffers between the accelerator's `rx` and `tx` and the pins of a UART resource."""
    m.submodules.rx = rx = io.Buffer("i", ports.rx)
    m.submodules.tx = tx = io.Buffer("o", ports.tx)
    m.d.comb += [accelerator.rx.eq(rx.i), tx.o.eq(accelerator.tx)]
