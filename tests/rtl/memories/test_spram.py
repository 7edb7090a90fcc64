"""Weight memory in SPRAM: what was written comes back, in order, for words of every width."""

import re
from types import SimpleNamespace

import pytest
from amaranth.back import rtlil

from tests.support import quick_first
from tritloom.rtl.memories import spram
from tritloom.rtl.memories.contract import create_memory
from tritloom.rtl.memories.spram_facts import Spram
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.registry import load_component
from tritloom.sim.conformance.memory import check_memory
from tritloom.sim.conformance.streams import FLOWS, simulate, sink, source

# Lanes, rows and words; then blocks side by side, reads a word, and words that the blocks hold.
WIDTHS = {
    "8 bits": ((5, 1, 9), (1, 1, 65536)),
    "16 bits": ((10, 1, 7), (1, 1, 65536)),
    "24 bits": ((15, 1, 12), (2, 1, 32768)),
    "32 bits": ((20, 1, 11), (2, 1, 32768)),
    "40 bits": ((25, 1, 6), (4, 1, 16384)),
    "64 bits": ((40, 1, 10), (4, 1, 16384)),
    "72 bits": ((45, 1, 5), (4, 2, 8192)),
    "192 bits": ((60, 2, 7), (4, 3, 5461)),
}


def config_of(lanes: int, rows: int, words: int) -> AcceleratorConfig:
    return AcceleratorConfig(
        lanes=lanes,
        rows=rows,
        memory=Spram(words=words),
        max_in_features=2 * lanes,
        max_out_features=8,
    )


@quick_first(("idle", "pause"), [FLOWS[-1], *FLOWS[:-1]])
@pytest.mark.parametrize("name", WIDTHS)
def test_words_come_back(name, idle, pause):
    config = config_of(*WIDTHS[name][0])
    gapless = config.memory.reads(config) == 1
    check_memory(config, idle=idle, pause=pause, seed=8, gapless=gapless)


@pytest.mark.parametrize("name", WIDTHS)
def test_facts(name):
    geometry, facts = WIDTHS[name]
    config = config_of(*geometry)
    memory = config.memory
    assert load_component(memory.component) is spram.SpramMemory
    assert (memory.columns(config), memory.reads(config), memory.capacity(config)) == facts
    assert memory.latency(config) == (3 if facts[1] == 1 else None)
    assert memory.storage(config) == ()
    assert list(memory.full_sizes(config, 1 << 20)) == [facts[2]]
    config_of(*geometry[:2], facts[2])
    with pytest.raises(ConfigError) as error:
        config_of(*geometry[:2], facts[2] + 1)
    assert str(error.value) == (
        f"memory: words must be at most {facts[2]} for words of {config.word_bits} bits in SPRAM, "
        f"not {facts[2] + 1}"
    )


@pytest.mark.parametrize("name", ["32 bits", "72 bits", "192 bits"])
def test_cycles(name):
    """Of the first word and of the last one, from the cycle in which the range is accepted."""
    config = config_of(*WIDTHS[name][0])
    memory, count = config.memory, config.memory_words
    dut = create_memory(config)
    cycles: list[int] = []

    async def bench(ctx):
        ctx.set(dut.i_read.payload, {"address": 0, "count": count})
        ctx.set(dut.i_read.valid, 1)
        ctx.set(dut.o.ready, 1)
        await ctx.tick().until(dut.i_read.ready)
        ctx.set(dut.i_read.valid, 0)
        cycle = 0
        while len(cycles) < count:
            *_, valid = await ctx.tick().sample(dut.o.valid)
            cycle += 1
            cycles.extend([cycle] * valid)

    simulate(dut, bench)
    assert cycles[-1] == memory.most_cycles(config, count)
    latency, share = memory.expected(config)
    assert cycles == [latency + round(n / share) for n in range(count)]


@pytest.mark.parametrize("name", ["8 bits", "32 bits", "64 bits", "192 bits"])
def test_every_address_bit(name):
    """Words whose addresses differ in one bit lie apart, up to the last word."""
    lanes, rows, _ = WIDTHS[name][0]
    capacity = WIDTHS[name][1][2]
    config = config_of(lanes, rows, capacity)
    last = capacity - 1
    addresses = [0, *(1 << n for n in range(last.bit_length())), last]
    words = {a: (a + 1) * 0x9E3779B97F4A7C15 % (1 << config.word_bits) for a in set(addresses)}
    dut = create_memory(config)
    received: list[int] = []

    async def write_then_read(ctx):
        await source(dut.i_write, [{"address": a, "word": w} for a, w in words.items()])(ctx)
        await source(dut.i_read, [{"address": a, "count": 1} for a in words])(ctx)

    simulate(dut, write_then_read, sink(dut.o, len(words), received))
    assert received == list(words.values())


def test_a_write_waits_while_words_are_read():
    """Early writes wait while a word is in the blocks: they would change the blocks' outputs.

    The last word may still be at `o`, which has a register of its own.
    """
    config = config_of(20, 1, 8)
    dut = create_memory(config)
    received: list[int] = []

    async def bench(ctx):
        await source(dut.i_write, [{"address": n, "word": 7 + n} for n in range(8)])(ctx)
        ctx.set(dut.i_read.payload, {"address": 0, "count": 8})
        ctx.set(dut.i_read.valid, 1)
        await ctx.tick().until(dut.i_read.ready)
        ctx.set(dut.i_read.valid, 0)
        ctx.set(dut.i_write.payload, {"address": 3, "word": 99})
        ctx.set(dut.i_write.valid, 1)
        taken = 0
        while not taken:
            *_, taken = await ctx.tick().sample(dut.i_write.ready)
            assert not taken or len(received) >= 7

    simulate(dut, bench, sink(dut.o, 8, received, pause=0.6, seed=1))
    assert received == list(range(7, 15))


@pytest.mark.parametrize("device", [None, "iCE40HX8K", "iCE40UP5K"])
def test_the_cell_is_used_where_it_is(device):
    text = rtlil.convert(
        spram.SpramBlock(), platform=SimpleNamespace(device=device), emit_src=False
    )
    assert ("cell \\SB_SPRAM256KA" in text, "memory width 16" in text) == (
        (True, False) if device == spram.DEVICE else (False, True)
    )
    if device == spram.DEVICE:
        ports = {"ADDRESS": "address", "CHIPSELECT": "enable", "WREN": "writes", "DATAIN": "input"}
        assert ports.items() <= dict(re.findall(r"connect \\(\w+) \\(\w+)", text)).items()
