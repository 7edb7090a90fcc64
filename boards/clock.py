"""The accelerator's clock: from a board's oscillator, by the PLL of its family."""

from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

from tritloom.boards.families.family import Family, Pll
from tritloom.rtl.spec.errors import ConfigError

__all__ = ["choose_pll", "clock_domain"]


def choose_pll(platform: Any, family: Family, clock_hz: int) -> Pll:
    """The setting of the PLL that makes `clock_hz` from the platform's oscillator.

    Raises
    ------
    ConfigError : no setting does, or the project supports no PLL of the family
    """
    if family.pll is None:
        raise ConfigError(f"no PLL of family {family.name} is supported; choose another board")
    input_hz = round(platform.lookup(platform.default_clk).clock.frequency)
    return family.pll(input_hz, clock_hz)


def clock_domain(m: Module, platform: Any, family: Family, clock_hz: int) -> None:
    """Give `m` the domain `sync` at `clock_hz`, in reset until the PLL has locked.

    nextpnr derives the clock's constraint from the PLL's settings.
    """
    pll = choose_pll(platform, family, clock_hz)
    m.domains.sync = ClockDomain()
    output = Signal()
    locked = Signal()
    pin = platform.request(platform.default_clk, dir="-")
    if pll.at_pad:
        clock = pin.io
    else:
        m.submodules.clock = buffer = io.Buffer("i", pin)
        clock = buffer.i
    m.submodules.pll = pll.instance(clock, output, locked)
    m.submodules.reset = ResetSynchronizer(~locked)
    m.d.comb += ClockSignal().eq(output)
