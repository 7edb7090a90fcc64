"""What the Ethernet boards with a large ECP5 have in common: the accelerator of each size."""

from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["LARGE_CELLS", "config_of"]

SIZES = {"45F": (2048, 8), "85F": (4608, 16)}
"""Weight words and packets in each direction, by the FPGA's size: both are block RAM."""

LARGE_CELLS = 20_000
"""Cells from which nextpnr's router2 routes a board on which router1 finds no end.

On the Logicbone 45 router1 laid 12,000 of 77,000 arcs in 500 s of a busy computer, one in five
of them by tearing up others, and then got no further. On the Versa it routes the same accelerator.
"""


def config_of(size: str) -> AcceleratorConfig:
    """The accelerator for an ECP5 of that size; a packet fills an Ethernet frame."""
    words, slots = SIZES[size]
    return AcceleratorConfig(
        lanes=65,
        rows=4,
        fill=5,
        memory=BlockRam(words=words),
        max_in_features=2080,
        max_out_features=2048,
        max_layers=64,
        packet_bytes=2048,
        slots=slots,
        clock_hz=80_000_000,
    )
