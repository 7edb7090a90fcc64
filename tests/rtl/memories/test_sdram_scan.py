# amaranth: UnusedElaboratable=no
"""The search for the phase at which an SDRAM's data is right, at each delay of the data."""

import random

import pytest

from tests.support.sdram import Exchange, StoreAtChip, pattern, sdram_config, small_part
from tritloom.rtl.memories.sdram_facts import PHASES
from tritloom.rtl.memories.sdram_parts import BURST, MT48LC16M16A2_75, ULX3S, margins
from tritloom.rtl.memories.sdram_scan import PATTERN, PATTERN_COLUMNS, PhaseScan
from tritloom.sim.conformance.streams import simulate

PART = small_part(ULX3S)


def right_phases(mhz: int, round_trip_ns: float) -> list[int]:
    """The phases whose margins the round trip keeps."""
    each = [margins(PART, mhz * 1_000_000, phase) for phase in range(PHASES)]
    return [
        phase
        for phase, window in enumerate(each)
        if window.least_delay < round_trip_ns < window.most_delay
    ]


def test_pattern():
    """Moved by up to 15 columns, or inverted, it differs from itself in every 16 columns."""
    sequence = [PATTERN >> n & 1 for n in range(PATTERN_COLUMNS)]
    for moved in range(1, PATTERN_COLUMNS):
        assert sequence[moved:] + sequence[:moved] != sequence
    assert sum(sequence) == PATTERN_COLUMNS // 2
    words = pattern(16)
    assert len(words) == 64 and set(words.values()) == {0xAAAA, 0x5555}


def searched(responses) -> tuple[int, int, int]:
    """Run the search on a chip whose columns are right where `responses` says so.

    Parameters
    ----------
    responses : phase → number of the column that is wrong, or None

    Returns
    -------
    phase, failed, and how many phases were tried
    """
    scan = PhaseScan(MT48LC16M16A2_75)
    right = [pattern(16)[n] for n in range(64)]
    tried, result = [], []

    async def bench(ctx):
        for line in range(8):
            while not ctx.get(scan.writes):
                await ctx.tick()
            assert ctx.get(scan.line) == line
            for column in range(BURST):
                ctx.set(scan.column, column)
                assert ctx.get(scan.word) == right[line * BURST + column]
            ctx.set(scan.wrote, 1)
            await ctx.tick()
            ctx.set(scan.wrote, 0)
        while True:
            while not ctx.get(scan.reads):
                await ctx.tick()
                if not ctx.get(scan.busy):
                    result.append((ctx.get(scan.phase), ctx.get(scan.failed), len(tried)))
                    return
            phase = ctx.get(scan.phase)
            tried.append(phase)
            ctx.set(scan.accepted, 1)
            await ctx.tick()
            ctx.set(scan.accepted, 0)
            wrong = responses(phase)
            for number, word in enumerate(right):
                ctx.set(scan.valid, 1)
                ctx.set(scan.data, word ^ (number == wrong) << number % 16)
                await ctx.tick()
                ctx.set(scan.valid, 0)
                ctx.set(scan.data, 0)
                if number % 5 == 0:
                    await ctx.tick()

    simulate(scan, bench, deadline_cycles=5_000)
    assert tried == list(range(len(tried)))
    return result[0]


@pytest.mark.parametrize(
    ("window", "found"),
    [
        ({0}, (0, 0, 2)),
        ({1, 2}, (2, 0, 4)),
        ({7}, (7, 0, 9)),
        ({3, 4, 9}, (4, 0, 6)),
        ({PHASES - 1}, (PHASES - 1, 0, PHASES)),
        ({PHASES - 2, PHASES - 1}, (PHASES - 1, 0, PHASES)),
        (set(), (PHASES - 1, 1, PHASES)),
    ],
)
def test_search(window, found):
    """A single bit that is wrong in any column, the first and the last among them, is seen."""
    rng = random.Random(len(window))
    columns = [0, 63, *(rng.randrange(64) for _ in range(PHASES))]
    assert searched(lambda phase: None if phase in window else columns[phase % 18]) == found


DELAYS = [
    (mhz, delay)
    for mhz in (100, 133)
    for delay in (0.0, 2.3, 3.5, 5.5, 8.0, 12.2, 21.0, 37.5, 50.0)
]
QUICK = ((100, 0.0), (100, 8.0), (133, 5.5))


@pytest.mark.sim
@pytest.mark.parametrize(
    ("mhz", "delay"),
    [pytest.param(*d, marks=() if d in QUICK else pytest.mark.slow) for d in DELAYS],
)
def test_delays(mhz, delay):
    """The search takes the last phase that the margins allow, and all words are exact."""
    dut = StoreAtChip(sdram_config(PART.name, mhz), round_trip_ns=delay)
    run = Exchange(dut, 3)
    run.fill(range(dut.format.lines))
    # The first line is offered from the beginning, while the search goes on.
    steps = [([], [20]), ([(0, 12), (250, 9), (20, 1)], [3, 9, 300]), ([(0, 12), (300, 1)], [])]
    run.run(steps)
    assert run.phase == right_phases(mhz, delay)[-1]
    assert not run.failed


@pytest.mark.sim
@pytest.mark.parametrize(
    ("mhz", "model"),
    [
        (133, {"round_trip_ns": 80.0}),  # beyond the last phase
        pytest.param(100, {"round_trip_ns": 3.0, "spread_ns": 7.2}, marks=pytest.mark.slow),
    ],
)
def test_no_phase(mhz, model):
    """Without a window every beat is void, and each range still has all its beats."""
    dut = StoreAtChip(sdram_config(PART.name, mhz), **model)
    run = Exchange(dut, 3)
    run.fill(range(dut.format.lines))
    run.run([([(0, 3), (100, 2)], [4]), ([(100, 1)], [])], void=True)
    assert run.failed


@pytest.mark.parametrize("mhz", [25, 80, 100, 125, 133])
def test_every_delay_has_a_phase(mhz):
    """Windows of neighbours overlap, up to the last phase; no two that are further apart do."""
    last = margins(PART, mhz * 1_000_000, PHASES - 1).most_delay
    for step in range(int(last * 10)):
        phases = right_phases(mhz, step / 10)
        assert phases in ([phases[0]], [phases[0], phases[0] + 1])
