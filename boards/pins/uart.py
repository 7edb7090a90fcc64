"""Pins of a UART."""

from typing import Any

from amaranth.lib import io

__all__ = ["tie"]


def tie(m: Any, accelerator: Any, ports: Any) -> None:
    """Put buffers between the accelerator's `rx` and `tx` and a UART resource.

    Parameters
    ----------
    m : the board's module; the buffers are added to it
    accelerator : the component with the pads `rx` and `tx`
    ports : the resource's ports, without buffers
    """
    m.submodules.rx = rx = io.Buffer("i", ports.rx)
    m.submodules.tx = tx = io.Buffer("o", ports.tx)
    m.d.comb += [accelerator.rx.eq(rx.i), tx.o.eq(accelerator.tx)]
