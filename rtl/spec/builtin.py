"""The facts of the engines and weight memories that ship."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tritloom.rtl.engines.table_walk import walk_steps
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.packing import encodings
from tritloom.rtl.spec.plugins import Engine, Memory, engines, memories

if TYPE_CHECKING:
    from tritloom.rtl.spec.config import AcceleratorConfig

LUT_RAM_ADDRESS_BITS = 4
MANY_TABLES = 16


def _decoder_cycles(config: AcceleratorConfig) -> int:
    return encodings[config.encoding].decoder_cycles


SELECT = engines.add(
    Engine(
        name="select",
        component="tritloom.rtl.engines.select:SelectEngine",
        encodings=("base3x5", "diff2", "sign2"),
        # Decoder, even lanes, one level of the tree for each halving.
        latency=lambda config: _decoder_cycles(config) + 1 + (config.lanes - 1).bit_length(),
        # An address in each cycle, then the last word's way.
        fill_cycles=lambda config: config.lanes // config.fill + 4,
        # The loaded tile is copied when its first word leaves the decoder, then the next is loaded.
        tile_cycles=lambda config: _decoder_cycles(config) + config.lanes // config.fill + 3,
    )
)


def _group(config: AcceleratorConfig) -> int:
    return encodings[config.encoding].group


def _walk_cycles(config: AcceleratorConfig) -> int:
    """Cycles in which the entries of a tile's tables are written, one of each at a time."""
    encoding = encodings[config.encoding]
    steps = walk_steps(encoding.group, encoding.signed, encoding.alphabet)
    return config.lanes // (config.fill * encoding.group) * steps


def in_lut_ram(config: AcceleratorConfig) -> bool:
    """Whether a table is small enough for the RAM that LUTs are; it has no second bank there."""
    return encodings[config.encoding].index_bits <= LUT_RAM_ADDRESS_BITS


def table_registers(config: AcceleratorConfig) -> tuple[int, int]:
    """Registers before a table's memory and after it.

    Block RAM lies far from all else, and has a register of its own; many blocks lie farther apart.
    """
    if in_lut_ram(config):
        return 0, 0
    many = config.rows * config.lanes // _group(config) > MANY_TABLES
    return (2, 4) if many else (1, 1)


def _table_latency(config: AcceleratorConfig) -> int:
    """Registers, the memory itself, one level of the tree for each halving of the codes."""
    return sum(table_registers(config)) + 1 + (config.lanes // _group(config) - 1).bit_length()


def _check_table(config: AcceleratorConfig) -> None:
    codes = config.lanes // _group(config)
    if codes % config.fill:
        raise ConfigError(
            f"fill of the table engine must divide lanes / {_group(config)} = {codes}, "
            f"not {config.fill}"
        )


TABLE = engines.add(
    Engine(
        name="table",
        component="tritloom.rtl.engines.table:TableEngine",
        encodings=("base3x5", "sym6x10", "sym3x5", "sign9"),
        latency=_table_latency,
        # It begins a cycle late, and the last entry is written 9 cycles after its number.
        fill_cycles=lambda config: _walk_cycles(config) + 10,
        tile_cycles=lambda config: _walk_cycles(config) + 11,
        reload_cycles=lambda config: _walk_cycles(config) + 11 if in_lut_ram(config) else 0,
        code_stride=lambda config: config.fill,
        check=_check_table,
    )
)

BRAM = memories.add(
    Memory(
        name="bram",
        component="tritloom.rtl.memories.bram:BlockRamMemory",
        latency=lambda config: 4,
    )
)
