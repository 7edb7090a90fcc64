"""The engine `plain`: it adds all lanes of a row at once. Small and slow, easy to read."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data

from tritloom.rtl.engines.contract import ACT_LATENCY, DotEngine
from tritloom.rtl.spec.encodings import BASE3X5
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import Config, Engine

__all__ = ["PLAIN", "PlainEngine"]

MAX_LANES = 20
"""More lanes in one addition would set a slow clock for the whole accelerator."""
LATENCY = 3
"""Cycles from a weight word to its sums: the word, its terms, their sum."""


class PlainEngine(DotEngine):
    """Registers hold the loaded tile and the current one; members are those of `DotEngine`."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tile = data.ArrayLayout(signed(self.config.act_bits), self.config.lanes)
        tiles = data.ArrayLayout(tile, self.config.tokens)
        loaded, current = Signal(tiles), Signal(tiles)
        self._load(m, loaded)
        with m.If(self.i_swap):
            m.d.sync += current.eq(loaded)
        self._add(m, current)
        return m

    def _load(self, m: Module, loaded: data.View) -> None:
        """Read a tile, `fill` activations of each token a cycle, once the last one is used."""
        config = self.config
        reads = config.lanes // config.fill
        requested = Signal(range(reads + 1))
        arrived = Signal(range(reads + 1))
        # Bit n: a word was asked for n cycles ago.
        asks = Signal(ACT_LATENCY + 1)
        m.d.comb += [
            asks[0].eq(self.i_more & (requested != reads)),
            self.ready.eq(arrived == reads),
        ]
        m.d.sync += asks[1:].eq(asks)
        with m.If(asks[0]):
            m.d.sync += [self.act_address.eq(self.act_address + 1), requested.eq(requested + 1)]
        with m.If(self.i_start):
            m.d.sync += self.act_address.eq(0)
        with m.If(asks[ACT_LATENCY]):
            m.d.sync += arrived.eq(arrived + 1)
            for token in range(config.tokens):
                # Each word pushes the earlier ones towards lane 0.
                word = Cat(self.i_act[token * config.fill + k] for k in range(config.fill))
                rest = loaded[token].as_value()[config.fill * config.act_bits :]
                m.d.sync += loaded[token].eq(Cat(rest, word))
        with m.If(self.i_swap):
            m.d.sync += [requested.eq(0), arrived.eq(0)]

    def _add(self, m: Module, current: data.View) -> None:
        """Decode the word, then make the terms, then add them: a cycle each."""
        config = self.config
        word = Signal(config.word_bits)
        m.d.sync += word.eq(self.i_word)
        # For each code the two-bit trits + 1; codes above 242 do not occur.
        table = Array(Const(_plus_one(code), 10) for code in range(256))
        codes = config.lanes // BASE3X5.trits_per_code
        for row in range(config.rows):
            trits = Signal(2 * config.lanes, name=f"trits_{row}")
            m.d.comb += trits.eq(
                Cat(table[word.word_select(row * codes + n, 8)] for n in range(codes))
            )
            for token in range(config.tokens):
                terms = Signal(
                    data.ArrayLayout(signed(config.act_bits + 1), config.lanes),
                    name=f"terms_{token}_{row}",
                )
                for lane in range(config.lanes):
                    x = current[token][lane]
                    trit = trits.word_select(lane, 2)
                    m.d.sync += terms[lane].eq(Mux(trit == 1, 0, Mux(trit == 0, -x, x)))
                # No overflow: sum_bits hold `lanes` terms in ±2^(act_bits-1).
                m.d.sync += self.o_sums[token * config.rows + row].eq(
                    sum(terms[lane] for lane in range(config.lanes))
                )


def _plus_one(code: int) -> int:
    """The five trits of a `base3x5` code, each plus one, in two bits; trit 0 in the low ones."""
    return sum(code // 3**k % 3 << 2 * k for k in range(5))


def _check(config: Config) -> None:
    if config.lanes > MAX_LANES:
        raise ConfigError(
            f"lanes of the plain engine must be at most {MAX_LANES}, not {config.lanes}"
        )


def _fill_cycles(config: Config) -> int:
    """A word is asked for in each cycle from the one after the start; the last takes its way."""
    return config.lanes // config.fill + ACT_LATENCY + 1


PLAIN = Engine(
    name="plain",
    component=f"{__name__}:PlainEngine",
    encodings=("base3x5",),
    latency=lambda config: LATENCY,
    fill_cycles=_fill_cycles,
    tile_cycles=_fill_cycles,
    check=_check,
)
