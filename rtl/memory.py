"""Weight memory: the contract of every kind, and the one in block RAM.

* ``i_write`` takes one word a transfer.
* ``i_read`` takes a range (first word, number of words ≥ 1); ``o`` then brings just these words,
  strictly forward. The next range may be accepted before the last word has left.
* Nothing reads and writes at the same time.
"""

from typing import Any

from amaranth.hdl import Module, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Member, Out, connect, flipped

from tritloom.rtl.config import AcceleratorConfig
from tritloom.rtl.plugins import load_component, memories
from tritloom.rtl.streams import StreamRegister, bits_for, stream_from_memory


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


class BlockRamMemory(wiring.Component):
    """Weights in block RAM; the words of a range come without a pause.

    Members: as in this module's contract. ``LATENCY``: cycles from a range to its first word.
    """

    LATENCY = 3

    i_write: stream.Interface
    i_read: stream.Interface
    o: stream.Interface

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(memory_members(config))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.words = words = Memory(
            shape=config.word_bits, depth=config.memory_words, init=[]
        )
        # The array's output is slow; a register keeps it out of the engine's first stage.
        m.submodules.register = register = StreamRegister(config.word_bits)
        write = words.write_port()
        read = words.read_port()
        m.d.comb += [
            self.i_write.ready.eq(1),
            write.en.eq(self.i_write.valid),
            write.addr.eq(self.i_write.payload.address),
            write.data.eq(self.i_write.payload.word),
        ]
        address = Signal.like(read.addr)
        left = Signal(bits_for(config.memory_words))
        fetch = stream_from_memory(m, read, register.i, left != 0)
        m.d.comb += [
            read.addr.eq(address),
            self.i_read.ready.eq((left == 0) | ((left == 1) & fetch)),
        ]
        with m.If(fetch):
            m.d.sync += [address.eq(address + 1), left.eq(left - 1)]
        with m.If(self.i_read.valid & self.i_read.ready):
            m.d.sync += [
                address.eq(self.i_read.payload.address),
                left.eq(self.i_read.payload.count),
            ]
        connect(m, register.o, flipped(self.o))
        return m
