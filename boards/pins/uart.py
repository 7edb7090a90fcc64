"""Pins of the link `uart`."""

from typing import Any

from amaranth.lib import io

from tritloom.boards.pins.pins import Pins

__all__ = ["UART"]


def _tie(m: Any, accelerator: Any, ports: Any) -> None:
    m.submodules.rx = rx = io.Buffer("i", ports.rx)
    m.submodules.tx = tx = io.Buffer("o", ports.tx)
    m.d.comb += [accelerator.rx.eq(rx.i), tx.o.eq(accelerator.tx)]


UART = Pins(name="uart", tie=_tie)
