"""The engines and weight memories that ship: the facts that ``tritloom.rtl.plugins`` asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tritloom.rtl.errors import ConfigError
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


def _group(config: AcceleratorConfig) -> int:
    return encodings[config.encoding].group


def _walk_cycles(config: AcceleratorConfig) -> int:
    """Cycles in which the entries of a tile's tables are written: one code of each at a time."""
    entries: int = 3 ** _group(config)
    return config.lanes // config.fill * entries


def _check_table(config: AcceleratorConfig) -> None:
    if config.fill % _group(config):
        raise ConfigError(
            f"fill of the table engine must be a multiple of {_group(config)}, not {config.fill}"
        )


TABLE = engines.add(
    Engine(
        name="table",
        component="tritloom.rtl.table:TableEngine",
        encodings=("base3x5",),
        # Address, memory, output, one level of the tree for each halving of the groups.
        latency=lambda config: 3 + (config.lanes // _group(config) - 1).bit_length(),
        # Selection, step, entry, then a tile may begin in the cycle of the last write.
        fill_cycles=lambda config: _walk_cycles(config) + 3,
        # The next tile is loaded from the cycle after the first word on.
        tile_cycles=lambda config: _walk_cycles(config) + 4,
        check=_check_table,
    )
)

BRAM = memories.add(
    Memory(name="bram", component="tritloom.rtl.memory:BlockRamMemory", latency=lambda config: 4)
)
