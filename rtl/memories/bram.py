"""Weight memory in block RAM."""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib.wiring import connect, flipped

from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.lib.streams import StreamRegister, bits_for
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.memories.contract import WeightMemory


class BlockRamMemory(WeightMemory):
    """Weights in block RAM; the words of a range come without a pause.

    The memory is divided into banks, and each bank has a register behind it. Without the registers,
    the multiplexer that chooses a bank would follow the slow outputs of the blocks in the same
    cycle. A bank is 2048 words deep: that is the deepest form in which a block is nine bits wide.
    In deeper forms the parity bits are unused.

    `BlockRam.LATENCY` cycles pass from a range to its first word. Members: see `WeightMemory`.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        count = -(-config.memory_words // BlockRam.BANK_WORDS)
        low = (BlockRam.BANK_WORDS - 1).bit_length()
        address = Signal(bits_for(config.memory_words))
        left = Signal(bits_for(config.memory_words))

        # The blocks lie all over the die, so the write is registered once on its way to them.
        writing = Signal(count)
        write = Signal(self.i_write.payload.shape(), reset_less=True)
        m.d.sync += [
            writing.eq(self.i_write.valid << self.i_write.payload.address[low:]),
            write.eq(self.i_write.payload),
        ]

        # A word moves through three stages: the block's read port, its bank's register, `output`.
        # Each stage takes a word as soon as it is free.
        m.submodules.output = output = StreamRegister(config.word_bits)
        more = Signal()  # `left` is not 0
        fetch = Signal()  # the blocks are read at `address`
        valid = Signal(2)  # of the read ports and of the registers: holds a word
        free = Signal(2)  # of the same: takes a word in this cycle
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
