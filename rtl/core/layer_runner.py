"""Between the vector unit and the core: codes to the core, layers to run, results to the unit."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tritloom.rtl.core.core import load_layout
from tritloom.rtl.core.partial_sums import fetch_layout
from tritloom.rtl.core.vector_memory import code_shape, run_shape, sums_shape
from tritloom.rtl.engines.contract import sums_layout
from tritloom.rtl.lib.streams import bits_for
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.vector_facts import LAYER_BITS

__all__ = ["LayerRunner"]


class LayerRunner(wiring.Component):
    """Writes the unit's codes to an activation bank, and reads the results of its layers.

    The codes of a layer fill the bank from its first word on. Zeros follow to the end of the
    layer's tiles. Codes for which the bank has no room are dropped. Results come in the order of
    the rows; results that a layer does not have are 0. So no program makes the unit wait forever.

    With several tokens the unit gives the codes of one token after the other, and takes their
    results so. When it goes on to another token, codes begin at the first word of that token, and
    results at the first row.

    The bank numbers must not change while `active` or `busy` is set.

    Members
    -------
    active : in, 1 bit
        A program is executed. While it is not set there are neither codes nor results, and what the
        core still holds is taken.
    activation_bank, result_bank : in, number
        The banks of the program.
    i_code : in, stream of `code_shape`
        Codes of the next layer. Not ready from a transfer at `i_run` until the layer is computed.
    i_run : in, stream of `run_shape`
        A layer, after all its codes. If it is not the `last` one of several tokens, only zeros are
        written behind the codes.
    token : in, number; only with several tokens
        Whose codes come, and whose results are taken.
    o_sum : out, stream of signed `acc_bits`, with several lanes of one for each lane
        Results of the last layer at `i_run`, then zeros.
    sum_last : in, number; only with several lanes
        A transfer at `o_sum` takes that many results and one more. `valid` waits for them all, and
        the other lanes show anything.
    computes : out, 1 bit
        A layer is on its way: from the cycle after its transfer at `i_run` until it is computed.
    busy : out, 1 bit
        The same, or the core holds results that were fetched.
    wants, layer : out, 1 bit and 8 bits
        The layer shall be computed, as soon as its activations are `padded`.
    pad, last_tile : in, 1 bit and number
        While `wants`: write zeros to the end of that tile.
    runs : out, 1 bit; only with several tokens
        While `wants`: the layer shall be computed. Else the runner goes on when it is `padded`.
    padded : out, 1 bit
        While `pad`: all activations of the layer are in the bank.
    start, last_group : in, 1 bit and number
        Strobe: the core begins the layer, which has that last row group.
    done : in, 1 bit
        Strobe: the core has computed it.
    o_load : out, stream of `load_layout`
        To the core, which is always ready.
    o_fetch, i_result : streams of `fetch_layout` and `sums_layout`
        To and from the core.
    """

    active: Signal
    activation_bank: Signal
    result_bank: Signal
    i_code: stream.Interface
    i_run: stream.Interface
    o_sum: stream.Interface
    sum_last: Signal
    token: Signal
    runs: Signal
    computes: Signal
    busy: Signal
    wants: Signal
    layer: Signal
    pad: Signal
    last_tile: Signal
    padded: Signal
    start: Signal
    last_group: Signal
    done: Signal
    o_load: stream.Interface
    o_fetch: stream.Interface
    i_result: stream.Interface

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        assert config.vector is not None
        self.lanes = lanes = config.vector.lanes
        bank, several = range(config.banks), config.tokens > 1
        super().__init__(
            {
                "active": In(1),
                "activation_bank": In(bank),
                "result_bank": In(bank),
                "i_code": In(stream.Signature(code_shape(lanes))),
                "i_run": In(stream.Signature(run_shape(config.tokens))),
                **({"token": In(range(config.tokens)), "runs": Out(1)} if several else {}),
                "o_sum": Out(stream.Signature(sums_shape(config.acc_bits, lanes))),
                **({"sum_last": In(range(lanes))} if lanes > 1 else {}),
                "computes": Out(1),
                "busy": Out(1),
                "wants": Out(1),
                "layer": Out(LAYER_BITS),
                "pad": In(1),
                "last_tile": In(range(config.max_tiles)),
                "padded": Out(1),
                "start": In(1),
                "last_group": In(range(config.max_row_groups)),
                "done": In(1),
                "o_load": Out(stream.Signature(load_layout(config))),
                "o_fetch": Out(stream.Signature(fetch_layout(config))),
                "i_result": In(stream.Signature(sums_layout(config, config.acc_bits))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        clear = Signal()  # the next code is the first of a layer
        empty = Signal()  # no row group is fetched or held
        idle = Signal()
        token, changes = self._token(m, idle)
        self._load_codes(m, clear, idle & ~changes, token)
        self._fetch_results(m, idle, empty, token, changes)
        m.d.comb += [self.computes.eq(~idle), self.busy.eq(~idle | ~empty)]
        with m.FSM() as fsm:
            m.d.comb += idle.eq(fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.comb += [self.i_run.ready.eq(1), clear.eq(~self.active | changes)]
                if self.config.tokens == 1:
                    m.d.sync += self.layer.eq(self.i_run.payload)
                else:
                    run = self.i_run.payload
                    m.d.sync += [self.layer.eq(run.layer), self.runs.eq(run.last)]
                with m.If(self.i_run.valid):
                    m.next = "DRAIN"
            # The core may not begin while results of the layer before wait in it.
            with m.State("DRAIN"):
                with m.If(empty):
                    m.next = "WANT"
            with m.State("WANT"):
                m.d.comb += self.wants.eq(1)
                with m.If(self.start):
                    m.next = "COMPUTE"
                if self.config.tokens > 1:
                    # The unit has gone on to another token by then.
                    with m.If(self.pad & self.padded & ~self.runs):
                        m.next = "IDLE"
            with m.State("COMPUTE"):
                m.d.comb += clear.eq(1)
                with m.If(self.done):
                    m.next = "IDLE"
        return m

    def _token(self, m: Module, idle: Value) -> tuple[Value, Value]:
        """The token whose codes and results move, and whether the unit has gone on to another."""
        if self.config.tokens == 1:
            return Const(0), Const(0)
        token, changes = Signal(range(self.config.tokens)), Signal()
        m.d.comb += changes.eq(idle & (token != self.token))
        with m.If(changes):
            m.d.sync += token.eq(self.token)
        return token, changes

    def _load_codes(self, m: Module, clear: Signal, idle: Value, token: Value) -> None:
        """Make words of codes, and write them one after the other."""
        config = self.config
        fill, tile_words = config.fill, config.lanes // config.fill
        word = Signal(fill * config.act_bits, reset_less=True)
        partial = Signal()  # codes wait until their word is complete
        complete = Signal()
        address = Signal(range(config.activation_words))  # of the next word
        # Place of the next word: its tile, and how many words of that tile come before it.
        tile, in_tile = Signal(bits_for(config.max_tiles)), Signal(range(tile_words))
        zero, room = Signal(), Signal()
        load = self.o_load.payload
        m.d.comb += [
            self.i_code.ready.eq(idle),
            self.padded.eq(~partial & ~complete & (tile > self.last_tile)),
            zero.eq(self.pad & ~self.padded & ~complete),
            room.eq(tile != config.max_tiles),
            self.o_load.valid.eq(complete & room),
            load.word.eq(word),
            load.address.eq(address),
            load.token.eq(token),
            load.bank.eq(self.activation_bank),
        ]
        if self.lanes == 1:
            self._one_code(m, clear, zero, word, partial, complete)
        else:
            self._several_codes(m, clear, zero, word, partial, complete)
        with m.If(complete & room):
            m.d.sync += [address.eq(address + 1), in_tile.eq(in_tile + 1)]
            with m.If(in_tile == tile_words - 1):
                m.d.sync += [in_tile.eq(0), tile.eq(tile + 1)]
        with m.If(clear):
            m.d.sync += [address.eq(0), in_tile.eq(0), tile.eq(0)]

    def _one_code(
        self,
        m: Module,
        clear: Value,
        zero: Value,
        word: Signal,
        partial: Signal,
        complete: Signal,
    ) -> None:
        """A code or a zero a cycle enters; `complete` and `word` are registers here."""
        config = self.config
        count = Signal(range(config.fill))  # codes of the word that is not complete
        enters = Signal()
        m.d.comb += [
            partial.eq(count != 0),
            enters.eq((self.i_code.valid & self.i_code.ready) | zero),
        ]
        m.d.sync += complete.eq(0)
        with m.If(enters):
            code = Mux(zero, 0, self.i_code.payload)[: config.act_bits]
            m.d.sync += [word.eq(Cat(word, code)[config.act_bits :]), count.eq(count + 1)]
            with m.If(count == config.fill - 1):
                m.d.sync += [count.eq(0), complete.eq(1)]
        with m.If(clear):
            m.d.sync += count.eq(0)

    def _several_codes(
        self,
        m: Module,
        clear: Value,
        zero: Value,
        word: Signal,
        partial: Signal,
        complete: Signal,
    ) -> None:
        """Up to `lanes` codes or zeros a cycle enter.

        They are shifted in from the top, so the `count` codes at the top are not in a word yet.
        Zeros end with a word. A configuration has `fill` codes for each lane at least, so a word a
        cycle is enough.
        """
        config, lanes, bits = self.config, self.lanes, self.config.act_bits
        fill, most = config.fill, config.fill + lanes - 1
        codes = Signal(most * bits, reset_less=True)
        count, entering = Signal(range(most + 1)), Signal(range(lanes + 1))
        after = Signal(range(lanes))  # codes that enter with a word, behind it
        given = [self.i_code.payload.codes[lane][:bits] for lane in range(lanes)]
        with m.If(zero):
            m.d.comb += entering.eq(Mux(count + lanes <= fill, lanes, 1))
        with m.Elif(self.i_code.valid & self.i_code.ready):
            m.d.comb += entering.eq(self.i_code.payload.last + 1)
        shifted = [
            Cat(codes[number * bits :], *(Mux(zero, 0, code) for code in given[:number]))
            for number in range(lanes + 1)
        ]
        m.d.comb += [
            partial.eq(count != 0),
            complete.eq(count >= fill),
            after.eq(count - fill),
            word.eq(
                Array(codes[(lanes - 1 - n) * bits :][: fill * bits] for n in range(lanes))[after]
            ),
        ]
        m.d.sync += [
            count.eq(Mux(complete, after, count) + entering),
            codes.eq(Array(shifted)[entering]),
        ]
        with m.If(clear):
            m.d.sync += count.eq(0)

    def _fetch_results(
        self, m: Module, idle: Signal, empty: Signal, token: Value, changes: Value
    ) -> None:
        """Fetch the row groups of the last layer in order, and send their results."""
        config = self.config
        last_group = Signal(range(config.max_row_groups), reset_less=True)
        group = Signal(range(config.max_row_groups), reset_less=True)  # to fetch next
        more = Signal()  # it is to be fetched
        # Row groups that are fetched and not yet held. Several lanes may take a row group a cycle,
        # so it fetches as many as the core has stages for.
        in_core = Signal(3 if self.lanes == 1 else 4)
        takes = Signal()  # results are of use
        fetches, arrives = Signal(), Signal()
        current: Value = idle & ~changes  # what the core gives belongs to the token
        begins_again: Value = Const(0)
        if config.tokens > 1:
            restarts, begins_again = self._restart(m, idle, empty, changes)
            current &= ~restarts
        m.d.comb += [
            takes.eq(self.active & current),
            self.o_fetch.valid.eq(takes & more & ~in_core[-1]),
            self.o_fetch.payload.row_group.eq(group),
            self.o_fetch.payload.bank.eq(self.result_bank),
            fetches.eq(self.o_fetch.valid & self.o_fetch.ready),
            arrives.eq(self.i_result.valid & self.i_result.ready),
            empty.eq(in_core == 0),
        ]
        with m.If(fetches):
            m.d.sync += [group.eq(group + 1), more.eq(group != last_group)]
        with m.If(fetches & ~arrives):
            m.d.sync += in_core.eq(in_core + 1)
        with m.Elif(arrives & ~fetches):
            m.d.sync += in_core.eq(in_core - 1)
        sums = Value.cast(self.i_result.payload).word_select(token, config.rows * config.acc_bits)
        if self.lanes == 1:
            self._one_result(m, sums, current, takes, arrives, ~more & empty)
        else:
            self._several_results(m, sums, current, takes, arrives, ~more & empty)
        with m.If(~takes):
            m.d.sync += more.eq(0)
        with m.If(self.start):
            m.d.sync += last_group.eq(self.last_group)
        with m.If((self.done & ~idle) | begins_again):
            m.d.sync += [group.eq(0), more.eq(1)]

    def _restart(
        self,
        m: Module,
        idle: Value,
        empty: Value,
        changes: Value,
    ) -> tuple[Value, Value]:
        """Whether row groups that were fetched for the token before must leave the core, and
        whether the results of the last layer are fetched again in the next cycle.
        """
        restarts, begins_again = Signal(), Signal()
        has_layer = Signal()  # a layer of this program is computed
        with m.If(changes & has_layer):
            m.d.sync += restarts.eq(1)
        m.d.comb += begins_again.eq(restarts & idle & empty & ~changes)
        with m.If(begins_again):
            m.d.sync += restarts.eq(0)
        with m.If(self.done & ~idle):
            m.d.sync += has_layer.eq(1)
        with m.If(~self.active):
            m.d.sync += [has_layer.eq(0), restarts.eq(0)]
        return restarts, begins_again

    def _one_result(
        self, m: Module, sums: Value, idle: Value, takes: Value, arrives: Value, none_comes: Value
    ) -> None:
        """Send the results of a row group one by one, then zeros if no row group comes."""
        config = self.config
        held = Signal(config.rows * config.acc_bits, reset_less=True)
        has = Signal()  # `held` has results from row `row` on
        row = Signal(range(config.rows))
        ends = Signal()
        results = Array(held.word_select(n, config.acc_bits) for n in range(config.rows))
        m.d.comb += [
            self.i_result.ready.eq(~has | ends | ~takes),
            self.o_sum.valid.eq(idle & (has | none_comes)),
            self.o_sum.payload.eq(Mux(has, results[row], 0)),
            ends.eq(self.o_sum.ready & idle & (row == config.rows - 1)),
        ]
        with m.If(has & self.o_sum.valid & self.o_sum.ready):
            m.d.sync += row.eq(Mux(ends, 0, row + 1))
            with m.If(ends):
                m.d.sync += has.eq(0)
        with m.If(arrives):
            m.d.sync += [held.eq(sums), has.eq(1)]
        with m.If(~takes):
            m.d.sync += [has.eq(0), row.eq(0)]

    def _several_results(
        self, m: Module, sums: Value, idle: Value, takes: Value, arrives: Value, none_comes: Value
    ) -> None:
        """Send up to `lanes` results a cycle, then zeros if no row group comes.

        The `count` results at the bottom are held, with zeros above them. Those that are taken are
        shifted out; a row group is placed above what is left, if that is less than `lanes`.
        """
        config, lanes, bits = self.config, self.lanes, self.config.acc_bits
        most = config.rows + lanes - 1
        held = Signal(most * bits)
        count, left = Signal(range(most + 1)), Signal(range(most + 1))
        taken = Signal(range(lanes + 1))
        for lane in range(lanes):
            m.d.comb += self.o_sum.payload[lane].eq(held.word_select(lane, bits))
        placed = Array(Cat(Const(0, n * bits), sums) for n in range(lanes))
        m.d.comb += [
            self.o_sum.valid.eq(idle & ((count > self.sum_last) | none_comes)),
            left.eq(Mux(count > taken, count - taken, 0)),
            self.i_result.ready.eq((left < lanes) | ~takes),
        ]
        with m.If(self.o_sum.valid & self.o_sum.ready):
            m.d.comb += taken.eq(self.sum_last + 1)
        shifted = Array(held[n * bits :] for n in range(lanes + 1))[taken]
        m.d.sync += [
            held.eq(shifted | Mux(arrives, placed[left[: (lanes - 1).bit_length()]], 0)),
            count.eq(left + Mux(arrives, config.rows, 0)),
        ]
        with m.If(~takes):
            m.d.sync += [held.eq(0), count.eq(0)]
