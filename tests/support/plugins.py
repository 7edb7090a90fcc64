"""Plug-ins that only tests have: a second engine with its encoding, and three weight memories.

Nothing outside this file knows them. Importing it registers them; `register` may be called again.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from amaranth.hdl import Array, Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import connect, flipped

from tritloom.rtl.engines.contract import ACT_LATENCY, DotEngine
from tritloom.rtl.lib.streams import StreamRegister
from tritloom.rtl.memories.bram import BlockRamMemory
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.memories.contract import WeightMemory
from tritloom.rtl.spec.encodings import Codes, Encoding, Trits, encodings
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.plugins import Config, Engine, Memory, engines, memories

GROUP = 6
INDEX_BITS = 9
POWERS = 3 ** np.arange(GROUP)
LARGEST = int(POWERS.sum())


def encode(trits: Trits) -> Codes:
    """Balanced ternary: the number's size in the low bits, its sign above."""
    numbers = (trits.astype(np.int64) * POWERS).sum(-1)
    return (np.abs(numbers) | (numbers < 0) << INDEX_BITS).astype(np.uint32)


def decode(codes: Codes) -> Trits:
    sizes = codes.astype(np.int64) & ((1 << INDEX_BITS) - 1)
    negative = codes >> INDEX_BITS != 0
    if (sizes > LARGEST).any() or (negative & (sizes == 0)).any():
        raise InputError("test-signed code has no trits; repack the weights")
    numbers = np.where(negative, -sizes, sizes)
    return ((numbers[..., None] + LARGEST) // POWERS % 3 - 1).astype(np.int8)


class SignedEngine(DotEngine):
    """Looks up each code's trits and adds all terms at once; reads a word in every other cycle.

    A row's signs are used as they differ from its first code's, which is the row's. The codes of a
    row all take turns. The contract is in `tritloom.rtl.engines.contract`.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        reads = config.lanes // config.fill
        act = signed(config.act_bits)
        tile = data.ArrayLayout(act, config.tokens * config.lanes)
        loaded, current = Signal(tile), Signal(tile)
        requested, came = Signal(range(reads + 1)), Signal(range(reads + 1))
        asks = [Signal(name=f"asks_{n}") for n in range(ACT_LATENCY + 1)]
        m.d.comb += [
            asks[0].eq(self.i_more & (requested != reads) & ~asks[1]),
            self.ready.eq(came == reads),
        ]
        m.d.sync += [late.eq(early) for early, late in pairwise(asks)]
        with m.If(asks[0]):
            m.d.sync += [self.act_address.eq(self.act_address + 1), requested.eq(requested + 1)]
        with m.If(self.i_start):
            m.d.sync += self.act_address.eq(0)
        with m.If(asks[ACT_LATENCY]):
            m.d.sync += came.eq(came + 1)
            for step in range(reads):
                with m.If(came == step):
                    for token in range(config.tokens):
                        for k in range(config.fill):
                            lane = token * config.lanes + step * config.fill + k
                            m.d.sync += loaded[lane].eq(self.i_act[token * config.fill + k])
        with m.If(self.i_swap):
            m.d.sync += [current.eq(loaded), requested.eq(0), came.eq(0)]

        word = Signal(config.word_bits)
        m.d.sync += word.eq(self.i_word)
        digits = decode(np.arange(LARGEST + 1, dtype=np.uint32))
        table = Array(
            Const(sum((int(d) + 1) << 2 * k for k, d in enumerate(row))) for row in digits
        )
        codes = config.lanes // GROUP
        for row in range(config.rows):
            # For each lane, whether its trit is not 0, and whether it is negative in a row that
            # is not.
            nonzero: list[Value] = []
            negative: list[Value] = []
            differs: list[Value] = [Const(0)]
            for n in range(codes):
                code = word.word_select(row * codes + n, ENCODING.code_bits)
                if n:
                    differs.append(code[INDEX_BITS] ^ differs[n & (n - 1)])
                entry = Signal(2 * GROUP, name=f"entry_{row}_{n}")
                m.d.comb += entry.eq(table[code[:INDEX_BITS]])
                nonzero += [entry.word_select(k, 2) != 1 for k in range(GROUP)]
                negative += [(entry.word_select(k, 2) == 0) ^ differs[n] for k in range(GROUP)]
            first = word[row * codes * ENCODING.code_bits + INDEX_BITS]
            late = Signal(name=f"negative_{row}")
            m.d.sync += [late.eq(first), self.o_negative[row].eq(late)]
            for token in range(config.tokens):
                terms = []
                for n in range(config.lanes):
                    x = current[token * config.lanes + n % GROUP * codes + n // GROUP]
                    term = Signal(signed(config.act_bits + 1), name=f"term_{token}_{row}_{n}")
                    m.d.sync += term.eq(Mux(nonzero[n], Mux(negative[n], -x, x), 0))
                    terms.append(term)
                m.d.sync += self.o_sums[token * config.rows + row].eq(sum(terms))
        return m


class StallingMemory(WeightMemory):
    """Block RAM whose three streams stop at random; see `tritloom.rtl.memories.bram`."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inner = inner = BlockRamMemory(self.config)
        m.submodules.register = register = StreamRegister(Shape(self.config.word_bits))
        state = Signal(16, init=0xACE1)
        m.d.sync += state.eq(Cat(state[1:], state[0] ^ state[2] ^ state[3] ^ state[5]))
        for i, o, go in (
            (self.i_write, inner.i_write, state[1] | state[7]),
            (self.i_read, inner.i_read, state[4]),
            (inner.o, register.i, state[9] | state[14]),
        ):
            m.d.comb += [
                o.payload.eq(i.payload),
                o.valid.eq(i.valid & go),
                i.ready.eq(o.ready & go),
            ]
        connect(m, register.o, flipped(self.o))
        return m


class LateMemory(WeightMemory):
    """Block RAM that takes a range `DELAY` cycles after it was asked for, then never pauses."""

    DELAY = 40

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inner = inner = BlockRamMemory(self.config)
        connect(m, flipped(self.i_write), inner.i_write)
        connect(m, inner.o, flipped(self.o))
        left = Signal(range(self.DELAY + 1))
        m.d.comb += [
            self.i_read.ready.eq(left == 0),
            inner.i_read.valid.eq(left == 1),
        ]
        with m.If(self.i_read.valid & self.i_read.ready):
            m.d.sync += [left.eq(self.DELAY), inner.i_read.payload.eq(self.i_read.payload)]
        with m.Elif((left > 1) | ((left == 1) & inner.i_read.ready)):
            m.d.sync += left.eq(left - 1)
        return m


class FailingMemory(WeightMemory):
    """Block RAM that cannot read the words from `FIRST_VOID` on while word 0 is an odd number, see
    `void_words`. It takes a range when the words of the last one have left."""

    FIRST_VOID = 40

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inner = inner = BlockRamMemory(self.config)
        connect(m, flipped(self.i_write), inner.i_write)
        connect(m, inner.o, flipped(self.o))
        broken, write = Signal(), self.i_write.payload
        with m.If(self.i_write.valid & self.i_write.ready & (write.address == 0)):
            m.d.sync += broken.eq(write.word)
        address, left = (Signal.like(self.i_read.payload[name]) for name in ("address", "count"))
        m.d.comb += [
            inner.i_read.payload.eq(self.i_read.payload),
            inner.i_read.valid.eq(self.i_read.valid & (left == 0)),
            self.i_read.ready.eq(inner.i_read.ready & (left == 0)),
            self.error.eq(self.o.valid & broken & (address >= self.FIRST_VOID)),
        ]
        with m.If(self.i_read.valid & self.i_read.ready):
            m.d.sync += [
                address.eq(self.i_read.payload.address),
                left.eq(self.i_read.payload.count),
            ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [address.eq(address + 1), left.eq(left - 1)]
        return m


ENCODING = Encoding(
    name="test-signed",
    trits_per_code=GROUP,
    code_bits=INDEX_BITS + 1,
    encode=encode,
    decode=decode,
    signed=True,
)
ENGINE = Engine(
    name="test-signed",
    component=f"{__name__}:SignedEngine",
    encodings=(ENCODING.name,),
    latency=lambda config: 3,
    fill_cycles=lambda config: 2 * (config.lanes // config.fill) + ACT_LATENCY,
    tile_cycles=lambda config: 2 * (config.lanes // config.fill) + ACT_LATENCY,
    code_stride=lambda config: config.lanes // GROUP,
)


@dataclass(frozen=True, kw_only=True)
class Stalling(Memory):
    name: ClassVar[str] = "test-stalling"
    component: ClassVar[str] = f"{__name__}:StallingMemory"


@dataclass(frozen=True, kw_only=True)
class Late(Memory):
    name: ClassVar[str] = "test-late"
    component: ClassVar[str] = f"{__name__}:LateMemory"

    def latency(self, config: Config) -> int:
        return LateMemory.DELAY + BlockRam.LATENCY


def void_words(word_0: int, memory_words: int) -> set[int]:
    """The words that a `FailingMemory` cannot read while its first word is `word_0`."""
    return set(range(FailingMemory.FIRST_VOID, memory_words)) if word_0 & 1 else set()


@dataclass(frozen=True, kw_only=True)
class Failing(Memory):
    name: ClassVar[str] = "test-failing"
    component: ClassVar[str] = f"{__name__}:FailingMemory"
    can_fail: ClassVar[bool] = True
    first_void: ClassVar[int] = FailingMemory.FIRST_VOID


def register() -> None:
    """Make the plug-ins known to everything that reads a configuration."""
    encodings.add(ENCODING)
    engines.add(ENGINE)
    memories.add(Stalling)
    memories.add(Late)
    memories.add(Failing)


register()
