"""The contract of every dot engine and of the decoders of weight codes.

Timing of a `DotEngine`:

* `i_start` says that a layer begins. Its first tile's activations lie at address 0, the others
  behind it.
* While `i_more` is set, tiles are left to load. The engine loads the next tile while the current
  one is in use: `act_address` says which word it reads, and the word comes as `i_act`,
  `ACT_LATENCY` cycles later. When the tile is complete, `ready` rises.
* The engine takes a weight word in each cycle with `i_valid` and never stalls. `i_swap` comes with
  the first word of a tile, only while `ready` is set, and makes the loaded tile the current one;
  `i_more` says in the very next cycle whether there is a further tile. `i_last` comes with the last
  word of a tile.
* `AcceleratorConfig.engine_latency` cycles after a word, `o_sums` holds the exact sum over the
  word's lanes for each token and row; a sum is negated where the row's bit in `o_negative` is set.
"""

from typing import ClassVar, cast

from amaranth.hdl import Shape, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Member, Out

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import Encoding
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import ACT_LATENCY, engines
from tritloom.rtl.spec.registry import load_component

__all__ = [
    "ACT_LATENCY",
    "DotEngine",
    "TritDecoder",
    "act_layout",
    "create_decoder",
    "create_engine",
    "engine_members",
    "sums_layout",
]


def act_layout(config: AcceleratorConfig) -> data.ArrayLayout:
    """`fill` activations of each token: index token · fill + k."""
    return data.ArrayLayout(signed(config.act_bits), config.tokens * config.fill)


def sums_layout(config: AcceleratorConfig, bits: int) -> data.ArrayLayout:
    """A signed sum for each token and row: index token · rows + row."""
    return data.ArrayLayout(signed(bits), config.tokens * config.rows)


def engine_members(config: AcceleratorConfig) -> dict[str, Member]:
    """The ports of a `DotEngine`."""
    return {
        "i_start": In(1),
        "i_more": In(1),
        "act_address": Out(range(config.activation_words)),
        "i_act": In(act_layout(config)),
        "ready": Out(1),
        "i_word": In(Shape(config.word_bits)),
        "i_valid": In(1),
        "i_swap": In(1),
        "i_last": In(1),
        "o_sums": Out(sums_layout(config, config.sum_bits)),
        "o_negative": Out(config.rows),
    }


class DotEngine(wiring.Component):
    """Base of every dot engine; a subclass adds `elaborate`. The module's docstring has the timing.

    Parameters
    ----------
    config : the accelerator's configuration

    Members
    -------
    i_start : 1 bit in; a layer begins
    i_more : 1 bit in; tiles are left to load
    act_address : out; the word of the activation buffer to read
    i_act : in, `act_layout`; the word read `ACT_LATENCY` cycles before
    ready : 1 bit out; a tile is loaded
    i_word : in, `word_bits`; a weight word
    i_valid : 1 bit in; `i_word` is one
    i_swap : 1 bit in; that word is the first of the loaded tile
    i_last : 1 bit in; that word is the last of its tile
    o_sums : out, `sums_layout` of `sum_bits`; sums of the word `engine_latency` cycles before
    o_negative : out, `rows` bits; the sums of that row are to be negated
    """

    i_start: Signal
    i_more: Signal
    act_address: Signal
    i_act: data.View
    ready: Signal
    i_word: Signal
    i_valid: Signal
    i_swap: Signal
    i_last: Signal
    o_sums: data.View
    o_negative: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(engine_members(config))


class TritDecoder(wiring.Component):
    """Base of the decoders of weight codes, for engines that select by trit.

    A decoder takes one code in every cycle and has no state but its pipeline.

    Parameters
    ----------
    encoding : the encoding whose codes it decodes

    Members
    -------
    i : in, `code_bits`; one code
    nonzero, negative : out, one bit a trit, trit 0 in bit 0, `CYCLES` cycles later; `negative` is
        set only where `nonzero` is
    """

    CYCLES: ClassVar[int]

    i: Signal
    nonzero: Signal
    negative: Signal

    def __init__(self, encoding: Encoding) -> None:
        trits = encoding.trits_per_code
        super().__init__(
            {"i": In(encoding.code_bits), "nonzero": Out(trits), "negative": Out(trits)}
        )


def create_engine(config: AcceleratorConfig) -> DotEngine:
    """The dot engine of a configuration.

    Raises
    ------
    ConfigError : the component does not import or is no `DotEngine`
    """
    path = engines[config.engine].component
    component = load_component(path)
    if not (isinstance(component, type) and issubclass(component, DotEngine)):
        raise ConfigError(f"engine {config.engine!r}: {path} is not a DotEngine")
    return component(config)


def create_decoder(encoding: Encoding) -> TritDecoder:
    """The decoder of an encoding's codes."""
    return cast(TritDecoder, load_component(encoding.decoder)(encoding))
