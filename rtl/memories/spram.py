"""Weight memory in the SPRAM of an iCE40 UltraPlus."""

from typing import Any

from amaranth.hdl import (
    Array,
    Cat,
    ClockSignal,
    Const,
    Instance,
    Module,
    Mux,
    Signal,
    Value,
    unsigned,
)
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.constant_product import constant_product
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.memories.contract import WeightMemory
from tritloom.rtl.memories.spram_facts import Spram

__all__ = ["SpramBlock", "SpramMemory"]

ADDRESS_BITS = (Spram.BLOCK_DEPTH - 1).bit_length()
DEVICE = "iCE40UP5K"
"""The device that has SPRAM, as amaranth-boards calls it."""


class SpramBlock(wiring.Component):
    """One block: 16,384 words of 16 bits behind one port.

    On an iCE40 UltraPlus it is an SB_SPRAM256KA, whose contents are unknown at power-up. Everywhere
    else, as in a simulation, it is a memory that behaves like it.

    Members
    -------
    address : 14 bits in
    enable : 1 bit in; without it the block does nothing, and `output` holds
    writes : 1 bit in; an enabled cycle writes `input`. `output` then means nothing until a read.
    input : 16 bits in
    output : 16 bits out; the word at `address`, one cycle after an enabled cycle without `writes`
    """

    address: Signal
    enable: Signal
    writes: Signal
    input: Signal
    output: Signal

    def __init__(self) -> None:
        super().__init__(
            {
                "address": In(ADDRESS_BITS),
                "enable": In(1),
                "writes": In(1),
                "input": In(Spram.BLOCK_BITS),
                "output": Out(Spram.BLOCK_BITS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        if getattr(platform, "device", None) == DEVICE:
            m.submodules.block = Instance(
                "SB_SPRAM256KA",
                i_CLOCK=ClockSignal(),
                i_ADDRESS=self.address,
                i_CHIPSELECT=self.enable,
                i_WREN=self.writes,
                i_MASKWREN=Const(0b1111, 4),
                i_DATAIN=self.input,
                i_STANDBY=Const(0),
                i_SLEEP=Const(0),
                i_POWEROFF=Const(1),  # low is off
                o_DATAOUT=self.output,
            )
            return m
        m.submodules.block = block = Memory(
            shape=unsigned(Spram.BLOCK_BITS), depth=Spram.BLOCK_DEPTH, init=()
        )
        write_port, read_port = block.write_port(), block.read_port()
        m.d.comb += [
            write_port.addr.eq(self.address),
            write_port.data.eq(self.input),
            write_port.en.eq(self.enable & self.writes),
            read_port.addr.eq(self.address),
            read_port.en.eq(self.enable & ~self.writes),
            self.output.eq(read_port.data),
        ]
        return m


class SpramMemory(WeightMemory):
    """Weights in the four SPRAM blocks; `Spram` says how words lie in them.

    A word that takes one read follows the word before it in the next cycle. Longer words are put
    together in a shift register, the lowest bits first, and take a cycle a read. Members: see
    `WeightMemory`.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        memory, config = self.config.memory, self.config
        assert isinstance(memory, Spram)
        columns, reads = memory.columns(config), memory.reads(config)
        shares = Spram.BLOCKS // columns  # words at one address of the blocks
        share_bits = (shares - 1).bit_length()
        piece_bits = columns * Spram.BLOCK_BITS
        blocks = [SpramBlock() for _ in range(Spram.BLOCKS)]
        for number, block in enumerate(blocks):
            m.submodules[f"block_{number}"] = block

        # An address holds the number of the share in its lowest bits, and the blocks' address.
        address = Signal(ADDRESS_BITS + share_bits)  # of the next read
        left = Signal(bits_for(config.memory_words * reads))  # reads that the range still needs
        more = Signal()  # `left` is not 0
        fetch = Signal()  # the blocks are read at `address`
        write = Signal()  # the blocks are written at `write_address`
        write_address = Signal(ADDRESS_BITS + share_bits)
        piece = Signal(piece_bits)  # what is written

        # A word moves through two stages: the blocks' outputs and a register. The blocks hold their
        # outputs, so each stage takes a word as soon as it is free.
        valid = Signal(2)
        free = Signal(2)
        share = Signal(max(1, share_bits))  # of the blocks' outputs
        outputs = Array(
            Cat(*[block.output for block in blocks[n * columns : (n + 1) * columns]])
            for n in range(shares)
        )
        word = Signal(reads * piece_bits, reset_less=True)
        whole = _counter(m, valid[0] & free[1], reads) == reads - 1 if reads > 1 else Const(1)
        m.d.comb += [
            self.i_read.ready.eq(~more | ((left == 1) & fetch)),
            free[1].eq(~valid[1] | self.o.ready),
            free[0].eq(~valid[0] | free[1]),
            fetch.eq(free[0] & more),
            self.o.valid.eq(valid[1]),
            self.o.payload.eq(word),
            write.eq(self.i_write.valid & ~more & ~valid[0]),
        ]
        written = self.i_write.payload
        if reads == 1:
            m.d.comb += [
                self.i_write.ready.eq(write),
                write_address.eq(written.address),
                piece.eq(written.word),
            ]
        else:
            number = _counter(m, write, reads)  # of the piece of the word
            pieces = Array(written.word[n * piece_bits :][:piece_bits] for n in range(reads))
            m.d.comb += [
                self.i_write.ready.eq(write & (number == reads - 1)),
                write_address.eq(constant_product(written.address, reads) + number),
                piece.eq(pieces[number]),
            ]
        for number, block in enumerate(blocks):
            place = number % columns * Spram.BLOCK_BITS
            chosen = write_address[:share_bits] == number // columns if shares > 1 else Const(1)
            m.d.comb += [
                block.address.eq(Mux(write, write_address, address) >> share_bits),
                block.enable.eq(fetch | (write & chosen)),
                block.writes.eq(write),
                block.input.eq(piece[place : place + Spram.BLOCK_BITS]),
            ]
        with m.If(free[0]):
            m.d.sync += [valid[0].eq(more), share.eq(address[:share_bits])]
        with m.If(free[1]):
            m.d.sync += valid[1].eq(valid[0] & whole)
        with m.If(valid[0] & free[1]):
            m.d.sync += word.eq(Cat(word, outputs[share])[piece_bits:])
        with m.If(fetch):
            m.d.sync += [address.eq(address + 1), left.eq(left - 1), more.eq(left != 1)]
        with m.If(self.i_read.valid & self.i_read.ready):
            m.d.sync += [
                address.eq(constant_product(self.i_read.payload.address, reads)),
                left.eq(constant_product(self.i_read.payload.count, reads)),
                more.eq(1),
            ]
        return m


def _counter(m: Module, step: Value, count: int) -> Signal:
    """Counts from 0 to `count - 1` and begins again, once for each cycle with `step`."""
    number = Signal(range(count))
    with m.If(step):
        m.d.sync += number.eq(Mux(number == count - 1, 0, number + 1))
    return number
