"""The contract of every dot engine, and how a configuration gets its component.

* ``i_start``: a layer begins; its first tile's activations lie at address 0, the others' after it.
* While ``i_more``, tiles are left to load: the engine loads the next one while the current one is
  in use. ``act_address`` says what it reads, and the word comes as ``i_act`` ``ACT_LATENCY`` cycles
  later: ``fill`` activations for each of ``tokens``. When the tile is complete, ``ready`` rises.
* A weight word is taken in each cycle with ``i_valid``; the engine never stalls. ``i_swap`` comes
  with the first word of a tile, only while ``ready``, and makes the loaded tile the current one;
  ``i_more`` says already in the next cycle whether there is a further one. ``i_last`` comes with
  the last word of a tile.
* ``engine_latency`` cycles after a word, ``o_sums`` holds for each token and row the exact sum over
  the word's lanes, to be negated where the row's bit in ``o_negative`` is set.
"""

from typing import Any

from amaranth.hdl import Shape, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Member, Out

from tritloom.rtl.spec.config import ACT_LATENCY, AcceleratorConfig
from tritloom.rtl.spec.plugins import engines, load_component

__all__ = ["ACT_LATENCY", "act_layout", "create_engine", "engine_members", "sums_layout"]


def act_layout(config: AcceleratorConfig) -> data.ArrayLayout:
    """``fill`` activations of each token: index token · fill + k."""
    return data.ArrayLayout(signed(config.act_bits), config.tokens * config.fill)


def sums_layout(config: AcceleratorConfig, bits: int) -> data.ArrayLayout:
    """A signed sum for each token and row: index token · rows + row."""
    return data.ArrayLayout(signed(bits), config.tokens * config.rows)


def engine_members(config: AcceleratorConfig) -> dict[str, Member]:
    return {
        "i_start": In(1),
        "i_more": In(1),
        "act_address": Out(range(config.activation_words)),
        "i_act": In(act_layout(config)),
        "ready": Out(1),
        "i_word": In(Shape(config.word_bits)),
        "i_valid": In(1),
        "i_swap": In(1),
        "i_last": In(1),
        "o_sums": Out(sums_layout(config, config.sum_bits)),
        "o_negative": Out(config.rows),
    }


def create_engine(config: AcceleratorConfig) -> Any:
    return load_component(engines[config.engine].component)(config)
