"""Facts of the `table` engine."""

from tritloom.rtl.engines.table_walk import walk_steps
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import Config, Engine, Storage, adder_tree_bits

__all__ = ["TABLE", "in_lut_ram", "table_registers"]

LUT_RAM_ADDRESS_BITS = 4
MANY_TABLES = 16
START_CYCLES = 1
"""Cycles from a layer's start to the first fill step."""
WRITE_CYCLES = 9
"""Cycles from a fill step to the cycle after its entry is written."""
SWAP_CYCLES = 1
"""Cycles from the swap of the tables to the next fill step."""


def _trits_per_code(config: Config) -> int:
    return encodings[config.encoding].trits_per_code


def _walk_cycles(config: Config) -> int:
    """Cycles in which a tile's tables are written, one entry of each table at a time."""
    encoding = encodings[config.encoding]
    steps = walk_steps(encoding.trits_per_code, encoding.signed, encoding.alphabet)
    return config.lanes // (config.fill * encoding.trits_per_code) * steps


def in_lut_ram(config: Config) -> bool:
    """Whether a table is small enough for LUT RAM, where it has no second bank."""
    return encodings[config.encoding].index_bits <= LUT_RAM_ADDRESS_BITS


def table_registers(config: Config) -> tuple[int, int]:
    """Registers before a table's memory and after it.

    Block RAM lies far from all else and has a register of its own. With many tables the blocks lie
    farther apart, and the wires need more registers.
    """
    if in_lut_ram(config):
        return 0, 0
    many = config.rows * config.lanes // _trits_per_code(config) > MANY_TABLES
    return (2, 4) if many else (1, 1)


def _latency(config: Config) -> int:
    """Registers, the memory itself, one level of the adder tree for each halving of the codes."""
    codes = config.lanes // _trits_per_code(config)
    return sum(table_registers(config)) + 1 + (codes - 1).bit_length()


def _fill_cycles(config: Config) -> int:
    return START_CYCLES + _walk_cycles(config) + WRITE_CYCLES


def _tile_cycles(config: Config) -> int:
    return START_CYCLES + SWAP_CYCLES + _walk_cycles(config) + WRITE_CYCLES


def _check(config: Config) -> None:
    trits_per_code = _trits_per_code(config)
    codes = config.lanes // trits_per_code
    if codes % config.fill:
        raise ConfigError(
            f"fill of the table engine must divide lanes / {trits_per_code} = {codes}, "
            f"not {config.fill}"
        )


def _entry_bits(config: Config) -> int:
    """Signed bits of a table's entry: the sum of a code's activations."""
    return (_trits_per_code(config) << (config.act_bits - 1)).bit_length() + 1


def _storage(config: Config) -> tuple[Storage, ...]:
    """The walk's steps, and the tables."""
    encoding = encodings[config.encoding]
    steps = walk_steps(encoding.trits_per_code, encoding.signed, encoding.alphabet)
    step_bits = encoding.index_bits + encoding.trits_per_code.bit_length() + 2
    banks = 1 if in_lut_ram(config) else 2
    return (
        Storage(step_bits, 1 << (steps - 1).bit_length(), rom=True),
        Storage(
            config.tokens * _entry_bits(config),
            banks << encoding.index_bits,
            number=config.rows * config.lanes // encoding.trits_per_code,
        ),
    )


def _cost_features(config: Config) -> dict[str, float]:
    encoding = encodings[config.encoding]
    tokens, codes = config.tokens, config.lanes // encoding.trits_per_code
    all_codes, entry = config.rows * codes, _entry_bits(config)
    slots, registers = adder_tree_bits(codes, entry)
    # In LUT RAM there are no registers before and after a table.
    near = in_lut_ram(config)
    before, after = table_registers(config)
    return {
        "filled": config.fill * tokens * entry,
        "read": all_codes * tokens * entry * after,
        "read near": all_codes * tokens * entry * near,
        "codes": all_codes * encoding.code_bits * before,
        "codes near": all_codes * near,
        "signs": all_codes * encoding.signed * after,
        "fill steps": codes // config.fill,
        "rom": encoding.code_bits,
        "adders": config.rows * tokens * slots,
        "tree": config.rows * tokens * registers,
    }


TABLE = Engine(
    name="table",
    component="tritloom.rtl.engines.table:TableEngine",
    encodings=("base3x5", "sym6x10", "sym3x5", "sign9"),
    latency=_latency,
    fill_cycles=_fill_cycles,
    tile_cycles=_tile_cycles,
    # LUT RAM has one bank, so the next tile's entries are written after this tile's last word.
    reload_cycles=lambda config: _tile_cycles(config) if in_lut_ram(config) else 0,
    code_stride=lambda config: config.fill,
    check=_check,
    storage=_storage,
    cost_features=_cost_features,
    fill_units=lambda config: config.lanes // _trits_per_code(config),
)
