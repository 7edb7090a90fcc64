"""Facts of the `select` engine."""

from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.plugins import ACT_LATENCY, Config, Engine, adder_tree_bits

__all__ = ["SELECT"]

EVEN_LANES_CYCLES = 1
"""The tree's first register, which also makes the number of lanes even."""


def _decoder_cycles(config: Config) -> int:
    return encodings[config.encoding].decoder_cycles


def _latency(config: Config) -> int:
    """The decoder, then one level of the adder tree for each halving of the lanes."""
    return _decoder_cycles(config) + EVEN_LANES_CYCLES + (config.lanes - 1).bit_length()


def _fill_cycles(config: Config) -> int:
    """One activation address a cycle from the cycle after the start, then the last word's way."""
    return 1 + config.lanes // config.fill + ACT_LATENCY


def _tile_cycles(config: Config) -> int:
    """The loaded tile is copied when its first word leaves the decoder, then the next is loaded."""
    return _decoder_cycles(config) + config.lanes // config.fill + ACT_LATENCY


def _cost_features(config: Config) -> dict[str, float]:
    encoding = encodings[config.encoding]
    rows, tokens = config.rows, config.tokens
    pairs = -(-config.lanes // 2)
    bits = config.act_bits + 1
    slots, registers = adder_tree_bits(pairs, bits)
    slots, registers = slots + pairs * bits, registers + pairs * bits
    codes = rows * config.lanes // encoding.trits_per_code
    return {
        "even": rows * tokens * pairs * config.act_bits,
        "tile": tokens * config.lanes * config.act_bits,
        "trits": rows * config.lanes,
        "decoded": codes * bool(encoding.decoder),
        "adders": rows * tokens * slots,
        "tree": rows * tokens * registers,
    }


SELECT = Engine(
    name="select",
    component="tritloom.rtl.engines.select:SelectEngine",
    encodings=("base3x5", "diff2", "sign2"),
    latency=_latency,
    fill_cycles=_fill_cycles,
    tile_cycles=_tile_cycles,
    cost_features=_cost_features,
)
