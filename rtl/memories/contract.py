# amaranth: UnusedElaboratable=no
"""The contract of every weight memory.

* `i_write` takes one word a transfer.
* `i_read` takes a range (first word, number of words ≥ 1). `o` then brings exactly these words,
  strictly forward. The next range may be accepted before the last word has left.
* `error` is valid with `o`: the memory could not read that word, so its payload means nothing. A
  range still brings all its words, so no command waits forever. Only a memory whose record says
  `can_fail` may set it.
* Nothing reads and writes at the same time.
"""

from amaranth.hdl import Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Member, Out

from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.registry import load_component

__all__ = ["WeightMemory", "create_memory", "memory_members", "range_layout", "write_layout"]


def range_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A range of weight words: its first address and how many."""
    return data.StructLayout(
        {"address": bits_for(config.memory_words), "count": bits_for(config.memory_words)}
    )


def write_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A weight word and the address that it is written to."""
    return data.StructLayout(
        {"address": bits_for(config.memory_words), "word": Shape(config.word_bits)}
    )


def memory_members(config: AcceleratorConfig) -> dict[str, Member]:
    """The ports of a `WeightMemory` but for its pads."""
    return {
        "i_write": In(stream.Signature(write_layout(config))),
        "i_read": In(stream.Signature(range_layout(config))),
        "o": Out(stream.Signature(Shape(config.word_bits))),
        "error": Out(1),
    }


class WeightMemory(wiring.Component):
    """Base of every weight memory; a subclass adds `elaborate`, and pads where it has any.

    Parameters
    ----------
    config : the accelerator's configuration
    pads : members beyond the contract; the accelerator forwards them under their own names, and
        `Memory.pins` says what each means

    Members
    -------
    i_write : stream in of `write_layout`; a word is stored in the cycle of its transfer or later,
        but before any range that is accepted after it
    i_read : stream in of `range_layout`; ready when the next range can be accepted
    o : stream out of `word_bits`; the words of the accepted ranges in order
    error : 1 bit out; the word at `o` is void: the memory could not read it. Holds as the payload
        does. Never set if `Memory.can_fail` is not.
    """

    i_write: stream.Interface
    i_read: stream.Interface
    o: stream.Interface
    error: Signal

    def __init__(self, config: AcceleratorConfig, pads: dict[str, Member] | None = None) -> None:
        self.config = config
        super().__init__(memory_members(config) | (pads or {}))


def create_memory(config: AcceleratorConfig) -> WeightMemory:
    """The weight memory of a configuration.

    Raises
    ------
    ConfigError : the component does not import or is no `WeightMemory`
    """
    path = config.memory.component
    component = load_component(path)
    if not (isinstance(component, type) and issubclass(component, WeightMemory)):
        raise ConfigError(f"memory {config.memory.name!r}: {path} is not a WeightMemory")
    return component(config)
