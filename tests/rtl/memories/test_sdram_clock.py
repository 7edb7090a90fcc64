# amaranth: UnusedElaboratable=no
"""SDRAM at a clock of its own: right words, at the chip's rate, within the bounds of the record."""

from dataclasses import replace

import pytest

from tests.support.sdram import sdram_config, small_part
from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.memories.sdram_parts import BURST, ULX3S
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import MEMORY_DOMAIN
from tritloom.sim.conformance.memory import check_memory
from tritloom.sim.conformance.streams import FLOWS, simulate, sink
from tritloom.sim.models.surrounded import SurroundedMemory, store_bench

ULX3S_SMALL = small_part(ULX3S)
PART = ULX3S_SMALL.name
CLOCKS = {"133/80": (80, 133), "100/80": (80, 100), "80/100": (100, 80), "133/30": (30, 133)}


def config_of(clocks: str, words: int, lanes: int = 40) -> AcceleratorConfig:
    core, memory = CLOCKS[clocks]
    record = Sdram(words=words, part=PART, clock_hz=memory * 1_000_000)
    return replace(sdram_config(PART, core), lanes=lanes, memory=record)


@pytest.mark.parametrize(
    ("clocks", "joined"), [("133/80", 2), ("100/80", 2), ("80/100", 1), ("133/30", 8)]
)
def test_joined_columns(clocks, joined):
    """As many columns enter together as the chip brings in a cycle of the accelerator."""
    config = config_of(clocks, 64)
    assert config.memory.joined(config) == joined
    assert config.memory.line_format(config).beat_bits == 16 * joined
    assert config.memory.chip_format(config).beat_bits == 16
    assert config.memory.own_clock_hz(config) == CLOCKS[clocks][1] * 1_000_000
    assert config.memory.title() == f"SDRAM {PART} at {CLOCKS[clocks][1]} MHz"


def test_times_are_of_the_chips_clock():
    config = config_of("133/80", 64)
    assert config.memory.cycles(config) == ULX3S_SMALL.cycles(133_000_000)
    one_clock = replace(config, memory=replace(config.memory, clock_hz=0))
    assert one_clock.memory.cycles(one_clock) == ULX3S_SMALL.cycles(80_000_000)
    assert one_clock.memory.own_clock_hz(one_clock) == 0
    # The layout does not change with the clock, so neither does a packed file.
    assert config.layout_digest == one_clock.layout_digest


@pytest.mark.parametrize(
    ("hz", "message"),
    [
        (-1, "memory: clock_hz must be 0 to 400000000, not -1"),
        (
            200_000_000,
            (
                f"memory: clock_hz must be at most 133333333 for {PART} at CAS latency 3, "
                "not 200000000"
            ),
        ),
        (96_000_001, "memory: clock_hz must be at most 8 times the accelerator's, not 96000001"),
    ],
)
def test_wrong_clocks(hz, message):
    config = sdram_config(PART, 12)
    with pytest.raises(ConfigError) as raised:
        replace(
            config,
            clock_hz=12_000_000 if hz == 96_000_001 else 80_000_000,
            memory=Sdram(words=64, part=PART, clock_hz=hz),
        )
    assert str(raised.value) == message


@pytest.mark.sim
@pytest.mark.parametrize("clocks", CLOCKS)
@pytest.mark.parametrize(("lanes", "words"), [(5, 48), (40, 8)])
@pytest.mark.parametrize(("idle", "pause"), FLOWS[:1] + FLOWS[3:])
def test_contract(clocks, lanes, words, idle, pause):
    check_memory(config_of(clocks, words, lanes), idle=idle, pause=pause, seed=lanes)


def moments(config: AcceleratorConfig, ranges: list[tuple[int, int]]):
    """Cycles in which ranges were asked for, and in which their words came; each range alone."""
    dut = SurroundedMemory(config, {})
    words: list[int] = []
    asked, came = [], []

    async def ask(ctx):
        wanted = 0
        for address, count in ranges:
            ctx.set(dut.i_read.payload, {"address": address, "count": count})
            ctx.set(dut.i_read.valid, 1)
            await ctx.tick().until(dut.i_read.ready)
            ctx.set(dut.i_read.valid, 0)
            wanted += count
            while len(words) < wanted:
                await ctx.tick()

    async def watch(ctx):
        cycle = 0
        while True:
            *_, request, word = await ctx.tick().sample(
                dut.i_read.valid & dut.i_read.ready, dut.o.valid & dut.o.ready
            )
            asked.extend([cycle] * request)
            came.extend([cycle] * word)
            cycle += 1

    async def rules(ctx):
        async for *_, number in ctx.tick(MEMORY_DOMAIN).sample(dut.violation):
            assert not number, dut.model.RULES[number]

    total = sum(count for _, count in ranges)
    simulate(
        dut,
        ask,
        sink(dut.o, total, words),
        background=[watch, rules, store_bench(dut, {}, domain=MEMORY_DOMAIN)],
        deadline_cycles=200_000,
        clocks={MEMORY_DOMAIN: config.memory.clock_hz / config.clock_hz},
    )
    return asked, came


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("100/80", "80/100")]


@pytest.mark.sim
@pytest.mark.parametrize("clocks", ["133/80", *SLOW])
def test_rate(clocks):
    """A long range loses what the refreshes take, as the record's share says."""
    config = config_of(clocks, 1 << 11)
    config = replace(config, memory=replace(config.memory, refreshes=1))
    _, share = config.memory.expected(config)
    _, came = moments(config, [(0, 8), (8, (1 << 11) - 8)])
    begin = came[8]
    assert abs((len(came) - 9) / (came[-1] - begin) / share - 1) < 0.01


@pytest.mark.sim
@pytest.mark.parametrize(
    "clocks", ["133/80", *SLOW, pytest.param("133/30", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("count", [2, 30])
def test_bounds(clocks, count):
    """A range of lines ends within the bound of the record; most begin within `first_beat`."""
    config = config_of(clocks, 1 << 10)
    record = config.memory
    columns = count * config.word_bits // record.chip.data_bits
    ranges = record.interval(config) // (columns + 40) + 1
    asked, came = moments(config, [(n * 2 % 900, count) for n in range(1 + ranges)])
    latency, _ = record.expected(config)
    firsts = [came[count * n] - at for n, at in enumerate(asked)][1:]
    lasts = [came[count * n + count - 1] - at for n, at in enumerate(asked)][1:]
    assert max(lasts) <= record.most_cycles(config, count)
    late = sum(first > latency for first in firsts)
    assert late <= len(firsts) * BURST / 20  # those that a refresh, or their page, holds up
