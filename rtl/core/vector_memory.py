"""The vector unit's memory, and the queue of codes between its pipeline and the core."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Array, Const, Module, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.float_convert import CODE_BITS
from tritloom.rtl.lib.streams import stream_from_memory
from tritloom.rtl.spec.vector_cycles import READ_CYCLES
from tritloom.rtl.spec.vector_facts import LAYER_BITS, VECTOR_WORD_BYTES, VectorConfig

__all__ = [
    "CodeQueue",
    "VectorMemory",
    "code_shape",
    "rotated",
    "run_shape",
    "sums_shape",
    "token_bits",
]

WORD_BITS = 8 * VECTOR_WORD_BYTES


def rotated(values: Sequence[Value], first: Value) -> list[Value]:
    """The values from number `first` on, then those before it; a power of two of them."""
    count = len(values)
    if count == 1:
        return [values[0]]
    return [Array(values[(lane + n) % count] for n in range(count))[first] for lane in range(count)]


def code_shape(lanes: int) -> Any:
    """What goes to the core in a cycle: a code, or with several lanes `last` + 1 codes."""
    if lanes == 1:
        return signed(CODE_BITS)
    return data.StructLayout(
        {"codes": data.ArrayLayout(signed(CODE_BITS), lanes), "last": range(lanes)}
    )


def sums_shape(sum_bits: int, lanes: int) -> Any:
    """What comes from the core in a cycle: a result, or with several lanes one for each."""
    return signed(sum_bits) if lanes == 1 else data.ArrayLayout(signed(sum_bits), lanes)


def run_shape(tokens: int) -> Any:
    """A layer to run; of several tokens also whether all have given their codes."""
    return LAYER_BITS if tokens == 1 else data.StructLayout({"layer": LAYER_BITS, "last": 1})


def token_bits(tokens: int) -> int:
    """Width of a token's number in the vector unit; 0 if there is only one."""
    return (tokens - 1).bit_length()


class VectorMemory(wiring.Component):
    """Float32 words: twice `lanes` words are read and `lanes` are written in each cycle.

    It holds each word twice, because a block RAM has one read port beside its write port. With
    several lanes each copy has a bank a lane. The low bits of an address are its bank, so any
    `lanes` words in a row lie in different banks. With several tokens the high bits of an address
    are the token.

    Parameters
    ----------
    config : of the vector unit
    tokens : each has `words` of its own

    Members
    -------
    a_address, b_address : in, addresses of the first words to read in this cycle
    o_a, o_b : out, 32 bits a lane
        The words from there on, `READ_CYCLES` after their addresses. Words beyond the memory are
        anything.
    write : in, 1 bit a lane
        `word` of the lane is written to `address` plus the lane's number, in this cycle. It can be
        read from the next cycle on.
    address : in
    word : in, 32 bits a lane
    """

    a_address: Signal
    b_address: Signal
    o_a: Any
    o_b: Any
    write: Signal
    address: Signal
    word: Any

    def __init__(self, config: VectorConfig, tokens: int = 1) -> None:
        self.config = config
        bits = config.address_bits + token_bits(tokens)
        self.depth = config.words if tokens == 1 else tokens << config.address_bits
        words = data.ArrayLayout(WORD_BITS, config.lanes)
        super().__init__(
            {
                "a_address": In(bits),
                "b_address": In(bits),
                "o_a": Out(words),
                "o_b": Out(words),
                "write": In(config.lanes),
                "address": In(bits),
                "word": In(words),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, low = self.config.lanes, self.config.lane_bits
        first = self.address[:low]
        # Bank n holds word n − `first` of those that are written, counted around the banks.
        back = (-first)[:low]
        words = rotated([self.word[lane] for lane in range(lanes)], back)
        writes = rotated(list(self.write), back)
        for name, address, output in (
            ("copy_a", self.a_address, self.o_a),
            ("copy_b", self.b_address, self.o_b),
        ):
            banks = []
            for number in range(lanes):
                bank = name if lanes == 1 else f"{name}_{number}"
                m.submodules[bank] = memory = block_ram(WORD_BITS, self.depth // lanes)
                read, write = ReadPort(m, memory), memory.write_port()
                register = Signal(WORD_BITS, name=f"{bank}_output", reset_less=True)
                m.d.sync += register.eq(read.data)
                m.d.comb += [
                    read.addr.eq(self._row(address, number)),
                    write.en.eq(writes[number]),
                    write.addr.eq(self._row(self.address, number)),
                    write.data.eq(words[number]),
                ]
                banks.append(register)
            begin = delay(m, address[:low], READ_CYCLES, reset_less=True) if low else Const(0)
            for lane, word in enumerate(rotated(banks, begin)):
                m.d.comb += output[lane].eq(word)
        return m

    def _row(self, address: Signal, bank: int) -> Value:
        """Where a bank has its one of the `lanes` words from `address` on."""
        low = self.config.lane_bits
        if not low:
            return address
        return address[low:] + (address[:low] > bank)


class CodeQueue(wiring.Component):
    """Codes on their way to the core, which may make them wait.

    The pipeline cannot wait. So an element enters it only if the queue has room for its code, and
    for those of all elements that are under way. With several lanes the elements that enter
    together count as one, and their codes are one word of `code_shape`.

    Parameters
    ----------
    lanes : of the vector unit

    Members
    -------
    enters : in, 1 bit
        An element whose result becomes a code enters the pipeline; only with `room`.
    room : out, 1 bit
        There is room for one more.
    i : in, `code_shape`
        A code, or the codes of all lanes.
    i_valid : in, 1 bit
        `i` is stored in this cycle; once for each element that entered, in their order.
    o : out, stream of `code_shape`
        The codes, in the same order.
    idle : out, 1 bit
        The core has taken the codes of all elements that entered.
    """

    enters: Signal
    room: Signal
    i: Any
    i_valid: Signal
    o: stream.Interface
    idle: Signal

    DEPTH = 32
    """A power of two, more than the elements that are under way in the pipeline and the queue."""

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        super().__init__(
            {
                "enters": In(1),
                "room": Out(1),
                "i": In(code_shape(lanes)),
                "i_valid": In(1),
                "o": Out(stream.Signature(code_shape(lanes))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = block_ram(code_shape(self.lanes), self.DEPTH)
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
