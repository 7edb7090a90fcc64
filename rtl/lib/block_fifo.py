"""A queue in block RAM."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.streams import stream_from_memory

__all__ = ["BlockFifo"]


class BlockFifo(wiring.Component):
    """A queue whose user knows how much room it has, so it takes whatever is put in.

    A word is read no sooner than the cycle after it was written, so the block RAM needs no by-pass.

    Latency: 2 cycles from `put` to `o`. Throughput: a word a cycle.

    Parameters
    ----------
    shape : shape of a word
    depth : words that the block RAM holds, a power of two. The word at `o` is not among them.

    Members
    -------
    put : in, 1 bit
        `word` enters at the end of this cycle. Not allowed while `depth` words are in the RAM.
    word : in, of `shape`
    o : out, stream of `shape`
        The words in order.
    freed : out, 1 bit
        A word leaves the RAM at the end of this cycle.
    """

    put: Signal
    word: Any
    o: stream.Interface
    freed: Signal

    def __init__(self, shape: Any, depth: int) -> None:
        self.shape = shape
        self.depth = depth
        super().__init__(
            {
                "put": In(1),
                "word": In(shape),
                "o": Out(stream.Signature(shape)),
                "freed": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = ram = block_ram(self.shape, self.depth)
        write, read = ram.write_port(), ReadPort(m, ram)
        bits = self.depth.bit_length()  # one more than an address has, to tell full from empty
        head, tail = Signal(bits), Signal(bits)
        m.d.comb += [
            write.en.eq(self.put),
            write.addr.eq(head),
            write.data.eq(self.word),
            read.addr.eq(tail),
            self.freed.eq(stream_from_memory(m, read, self.o, tail != head)),
        ]
        with m.If(self.put):
            m.d.sync += head.eq(head + 1)
        with m.If(self.freed):
            m.d.sync += tail.eq(tail + 1)
        return m
