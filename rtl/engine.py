"""The contract of every dot engine, and how a configuration gets its component.

* ``i_act`` loads the next tile's activations, ``fill`` for each of ``tokens`` a transfer, lowest
  input first, while the current tile is in use. When the tile is complete, ``ready`` rises.
* A weight word is taken in each cycle with ``i_valid``; the engine never stalls. ``i_swap`` comes
  with the first word of a tile, only while ``ready``, and makes the loaded tile the current one.
* ``engine_latency`` cycles after a word, ``o_valid`` is set and ``o_sums`` holds for each token
  and row the exact sum over the word's lanes. The order is that of the words.
"""

from typing import Any

from amaranth.hdl import Shape, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Member, Out

from tritloom.rtl.config import AcceleratorConfig
from tritloom.rtl.plugins import engines, load_component


def act_layout(config: AcceleratorConfig) -> data.ArrayLayout:
    """``fill`` activations of each token: index token · fill + k."""
    return data.ArrayLayout(signed(config.act_bits), config.tokens * config.fill)


def sums_layout(config: AcceleratorConfig, bits: int) -> data.ArrayLayout:
    """A signed sum for each token and row: index token · rows + row."""
    return data.ArrayLayout(signed(bits), config.tokens * config.rows)


def engine_members(config: AcceleratorConfig) -> dict[str, Member]:
    return {
        "i_act": In(stream.Signature(act_layout(config))),
        "ready": Out(1),
        "i_word": In(Shape(config.word_bits)),
        "i_valid": In(1),
        "i_swap": In(1),
        "o_sums": Out(sums_layout(config, config.sum_bits)),
        "o_valid": Out(1),
    }


def create_engine(config: AcceleratorConfig) -> Any:
    return load_component(engines[config.engine].component)(config)
