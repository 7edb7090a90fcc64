"""Facts of the SDRAM: times in cycles, margins, and what a configuration cannot be."""

from dataclasses import replace

import pytest

from tests.support import ROOT
from tests.support.sdram import sdram_config, small_part
from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.memories.sdram_parts import (
    PARTS,
    SdramCycles,
    column_seen,
    margins,
    slowest,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError

MT48LC16M16A2_75 = PARTS["MT48LC16M16A2-75"]
ULX3S = PARTS["ulx3s"]


def test_cycles():
    """Least times are rounded up, most times down; a whole number of cycles stays it."""
    assert MT48LC16M16A2_75.cycles(100_000_000) == SdramCycles(
        rcd=2,
        rp=2,
        ras=5,
        ras_max=12_000,
        rc=7,
        rrd=2,
        rfc=7,
        wr=2,
        mrd=2,
        init=10_000,
        refresh_interval=781,
        retention=6_400_000,
    )
    assert MT48LC16M16A2_75.cycles(133_333_333).rcd == 3
    assert MT48LC16M16A2_75.cycles(1_000_000).wr == 2  # 15 ns, but never less than two cycles
    assert PARTS["M12L64322A-6"].cycles(128_000_000).refresh_interval == 2000


def test_geometry():
    assert (MT48LC16M16A2_75.line_bits, MT48LC16M16A2_75.page_bits) == (128, 6)
    assert MT48LC16M16A2_75.line_address_bits == 21
    assert [PARTS[name].line_bits for name in ("tang-nano-20k", "M12L16161A-5T-x2")] == [256, 256]
    for name, part in PARTS.items():
        assert part.name == name and part.source


def test_slowest():
    """Each time is the strictest of the three parts."""
    assert (ULX3S.rcd, ULX3S.rp, ULX3S.ras, ULX3S.rc) == (21, 21, 44, 67.5)
    assert (ULX3S.rfc, ULX3S.wr, ULX3S.rrd, ULX3S.init_us) == (70, 20, 15, 200)
    assert (ULX3S.hold, ULX3S.ras_max, ULX3S.access) == (2.5, 120_000, 5.4)
    assert ULX3S.cas_ns == ((2, 10.0), (3, 7.5))
    short = replace(MT48LC16M16A2_75, ras_max=1000, retention_ms=32, cas_ns=((3, 9.0),))
    worst = slowest("worst", "a test", MT48LC16M16A2_75, short)
    assert (worst.name, worst.source) == ("worst", "a test")
    assert (worst.ras_max, worst.retention_ms, worst.cas_ns) == (1000, 32, ((3, 9.0),))


def test_icesugar_pro():
    """No time is shorter than the ULX3S's; a configuration can name it, at CAS latency 3 alone."""
    part = PARTS["icesugar-pro"]
    assert part.line_address_bits == ULX3S.line_address_bits
    assert (part.ras, part.rc, part.access, part.cas_ns) == (45, 67.5, 5.4, ((3, 7.0),))
    assert sdram_config("icesugar-pro", 133).memory.chip is part
    with pytest.raises(ConfigError):
        sdram_config("icesugar-pro", 100, cas=2)


def test_margins():
    inverted = margins(ULX3S, 100_000_000, phase=2)
    found = (inverted.setup, inverted.hold, inverted.least_delay, inverted.most_delay)
    assert found == pytest.approx((3.5, 4.2, 2.5, 9.6))
    for phase, window in ((0, (-7.5, -0.4)), (1, (-2.5, 4.6)), (3, (7.5, 14.6)), (4, (12.5, 19.6))):
        other = margins(ULX3S, 100_000_000, phase)
        assert (other.least_delay, other.most_delay) == pytest.approx(window)
        assert (other.setup, other.hold) == (inverted.setup, inverted.hold)


@pytest.mark.parametrize("round_trip_ns", [0.0, 2.0, 4.5, 9.0, 23.0])
@pytest.mark.parametrize("mhz", [25, 100, 133])
def test_a_column_is_seen_where_the_margins_say_so(mhz, round_trip_ns):
    """A phase is an edge and a number of cycles; the column of that number is stable there."""
    hz = mhz * 1_000_000
    for phase in range(16):
        window = margins(ULX3S, hz, phase)
        cycles, stable = column_seen(ULX3S, hz, phase % 2, round_trip_ns)
        inside = window.least_delay < round_trip_ns < window.most_delay
        assert inside == (stable and cycles == 1 + phase // 2)


def test_a_spread_makes_windows_smaller():
    window = margins(ULX3S, 100_000_000, 2)
    for inside, spread_ns in ((0.2, 0.3), (0.6, 1.1)):
        for at in (window.least_delay + inside, window.most_delay - inside):
            assert column_seen(ULX3S, 100_000_000, 0, at, spread_ns) == (2, True)
            assert column_seen(ULX3S, 100_000_000, 0, at, spread_ns + 0.2) != (2, True)


def test_margins_of_the_docs():
    text = (ROOT / "docs/howto/sdram.md").read_text(encoding="utf-8")
    for mhz in (80, 100, 125, 133):
        each = [margins(ULX3S, mhz * 1_000_000, phase) for phase in (1, 2, 3, 4)]
        cells = [f"{each[0].setup:.2f}", f"{each[0].hold:.2f}"]
        cells += [f"{max(0, m.least_delay):.2f} to {m.most_delay:.2f}" for m in each]
        assert f"| {mhz} | {' | '.join(cells)} |" in text
    overlaps = [
        each.most_delay - margins(ULX3S, hz, 3).least_delay
        for hz in (100_000_000, 133_000_000)
        for each in [margins(ULX3S, hz, 2)]
    ]
    assert overlaps == pytest.approx((2.1, 0.86), abs=0.01)


def memory(**changes):
    return {"words": 1 << 14, "part": "MT48LC16M16A2-75"} | changes


@pytest.mark.parametrize(
    ("changes", "mhz", "message"),
    [
        ({"part": "DDR3"}, 100, "memory: part must be one of PARTS, not 'DDR3'"),
        ({"part": 3}, 100, "memory: part must be one of PARTS, not 3"),
        ({"cas": 4}, 100, "memory: cas must be 2 to 3, not 4"),
        ({"refreshes": 17}, 100, "memory: refreshes must be 0 to 16, not 17"),
        (
            {"words": 1 << 25},
            100,
            (
                "memory: MT48LC16M16A2-75 holds 2097152 lines of 128 bits, not 4194304; "
                "choose fewer words"
            ),
        ),
        (
            {},
            134,
            (
                "clock_hz must be at most 133333333 for MT48LC16M16A2-75 at CAS latency 3, "
                "not 134000000"
            ),
        ),
        (
            {"cas": 2},
            101,
            (
                "clock_hz must be at most 100000000 for MT48LC16M16A2-75 at CAS latency 2, "
                "not 101000000"
            ),
        ),
        (
            {"part": "tang-nano-20k", "refreshes": 8},
            100,
            (
                "memory: refreshes must be fewer, not 8: a page of tang-nano-20k may stay open for "
                "10000 cycles, not 12536; choose 0"
            ),
        ),
    ],
)
def test_refuses(changes, mhz, message):
    with pytest.raises(ConfigError) as raised:
        sdram_config(mhz=mhz, **memory(**changes))
    # Other tests add parts.
    assert str(raised.value) == message.replace("PARTS", ", ".join(PARTS))


def test_a_part_whose_rows_take_longer_than_a_burst():
    for slow in ({"ras": 200.0}, {"rc": 300.0}, {"rrd": 40.0}):
        part = replace(small_part(MT48LC16M16A2_75), name="test-slow", **slow)
        PARTS[part.name] = part
        with pytest.raises(ConfigError) as raised:
            sdram_config(**memory(part=part.name))
        message = "clock_hz is too high for the bursts of test-slow; choose a lower one"
        assert str(raised.value) == message


def test_layout():
    """What decides how a driver packs is in the layout digest, times are not."""
    config = sdram_config(**memory())
    assert config.memory.layout_dict() == {"kind": "sdram", "words": 1 << 14, "line_bits": 128}
    for same in ({"part": "ulx3s"}, {"refreshes": 4}):
        assert sdram_config(**memory(**same)).layout_digest == config.layout_digest
    wide = sdram_config(**memory(part="tang-nano-20k"))
    assert wide.layout_digest != config.layout_digest
    assert (config.align, wide.align) == (8, 16)


def test_json():
    config = sdram_config(**memory(refreshes=4))
    again = AcceleratorConfig.from_dict(config.to_dict())
    assert again == config and isinstance(again.memory, Sdram)
    assert config.to_dict()["memory"] == {
        "kind": "sdram",
        "words": 1 << 14,
        "part": "MT48LC16M16A2-75",
        "cas": 3,
        "refreshes": 4,
        "clock_hz": 0,
    }
    assert config.memory.title() == "SDRAM MT48LC16M16A2-75"


@pytest.mark.parametrize(("name", "group"), [("ulx3s", 8), ("tang-nano-20k", 6)])
def test_interval(name, group):
    """Each row is refreshed in time, though a group may have to wait."""
    config = sdram_config(name)
    record = config.memory
    t, part = record.cycles(config), record.chip
    assert record.group(config) == group
    rows = 1 << part.row_bits
    groups = -(-rows // group)
    assert groups * record.interval(config) + 40 <= t.retention * rows // part.refreshes
    assert record.interval(config) <= group * t.refresh_interval
    assert record.interval(config) > 0.99 * group * t.refresh_interval


def test_expected_cycles():
    """A range's bound holds all its beats, and little more for a long one."""
    config = sdram_config("ulx3s", words=1 << 20)
    bound = config.memory.most_cycles(config, 1 << 20)
    beats = (1 << 20) * config.word_bits // 16
    assert beats / 0.99 < bound < 1.09 * beats


def test_what_a_plan_expects():
    """The share of the cycles with a word, and the way of the first one."""
    config = sdram_config("ulx3s")  # words of 16 bits: one a cycle
    latency, share = config.memory.expected(config)
    assert share == 1 - 62 / 6248
    assert latency == config.memory.line_format(config).first_word_cycles(9 + 3 + 3 + 1)
    wide = replace(config, lanes=40)  # words of 64 bits: one in four cycles
    assert wide.memory.expected(wide)[1] == share / 4
    slow = replace(config, lanes=5)  # two words a beat, but the core takes one a cycle
    assert slow.memory.expected(slow)[1] == share
