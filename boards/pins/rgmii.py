"""Pins of an Ethernet PHY with RGMII on an ECP5, tied to the GMII pads of the link `udp`.

RGMII moves a byte a cycle over four lines: its low half at the rising edge of the clock, its high
half at the falling edge. The control line says at the rising edge that there is a byte, and at the
falling edge the same, inverted if the byte is wrong.

At the receiver the clock's edges must lie in the middle of the data, 2 ns behind a change of the
lines. Either the PHY delays its clock, or the FPGA does it here. Which of them does is a property
of the board (its straps and its PHY); no simulation shows it.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Instance, Module, Signal
from amaranth.lib import io

from tritloom.rtl.spec.errors import ConfigError

__all__ = ["DELAY_STEP_PS", "MOST_DELAY_PS", "tie"]

DELAY_STEP_PS = 25
"""A step of the ECP5's DELAYG. Source: Lattice FPGA-DS-02012, and LiteEth's `ecp5rgmii.py`."""
MOST_DELAY_PS = 127 * DELAY_STEP_PS
RESET_CYCLES = 1 << 21
"""Cycles of `sync` for which the PHY is in reset: 10 ms, which every PHY asks for at most, even at
200 MHz."""


def tie(
    m: Any, accelerator: Any, ports: Any, *, tx_delay_ps: int = 0, rx_delay_ps: int = 0
) -> None:
    """Put double-rate buffers between the link's pads and an RGMII resource.

    Parameters
    ----------
    m : the board's module; the buffers are added to it
    accelerator : the component with the pads of the link `udp`
    ports : the resource's ports, without buffers; `rst` may be missing
    tx_delay_ps : by which the FPGA delays the clock that it sends; 0 if the PHY does
    rx_delay_ps : by which the FPGA delays the lines that it receives

    Raises
    ------
    ConfigError : a delay is not a multiple of `DELAY_STEP_PS` or above `MOST_DELAY_PS`
    """
    for name, delay in (("tx_delay_ps", tx_delay_ps), ("rx_delay_ps", rx_delay_ps)):
        if delay % DELAY_STEP_PS or not 0 <= delay <= MOST_DELAY_PS:
            raise ConfigError(
                f"{name} must be a multiple of {DELAY_STEP_PS} up to {MOST_DELAY_PS}, not {delay}"
            )
    pads = _Pads(m)
    m.submodules.rx_clk = rx_clk = io.Buffer("i", ports.rx_clk)
    pads.clock = rx_clk.i
    m.d.comb += accelerator.rx_clk.eq(rx_clk.i)
    data = [pads.receive(f"rx_{n}", port, rx_delay_ps) for n, port in enumerate(ports.rx_data)]
    valid, second = pads.receive("rx_ctl", _control(ports, "rx"), rx_delay_ps)
    m.d.comb += [
        accelerator.rx.eq(Cat(low for low, _ in data) | Cat(high for _, high in data) << 4),
        accelerator.rx_dv.eq(valid),
        accelerator.rx_er.eq(valid ^ second),
    ]
    for n, port in enumerate(ports.tx_data):
        pads.send(f"tx_{n}", port, accelerator.tx[n], accelerator.tx[n + 4])
    pads.send("tx_ctl", _control(ports, "tx"), accelerator.tx_en, accelerator.tx_en)
    pads.send("tx_clk", ports.tx_clk, Const(1, 1), Const(0, 1), tx_delay_ps)
    if hasattr(ports, "rst"):
        left = Signal(range(RESET_CYCLES), init=RESET_CYCLES - 1)
        m.submodules.phy_reset = reset = io.Buffer("o", ports.rst)
        m.d.comb += reset.o.eq(left != 0)
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)


def _control(ports: Any, way: str) -> Any:
    """The control line, which platforms name in two ways."""
    return getattr(ports, f"{way}_ctl" if hasattr(ports, f"{way}_ctl") else f"{way}_ctrl")


class _Pads:
    """Double-rate buffers in the PHY's clock, `clock`, with delays."""

    def __init__(self, m: Module) -> None:
        self.m = m
        self.clock: Any = None

    def receive(self, name: str, port: Any, delay_ps: int) -> tuple[Signal, Signal]:
        """What a line says at the rising and at the falling edge."""
        buffer = io.Buffer("i", port)
        self.m.submodules[name] = buffer
        first, second = Signal(name=f"{name}_first"), Signal(name=f"{name}_second")
        self.m.submodules[f"{name}_ddr"] = Instance(
            "IDDRX1F",
            i_D=self._delayed(name, buffer.i, delay_ps),
            i_SCLK=self.clock,
            i_RST=Const(0, 1),
            o_Q0=first,
            o_Q1=second,
        )
        return first, second

    def send(self, name: str, port: Any, first: Any, second: Any, delay_ps: int = 0) -> None:
        """Say `first` at the rising and `second` at the falling edge."""
        buffer = io.Buffer("o", port)
        self.m.submodules[name] = buffer
        line = Signal(name=f"{name}_line")
        self.m.submodules[f"{name}_ddr"] = Instance(
            "ODDRX1F",
            i_D0=first,
            i_D1=second,
            i_SCLK=self.clock,
            i_RST=Const(0, 1),
            o_Q=line,
        )
        self.m.d.comb += buffer.o.eq(self._delayed(name, line, delay_ps))

    def _delayed(self, name: str, line: Any, delay_ps: int) -> Any:
        if delay_ps == 0:
            return line
        delayed = Signal(name=f"{name}_delayed")
        self.m.submodules[f"{name}_delay"] = Instance(
            "DELAYG",
            p_DEL_MODE="USER_DEFINED",
            p_DEL_VALUE=delay_ps // DELAY_STEP_PS,
            i_A=line,
            o_Z=delayed,
        )
        return delayed
