"""1BitSquared iCEBreaker: Lattice iCE40 UltraPlus, 5 thousand LUTs."""

from dataclasses import replace

from tritloom.boards.board import Board
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.memories.spram_facts import Spram
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["ICEBREAKER"]

_BLOCK_RAM = Board(
    name="icebreaker",
    title="1BitSquared iCEBreaker",
    family="ice40",
    part="iCE40UP5K-SG48",
    platform="amaranth_boards.icebreaker:ICEBreakerPlatform",
    leds=2,
    loader="ice40_generic",
    config=AcceleratorConfig(
        lanes=20,
        rows=1,
        fill=1,
        memory=BlockRam(words=1536),
        max_in_features=140,
        max_out_features=128,
        max_layers=8,
        banks=1,  # its block RAM and LUTs hold no second one
        packet_bytes=256,
        slots=4,
        clock_hz=24_000_000,
    ),
    link=Uart(baud=3_000_000),
)
# With the weights in SPRAM, block RAM is left for the activations and results of larger layers: a
# whole block of tinylm fits, 589,824 weights.
ICEBREAKER = replace(
    _BLOCK_RAM,
    presets={
        "spram": replace(
            _BLOCK_RAM.config,
            memory=Spram(words=32768),
            max_in_features=520,
            max_out_features=1024,
        ),
    },
)
