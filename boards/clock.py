"""Clocks: from a board's oscillator to the accelerator's clock, by the family's PLL."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Const, Instance, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

from tritloom.rtl.spec.errors import ConfigError

TOLERANCE = 0.001
"""How far a PLL's clock may be from the one wanted."""


@dataclass(frozen=True, slots=True)
class Ecp5Pll:
    """Dividers of an ECP5 EHXPLLL with its feedback on CLKOP and the clock on CLKOS.

    Limits: Lattice FPGA-DS-02012 (ECP5 family data sheet), sysCLOCK PLL timing.
    """

    input_divider: int
    feedback_divider: int
    op_divider: int
    os_divider: int

    @classmethod
    def solve(cls, input_hz: int, output_hz: int) -> "Ecp5Pll":
        if not 3_125_000 <= output_hz <= 400_000_000:
            raise _unreachable(input_hz, output_hz)
        best = None
        for i in range(1, 129):
            phase_hz = input_hz / i
            if not 10e6 <= phase_hz <= 400e6:
                continue
            for feedback in range(1, 81):
                for op in range(1, 129):
                    vco = phase_hz * feedback * op
                    if not 400e6 <= vco <= 800e6:
                        continue
                    out = max(1, min(128, round(vco / output_hz)))
                    error = abs(vco / out - output_hz)
                    if best is None or error < best[0]:
                        best = error, cls(i, feedback, op, out)
        if best is None or best[0] > TOLERANCE * output_hz:
            raise _unreachable(input_hz, output_hz)
        return best[1]

    def instance(self, clock: Any, output: Signal, locked: Signal) -> Instance:
        feedback = Signal()
        return Instance(
            "EHXPLLL",
            p_PLLRST_ENA="DISABLED",
            p_INTFB_WAKE="DISABLED",
            p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA",
            p_OUTDIVIDER_MUXB="DIVB",
            p_OUTDIVIDER_MUXC="DIVC",
            p_OUTDIVIDER_MUXD="DIVD",
            p_CLKI_DIV=self.input_divider,
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_DIV=self.op_divider,
            p_CLKOP_CPHASE=self.op_divider - 1,
            p_CLKOP_FPHASE=0,
            p_CLKOS_ENABLE="ENABLED",
            p_CLKOS_DIV=self.os_divider,
            p_CLKOS_CPHASE=self.os_divider - 1,
            p_CLKOS_FPHASE=0,
            p_FEEDBK_PATH="CLKOP",
            p_CLKFB_DIV=self.feedback_divider,
            i_RST=Const(0),
            i_STDBY=Const(0),
            i_CLKI=clock,
            o_CLKOP=feedback,
            o_CLKOS=output,
            i_CLKFB=feedback,
            i_PHASESEL0=Const(0),
            i_PHASESEL1=Const(0),
            i_PHASEDIR=Const(1),
            i_PHASESTEP=Const(1),
            i_PHASELOADREG=Const(1),
            i_PLLWAKESYNC=Const(0),
            i_ENCLKOP=Const(0),
            i_ENCLKOS=Const(0),
            o_LOCK=locked,
        )


@dataclass(frozen=True, slots=True)
class Ice40Pll:
    """Dividers of an iCE40 SB_PLL40_PAD. Limits: Lattice FPGA-TN-02052 (iCE40 sysCLOCK PLL)."""

    divr: int
    divf: int
    divq: int
    filter_range: int

    @classmethod
    def solve(cls, input_hz: int, output_hz: int) -> "Ice40Pll":
        if not 16_000_000 <= output_hz <= 275_000_000:
            raise _unreachable(input_hz, output_hz)
        best = None
        for divr in range(16):
            phase_hz = input_hz / (divr + 1)
            if not 10e6 <= phase_hz <= 133e6:
                continue
            for divf in range(128):
                vco = phase_hz * (divf + 1)
                if not 533e6 <= vco <= 1066e6:
                    continue
                for divq in range(1, 7):
                    error = abs(vco / 2**divq - output_hz)
                    if best is None or error < best[0]:
                        steps = (17e6, 26e6, 44e6, 66e6, 101e6)
                        band = 1 + sum(phase_hz >= step for step in steps)
                        best = error, cls(divr, divf, divq, band)
        if best is None or best[0] > TOLERANCE * output_hz:
            raise _unreachable(input_hz, output_hz)
        return best[1]

    def instance(self, clock: Any, output: Signal, locked: Signal) -> Instance:
        return Instance(
            "SB_PLL40_PAD",
            p_FEEDBACK_PATH="SIMPLE",
            p_DIVR=self.divr,
            p_DIVF=self.divf,
            p_DIVQ=self.divq,
            p_FILTER_RANGE=self.filter_range,
            i_PACKAGEPIN=clock,
            o_PLLOUTGLOBAL=output,
            o_LOCK=locked,
            i_RESETB=Const(1),
            i_BYPASS=Const(0),
        )


PLLS: dict[str, type[Ecp5Pll] | type[Ice40Pll]] = {"ecp5": Ecp5Pll, "ice40": Ice40Pll}


def _unreachable(input_hz: int, output_hz: int) -> ConfigError:
    return ConfigError(
        f"no PLL setting makes {output_hz} Hz from {input_hz} Hz; choose another clock_hz"
    )


def clock_domain(m: Module, platform: Any, family: str, clock_hz: int) -> None:
    """Domain ``sync`` of ``m`` at ``clock_hz``, in reset until its PLL has locked.

    nextpnr derives the clock's constraint from the PLL's settings.
    """
    name = platform.default_clk
    input_hz = round(platform.lookup(name).clock.frequency)
    pll = PLLS[family].solve(input_hz, clock_hz)
    m.domains.sync = ClockDomain()
    output = Signal()
    locked = Signal()
    pin = platform.request(name, dir="-")
    if family == "ice40":  # the PLL sits at the pad
        clock = pin.io
    else:
        m.submodules.clock = buffer = io.Buffer("i", pin)
        clock = buffer.i
    m.submodules.pll = pll.instance(clock, output, locked)
    m.submodules.reset = ResetSynchronizer(~locked)
    m.d.comb += ClockSignal().eq(output)
