# amaranth: UnusedElaboratable=no
"""The model of an SDRAM chip refuses each thing that the data sheet forbids, and nothing else."""

from dataclasses import replace

import pytest
from amaranth.hdl import Cat

from tests.support.outside import Outside
from tests.support.sdram import sdram_config, small_part
from tritloom.rtl.memories.sdram_parts import MT48LC16M16A2_75
from tritloom.rtl.spec.errors import ConfigError
from tritloom.sim.conformance.streams import simulate
from tritloom.sim.models.sdram import SdramModel
from tritloom.sim.models.surrounded import store_bench

# At 1 GHz each cycle is a nanosecond, so that no two times are equal.
PART = replace(
    small_part(MT48LC16M16A2_75),
    name="test-model",
    rcd=5,
    rp=6,
    ras=13,
    ras_max=300,
    rc=23,
    rrd=4,
    rfc=15,
    wr=7,
    mrd=3,
    refreshes=16,
    retention_ms=2e-3,
    init_us=0.02,
    access=0.2,
    hold=0.1,
    cas_ns=((2, 1.0), (3, 1.0)),
)
T = PART.cycles(10**9)
ACTIVE, READ, WRITE, PRECHARGE, REFRESH, MODE = 0b011, 0b101, 0b100, 0b010, 0b001, 0b000
ALL = 1 << 10
SET = 3 << 4 | 3

Command = tuple[int, int, int, int]
"""Cycle, order, bank, address."""


def config():
    from tritloom.rtl.memories.sdram_parts import PARTS

    PARTS[PART.name] = PART
    slow = sdram_config("MT48LC16M16A2-75", 1)
    memory = replace(slow.memory, part=PART.name)
    object.__setattr__(slow, "memory", memory)  # the record refuses so short bursts
    object.__setattr__(slow, "clock_hz", 10**9)
    return slow


def first_violation(commands, *, cycles=400, drive=(), masks=(), cke=True, **options):
    """The rule that commands break first, and its cycle counted from the command's own.

    `drive`: the cycles in which the FPGA drives the data pins, with the cycle as data.
    """
    model = SdramModel(config(), **{"round_trip_ns": 0.1} | options)
    found = []
    orders = {cycle: rest for cycle, *rest in commands}
    contents: dict[int, int] = {}
    data: list[int] = []

    async def bench(ctx):
        strobes = Cat(model.sdram_we_n, model.sdram_cas_n, model.sdram_ras_n)
        ctx.set(model.sdram_cke, cke)
        for cycle in range(cycles):
            order, bank, address = orders.get(cycle, (0b111, 0, 0))
            ctx.set(strobes, order)
            ctx.set(model.sdram_bank, bank)
            ctx.set(model.sdram_address, address)
            ctx.set(model.sdram_dq_oe, cycle in drive)
            ctx.set(model.sdram_dq_o, cycle)
            ctx.set(model.sdram_dqm, 3 * (cycle in masks))
            *_, number, read = await ctx.tick().sample(model.violation, model.sdram_dq_i)
            data.append(read)
            if number and not found:
                found.append((number, cycle - 1))  # the pad's register

    simulate(model, bench, background=[store_bench(model, contents)], deadline_cycles=0)
    return (found[0] if found else None), contents, data


def ready(at=T.init, count=8):
    """The commands of an initialisation, and the first cycle after it."""
    commands = [(at, PRECHARGE, 0, ALL)]
    at += T.rp
    for _ in range(count):
        commands.append((at, REFRESH, 0, 0))
        at += T.rfc
    commands.append((at, MODE, 0, SET))
    return commands, at + T.mrd


BEGIN, START = ready()


def after(*commands):
    """Commands after an initialisation; their cycles count from its end."""
    return [*BEGIN, *((START + cycle, *rest) for cycle, *rest in commands)]


def test_initialisation():
    assert first_violation(BEGIN)[0] is None
    # The first command is at the chip a cycle later, behind the pad's register.
    assert first_violation(ready(T.init - 1)[0])[0] is None
    assert first_violation(ready(T.init - 2)[0])[0] == (1, T.init - 2)
    assert first_violation(ready(count=7)[0])[0][0] == 11
    assert first_violation(BEGIN[1:])[0] == (11, BEGIN[1][0])  # without PRECHARGE
    assert first_violation([*BEGIN[:-1], (START, ACTIVE, 0, 1)])[0] == (11, START)
    for mode, bank in ((2 << 4 | 3, 0), (3 << 4 | 2, 0), (SET, 1), (SET | 8, 0)):
        wrong = [*BEGIN[:-1], (BEGIN[-1][0], MODE, bank, mode)]
        assert first_violation(wrong)[0] == (12, BEGIN[-1][0])
    assert first_violation(BEGIN, cke=False)[0] == (21, BEGIN[0][0])
    assert first_violation(after((0, 0b110, 0, 0)))[0] == (21, START)


def one_cycle_early(number, commands, early):
    """The commands are legal, and break a rule if the one in place `early` is a cycle earlier."""
    drive = {START + cycle + n for cycle, order, *_ in commands if order == WRITE for n in range(8)}
    assert first_violation(after(*commands), drive=drive)[0] is None
    commands = list(commands)
    cycle, *rest = commands[early]
    commands[early] = (cycle - 1, *rest)
    assert first_violation(after(*commands), drive=drive)[0] == (number, START + cycle - 1)


def test_times():
    one_cycle_early(2, [(0, ACTIVE, 1, 3), (T.rcd, READ, 1, 8)], 1)
    read_closed = [(0, ACTIVE, 1, 3), (10, READ, 1, 8), (18, PRECHARGE, 1, 0)]
    one_cycle_early(16, read_closed, 2)
    one_cycle_early(3, [(0, ACTIVE, 1, 3), (30, PRECHARGE, 1, 0), (36, ACTIVE, 1, 4)], 2)
    one_cycle_early(3, [(0, ACTIVE, 1, 3), (30, PRECHARGE, 1, 0), (36, REFRESH, 0, 0)], 2)
    one_cycle_early(4, [(0, ACTIVE, 2, 3), (T.ras, PRECHARGE, 2, 0)], 1)
    one_cycle_early(4, [(0, ACTIVE, 2, 3), (T.ras, PRECHARGE, 0, ALL)], 1)
    one_cycle_early(6, [(0, ACTIVE, 0, 3), (14, PRECHARGE, 0, 0), (T.rc, ACTIVE, 0, 3)], 2)
    one_cycle_early(7, [(0, ACTIVE, 0, 3), (T.rrd, ACTIVE, 3, 3)], 1)
    one_cycle_early(8, [(0, REFRESH, 0, 0), (T.rfc, ACTIVE, 3, 3)], 1)
    one_cycle_early(8, [(0, REFRESH, 0, 0), (T.rfc, REFRESH, 0, 0)], 1)
    one_cycle_early(10, [(0, MODE, 0, SET), (T.mrd, ACTIVE, 3, 3)], 1)
    write = [(0, ACTIVE, 1, 3), (T.rcd, WRITE, 1, 0), (T.rcd + 7 + T.wr, PRECHARGE, 1, 0)]
    one_cycle_early(9, write, 2)
    one_cycle_early(16, [(0, ACTIVE, 1, 3), (5, READ, 1, 8), (13, READ, 1, 16)], 2)
    one_cycle_early(16, [(0, ACTIVE, 1, 3), (5, WRITE, 1, 8), (13, READ, 1, 16)], 2)


def test_a_page_that_stays_open():
    commands = [(0, ACTIVE, 1, 3), (T.ras_max, PRECHARGE, 1, 0)]
    assert first_violation(after(*commands), cycles=600)[0] is None
    commands = [(0, ACTIVE, 1, 3), (T.ras_max + 2, PRECHARGE, 1, 0)]
    assert first_violation(after(*commands), cycles=600)[0] == (5, START + T.ras_max + 1)


def test_states():
    opened = (0, ACTIVE, 1, 3)
    assert first_violation(after(opened, (30, ACTIVE, 1, 4)))[0] == (13, START + 30)
    assert first_violation(after((0, READ, 1, 8)))[0] == (14, START)
    assert first_violation(after(opened, (30, READ, 0, 8)))[0] == (14, START + 30)
    assert first_violation(after(opened, (30, READ, 1, 8 | ALL)))[0] == (15, START + 30)
    assert first_violation(after(opened, (30, READ, 1, 9)))[0] == (15, START + 30)
    assert first_violation(after(opened, (30, REFRESH, 0, 0)))[0] == (17, START + 30)
    assert first_violation(after(opened, (30, MODE, 0, SET)))[0] == (17, START + 30)
    assert first_violation(after((0, ACTIVE, 1, 16)))[0] == (20, START)


def test_data_pins():
    """Columns come back CAS cycles later, masks hide bytes, and only one side drives."""
    write = [(0, ACTIVE, 1, 3), (10, WRITE, 1, 8)]
    driven = {START + 10 + n for n in range(8)}
    read = (18, READ, 1, 8)
    broken, contents, data = first_violation(after(*write, read), drive=driven)
    assert broken is None
    assert contents == {3 << 11 | 1 << 9 | 8 + n: START + 10 + n for n in range(8)}
    # The command passes a register at the pad, the columns another one.
    first = START + read[0] + 1 + 3 + 1
    assert data[first : first + 8] == list(contents.values())
    assert data[first - 1] == data[first + 8] == 0x5A5A
    broken, contents, _ = first_violation(after(*write), drive=driven, masks={START + 12})
    assert broken is None
    assert 3 << 11 | 1 << 9 | 10 not in contents and len(contents) == 7
    for cycle, seen in (
        (0, [START + 10, START + 11]),
        (1, [0x5A5A, START + 11]),
        (2, [START + 10, 0x5A5A]),
    ):
        masks = {START + read[0] + cycle}
        _, _, data = first_violation(after(*write, read), drive=driven, masks=masks)
        assert data[first : first + 2] == seen
    for missing in (0, 7):
        some = driven - {START + 10 + missing}
        assert first_violation(after(*write), drive=some)[0] == (18, START + 10 + missing)
    # Columns are at the pins from 3 to 10 cycles after READ; a cycle on each side must be free.
    reads = [(0, ACTIVE, 1, 3), (10, READ, 1, 8)]
    for cycle, number in ((1, None), (2, 18), (3, 18), (10, 18), (11, 18), (12, None)):
        broken, *_ = first_violation(after(*reads), drive={START + 10 + cycle})
        assert (broken and broken[0]) == number


def test_ages_of_rows():
    """Each of the 16 rows must be refreshed within 2000 cycles."""

    def refreshed(every, end):
        return after(*((at, REFRESH, 0, 0) for at in range(1, end, every)))

    assert first_violation(refreshed(124, 6000), cycles=6000)[0] is None
    late, *_ = first_violation(refreshed(126, 6000), cycles=6000)
    assert late[0] == 19
    first, *_ = first_violation(after(), cycles=3000)
    oldest = BEGIN[1][0] + T.retention  # the first row that was refreshed
    assert first[0] == 19 and oldest <= first[1] <= oldest + 20
    assert first_violation(refreshed(124, 6000), cycles=6000, retention=1900)[0][0] == 19


@pytest.mark.parametrize(
    "name", ["rcd", "rp", "ras", "rc", "rrd", "rfc", "wr", "mrd", "init", "ras_max", "retention"]
)
def test_stricter(name):
    t, model = T, SdramModel(config(), stricter={name: 2})
    sign = -1 if name in ("ras_max", "retention") else 1
    assert model.cycles == replace(t, **{name: getattr(t, name) + 2 * sign})


def test_refuses():
    with pytest.raises(ConfigError, match="stricter must name times of SdramCycles, not 'tRP'"):
        SdramModel(config(), stricter={"tRP": 1})
    other = replace(sdram_config("ulx3s"), memory=Outside(words=64))
    with pytest.raises(ConfigError, match="memory 'test-outside' is no SDRAM"):
        SdramModel(other)
