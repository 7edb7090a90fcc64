"""A weight memory outside of the FPGA for tests: a chip without a clock's delay, and its model."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.lib.streams import StreamRegister, bits_for
from tritloom.rtl.memories.contract import WeightMemory
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.plugins import Memory, memories
from tritloom.sim.models.contract import MemoryModel, Store

CHIP_WORDS = 1 << 24
"""More words than a design could hold: 64 megabytes and more."""


@dataclass(frozen=True, kw_only=True)
class Outside(Memory):
    """Words in a chip of `CHIP_WORDS` words, whose last words are the memory's."""

    name: ClassVar[str] = "test-outside"
    component: ClassVar[str] = f"{__name__}:OutsideMemory"
    model: ClassVar[str] = f"{__name__}:OutsideModel"
    pins: ClassVar = MappingProxyType(
        {
            "chip_address": "word of the chip",
            "chip_write": "chip_data is written",
            "chip_data": "to the chip",
            "chip_word": "what the chip held at the last cycle's address",
        }
    )


def chip_pads(config: AcceleratorConfig) -> dict[str, Any]:
    return {
        "chip_address": Out(bits_for(CHIP_WORDS - 1)),
        "chip_write": Out(1),
        "chip_data": Out(config.word_bits),
        "chip_word": In(config.word_bits),
    }


class OutsideMemory(WeightMemory):
    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(config, chip_pads(config))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.output = output = StreamRegister(self.config.word_bits)
        base = CHIP_WORDS - self.config.memory_words
        address, left = Signal(range(CHIP_WORDS)), Signal(range(self.config.memory_words + 1))
        asked = Signal()
        read, write = self.i_read, self.i_write
        m.d.comb += [
            read.ready.eq(left == 0),
            write.ready.eq(1),
            self.chip_address.eq(address),
            self.chip_data.eq(write.payload.word),
            output.i.payload.eq(self.chip_word),
            output.i.valid.eq(asked),
        ]
        with m.If(write.valid):
            m.d.comb += [
                self.chip_write.eq(1),
                self.chip_address.eq(base + write.payload.address),
            ]
        with m.If(read.valid & read.ready):
            m.d.sync += [address.eq(base + read.payload.address), left.eq(read.payload.count)]
        # The address stays until the word is taken.
        m.d.sync += asked.eq((left != 0) & ~(asked & output.i.ready))
        with m.If(asked & output.i.ready):
            m.d.sync += [address.eq(address + 1), left.eq(left - 1)]
        connect(m, output.o, flipped(self.o))
        return m


class OutsideModel(MemoryModel):
    """The chip; with `forbidden` it refuses that word of the memory."""

    RULES: ClassVar = {1: "a rule of the test: the word may not be addressed"}

    def __init__(self, config: AcceleratorConfig, forbidden: int | None = None) -> None:
        self.forbidden = forbidden
        super().__init__(
            config,
            {name: member.flip() for name, member in chip_pads(config).items()},
            (Store(words=CHIP_WORDS, bits=8 * config.word_bytes),),
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        port = self.store_0
        m.d.comb += [
            port.address.eq(self.chip_address),
            port.write.eq(self.chip_write.replicate(len(port.write))),
            port.data.eq(self.chip_data),
            self.chip_word.eq(port.word),
        ]
        if self.forbidden is not None:
            place = CHIP_WORDS - self.config.memory_words + self.forbidden
            m.d.comb += self.violation.eq(self.chip_address == place)
        return m


def register() -> None:
    memories.add(Outside)
