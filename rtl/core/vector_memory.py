"""The vector unit's memory, and the queue of codes between its pipeline and the core."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.float_convert import CODE_BITS
from tritloom.rtl.lib.streams import stream_from_memory
from tritloom.rtl.spec.vector_facts import VECTOR_WORD_BYTES, VectorConfig

__all__ = ["CodeQueue", "VectorMemory"]

WORD_BITS = 8 * VECTOR_WORD_BYTES


class VectorMemory(wiring.Component):
    """Float32 words: two are read and one is written in each cycle.

    It holds each word twice, because a block RAM has one read port beside its write port.

    Parameters
    ----------
    config : of the vector unit

    Members
    -------
    a_address, b_address : in, addresses to read in this cycle
    o_a, o_b : out, the words, `READ_CYCLES` after their addresses
    write : in, 1 bit
        `word` is written to `address` in this cycle. It can be read from the next cycle on.
    address : in
    word : in, 32 bits
    """

    a_address: Signal
    b_address: Signal
    o_a: Signal
    o_b: Signal
    write: Signal
    address: Signal
    word: Signal

    def __init__(self, config: VectorConfig) -> None:
        self.config = config
        bits = config.address_bits
        super().__init__(
            {
                "a_address": In(bits),
                "b_address": In(bits),
                "o_a": Out(WORD_BITS),
                "o_b": Out(WORD_BITS),
                "write": In(1),
                "address": In(bits),
                "word": In(WORD_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name, address, word in (
            ("copy_a", self.a_address, self.o_a),
            ("copy_b", self.b_address, self.o_b),
        ):
            m.submodules[name] = memory = block_ram(WORD_BITS, self.config.words)
            read, write = ReadPort(m, memory), memory.write_port()
            output = Signal(WORD_BITS, name=f"{name}_output", reset_less=True)
            m.d.sync += output.eq(read.data)
            m.d.comb += [
                read.addr.eq(address),
                word.eq(output),
                write.en.eq(self.write),
                write.addr.eq(self.address),
                write.data.eq(self.word),
            ]
        return m


class CodeQueue(wiring.Component):
    """Codes on their way to the core, which may make them wait.

    The pipeline cannot wait. So an element enters it only if the queue has room for its code, and
    for those of all elements that are under way.

    Members
    -------
    enters : in, 1 bit
        An element whose result becomes a code enters the pipeline; only with `room`.
    room : out, 1 bit
        There is room for one more.
    i : in, signed 8 bits
        A code.
    i_valid : in, 1 bit
        `i` is stored in this cycle; once for each element that entered, in their order.
    o : out, stream of signed 8 bits
        The codes, in the same order.
    idle : out, 1 bit
        The core has taken the codes of all elements that entered.
    """

    enters: Signal
    room: Signal
    i: Signal
    i_valid: Signal
    o: stream.Interface
    idle: Signal

    DEPTH = 32
    """A power of two, more than the elements that are under way in the pipeline and the queue."""

    def __init__(self) -> None:
        super().__init__(
            {
                "enters": In(1),
                "room": Out(1),
                "i": In(signed(CODE_BITS)),
                "i_valid": In(1),
                "o": Out(stream.Signature(signed(CODE_BITS))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = block_ram(signed(CODE_BITS), self.DEPTH)
        read, write = ReadPort(m, memory), memory.write_port()
        stored, fetched = Signal(range(self.DEPTH)), Signal(range(self.DEPTH))
        fetch = stream_from_memory(m, read, self.o, stored != fetched)
        m.d.comb += [
            write.en.eq(self.i_valid),
            write.addr.eq(stored),
            write.data.eq(self.i),
            read.addr.eq(fetched),
        ]
        m.d.sync += [stored.eq(stored + self.i_valid), fetched.eq(fetched + fetch)]
        # Elements that entered and whose codes the core has not taken.
        waiting = Signal(range(self.DEPTH + 1))
        leaves = self.o.valid & self.o.ready
        m.d.comb += [self.room.eq(~waiting[-1]), self.idle.eq(waiting == 0)]
        with m.If(self.enters & ~leaves):
            m.d.sync += waiting.eq(waiting + 1)
        with m.Elif(leaves & ~self.enters):
            m.d.sync += waiting.eq(waiting - 1)
        return m
