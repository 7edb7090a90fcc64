"""Results of a device with scales: the totals of fetched row groups, as float32 one by one."""

from amaranth.hdl import Array, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from tritloom.rtl.control.tasks import items_shape
from tritloom.rtl.engines.contract import sums_layout
from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.lib.group_scale import FixedToFloat
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES

__all__ = ["ResultFloats"]

CHOICE_CYCLES = 1
"""From the choice of a total to the converter, or to the queue."""
QUEUE_CYCLES = 2
"""From a number that enters the queue to the cycle in which it can leave; its place is free in the
next one."""


class ResultFloats(wiring.Component):
    """Converts the totals of one token, a row in each cycle; float32 stay what they are.

    Members
    -------
    i : in, stream of `sums_layout`, `result_bits` signed
        A row group is taken with its last row that is wanted.
    token : in, number
        Whose totals are wanted. Must not change between `start` and the last result.
    start : in, 1 bit
        `count` results are wanted, from the next cycle on. Not set while results are on their way.
    count : in, number
    o : out, stream of float32 patterns
        A row's, `float_cycles` of `ScaleUnit` after its total could be taken.
    """

    i: stream.Interface
    token: Signal
    start: Signal
    count: Signal
    o: stream.Interface

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(sums_layout(config, config.result_bits))),
                "token": In(range(config.tokens)),
                "start": In(1),
                "count": In(items_shape(config)),
                "o": Out(stream.Signature(8 * FLOAT_BYTES)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        assert config.scale is not None
        cycles = config.scale.unit.float_cycles
        chosen = Signal(config.result_bits, reset_less=True)
        latency = CHOICE_CYCLES
        number: Value = chosen
        if not config.scales_activations:  # else the totals are float32 already
            m.submodules.convert = convert = FixedToFloat(config.result_bits)
            m.d.comb += convert.i.eq(chosen)
            number = convert.o.as_value()
            latency += convert.latency
        # Each total that is chosen has a place in the queue.
        assert latency + QUEUE_CYCLES == cycles
        depth = cycles + 1
        m.submodules.queue = queue = SyncFIFOBuffered(width=8 * FLOAT_BYTES, depth=depth)
        free = Signal(range(depth + 1), init=depth)  # places
        left = Signal.like(self.count)  # totals that are still to be chosen
        row = Signal(range(config.rows))
        enters, leaves, last = Signal(), Signal(), Signal()
        totals = Array(Signal(config.result_bits, name=f"total_{n}") for n in range(config.rows))
        for n, total in enumerate(totals):
            of_tokens = Array(self.i.payload[t * config.rows + n] for t in range(config.tokens))
            m.d.comb += total.eq(of_tokens[self.token])
        m.d.sync += chosen.eq(totals[row])
        m.d.comb += [
            enters.eq(self.i.valid & (left != 0) & (free != 0)),
            last.eq((row == config.rows - 1) | (left == 1)),
            self.i.ready.eq(enters & last),
            queue.w_data.eq(number),
            queue.w_en.eq(delay(m, enters, latency)),
            self.o.valid.eq(queue.r_rdy),
            self.o.payload.eq(queue.r_data),
            leaves.eq(self.o.valid & self.o.ready),
            queue.r_en.eq(leaves),
        ]
        with m.If(enters & ~leaves):
            m.d.sync += free.eq(free - 1)
        with m.Elif(leaves & ~enters):
            m.d.sync += free.eq(free + 1)
        with m.If(enters):
            m.d.sync += [left.eq(left - 1), row.eq(Mux(last, 0, row + 1))]
        with m.If(self.start):
            m.d.sync += [left.eq(self.count), row.eq(0)]
        return m
