"""The scales of the activations: a float32 of each token and group of inputs, in banks."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES

__all__ = ["ActivationScales", "scale_layout"]


def scale_layout(config: AcceleratorConfig) -> data.StructLayout:
    """The scale of one token's activations in a group of inputs, and the bank that it goes to."""
    return data.StructLayout(
        {
            "token": range(config.tokens),
            "group": range(config.max_tiles),
            "bank": range(config.banks),
            "scale": 8 * FLOAT_BYTES,
        }
    )


class ActivationScales(wiring.Component):
    """The memory of the scales: it is written one by one, and read for all tokens of a group.

    Members
    -------
    i : in, stream of `scale_layout`
        A scale to write, one a cycle, always ready. Reads see it from `WRITE_CYCLES` later on;
        until then none of its group and bank may come.
    i_bank, i_group : in, numbers
        What to read in this cycle.
    o : out, a float32 pattern of each token
        The scales, `READ_CYCLES` later.
    """

    i: stream.Interface
    i_bank: Signal
    i_group: Signal
    o: data.View
    WRITE_CYCLES = 2
    """A register, because whoever loads may be placed far away, and the memory."""
    READ_CYCLES = 2
    """The memory, and a register behind it."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(scale_layout(config))),
                "i_bank": In(range(config.banks)),
                "i_group": In(range(config.max_tiles)),
                "o": Out(data.ArrayLayout(8 * FLOAT_BYTES, config.tokens)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        # A bank begins at a power of two, so that no adder is needed; the last one ends earlier.
        low = (config.max_tiles - 1).bit_length()
        depth = ((config.banks - 1) << low) + config.max_tiles
        m.submodules.scales = scales = block_ram(8 * FLOAT_BYTES * config.tokens, depth)
        # Each token has a write enable of its own.
        write, read = scales.write_port(granularity=8 * FLOAT_BYTES), ReadPort(m, scales)
        load = delay(m, self.i.payload, 1, reset_less=True)
        m.d.comb += [
            self.i.ready.eq(1),
            write.addr.eq(Cat(load.group[:low], load.bank)),
            write.data.eq(load.scale.replicate(config.tokens)),
            write.en.eq(delay(m, self.i.valid << self.i.payload.token, 1)),
            read.addr.eq(Cat(self.i_group[:low], self.i_bank)),
            self.o.eq(delay(m, read.data, self.READ_CYCLES - 1, reset_less=True)),
        ]
        return m
