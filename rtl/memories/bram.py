"""Weight memory in block RAM."""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib.wiring import connect, flipped

from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.streams import StreamRegister, bits_for
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.memories.contract import WeightMemory


class BlockRamMemory(WeightMemory):
    """Weights in block RAM; the words of a range come without a pause.

    The array is cut into banks, each with a register behind it: what chooses among them would else
    follow the blocks' slow outputs in the same cycle. A bank is as deep as a block can be that is
    still nine bits wide; deeper ones leave the parity bits unused.

    Members: as in `WeightMemory`. `BlockRam.LATENCY` cycles pass from a range to its first word.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        count = -(-config.memory_words // BlockRam.BANK_WORDS)
        low = (BlockRam.BANK_WORDS - 1).bit_length()
        address = Signal(bits_for(config.memory_words))
        left = Signal(bits_for(config.memory_words))

        # The blocks lie all over the die: what is written to them has a cycle to get there.
        writing = Signal(count)
        write = Signal(self.i_write.payload.shape(), reset_less=True)
        m.d.sync += [
            writing.eq(self.i_write.valid << self.i_write.payload.address[low:]),
            write.eq(self.i_write.payload),
        ]

        # Three steps behind the address, filled as soon as they are free: block, register, output.
        m.submodules.output = output = StreamRegister(config.word_bits)
        more = Signal()  # left is not 0
        fetch = Signal()
        valid = Signal(2)
        free = Signal(2)
        banks = [Signal(range(count), name=f"bank_{n}") for n in range(2)]
        registers = Array(
            Signal(config.word_bits, name=f"register_{n}", reset_less=True) for n in range(count)
        )
        m.d.comb += [
            self.i_write.ready.eq(1),
            self.i_read.ready.eq(~more | ((left == 1) & fetch)),
            free[1].eq(~valid[1] | output.i.ready),
            free[0].eq(~valid[0] | free[1]),
            fetch.eq(free[0] & more),
            output.i.valid.eq(valid[1]),
            output.i.payload.eq(registers[banks[1]]),
        ]
        with m.If(free[0]):
            m.d.sync += [valid[0].eq(more), banks[0].eq(address[low:])]
        with m.If(free[1]):
            m.d.sync += [valid[1].eq(valid[0]), banks[1].eq(banks[0])]
        for number, register in enumerate(registers):
            depth = min(BlockRam.BANK_WORDS, config.memory_words - number * BlockRam.BANK_WORDS)
            words = block_ram(config.word_bits, depth)
            m.submodules[f"words_{number}"] = words
            write_port = words.write_port()
            read_port = ReadPort(m, words)
            m.d.comb += [
                write_port.en.eq(writing[number]),
                write_port.addr.eq(write.address[:low]),
                write_port.data.eq(write.word),
                read_port.en.eq(fetch),
                read_port.addr.eq(address[:low]),
            ]
            with m.If(free[1]):
                m.d.sync += register.eq(read_port.data)

        with m.If(fetch):
            m.d.sync += [address.eq(address + 1), left.eq(left - 1), more.eq(left != 1)]
        with m.If(self.i_read.valid & self.i_read.ready):
            m.d.sync += [
                address.eq(self.i_read.payload.address),
                left.eq(self.i_read.payload.count),
                more.eq(1),
            ]
        connect(m, output.o, flipped(self.o))
        return m
