"""The ``select`` engine: each lane adds x, −x or 0, in a pipelined tree; no memories."""

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring

from tritloom.rtl.config import AcceleratorConfig
from tritloom.rtl.engine import engine_members
from tritloom.rtl.packing import encodings
from tritloom.rtl.plugins import load_component


def delay(m: Module, signal: Value, cycles: int, *, reset_less: bool = False) -> Value:
    """``signal`` as it was ``cycles`` ago; 0 at reset unless ``reset_less``."""
    for _ in range(cycles):
        late = Signal(signal.shape(), name="late", reset_less=reset_less)
        m.d.sync += late.eq(signal)
        signal = late
    return signal


class SelectEngine(wiring.Component):
    """Portable dot engine of adders alone; the contract is in ``tritloom.rtl.engine``.

    Latency: the decoder's cycles, one for the selection, one for each level of the tree.
    """

    i_act: stream.Interface
    ready: Signal
    i_word: Signal
    i_valid: Signal
    i_swap: Signal
    o_sums: data.View
    o_valid: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(engine_members(config))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        encoding = encodings[config.encoding]
        lanes, fill, tokens = config.lanes, config.fill, config.tokens
        act = signed(config.act_bits)

        # Loaded low inputs first, each transfer pushing the earlier ones down.
        loaded = Signal(data.ArrayLayout(data.ArrayLayout(act, lanes), tokens), reset_less=True)
        current = Signal(data.ArrayLayout(data.ArrayLayout(act, lanes), tokens), reset_less=True)
        transfers = Signal(range(lanes // fill + 1))
        full = Signal()
        pending = Signal()
        # Words of the tile before are still in the decoder when the first of the next one comes.
        swap = delay(m, self.i_swap, encoding.decoder_cycles - 1)
        m.d.comb += [
            full.eq(transfers == lanes // fill),
            self.ready.eq(full & ~pending),
            self.i_act.ready.eq(~full),
        ]
        with m.If(self.i_act.valid & self.i_act.ready):
            m.d.sync += transfers.eq(transfers + 1)
            for token in range(tokens):
                for lane in range(lanes):
                    source = (
                        loaded[token][lane + fill]
                        if lane + fill < lanes
                        else self.i_act.payload[token * fill + lane + fill - lanes]
                    )
                    m.d.sync += loaded[token][lane].eq(source)
        with m.If(swap):
            m.d.sync += [current.eq(loaded), transfers.eq(0), pending.eq(0)]
        with m.Elif(self.i_swap):
            m.d.sync += pending.eq(1)

        nonzero: list[Value] = []
        negative: list[Value] = []
        for code in range(config.rows * lanes // encoding.group):
            decoder = load_component(encoding.decoder)()
            m.submodules[f"decoder_{code}"] = decoder
            m.d.comb += decoder.i.eq(self.i_word.word_select(code, encoding.code_bits))
            nonzero += list(decoder.nonzero)
            negative += list(decoder.negative)

        for token in range(tokens):
            for row in range(config.rows):
                terms: list[Value] = []
                for lane in range(lanes):
                    x, k = current[token][lane], row * lanes + lane
                    # One bit more than an activation: −(−128) must fit.
                    term = Signal(signed(config.act_bits + 1), name="term", reset_less=True)
                    m.d.sync += term.eq(Mux(nonzero[k], Mux(negative[k], -x, x), 0))
                    terms.append(term)
                while len(terms) > 1:
                    # A sum of two is one bit wider than either, so nothing overflows.
                    level: list[Value] = []
                    for left, right in zip(terms[::2], terms[1::2], strict=False):
                        total = Signal(
                            signed(max(len(left), len(right)) + 1), name="total", reset_less=True
                        )
                        m.d.sync += total.eq(left + right)
                        level.append(total)
                    if len(terms) % 2:
                        level.append(delay(m, terms[-1], 1, reset_less=True))
                    terms = level
                m.d.comb += self.o_sums[token * config.rows + row].eq(terms[0])
        m.d.comb += self.o_valid.eq(delay(m, self.i_valid, config.engine_latency))
        return m
