"""The accelerator's clocks: from a board's oscillator, by the PLL of its family."""

from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

from tritloom.boards.families.family import Family, Pll
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import MEMORY_DOMAIN

__all__ = ["choose_pll", "clock_domains"]


def choose_pll(platform: Any, family: Family, clock_hz: int, memory_hz: int = 0) -> Pll:
    """The setting of the PLL that makes `clock_hz` from the platform's oscillator.

    Parameters
    ----------
    platform, family : of the board
    clock_hz : the accelerator's clock
    memory_hz : the weight memory's clock, 0 if it has none of its own

    Raises
    ------
    ConfigError : no setting does, or the project supports no such PLL of the family
    """
    if family.pll is None:
        raise ConfigError(f"no PLL of family {family.name} is supported; choose another board")
    input_hz = round(platform.lookup(platform.default_clk).clock.frequency)
    if not memory_hz:
        return family.pll(input_hz, clock_hz)
    if family.pll_pair is None:
        raise ConfigError(
            f"no PLL of family {family.name} with two clocks is supported; leave the memory's "
            "clock_hz out"
        )
    return family.pll_pair(input_hz, clock_hz, memory_hz)


def clock_domains(
    m: Module, platform: Any, family: Family, clock_hz: int, memory_hz: int = 0
) -> None:
    """Give `m` the domain `sync` at `clock_hz`, in reset until the PLL has locked.

    With `memory_hz` it also gets the domain `MEMORY_DOMAIN`, with the same reset. nextpnr derives
    the constraint of each clock from the PLL's settings.
    """
    pll = choose_pll(platform, family, clock_hz, memory_hz)
    domains = {"sync": Signal(name="clock")}
    if memory_hz:
        domains[MEMORY_DOMAIN] = Signal(name="memory_clock")
    locked = Signal()
    pin = platform.request(platform.default_clk, dir="-")
    if pll.at_pad:
        clock = pin.io
    else:
        m.submodules.clock = buffer = io.Buffer("i", pin)
        clock = buffer.i
    memory = {"memory": domains[MEMORY_DOMAIN]} if memory_hz else {}
    m.submodules.pll = pll.instance(clock, domains["sync"], locked, **memory)
    for name, output in domains.items():
        m.domains += ClockDomain(name)
        prefix = "" if name == "sync" else f"{name}_"
        m.submodules[f"{prefix}reset"] = ResetSynchronizer(~locked, domain=name)
        m.d.comb += ClockSignal(name).eq(output)
