"""The BitLinear core: activations, dot engine, partial sums, and the order of a layer."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.adder_tree import delay
from tritloom.rtl.block_ram import ReadPort, block_ram
from tritloom.rtl.config import PARTIAL_SUM_CYCLES, PARTIAL_SUM_READ_CYCLES, AcceleratorConfig
from tritloom.rtl.engine import ACT_LATENCY, create_engine, sums_layout
from tritloom.rtl.partial_sums import PartialSums, order_layout
from tritloom.rtl.streams import bits_for


def load_layout(config: AcceleratorConfig) -> data.StructLayout:
    """``fill`` activations of one token, at a word of the activation buffer."""
    return data.StructLayout(
        {
            "token": range(config.tokens),
            "address": range(config.activation_words),
            "word": Shape(config.fill * config.act_bits),
        }
    )


def shape_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A layer's shape: tiles of inputs × groups of rows, each at least 1."""
    return data.StructLayout(
        {"tiles": bits_for(config.max_tiles), "groups": bits_for(config.max_groups)}
    )


class Core(wiring.Component):
    """Multiplies the loaded activations by a layer's weights, which come as a stream of words.

    Members
    -------
    i_load : stream of activations to write; none while a layer starts or runs
    i_run : stream of shapes; ready while no layer runs
    i_word : stream of weight words, tiles × groups for each run
    done : strobe, the results are complete
    stall : the engine waits for a weight word
    i_fetch, o : results by group, as in ``PartialSums``
    """

    i_load: stream.Interface
    i_run: stream.Interface
    i_word: stream.Interface
    done: Signal
    stall: Signal
    i_fetch: stream.Interface
    o: stream.Interface

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "i_load": In(stream.Signature(load_layout(config))),
                "i_run": In(stream.Signature(shape_layout(config))),
                "i_word": In(stream.Signature(Shape(config.word_bits))),
                "done": Out(1),
                "stall": Out(1),
                "i_fetch": In(stream.Signature(range(config.max_groups))),
                "o": Out(stream.Signature(sums_layout(config, config.acc_bits))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.engine = engine = create_engine(config)
        m.submodules.sums = sums = PartialSums(config)
        self._connect_activations(m, engine)

        shape = Signal(shape_layout(config))
        busy = Signal()
        start, starts = Signal(), Signal()  # in the next cycle too, from a register
        connect(m, flipped(self.i_fetch), sums.i_fetch)
        connect(m, sums.o, flipped(self.o))
        m.d.comb += [
            self.i_run.ready.eq(~busy),
            start.eq(self.i_run.valid & self.i_run.ready),
            engine.i_start.eq(starts),
            self.done.eq(sums.done),
        ]
        m.d.sync += starts.eq(start)
        with m.If(start):
            m.d.sync += [shape.eq(self.i_run.payload), busy.eq(1)]
        with m.Elif(self.done):
            m.d.sync += busy.eq(0)

        # Weight words: one tile's groups after the other. A tile waits for its activations, and
        # with few groups for the partial sums of the tile before.
        # What the next word depends on is known in registers.
        tiles_left = Signal(bits_for(config.max_tiles))  # that have not begun
        more, one_left = Signal(), Signal()
        following = Signal(bits_for(max(4, config.max_groups)), init=4)  # groups, the next 3 too
        # In parts, is the next word its tile's last but two; is it the last but one, last, first.
        equal = Signal(-(-len(following) // 4))
        penultimate, last, begins = Signal(), Signal(), Signal(init=1)
        open_, may_begin = Signal(), Signal()
        first_tile = Signal()
        single, pair, three, few = Signal(), Signal(), Signal(), Signal()
        word = Signal()
        order = Signal(order_layout())
        ended = [word & last]
        for _ in range(PARTIAL_SUM_CYCLES - 3):
            ended.append(delay(m, ended[-1], 1))
        blocked = Signal()
        # Of an engine's sums, how much sooner than the partial ones they come.
        early = PARTIAL_SUM_READ_CYCLES - config.engine_latency
        m.d.comb += [
            self.i_word.ready.eq(open_),
            self.stall.eq(open_ & ~self.i_word.valid),
            word.eq(open_ & self.i_word.valid),
            engine.i_more.eq(more),
            engine.i_word.eq(self.i_word.payload),
            engine.i_valid.eq(word),
            engine.i_swap.eq(word & begins),
            engine.i_last.eq(word & last),
            order.valid.eq(word),
            order.first_group.eq(begins),
            order.first_tile.eq(first_tile),
            order.last.eq(last & Mux(begins, one_left, ~more)),
            sums.i_order.eq(delay(m, order, max(0, -early))),
            sums.i_sums.eq(delay(m, engine.o_sums, max(0, early), reset_less=True)),
            sums.i_negative.eq(delay(m, engine.o_negative, max(0, early), reset_less=True)),
        ]
        m.d.sync += [
            one_left.eq(tiles_left == 1),
            single.eq(shape.groups == 1),
            pair.eq(shape.groups == 2),
            three.eq(shape.groups == 3),
            few.eq(shape.groups < PARTIAL_SUM_CYCLES),
            may_begin.eq(more & engine.ready & ~engine.i_swap),
            blocked.eq(few & Cat(ended).any()),
        ]
        with m.If(word & last):
            m.d.sync += open_.eq(may_begin & ~few)
        with m.Elif(~open_):
            m.d.sync += open_.eq(may_begin & ~blocked)
        with m.If(word):
            for n in range(len(equal)):
                m.d.sync += equal[n].eq(following[4 * n :][:4] == shape.groups[4 * n :][:4])
            m.d.sync += [
                begins.eq(last),
                following.eq(following + 1),
                penultimate.eq(equal.all()),
                last.eq(penultimate),
            ]
        with m.If(engine.i_swap):
            m.d.sync += [tiles_left.eq(tiles_left - 1), more.eq(~one_left)]
        with m.If((word & last) | (begins & ~open_)):
            m.d.sync += [
                following.eq(following.init),
                equal.eq(three.replicate(len(equal))),
                penultimate.eq(pair),
                last.eq(single),
            ]
        with m.If(word & last):
            m.d.sync += first_tile.eq(0)
        with m.If(starts):
            m.d.sync += [tiles_left.eq(shape.tiles), more.eq(1), first_tile.eq(1)]
        return m

    def _connect_activations(self, m: Module, engine: Any) -> None:
        """Block RAM between ``i_load`` and the engine."""
        config = self.config
        # One write enable for each token's part of a word.
        bits = config.fill * config.act_bits
        m.submodules.activations = words = block_ram(config.tokens * bits, config.activation_words)
        write = words.write_port(granularity=bits)
        read = ReadPort(m, words)
        # From where commands are executed it may be far: a cycle for the way.
        load = delay(m, self.i_load.payload, 1, reset_less=True)
        m.d.comb += [
            self.i_load.ready.eq(1),
            write.addr.eq(load.address),
            write.data.eq(load.word.replicate(config.tokens)),
            write.en.eq(delay(m, self.i_load.valid << self.i_load.payload.token, 1)),
            read.addr.eq(engine.act_address),
            engine.i_act.eq(delay(m, read.data, ACT_LATENCY - 1, reset_less=True)),
        ]
