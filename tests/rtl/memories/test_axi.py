"""The memory behind AXI ports, with its model at the pads."""

import random
from dataclasses import replace

import pytest
from amaranth.hdl import Const

from tests.support import quick_first
from tests.support.axi import modelled
from tests.support.memories import transfer
from tritloom.rtl.memories import axi
from tritloom.rtl.memories.axi_facts import FIRST_BEAT_CYCLES, Axi
from tritloom.rtl.memories.axi_reader import AxiReader
from tritloom.rtl.memories.axi_writer import MOST_UNANSWERED, AxiWriter
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.sim.conformance.memory import check_memory
from tritloom.sim.conformance.streams import simulate


def config_of(words: int = 64, lanes: int = 40, rows: int = 1, **options) -> AcceleratorConfig:
    values = {"width": 64, "burst": 4, "latency_cycles": 12, "timeout_cycles": 200}
    return AcceleratorConfig(
        lanes=lanes,
        rows=rows,
        memory=Axi(words=words, **(values | options)),
        max_in_features=2 * lanes,
        max_out_features=8 * rows,
    )


GEOMETRIES = {
    "64 bits": config_of(24),
    "128 bits, whole bursts": config_of(24, lanes=80, width=128, burst=2),
    "4 words a beat": config_of(24, lanes=10, width=64),
    "AXI3, words of two beats, far away": config_of(
        24, lanes=80, version=3, burst=16, base=0x1000_0000
    ),
    "two ports, gearbox": config_of(24, lanes=15, rows=2, ports=2, offsets=(0x3000, 0x1000)),
    "four ports": config_of(24, lanes=80, rows=2, ports=4),
}


@pytest.mark.sim
@pytest.mark.parametrize(
    ("name", "stalls", "pause"), [(n, s, p) for n in GEOMETRIES for s, p in ((0.3, 0.3), (0, 0))]
)
def test_words(name, stalls, pause):
    config = modelled(GEOMETRIES[name], latency=9, stalls=stalls, seed=len(name))
    check_memory(config, idle=pause, pause=pause, seed=3)


def words_of(config, seed=5):
    """Every address with a random word."""
    rng = random.Random(seed)
    return [(address, rng.getrandbits(config.word_bits)) for address in range(config.memory_words)]


@pytest.mark.parametrize("latency", [2, 12, pytest.param(30, marks=pytest.mark.sim)])
def test_a_beat_in_every_cycle(latency):
    """Up to the latency that the queue is made for; the second range follows the first."""
    config = modelled(config_of(96, latency_cycles=12), latency=latency)
    depth = config.memory.depth
    assert depth == 32
    asked, words = transfer(config, [], [(0, 48), (48, 48)])
    cycles = [cycle for cycle, *_ in words]
    sizes = config.memory.line_format(config)
    first = sizes.first_word_cycles(FIRST_BEAT_CYCLES + latency)
    assert cycles[0] - asked[0] == first
    if latency <= 12:
        assert cycles == list(range(cycles[0], cycles[0] + 96))
    else:
        assert cycles[-1] - cycles[0] > 100  # the queue limits it


@quick_first("error", ["SLVERR", "DECERR"])
def test_an_error_makes_the_rest_of_its_range_void(error):
    config = modelled(config_of(), latency=9, stalls=0.2, error=error, error_from=20, error_lines=1)
    ranges = [(16, 8), (0, 20), (20, 1), (21, 8), (12, 16)]
    writes = words_of(config)
    _, words = transfer(config, [w for w in writes if w[0] != 20], ranges, takes=0.7)
    numbers = [first + n for first, count in ranges for n in range(count)]
    void = [first <= 20 <= first + n for first, count in ranges for n in range(count)]
    assert [bool(failed) for *_, failed in words] == void
    for (_, word, failed), number in zip(words, numbers, strict=True):
        assert failed or word == writes[number][1]


def test_a_write_that_fails_makes_the_next_range_void():
    config = modelled(config_of(), latency=5, error="SLVERR", error_from=20, error_lines=1)
    _, words = transfer(config, words_of(config), [(0, 8), (0, 8)])
    assert [failed for *_, failed in words] == [1] * 8 + [0] * 8


@pytest.mark.sim
@pytest.mark.parametrize("silent_cycles", [500, 290, 215, 1700])
def test_a_memory_that_is_silent(silent_cycles):
    """No beat for longer than the time-out: void words, and later ranges are exact again."""
    config = modelled(
        config_of(timeout_cycles=200),
        latency=9,
        silent_from=10,
        silent_cycles=silent_cycles,
        stalls=0.1,
    )
    ranges = [(0, 30), (30, 20), *[(n, 8) for n in range(40)]]
    writes = words_of(config)
    _, words = transfer(config, writes, ranges, deadline_cycles=30_000)
    numbers = [first + n for first, count in ranges for n in range(count)]
    failed = [error for *_, error in words]
    begins = failed.index(1)
    assert begins in (10, 11), "one beat was on its way"
    assert failed[begins:50] == [1] * (50 - begins), "both ranges had been accepted"
    for (_, word, error), number in zip(words, numbers, strict=True):
        assert error or word == writes[number][1]
    last = max(index for index, error in enumerate(failed) if error)
    assert len(words) - last > 8 * 30, "most ranges are exact"
    # Each attempt takes the time-out, not much longer.
    assert words[begins][0] - words[begins - 1][0] < 200 + 40


@pytest.mark.sim
@pytest.mark.parametrize("deaf", ["aw", "w", "b", "ar"])
def test_a_memory_that_is_deaf_at_first(deaf):
    """Words are dropped, no command waits for ever, and ranges are void until all is answered."""
    config = modelled(config_of(), latency=5, deaf=deaf, deaf_cycles=500, stalls=0.1)
    writes = words_of(config)
    ranges = [(0, 4)] * 3 + [(0, 1)] * 250
    _, words = transfer(config, writes if deaf != "ar" else [], ranges)
    failed = [error for *_, error in words]
    assert failed[:4] == [1] * 4
    assert failed[-60:] == [0] * 60
    right = writes[0][1] if deaf == "b" else 0  # the words of the other channels were dropped
    assert deaf in ("aw", "w") or words[-1][1] == right


def test_writes_that_are_not_answered_are_limited():
    """The memory takes all that it is sent, and answers late."""
    record = config_of(timeout_cycles=500).memory
    dut = AxiWriter(record)
    taken, idle = [], []

    async def write(ctx):
        ctx.set(dut.awready, 1)
        ctx.set(dut.wready, 1)
        ctx.set(dut.i_write.valid, 1)
        for cycle in range(80):
            ctx.set(dut.bvalid, cycle >= 50)
            ctx.set(dut.i_write.valid, cycle < 50)
            *_, ready, address, is_idle = await ctx.tick().sample(
                dut.i_write.ready & dut.i_write.valid, dut.awvalid, dut.idle
            )
            taken.append((ready, address))
            idle.append(is_idle)

    simulate(dut, write)
    assert sum(ready for ready, _ in taken) == sum(address for _, address in taken)
    assert sum(ready for ready, _ in taken[:50]) == MOST_UNANSWERED
    assert idle.index(0) == 1 and idle.index(1, 1) == 50 + MOST_UNANSWERED


class NoCredits(AxiReader):
    """A burst is asked for whether there is room or not."""

    def _send_addresses(self, m, ranges, asked, stops, may):
        super()._send_addresses(m, ranges, asked, stops, Const(1))


class OneMore(AxiReader):
    """The length of each burst is one too high."""

    def _send_addresses(self, m, ranges, asked, stops, may):
        super()._send_addresses(m, ranges, asked, stops, may)
        with m.If(asked != 0):
            m.d.sync += self.arlen.eq(asked)


class OneLess(AxiReader):
    """The length of long bursts is one too low."""

    def _send_addresses(self, m, ranges, asked, stops, may):
        super()._send_addresses(m, ranges, asked, stops, may)
        with m.If(asked > 1):
            m.d.sync += self.arlen.eq(asked - 2)


def run_ranges(config):
    """Ranges that need all credits; the words must be those that were written."""
    writes = words_of(config)
    ranges = [(0, 3), (20, 44), (1, 60), (63, 1)]
    _, words = transfer(config, writes, ranges, takes=0.2, deadline_cycles=3000)
    expected = [writes[first + n][1] for first, count in ranges for n in range(count)]
    assert [(word, error) for _, word, error in words] == [(word, 0) for word in expected]


@pytest.mark.sim
@pytest.mark.parametrize("reader", [NoCredits, OneMore, OneLess])
def test_broken_readers_are_noticed(reader, monkeypatch):
    config = modelled(config_of(burst=8, latency_cycles=4), latency=2)
    run_ranges(config)
    monkeypatch.setattr(axi, "AxiReader", reader)
    with pytest.raises((AssertionError, TimeoutError)):
        run_ranges(config)


@pytest.mark.sim
def test_a_burst_across_4_kib_is_noticed(monkeypatch):
    config = modelled(config_of(128, lanes=320, width=512, burst=128), latency=2)
    assert config.memory.burst_beats == 64
    transfer(config, [], [(0, 128)])
    monkeypatch.setattr(Axi, "burst_beats", property(lambda record: record.burst))
    with pytest.raises(AssertionError, match="rules"):
        transfer(config, [], [(0, 128)])


def test_refuses():
    for options, message in (
        ({"width": 32}, "memory: width must be one of 64, 128, 256, 512, not 32"),
        ({"ports": 3}, "memory: ports must be one of 1, 2, 4, not 3"),
        ({"version": 5}, "memory: version must be one of 3, 4, not 5"),
        ({"burst": 1}, "memory: burst must be 2 to 256, not 1"),
        ({"burst": 32, "version": 3}, "memory: burst must be 2 to 16, not 32"),
        ({"burst": 24}, "memory: burst must be a power of two, not 24"),
        ({"latency_cycles": 0}, "memory: latency_cycles must be 1 to 4096, not 0"),
        ({"timeout_cycles": 0}, "memory: timeout_cycles must be 1 to 16777216, not 0"),
        ({"address_bits": 12}, "memory: address_bits must be 13 to 64, not 12"),
        ({"base": -1}, "memory: base must be 0 to 4294967295, not -1"),
        ({"offsets": (0, 0)}, r"memory: offsets must be one for each of 1 ports, not \(0, 0\)"),
        ({"offsets": (-1,)}, "memory: offsets must be 0 to 4294967295, not -1"),
        ({"base": 64}, "memory: base and offsets must be multiples of 4096, not 0x40"),
        ({"base": 0xFFFF_F000, "words": 513}, "memory: the region of 8192 bytes at 0xfffff000"),
        ({"ports": 2, "offsets": (0, 0)}, "must end at or before 0x0, where the next region"),
    ):
        with pytest.raises(ConfigError, match=message):
            config_of(**options)


def test_record():
    config = config_of(ports=2, offsets=(0x3000, 0x1000), base=0x1000_0000)
    assert config.memory.bases(config) == (0x1000_3000, 0x1000_1000)
    assert AcceleratorConfig.from_json(config.to_json()) == config
    assert config.memory.title() == "AXI4, 2 × 64 bits"
    assert config_of(version=3).memory.title() == "AXI3, 64 bits"
    wide = config_of(lanes=320, width=512, burst=256, latency_cycles=200).memory
    assert (wide.burst_beats, wide.depth) == (64, 512)
    assert replace(wide, burst=16).depth == 256
    # Timing and places are no part of the layout, so a driver serves every such build.
    for change in ({"burst": 8}, {"latency_cycles": 60}, {"base": 4096}, {"version": 3}):
        assert config_of(**change).layout_digest == config_of().layout_digest
    assert config_of(ports=2).layout_digest != config_of().layout_digest
