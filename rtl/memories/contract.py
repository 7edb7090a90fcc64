"""The contract of every weight memory, and how a configuration gets its component.

* ``i_write`` takes one word a transfer.
* ``i_read`` takes a range (first word, number of words ≥ 1); ``o`` then brings just these words,
  strictly forward. The next range may be accepted before the last word has left.
* Nothing reads and writes at the same time.
"""

from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Member, Out

from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.plugins import load_component, memories


def range_layout(config: AcceleratorConfig) -> data.StructLayout:
    return data.StructLayout(
        {"address": bits_for(config.memory_words), "count": bits_for(config.memory_words)}
    )


def write_layout(config: AcceleratorConfig) -> data.StructLayout:
    return data.StructLayout(
        {"address": bits_for(config.memory_words), "word": Shape(config.word_bits)}
    )


def memory_members(config: AcceleratorConfig) -> dict[str, Member]:
    return {
        "i_write": In(stream.Signature(write_layout(config))),
        "i_read": In(stream.Signature(range_layout(config))),
        "o": Out(stream.Signature(Shape(config.word_bits))),
    }


def create_memory(config: AcceleratorConfig) -> Any:
    return load_component(memories[config.memory].component)(config)
