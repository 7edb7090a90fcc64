"""AMD Artix-7. It has no open router here; engines are counted after synthesis."""

from tritloom.boards.families.family import TOP, Family, Measure, Part, Ram

__all__ = ["XC7"]

XC7 = Family(
    name="xc7",
    parts={
        "XC7A35T": Part(available=(20800, 41600, 100, 90)),
        "XC7A100T": Part(available=(63400, 126800, 270, 240)),
    },
    cells={
        "luts": {
            **dict.fromkeys(("LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "INV"), 1),
            **dict.fromkeys(("SRL16E", "SRLC16E", "SRLC32E", "RAM32X1S", "RAM64X1S"), 1),
            **dict.fromkeys(("RAM32X1D", "RAM64X1D", "RAM128X1S"), 2),
            **dict.fromkeys(("RAM32M", "RAM64M", "RAM128X1D", "RAM256X1S"), 4),
            "ROUTE_THROUGH": 1,
        },
        "ffs": {"FDRE": 1, "FDSE": 1, "FDCE": 1, "FDPE": 1},
        "block_rams": {"RAMB18E1": 1, "RAMB36E1": 2},  # in halves, as the parts' are counted here
        "dsps": {"DSP48E1": 1},
    },
    synthesis=(f"synth_xilinx -family xc7 -flatten -noiopad -noclkbuf -nosrl -top {TOP}",),
    rams=(
        Ram(widths=(6,), bits=128, cost=8, by_width=7),
        Ram(widths=(3,), bits=128, cost=8, by_width=7),
        Ram(widths=(1, 2, 4, 9, 18, 36), bits=16384, byte=9, cost=129, blocks=1),
        Ram(widths=(1, 2, 4, 9, 18, 36, 72), bits=32768, byte=9, cost=257, blocks=2),
    ),
    rom_bit_cost=1 / 64,  # its LUTs hold 64 bits
    measure=Measure(
        count={"ROUTE_THROUGH": "tritloom.gen.measure.xc7:route_throughs"},
        geometries={
            ("table", "sym6x10"): {"lanes": 264, "rows": 1, "fill": 4},
            ("table", "base3x5"): {"lanes": 220, "rows": 1, "fill": 4},
            ("table", "sym3x5"): {"lanes": 120, "rows": 4, "tokens": 2, "fill": 8},
            ("select", "diff2"): {"lanes": 32, "rows": 8, "fill": 4},
        },
    ),
)
