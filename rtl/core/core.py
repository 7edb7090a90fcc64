"""The BitLinear core: activations, dot engine, partial sums, and the order of a layer."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.core.activation_scales import ActivationScales, scale_layout
from tritloom.rtl.core.partial_sums import ADD_CYCLES, FETCH_CYCLES, PartialSums, fetch_layout
from tritloom.rtl.core.scaled_sums import ScaledSums
from tritloom.rtl.engines.contract import ACT_LATENCY, create_engine, sums_layout
from tritloom.rtl.lib.adder_tree import delay
from tritloom.rtl.lib.block_ram import ReadPort, block_ram
from tritloom.rtl.spec.config import PARTIAL_SUM_READ_CYCLES, AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.scale_facts import SCALE_BITS

OPEN_CYCLES = 2
"""Cycles from the decision that a tile may begin to its first word: `may_begin`, then `open_`."""


def load_layout(config: AcceleratorConfig) -> data.StructLayout:
    """`fill` activations of one token, and the word of the activation bank that they go to."""
    return data.StructLayout(
        {
            "token": range(config.tokens),
            "address": range(config.activation_words),
            "bank": range(config.banks),
            "word": Shape(config.fill * config.act_bits),
        }
    )


def shape_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A layer's shape, in numbers that count from 0.

    Members
    -------
    last_tile : its last tile
    last_group : its last row group
    last_of_group : the last tile of a group of inputs; a number that no tile but the layer's last
        has if there is one group. Only if the configuration has groups
    last_result : its last row group of sums. Only if the sums of groups are results
    """
    of_groups: dict[str, Any] = {}
    if config.has_groups:
        of_groups["last_of_group"] = range(config.max_tiles)
    if config.max_group_sums:
        of_groups["last_result"] = range(config.result_row_groups)
    return data.StructLayout(
        {
            "last_tile": range(config.max_tiles),
            "last_group": range(config.max_row_groups),
            **of_groups,
        }
    )


def shape_numbers(config: AcceleratorConfig, shape: LayerShape) -> dict[str, int]:
    """The members of `shape_layout` for a shape."""
    numbers = {"last_tile": shape.tiles - 1, "last_group": shape.row_groups - 1}
    if config.has_groups:
        most = (1 << (config.max_tiles - 1).bit_length()) - 1
        none = 0 if config.scale is None else config.most_group_tiles
        numbers["last_of_group"] = ((shape.group_tiles or none) - 1) & most
    if config.max_group_sums:
        numbers["last_result"] = shape.result_row_groups - 1
    return numbers


def run_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A layer to run: its shape, the bank of its activations and the bank of its results."""
    return data.StructLayout(
        {
            **shape_layout(config).members,
            "activation_bank": range(config.banks),
            "result_bank": range(config.banks),
        }
    )


class Core(wiring.Component):
    """Multiplies the loaded activations by a layer's weights, which come as a stream of words.

    The order is tile-major: for each tile of `lanes` activations the weight words of all row groups
    pass once, so weights are read strictly forward. A run takes `AcceleratorConfig.run_cycles` if
    the core never waits for a weight word.

    Members
    -------
    i_load : in, stream of `load_layout`
        Activations to write, one word a cycle, always ready. None may come for the activation bank
        of a layer from its transfer at `i_run` until `done`.
    i_scale : in, stream of `scale_layout`; only if activations have scales on the device
        Scales of the activations, under the rules of `i_load`.
    i_run : in, stream of `run_layout`
        The transfer starts a layer. Ready while no layer runs. None may come while a row group of
        its result bank is fetched or waits at `o`; with one bank, while any does.
    i_word : in, stream of weight words
        Tiles × row groups words for each layer. Ready while the current tile still needs words.
    done : out, 1 bit
        Set for one cycle when the last sum is written; the results can be fetched from then on.
    stall : out, 1 bit
        Set in each cycle in which the core is ready for a weight word and none comes.
    i_fetch : in, stream of `fetch_layout`
        Not allowed for the result bank of a layer that runs. With two banks it is ready whenever
        `o` can move, so a row group a cycle can be fetched. With one bank it is ready while no
        layer runs, until one is accepted, then not before that row group's totals are taken.
    o : out, stream of `sums_layout`, `result_bits` signed
        The totals of the fetched row groups in order, one for each token and row; with scales the
        sums of all groups times their scales, in units of 2^-24 or as float32 (`ScaleConfig.kind`).
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
        of_scales = {}
        if config.scales_activations:
            of_scales["i_scale"] = In(stream.Signature(scale_layout(config)))
        super().__init__(
            {
                "i_load": In(stream.Signature(load_layout(config))),
                "i_run": In(stream.Signature(run_layout(config))),
                "i_word": In(stream.Signature(Shape(config.word_bits))),
                "done": Out(1),
                "stall": Out(1),
                "i_fetch": In(stream.Signature(fetch_layout(config))),
                "o": Out(stream.Signature(sums_layout(config, config.result_bits))),
                **of_scales,
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.engine = engine = create_engine(config.without_scale)
        m.submodules.sums = sums = PartialSums(config)
        shape = Signal(run_layout(config), reset_less=True)
        self._connect_activations(m, engine, shape.activation_bank)

        busy = Signal()  # a layer runs
        start = Signal()  # a layer is accepted in this cycle
        started = Signal()  # the same, one cycle later
        m.d.comb += [
            self.i_run.ready.eq(~busy),
            start.eq(self.i_run.valid & self.i_run.ready),
            engine.i_start.eq(started),
        ]
        if config.scale is None:
            m.d.comb += self.done.eq(sums.done)
        m.d.sync += [started.eq(start), busy.eq(start | (busy & ~self.done))]
        with m.If(~busy):
            m.d.sync += shape.eq(self.i_run.payload)

        # `open_` is set while words of the current tile are accepted.
        open_ = Signal()
        word = Signal()
        m.d.comb += [
            self.i_word.ready.eq(open_),
            self.stall.eq(open_ & ~self.i_word.valid),
            word.eq(open_ & self.i_word.valid),
        ]
        # `groups_left` is minus the number of row groups that the tile has after the next word. It
        # counts up, so its carry means none: `last` says that the next word is the tile's last. The
        # count is loaded for the next tile with the last word, and when a layer starts.
        groups_left = Signal(range(config.max_row_groups), reset_less=True)
        last = Signal(init=1)
        begins = Signal(reset_less=True)  # the next word is the tile's first
        with m.If(word | started):
            before = Mux(last, ~shape.last_group, groups_left)
            m.d.sync += [Cat(groups_left, last).eq(before + 1), begins.eq(last)]
        with m.If(~busy):
            m.d.sync += last.eq(1)

        # The rest of the core sees a word one cycle later, from registers.
        taken = Signal()  # a word was accepted
        first = Signal()  # it was the tile's first
        final = Signal()  # it was the tile's last
        m.d.sync += [taken.eq(word), first.eq(word & begins), final.eq(word & last)]
        # The row group of that word's sums; with one bank, between layers the one to fetch.
        row_group = Signal(range(config.result_row_groups), reset_less=True)
        free = Signal(init=1)  # with one bank: a row group may be fetched
        if sums.banks == 1 and config.scale is None:
            with m.If(taken | free):
                fetch = self.i_fetch.payload.row_group
                m.d.sync += row_group.eq(Mux(free, fetch, row_group) + ~free)
        else:
            with m.If(taken):
                m.d.sync += row_group.eq(row_group + 1)
        with m.If(final | started):
            m.d.sync += row_group.eq(0)
        # `tiles_left` counts in the same way: minus the number of tiles that have not begun, plus
        # one. Its carry means that one tile is left.
        tiles_left = Signal(range(config.max_tiles), reset_less=True)
        more = Signal()  # at least one tile has not begun
        one_left = Signal()
        first_tile = Signal()  # of a group of inputs
        with m.If(first | started):
            before = Mux(started, ~shape.last_tile, tiles_left)
            m.d.sync += [
                Cat(tiles_left, one_left).eq(before + 1),
                more.eq(started | ~one_left),
            ]
        with m.If(final):
            m.d.sync += first_tile.eq(0)
        with m.If(started):
            m.d.sync += first_tile.eq(1)
        if config.max_group_sums:
            self._follow_groups(m, shape.last_of_group, row_group, first_tile, started, final)
        # A tile of one row group begins and ends with one word: `more` does not yet count it.
        in_last_tile = Mux(first, one_left, ~more)
        # Cycles by which the engine's sums precede the partial sums they are added to; negative if
        # they follow. The earlier of the two waits.
        early = PARTIAL_SUM_READ_CYCLES - config.engine_latency
        late = max(0, -early)
        m.d.comb += [
            engine.i_more.eq(more),
            engine.i_word.eq(
                delay(m, self.i_word.payload[: config.codes_bits], 1, reset_less=True)
            ),
            engine.i_valid.eq(taken),
            engine.i_swap.eq(first),
            engine.i_last.eq(final),
            sums.i_valid.eq(delay(m, taken, late)),
            sums.i_last.eq(delay(m, final & in_last_tile, late)),
            sums.i_first.eq(delay(m, first_tile, late, reset_less=True)),
            sums.i_row_group.eq(delay(m, row_group, late, reset_less=True)),
            sums.i_sums.eq(delay(m, engine.o_sums, max(0, early), reset_less=True)),
            sums.i_negative.eq(delay(m, engine.o_negative, max(0, early), reset_less=True)),
        ]

        # A tile may begin once loaded. With fewer row groups than `again_cycles` it must also
        # wait until the previous tile's sums are written back, or it would read stale ones: its
        # first word comes `again_cycles` after the previous tile's last. With more row groups
        # nothing waits: `ready` falls with the swap, so `may_begin` describes the next tile before
        # the last word of this one is accepted.
        loaded = Signal()
        may_begin = Signal()
        few = Signal()
        ended = [word & last, final]  # the previous tile ended 0, 1, … cycles ago
        while len(ended) < config.again_cycles - OPEN_CYCLES:
            ended.append(delay(m, ended[-1], 1))
        most_of_few = config.again_cycles - 2  # greatest `last_group` that has to wait
        is_few = shape.last_group <= most_of_few
        if not most_of_few & (most_of_few + 1):  # all ones: the bits above tell
            is_few = ~shape.last_group[most_of_few.bit_length() :].any()
        m.d.sync += [
            few.eq(is_few),
            loaded.eq(more & engine.ready),
            may_begin.eq(loaded & ~(few & Cat(may_begin, open_, ended).any())),
            open_.eq(may_begin | (open_ & ~(self.i_word.valid & last))),
        ]

        if config.scale is not None:
            scaled = self._scale(m, sums, shape, late, started, final, first_tile, in_last_tile)
            m.d.comb += self.o.payload.eq(scaled.o)
            self._pipeline_fetch(m, scaled)
            return m
        m.d.comb += self.o.payload.eq(sums.o)
        if config.banks == 1:
            # `row_group` keeps the number of a fetched row group until its totals are taken.
            fetches = self.i_fetch.valid & free
            fetched = self.o.valid & self.o.ready
            m.d.comb += self.i_fetch.ready.eq(free)
            m.d.sync += [
                self.o.valid.eq(
                    delay(m, fetches, late + FETCH_CYCLES) | (self.o.valid & ~self.o.ready)
                ),
                free.eq((free & ~self.i_fetch.valid & ~self.i_run.valid) | fetched | self.done),
            ]
        else:
            self._pipeline_fetch(m, sums, sums.i_running.eq(busy << shape.result_bank))
        return m

    def _pipeline_fetch(self, m: Module, sums: Any, *further: Any) -> None:
        """Connect the ports of fetched row groups; the stages between them move together.

        The `further` statements say what else the sums need.
        """
        advance = Signal()
        stages = Signal(FETCH_CYCLES)  # each stage holds a row group
        m.d.comb += [
            advance.eq(~self.o.valid | self.o.ready),
            self.i_fetch.ready.eq(advance),
            self.o.valid.eq(stages[-1]),
            *further,
            sums.i_advance.eq(advance),
            sums.i_fetch.eq(self.i_fetch.payload),
        ]
        with m.If(advance):
            m.d.sync += stages.eq(Cat(self.i_fetch.valid, stages))

    def _scale(
        self,
        m: Module,
        sums: Any,
        shape: data.View,
        late: int,
        started: Value,
        final: Value,
        first_tile: Signal,
        in_last_tile: Value,
    ) -> ScaledSums:
        """Add what scales the sums of groups; they have scales in their last tile's words."""
        config = self.config
        m.submodules.scaled = scaled = ScaledSums(config)
        place = Signal(range(config.max_tiles), reset_less=True)  # of the tile in its group
        closes = Signal(reset_less=True)  # the tile is its group's last one
        # Whether the next tile is. A register: tiles are more than two cycles apart.
        next_closes = Signal(reset_less=True)
        first_group = Signal(reset_less=True)
        last_of_group = shape.last_of_group
        one_tile = Signal(reset_less=True)
        m.d.sync += [
            one_tile.eq(last_of_group == 0),
            next_closes.eq(Mux(closes, one_tile, place + 1 == last_of_group)),
        ]
        with m.If(final):
            m.d.sync += [
                first_tile.eq(closes),
                place.eq(Mux(closes, 0, place + 1)),
                closes.eq(next_closes),
                first_group.eq(first_group & ~closes),
            ]
        with m.If(started):
            m.d.sync += [place.eq(0), closes.eq(last_of_group == 0), first_group.eq(1)]
            m.d.sync += first_tile.eq(1)
        wait = late + PARTIAL_SUM_READ_CYCLES + ADD_CYCLES
        ends = closes | in_last_tile
        scales = self.i_word.payload[-config.rows * SCALE_BITS :]
        m.d.comb += [
            scaled.i_valid.eq(sums.o_valid & delay(m, ends, wait, reset_less=True)),
            scaled.i_row_group.eq(sums.o_row_group),
            scaled.i_sums.eq(sums.o_new),
            scaled.i_scales.eq(delay(m, scales, 1 + wait, reset_less=True)),
            scaled.i_first.eq(delay(m, first_group, wait, reset_less=True)),
            scaled.i_bank.eq(shape.result_bank),
            scaled.i_end.eq(sums.done),
            self.done.eq(scaled.done),
        ]
        if config.scales_activations:
            closed = delay(m, final & closes, wait - ActivationScales.READ_CYCLES)
            acts = self._activation_scales(m, started, closed, shape.activation_bank)
            m.d.comb += scaled.i_acts.eq(acts)
        return scaled

    def _activation_scales(self, m: Module, started: Value, closed: Value, bank: Value) -> Any:
        """Add the scales of the activations; gives those of the group whose number is counted.

        `closed` counts a group, and `ActivationScales.READ_CYCLES` + 1 later its scales leave for
        those of the next one.
        """
        ports: Any = self
        m.submodules.activation_scales = scales = ActivationScales(self.config)
        connect(m, flipped(ports.i_scale), scales.i)
        group = Signal(range(self.config.max_tiles), reset_less=True)
        with m.If(closed):
            m.d.sync += group.eq(group + 1)
        with m.If(started):
            m.d.sync += group.eq(0)
        m.d.comb += [scales.i_group.eq(group), scales.i_bank.eq(bank)]
        return scales.o

    def _follow_groups(
        self,
        m: Module,
        last_of_group: Value,
        row_group: Signal,
        first_tile: Signal,
        started: Value,
        final: Value,
    ) -> None:
        """Give each group of inputs row groups of its own: the next group's follow the last ones.

        At the end of a tile `row_group` goes back to the first one of the tile's group, or on to
        the first one of the next group.
        """
        place = Signal(range(self.config.max_tiles), reset_less=True)  # of the tile in its group
        first_row_group = Signal.like(row_group, reset_less=True)
        following = Signal.like(row_group)
        # A register: tiles are more than two cycles apart.
        closes = Signal(reset_less=True)  # the tile is its group's last one
        m.d.comb += following.eq(Mux(closes, row_group + 1, first_row_group))
        m.d.sync += closes.eq(place == last_of_group)
        with m.If(final):
            m.d.sync += [
                first_tile.eq(closes),
                place.eq(Mux(closes, 0, place + 1)),
                first_row_group.eq(following),
                row_group.eq(following),
            ]
        with m.If(started):
            m.d.sync += [place.eq(0), first_row_group.eq(0)]

    def _connect_activations(self, m: Module, engine: Any, bank: Value) -> None:
        """Add the activation banks between `i_load` and the engine, which reads `bank`."""
        config = self.config
        # A word holds `fill` activations of each token; each token has a write enable of its own.
        bits = config.fill * config.act_bits
        # A bank begins at a power of two, so that no adder is needed; the last one ends earlier.
        pitch = 1 << (config.activation_words - 1).bit_length()
        depth = (config.banks - 1) * pitch + config.activation_words
        m.submodules.activations = words = block_ram(config.tokens * bits, depth)
        write = words.write_port(granularity=bits)
        read = ReadPort(m, words)
        # Whoever loads may be placed far from the buffer, so the load is registered first.
        load = delay(m, self.i_load.payload, 1, reset_less=True)
        low = (config.activation_words - 1).bit_length()
        m.d.comb += [
            self.i_load.ready.eq(1),
            write.addr.eq(Cat(load.address[:low], load.bank)),
            write.data.eq(load.word.replicate(config.tokens)),
            write.en.eq(delay(m, self.i_load.valid << self.i_load.payload.token, 1)),
            read.addr.eq(Cat(engine.act_address[:low], bank)),
            # The read port itself takes one cycle of ACT_LATENCY.
            engine.i_act.eq(delay(m, read.data, ACT_LATENCY - 1, reset_less=True)),
        ]
