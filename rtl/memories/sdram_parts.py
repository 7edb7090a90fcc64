"""SDR SDRAM chips by their data sheets: geometry and times in nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import ceil, floor

__all__ = [
    "BURST",
    "PARTS",
    "SdramCycles",
    "SdramMargins",
    "SdramPart",
    "column_seen",
    "margins",
    "slowest",
]

BURST = 8
"""Columns that a READ or WRITE moves: a line."""
LEAST_WRITE_RECOVERY = 2
"""Cycles of tWR at least: several data sheets state it in cycles, as tDPL or tRDL."""
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class SdramCycles:
    """The times of a part in cycles of a clock; see `SdramPart`."""

    rcd: int
    rp: int
    ras: int
    ras_max: int
    rc: int
    rrd: int
    rfc: int
    wr: int
    mrd: int
    init: int
    refresh_interval: int
    retention: int


@dataclass(frozen=True, kw_only=True)
class SdramPart:
    """A chip, or several side by side that work as one.

    Parameters
    ----------
    name : the maker's part number, speed grade included
    source : where the times are from
    data_bits : data pins
    row_bits, column_bits, bank_bits : bits of an address
    rcd : ns from ACTIVE to READ or WRITE
    rp : ns from PRECHARGE to ACTIVE or AUTO REFRESH
    ras, ras_max : ns from ACTIVE to PRECHARGE, least and most
    rc : ns from ACTIVE to ACTIVE of one bank
    rrd : ns from ACTIVE to ACTIVE of different banks
    rfc : ns of an AUTO REFRESH
    wr : ns from the last written column to PRECHARGE
    mrd : cycles from MODE REGISTER SET to the next command
    refreshes : AUTO REFRESH commands within `retention_ms`
    retention_ms : time in which each row must be refreshed
    init_us : time after power-up before the first command
    cas_ns : the shortest clock period for each CAS latency
    access, hold : ns from the clock's edge until data is valid (tAC), and as long as it stays valid
        after the next edge (tOH), at CAS latency 3
    setup, input_hold : ns that an input must be stable before (tIS) and after (tIH) the edge
    """

    name: str
    source: str
    data_bits: int
    row_bits: int
    column_bits: int
    bank_bits: int = 2
    rcd: float
    rp: float
    ras: float
    rc: float
    rrd: float
    rfc: float
    wr: float
    ras_max: float = 100_000
    mrd: int = 2
    refreshes: int
    retention_ms: float = 64
    init_us: float = 200
    cas_ns: tuple[tuple[int, float], ...] = ((2, 10.0), (3, 7.5))
    access: float = 5.4
    hold: float = 2.5
    setup: float = 1.5
    input_hold: float = 0.8

    @property
    def line_bits(self) -> int:
        """Bits that a burst moves."""
        return BURST * self.data_bits

    @property
    def line_address_bits(self) -> int:
        """Bits of the number of a line; its lowest bits are the line in its page."""
        return self.row_bits + self.bank_bits + self.page_bits

    @property
    def page_bits(self) -> int:
        """Bits of the number of a line in its page."""
        return self.column_bits - (BURST - 1).bit_length()

    def cycles(self, clock_hz: int) -> SdramCycles:
        """The times in whole cycles: least times are rounded up, most times down."""

        def least(ns: float) -> int:
            return max(1, ceil(ns * clock_hz / 1e9 - ROUNDING))

        def most(ns: float) -> int:
            return floor(ns * clock_hz / 1e9 + ROUNDING)

        return SdramCycles(
            rcd=least(self.rcd),
            rp=least(self.rp),
            ras=least(self.ras),
            ras_max=most(self.ras_max),
            rc=least(self.rc),
            rrd=least(self.rrd),
            rfc=least(self.rfc),
            wr=max(LEAST_WRITE_RECOVERY, least(self.wr)),
            mrd=self.mrd,
            init=least(1000 * self.init_us),
            refresh_interval=most(1e6 * self.retention_ms / self.refreshes),
            retention=most(1e6 * self.retention_ms),
        )


@dataclass(frozen=True, kw_only=True)
class SdramMargins:
    """What is left for boards and FPGA at a clock, in ns; see `margins`.

    Parameters
    ----------
    setup, hold : by which a command is stable before and after the chip's edge, beyond what the
        chip needs; the skew between the pins is still to be taken off
    least_delay, most_delay : the round trip must be longer than the first, and the hold time of the
        FPGA's input register; and shorter than the second, less that register's setup time
    """

    setup: float
    hold: float
    least_delay: float
    most_delay: float


def margins(part: SdramPart, clock_hz: int, phase: int) -> SdramMargins:
    """The margins with the chip's clock inverted: its edge follows a command by half a cycle.

    The round trip goes from the FPGA's clock to the chip, and from its data pins to the registers
    at the FPGA's pads, less the way of the clock to these, and less any whole cycles that these
    registers take. Data is taken a cycle after a command at phase 0, and half a cycle later at each
    next phase.
    """
    period = 1e9 / clock_hz
    half = period / 2
    taken = (1 + phase / 2) * period
    return SdramMargins(
        setup=half - part.setup,
        hold=period - half - part.input_hold,
        least_delay=taken - half - period - part.hold,
        most_delay=taken - half - part.access,
    )


def column_seen(
    part: SdramPart, clock_hz: int, half: int, round_trip_ns: float, spread_ns: float = 0
) -> tuple[int, bool]:
    """Which column is at the FPGA's pads at an edge of its clock, and whether it is stable there.

    Columns are numbered by the cycle after whose rising edge the chip's own edge, half a cycle
    later, brings them.

    Parameters
    ----------
    part, clock_hz : the chip and its clock
    half : 0 for the rising edge, 1 for the falling edge half a cycle later
    round_trip_ns : see `margins`
    spread_ns : by which a column is stable for less: the pins' skew, and the registers' setup and
        hold

    Returns
    -------
    by how many cycles the column's number is less than that of the edge; whether it is stable. If
    not, the pads have a mixture of it and the next column.
    """
    period = 1e9 / clock_hz
    arrives = period / 2 + part.access + round_trip_ns + spread_ns / 2
    leaves = period / 2 + period + part.hold + round_trip_ns - spread_ns / 2
    at = half * period / 2
    cycles = ceil((arrives - at) / period)
    return cycles, cycles * period + at < leaves


def slowest(name: str, source: str, *parts: SdramPart) -> SdramPart:
    """A part that is as slow as the slowest of several of one geometry, in each time."""
    worst = replace(parts[0], name=name, source=source)
    least = ("ras_max", "retention_ms", "hold")  # a smaller one is the stricter
    for field in fields(SdramPart):
        values = [getattr(part, field.name) for part in parts]
        if field.type == "float":
            chosen = min(values) if field.name in least else max(values)
            worst = replace(worst, **{field.name: chosen})
    periods = [dict(part.cas_ns) for part in parts]
    shared = sorted(set.intersection(*(set(each) for each in periods)))
    return replace(worst, cas_ns=tuple((cas, max(each[cas] for each in periods)) for cas in shared))


_MICRON = "Micron, 256Mb SDR SDRAM, AC tables"
MT48LC16M16A2_75 = SdramPart(
    name="MT48LC16M16A2-75",
    source=_MICRON,
    data_bits=16,
    row_bits=13,
    column_bits=9,
    rcd=20,
    rp=20,
    ras=44,
    ras_max=120_000,
    rc=66,
    rrd=15,
    rfc=66,
    wr=15,
    refreshes=8192,
    init_us=100,
    hold=3.0,
)
MT48LC16M16A2_7E = replace(
    MT48LC16M16A2_75,
    name="MT48LC16M16A2-7E",
    rcd=15,
    rp=15,
    ras=37,
    rc=60,
    rrd=14,
    wr=14,
    cas_ns=((2, 7.5), (3, 7.0)),
)
IS42S16160G_7 = replace(
    MT48LC16M16A2_75,
    name="IS42S16160G-7",
    # Slower than ISSI's own table where the two differ.
    source="LiteDRAM, IS42S16160, grade 7; ISSI IS42S16160 for tRAS, tRC, tRRD, tAC, tOH",
    ras=44,
    rc=67.5,
    rfc=70,
    wr=20,
    init_us=200,
    cas_ns=((2, 10.0), (3, 7.0)),
    hold=2.5,
)
AS4C16M16SA_7 = replace(
    MT48LC16M16A2_75,
    name="AS4C16M16SA-7",
    source="Alliance Memory, AS4C16M16SA, rev. 3.0, table 16",
    rcd=21,
    rp=21,
    ras=42,
    rc=63,
    rrd=14,
    rfc=63,
    wr=14,
    init_us=200,
    cas_ns=((2, 10.0), (3, 7.0)),
    hold=2.5,
)
M12L64322A_6 = SdramPart(
    name="M12L64322A-6",
    source="LiteDRAM, M12L64322A, rounded up to a part of grade 6",
    data_bits=32,
    row_bits=11,
    column_bits=8,
    rcd=18,
    rp=18,
    ras=42,
    rc=60,
    rrd=12,
    rfc=60,
    wr=15,
    refreshes=4096,
    cas_ns=((2, 10.0), (3, 6.0)),
)
EM638325_6 = replace(
    M12L64322A_6,
    name="EM638325-6",
    source="as M12L64322A-6, whose geometry it has",
)
TANG_NANO_20K = replace(
    M12L64322A_6,
    name="tang-nano-20k",
    source="as M12L64322A-6, whose geometry the die in the GW2AR-18 has",
)
M12L16161A_X2 = SdramPart(
    name="M12L16161A-5T-x2",
    source="LiteDRAM, M12L16161A; tRC is its tRAS + tRP",
    data_bits=32,
    row_bits=11,
    column_bits=8,
    bank_bits=1,
    rcd=15,
    rp=15,
    ras=40,
    rc=55,
    rrd=10,
    rfc=55,
    wr=15,
    refreshes=4096,
    cas_ns=((2, 10.0), (3, 6.0)),
)
ULX3S = slowest(
    "ulx3s",
    "the slowest of the three parts that the board is sold with, in each time",
    MT48LC16M16A2_75,
    IS42S16160G_7,
    AS4C16M16SA_7,
)
ICESUGAR_PRO = replace(
    ULX3S,
    name="icesugar-pro",
    # ISSI's table of the other times was not found; a longer time is safe.
    source="ISSI, IS42S16160B-7, rev. D, for clock and tAC at CAS latency 3; IS42S16160A-7 for "
    "tRAS; else as slow as the part ulx3s, whose geometry it has",
    ras=45,
    cas_ns=((3, 7.0),),
)
PARTS = {
    part.name: part
    for part in (
        MT48LC16M16A2_75,
        MT48LC16M16A2_7E,
        IS42S16160G_7,
        AS4C16M16SA_7,
        M12L64322A_6,
        EM638325_6,
        TANG_NANO_20K,
        M12L16161A_X2,
        ULX3S,
        ICESUGAR_PRO,
    )
}
"""The parts that a configuration can name."""
