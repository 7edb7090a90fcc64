"""The part LFE5UM-25F: the LFE5U-25F's fabric with SERDES, at speed grade 6.

Source: Lattice FPGA-DS-02012, ECP5 and ECP5-5G family data sheet, table 1.1.
"""

from tritloom.boards.families.family import FamilyPart, Part

__all__ = ["LFE5UM_25F"]

LFE5UM_25F = FamilyPart(
    name="LFE5UM-25F-6",
    family="ecp5",
    part=Part(
        available=(24288, 24288, 56, 28),
        options=("--um-25k", "--speed", "6", "--package", "CABGA381"),
        limit_mhz=257,
        grid=(73, 51),
    ),
)
