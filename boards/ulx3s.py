"""Radiona ULX3S: Lattice ECP5, 12 to 84 thousand LUTs. The 12F has the die of the 25F."""

from dataclasses import replace

from tritloom.boards.board import Board
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.rtl.spec.vector_facts import VectorConfig

__all__ = ["ULX3S_12F", "ULX3S_25F", "ULX3S_45F", "ULX3S_85F"]


def _ulx3s(size: str, lanes: int, rows: int, memory_words: int, slots: int = 8) -> Board:
    """Block RAM bounds the weights: 56 in the 12F and 25F, 108 in the 45F, 208 in the 85F."""
    return Board(
        name=f"ulx3s-{size.lower()}",
        title=f"Radiona ULX3S {size}",
        family="ecp5",
        part=f"LFE5U-{size}-6BG381C",
        platform=f"amaranth_boards.ulx3s:ULX3S_{size}_Platform",
        leds=8,
        # GPIO0 of the ESP32. The ECP5 pulls an unused pin low, and on that the firmware that the
        # first boards' ESP32 came with loads another bitstream, a second or two after the start.
        constants={"esp32.gpio0": 1},
        loader="ulx3s",
        dfu=("--device", "1d50:614b", "--alt", "0", "--reset", "--download"),
        config=AcceleratorConfig(
            lanes=lanes,
            rows=rows,
            fill=5,
            memory=BlockRam(words=memory_words),
            max_in_features=2080,
            max_out_features=2048,
            max_layers=64,
            packet_bytes=1024,
            slots=slots,
            clock_hz=80_000_000,
        ),
        link=Uart(baud=3_000_000),
    )


ULX3S_12F = _ulx3s("12F", 65, 2, 3072)
ULX3S_25F = _ulx3s("25F", 65, 2, 3072)
_45F = _ulx3s("45F", 65, 4, 3072)
# Its weight memory has no room for the last feed-forward of tinylm; the programs of both would need
# 2,412 vector words.
ULX3S_45F = replace(
    _45F,
    presets={
        "bitlinear": replace(_45F.config, slots=4, vector=VectorConfig(words=2560, multipliers=2))
    },
)
# The wires to the weight memory are longest on the largest die, so the 85F has the lanes and rows
# of the 45F. Its larger memory holds all layers of tinylm.
_85F = _ulx3s("85F", 65, 4, 4608)
# Programs of tinylm that keep the hidden vector on the device need 4,116 vector words with the
# final norm, which the host can compute, and 4,084 without it. With 8 slots its placement misses
# the clock (79.3 MHz, seed 1).
ULX3S_85F = replace(
    _85F,
    presets={
        "bitlinear": replace(_85F.config, slots=4, vector=VectorConfig(words=4096, multipliers=2)),
        # The chip brings 16 bits in each of its cycles. All 32 MB are used. It can run at 133 MHz,
        # but nobody has measured the way from its pins, and 100 MHz leaves more time for it.
        "sdram": AcceleratorConfig(
            lanes=40,
            rows=1,
            fill=5,
            memory=Sdram(words=1 << 22, part="ulx3s", clock_hz=100_000_000),
            max_in_features=6920,
            max_out_features=6912,
            max_layers=256,
            packet_bytes=1024,
            slots=4,
            clock_hz=80_000_000,
        ),
        # For llama.cpp: 35 lanes suit groups of 32 inputs (Q2_0) and of 256 (TQ1_0, TQ2_0). The
        # memory holds tinylm in either form.
        "llama": AcceleratorConfig(
            lanes=35,
            rows=4,
            fill=5,
            memory=BlockRam(words=9216),
            max_in_features=2240,
            max_out_features=2048,
            max_layers=64,
            scale=ScaleConfig(kind="float", group=256),
            packet_bytes=1024,
            slots=4,
            clock_hz=80_000_000,
        ),
    },
)
