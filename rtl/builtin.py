"""The engines and weight memories that ship: the facts that ``tritloom.rtl.plugins`` asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tritloom.rtl.packing import encodings
from tritloom.rtl.plugins import Engine, Memory, engines, memories

if TYPE_CHECKING:
    from tritloom.rtl.config import AcceleratorConfig


def _decoder_cycles(config: AcceleratorConfig) -> int:
    return encodings[config.encoding].decoder_cycles


SELECT = engines.add(
    Engine(
        name="select",
        component="tritloom.rtl.select:SelectEngine",
        encodings=("base3x5",),
        # Decoder, selection, one level of the tree for each halving.
        latency=lambda config: _decoder_cycles(config) + 1 + (config.lanes - 1).bit_length(),
        fill_cycles=lambda config: config.lanes // config.fill,
        # The loaded tile is copied when its first word leaves the decoder, then the next is loaded.
        tile_cycles=lambda config: _decoder_cycles(config) + config.lanes // config.fill,
    )
)

BRAM = memories.add(
    Memory(name="bram", component="tritloom.rtl.memory:BlockRamMemory", latency=lambda config: 3)
)
