"""The BitLinear core: activations, dot engine, partial sums, and the order of a layer."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.core.partial_sums import FETCH_CYCLES, PartialSums
from tritloom.rtl.engines.contract import ACT_LATENCY, create_engine, sums_layout
from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.spec.config import PARTIAL_SUM_CYCLES, PARTIAL_SUM_READ_CYCLES, AcceleratorConfig


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
    """A layer's shape: the numbers, from 0, of its last tile of inputs and last group of rows."""
    return data.StructLayout(
        {"last_tile": range(config.max_tiles), "last_group": range(config.max_row_groups)}
    )


class Core(wiring.Component):
    """Multiplies the loaded activations by a layer's weights, which come as a stream of words.

    Members
    -------
    i_load : stream of activations to write; none while a layer starts or runs
    i_run : stream of shapes; ready while no layer runs, none while a fetched group is not taken
    i_word : stream of weight words, tiles × groups for each run
    done : strobe, the results are complete
    stall : the engine waits for a weight word
    i_fetch : stream of groups to read, while no layer runs
    o : stream of that group's totals, one for each token and row, ``acc_bits`` signed
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
                "i_fetch": In(stream.Signature(range(config.max_row_groups))),
                "o": Out(stream.Signature(sums_layout(config, config.acc_bits))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.engine = engine = create_engine(config)
        m.submodules.sums = sums = PartialSums(config)
        self._connect_activations(m, engine)

        shape = Signal(shape_layout(config), reset_less=True)
        busy = Signal()
        start = Signal()
        starts = Signal()  # in the next cycle too, from a register
        m.d.comb += [
            self.i_run.ready.eq(~busy),
            start.eq(self.i_run.valid & self.i_run.ready),
            engine.i_start.eq(starts),
            self.done.eq(sums.done),
        ]
        m.d.sync += [starts.eq(start), busy.eq(start | (busy & ~self.done))]
        with m.If(~busy):
            m.d.sync += shape.eq(self.i_run.payload)

        # Weight words: one tile's groups after the other. A tile waits for its activations, and
        # with few groups for the partial sums of the tile before.
        open_ = Signal()
        word = Signal()
        m.d.comb += [
            self.i_word.ready.eq(open_),
            self.stall.eq(open_ & ~self.i_word.valid),
            word.eq(open_ & self.i_word.valid),
        ]
        # Counts up to 0 at a tile's last group; the carry of the step says that the next word is
        # the last, in its load as well. It is loaded after the last word, and when a layer starts.
        groups_left = Signal(range(config.max_row_groups), reset_less=True)
        last = Signal(init=1)
        begins = Signal(reset_less=True)
        with m.If(word | starts):
            before = Mux(last, ~shape.last_group, groups_left)
            m.d.sync += [Cat(groups_left, last).eq(before + 1), begins.eq(last)]
        with m.If(~busy):
            m.d.sync += last.eq(1)

        # All else learns of a word in the next cycle, from registers.
        taken = Signal()
        first = Signal()
        final = Signal()
        m.d.sync += [taken.eq(word), first.eq(word & begins), final.eq(word & last)]
        # The group of that word, or between layers the one that is fetched.
        group = Signal(range(config.max_row_groups), reset_less=True)
        free = Signal(init=1)
        m.d.comb += self.i_fetch.ready.eq(free)
        with m.If(taken | free):
            m.d.sync += group.eq(Mux(free, self.i_fetch.payload, group) + ~free)
        with m.If(final | starts):
            m.d.sync += group.eq(0)
        # The same count for tiles, of those that have not begun.
        tiles_left = Signal(range(config.max_tiles), reset_less=True)
        more = Signal()
        one_left = Signal()
        first_tile = Signal()
        with m.If(first | starts):
            before = Mux(starts, ~shape.last_tile, tiles_left)
            m.d.sync += [
                Cat(tiles_left, one_left).eq(before + 1),
                more.eq(starts | ~one_left),
            ]
        with m.If(final):
            m.d.sync += first_tile.eq(0)
        with m.If(starts):
            m.d.sync += first_tile.eq(1)
        # Of an engine's sums, how much sooner than the partial ones they come.
        early = PARTIAL_SUM_READ_CYCLES - config.engine_latency
        late = max(0, -early)
        m.d.comb += [
            engine.i_more.eq(more),
            engine.i_word.eq(delay(m, self.i_word.payload, 1, reset_less=True)),
            engine.i_valid.eq(taken),
            engine.i_swap.eq(first),
            engine.i_last.eq(final),
            sums.i_valid.eq(delay(m, taken, late)),
            sums.i_last.eq(delay(m, final & Mux(first, one_left, ~more), late)),
            sums.i_first.eq(delay(m, first_tile, late, reset_less=True)),
            sums.i_group.eq(delay(m, group, late, reset_less=True)),
            sums.i_sums.eq(delay(m, engine.o_sums, max(0, early), reset_less=True)),
            sums.i_negative.eq(delay(m, engine.o_negative, max(0, early), reset_less=True)),
        ]

        # A tile may begin when it is loaded; one of few groups not before all of the one before
        # has ended, and its first sum is written. With more, what is known of the next tile is
        # true again by the last word.
        loaded = Signal()
        may_begin = Signal()
        few = Signal()
        ended = [word & last, final]
        for _ in range(PARTIAL_SUM_CYCLES - 4):
            ended.append(delay(m, ended[-1], 1))
        m.d.sync += [
            few.eq(~shape.last_group[(PARTIAL_SUM_CYCLES - 2).bit_length() :].any()),
            loaded.eq(more & engine.ready),
            may_begin.eq(loaded & ~(few & Cat(may_begin, open_, ended).any())),
            open_.eq(may_begin | (open_ & ~(self.i_word.valid & last))),
        ]

        # A group that is fetched stays addressed until it is taken.
        fetches = self.i_fetch.valid & free
        fetched = self.o.valid & self.o.ready
        m.d.comb += self.o.payload.eq(sums.o)
        m.d.sync += [
            self.o.valid.eq(
                delay(m, fetches, late + FETCH_CYCLES) | (self.o.valid & ~self.o.ready)
            ),
            free.eq((free & ~self.i_fetch.valid & ~self.i_run.valid) | fetched | self.done),
        ]
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
