# amaranth: UnusedElaboratable=no
"""The SDRAM controller at the model of its chip: right words, at full rate, no rule broken."""

import random
from dataclasses import replace

import pytest

from tests.support.sdram import Broken, Exchange, StoreAtChip, sdram_config, small_part
from tritloom.rtl.memories.contract import create_memory
from tritloom.rtl.memories.sdram import SdramMemory
from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.memories.sdram_parts import (
    BURST,
    M12L16161A_X2,
    M12L64322A_6,
    MT48LC16M16A2_7E,
    MT48LC16M16A2_75,
    PARTS,
    ULX3S,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.sim.conformance.memory import check_memory
from tritloom.sim.conformance.streams import FLOWS

SMALL = {
    part.name: small_part(part).name
    for part in (MT48LC16M16A2_75, MT48LC16M16A2_7E, ULX3S, M12L64322A_6, M12L16161A_X2)
}
SMALL["late"] = small_part(replace(MT48LC16M16A2_75, name="late", rcd=70)).name
BUSY = replace(MT48LC16M16A2_75, name="busy", refreshes=8 * 8192, wr=40, ras=90)
SMALL["busy"] = small_part(BUSY).name
CORNERS = {
    "100 MHz": ("ulx3s", 100, {}),
    "133 MHz": ("ulx3s", 133, {}),
    "CL 2": ("MT48LC16M16A2-7E", 133, {"cas": 2}),
    "slow": ("ulx3s", 25, {}),
    "32 bits": ("M12L64322A-6", 166, {}),
    "2 banks": ("M12L16161A-5T-x2", 133, {}),
    "each refresh by itself": ("MT48LC16M16A2-75", 100, {"refreshes": 1}),
    "late columns": ("late", 100, {}),
    "refresh all the time": ("busy", 100, {"refreshes": 1}),
}

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))]
LONG = ("slow", "CL 2", "32 bits", "late columns", "refresh all the time")
"""Corners of the grid that run only with the slow tests."""


def corner(name: str) -> AcceleratorConfig:
    part, mhz, options = CORNERS[name]
    return sdram_config(SMALL[part], mhz, **options)


def exchange(config: AcceleratorConfig, steps, seed=0, model=(), **flow) -> Exchange:
    """Run steps with all lines filled."""
    dut = StoreAtChip(config, **dict(model))
    run = Exchange(dut, seed)
    run.fill(range(dut.format.lines))
    run.run(steps, **flow)
    return run


def stepwise(config: AcceleratorConfig, seed: int):
    """Ranges and writes as a grid would have them: short ranges, the same bank, whole pages."""
    rng = random.Random(seed)
    part = PARTS[config.memory.part]
    page, banks = 1 << part.page_bits, 1 << part.bank_bits
    lines = min(config.memory.line_format(config).lines, 1 << part.line_address_bits)
    around = page * banks  # from a page to the next one of its bank
    same_bank = [(n * around % lines + 3, 1) for n in range(6)]
    steps = [
        ([(n, 1) for n in range(12)], [0, 1]),  # a line each, in one page
        ([(n * page % lines, 1) for n in range(8)], [page, 2 * page]),  # a line in each bank
        (same_bank, [3, around + 3, 3]),
        ([(n * around % lines, 8) for n in range(4)], []),
        ([(page - 1, 2), (2 * page - 1, page + 2), (lines - 1, 1), (0, 1)], [lines - 1]),
    ]
    for _ in range(4):
        ranges = []
        for _ in range(rng.randint(1, 8)):
            first = rng.randrange(lines)
            ranges.append((first, rng.randint(1, min(12, lines - first))))
        steps.append((ranges, [rng.randrange(lines) for _ in range(rng.randint(0, 4))]))
    return steps


GRID = [
    pytest.param(
        name,
        idle,
        pause,
        marks=pytest.mark.slow if name in LONG or idle or (pause and name != "100 MHz") else (),
    )
    for name in CORNERS
    for idle, pause in ((0.0, 0.0), (0.5, 0.5), (0.0, 0.9))
]


@pytest.mark.sim
@pytest.mark.parametrize(("name", "idle", "pause"), GRID)
def test_corners(name, idle, pause):
    config = corner(name)
    exchange(config, stepwise(config, 3), 3, idle=idle, pause=pause)


@pytest.mark.sim
@pytest.mark.parametrize("name", ["100 MHz", "2 banks"])
@pytest.mark.parametrize("seed", SEEDS)
def test_random(name, seed):
    config = corner(name)
    rng = random.Random(seed)
    lines = min(256, config.memory.line_format(config).lines)
    steps = []
    for _ in range(6):
        ranges = []
        for _ in range(rng.randint(1, 12)):
            first = rng.randrange(lines)
            ranges.append((first, rng.choice((1, 1, 2, 3, min(70, lines - first)))))
        ranges = [(first, min(count, lines - first)) for first, count in ranges]
        steps.append((ranges, [rng.randrange(lines) for _ in range(rng.randint(0, 5))]))
    idle, pause = rng.choice(FLOWS)
    exchange(config, steps, seed, idle=idle, pause=pause)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "group"), [("100 MHz", 8), ("133 MHz", 8), ("32 bits", 6)])
def test_full_rate(name, group):
    """All that a stream loses are the times of the refreshes, to the cycle."""
    config = corner(name)
    memory = config.memory
    t = memory.cycles(config)
    assert memory.group(config) == group
    interval = memory.interval(config)
    lines = 3 * interval // BURST
    most = config.memory.line_format(config).lines
    ranges = [(0, min(most, lines - first)) for first in range(0, lines, most)]
    run = exchange(config, [(ranges, [])])
    spent = run.came[-1] - run.came[0] + 1
    times, rest = divmod(spent - BURST * lines, t.rp + group * t.rfc + t.rcd)
    assert rest == 0
    assert times == spent // interval or times == spent // interval + 1


@pytest.mark.sim
def test_refresh_while_nobody_reads():
    """A stalled stream holds no refresh up; the open page is opened again."""
    config = corner("each refresh by itself")
    exchange(config, [([(0, 30), (200, 4)], [7])], pause=0.97)


@pytest.mark.sim
def test_refresh_at_every_moment():
    """A refresh waits until a page that was just opened, or just written, can be closed."""
    config = corner("refresh all the time")
    assert config.memory.interval(config) < 100
    page = 1 << PARTS[config.memory.part].page_bits
    lines = config.memory.line_format(config).lines
    ranges = [(n * page % lines + n % 7, 1) for n in range(150)]
    exchange(config, [(ranges, [n * 37 % lines for n in range(150)]), (ranges[:9], [])])


@pytest.mark.slow
@pytest.mark.parametrize("name", CORNERS)
def test_bound(name):
    """A range takes no longer than the bound that the record states, wherever a refresh falls."""
    config = corner(name)
    record = config.memory
    sizes = record.line_format(config)
    interval = record.interval(config)
    for count in (1, 40):
        steps = [([(n % 64, count)], []) for n in range(2 * interval // (BURST * (count + 3)) + 4)]
        run = exchange(config, steps[:120], 1)
        beats = count * BURST
        words = count * sizes.line_bits // sizes.word_bits
        for number, asked in enumerate(run.asked[1:], 1):  # the first one waits for the chip
            took = run.came[(number + 1) * beats - 1] - asked
            assert took + 8 <= record.most_cycles(config, words)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("time", "rule", "more"),
    [
        ("rcd", 2, 1),
        ("rp", 3, 1),
        ("rfc", 8, 1),
        ("wr", 9, 1),
        ("mrd", 10, 2),
        ("init", 1, 4),
        ("retention", 19, 60),
    ],
)
def test_little_to_spare(time, rule, more):
    """If a time of the chip is that much stricter, the controller breaks it: it wastes little."""
    config = corner("133 MHz")
    pages = [([(n, 1), (n + 256, 1)], [n, n + 256]) for n in range(3)]
    rest = config.memory.cycles(config).retention + 1000 if time == "retention" else 32
    with pytest.raises(Broken) as raised:
        exchange(config, pages, model={"stricter": {time: more}}, rest_cycles=rest)
    assert raised.value.number == rule


@pytest.mark.parametrize("name", ["100 MHz", "CL 2", "late columns"])
def test_first_beat(name):
    """A range waits for nothing but the chip's own times, also if it goes on in another page."""
    config = corner(name)
    run = exchange(config, [([(first, 2)], []) for first in (0, 63, 0, 319)])
    waits = [run.came[2 * BURST * number] - asked for number, asked in enumerate(run.asked)]
    assert waits[1:] == [config.memory.first_beat(config)] * 3  # the first one waits for the chip


@pytest.mark.sim
@pytest.mark.parametrize(("idle", "pause"), FLOWS)
@pytest.mark.parametrize(("lanes", "words"), [(5, 48), (10, 40), (20, 20), (40, 8), (80, 4)])
def test_contract(lanes, words, idle, pause):
    config = replace(
        sdram_config(SMALL["ulx3s"]),
        lanes=lanes,
        memory=Sdram(words=words, part=SMALL["ulx3s"]),
    )
    assert isinstance(create_memory(config), SdramMemory)
    check_memory(config, idle=idle, pause=pause, seed=lanes)
