"""The BitLinear core: activation buffer, dot engine, partial sums, and the order of a layer."""

from amaranth.hdl import Module, Mux, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.block_ram import ReadPort, block_ram
from tritloom.rtl.config import PARTIAL_SUM_CYCLES, AcceleratorConfig
from tritloom.rtl.engine import act_layout, create_engine, sums_layout
from tritloom.rtl.partial_sums import PartialSums
from tritloom.rtl.streams import bits_for, stream_from_memory


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


class ActivationBuffer(wiring.Component):
    """Activations of the layer to run, in block RAM; sends those of whole tiles in order.

    Members
    -------
    i_load : stream of words to write; none while a layer starts or is sent
    start, tiles : send the first ``tiles`` tiles
    o : stream of activations for an engine
    """

    i_load: stream.Interface
    start: Signal
    tiles: Signal
    o: stream.Interface

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "i_load": In(stream.Signature(load_layout(config))),
                "start": In(1),
                "tiles": In(bits_for(config.max_tiles)),
                "o": Out(stream.Signature(act_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        # One write enable for each token's part of a word.
        m.submodules.words = words = block_ram(
            config.tokens * config.fill * config.act_bits, config.activation_words
        )
        write = words.write_port(granularity=config.fill * config.act_bits)
        read = ReadPort(m, words)
        # From where commands are executed it may be far: a cycle for the way.
        load = Signal(self.i_load.payload.shape(), reset_less=True)
        loading = Signal(config.tokens)
        m.d.sync += [
            loading.eq(self.i_load.valid << self.i_load.payload.token),
            load.eq(self.i_load.payload),
        ]
        m.d.comb += [
            self.i_load.ready.eq(1),
            write.addr.eq(load.address),
            write.data.eq(load.word.replicate(config.tokens)),
            write.en.eq(loading),
        ]

        address = Signal.like(read.addr)
        transfer = Signal(range(config.lanes // config.fill))
        left = Signal(bits_for(config.max_tiles))
        m.d.comb += read.addr.eq(address)
        fetch = stream_from_memory(m, read, self.o, left != 0)
        with m.If(fetch):
            last = transfer == config.lanes // config.fill - 1
            m.d.sync += [address.eq(address + 1), transfer.eq(Mux(last, 0, transfer + 1))]
            with m.If(last):
                m.d.sync += left.eq(left - 1)
        with m.If(self.start):
            m.d.sync += [address.eq(0), left.eq(self.tiles)]
        return m


class Core(wiring.Component):
    """Multiplies the loaded activations by a layer's weights, which come as a stream of words.

    Members
    -------
    i_load : stream of activations to write
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
        m.submodules.activations = activations = ActivationBuffer(self.config)
        m.submodules.engine = engine = create_engine(self.config)
        m.submodules.sums = sums = PartialSums(self.config)

        shape = Signal(shape_layout(self.config))
        busy = Signal()
        start = Signal()
        connect(m, flipped(self.i_load), activations.i_load)
        connect(m, activations.o, engine.i_act)
        connect(m, flipped(self.i_fetch), sums.i_fetch)
        connect(m, sums.o, flipped(self.o))
        m.d.comb += [
            self.i_run.ready.eq(~busy),
            start.eq(self.i_run.valid & self.i_run.ready),
            activations.start.eq(start),
            activations.tiles.eq(self.i_run.payload.tiles),
            sums.start.eq(start),
            sums.groups.eq(shape.groups),
            sums.tiles.eq(shape.tiles),
            sums.i_valid.eq(engine.o_valid),
            sums.i_sums.eq(engine.o_sums),
            self.done.eq(sums.done),
        ]
        with m.If(start):
            m.d.sync += [shape.eq(self.i_run.payload), busy.eq(1)]
        with m.Elif(self.done):
            m.d.sync += busy.eq(0)

        # Weight words: one tile's groups after the other; a tile waits for its activations, and
        # with few groups for the partial sums of the tile before.
        tiles_left = Signal(bits_for(self.config.max_tiles))
        group = Signal(range(self.config.max_groups))
        gap = Signal(range(PARTIAL_SUM_CYCLES))
        may = Signal()
        last = Signal()
        m.d.comb += [
            last.eq(group + 1 == shape.groups),
            may.eq((tiles_left != 0) & ((group != 0) | (engine.ready & (gap == 0)))),
            self.i_word.ready.eq(may),
            self.stall.eq(may & ~self.i_word.valid),
            engine.i_word.eq(self.i_word.payload),
            engine.i_valid.eq(may & self.i_word.valid),
            engine.i_swap.eq(engine.i_valid & (group == 0)),
        ]
        with m.If(gap != 0):
            m.d.sync += gap.eq(gap - 1)
        with m.If(engine.i_valid):
            m.d.sync += group.eq(Mux(last, 0, group + 1))
            with m.If(last):
                m.d.sync += tiles_left.eq(tiles_left - 1)
                with m.If(shape.groups < PARTIAL_SUM_CYCLES):
                    m.d.sync += gap.eq(PARTIAL_SUM_CYCLES - shape.groups)
        with m.If(start):
            m.d.sync += [tiles_left.eq(self.i_run.payload.tiles), group.eq(0), gap.eq(0)]
        return m
