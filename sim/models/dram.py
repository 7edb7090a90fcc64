"""The time that a DRAM takes: banks, bank groups, page misses, refresh, one data bus.

Here are its figures, and the port at which a model asks for it. `tritloom/sim/device/dram.h` says
what they do. The simulation runs that beside the design, so a design with a DRAM takes no longer to
compile than one without.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BEAT_BITS", "COUNT_BITS", "DDR4_2133", "DramPort", "DramTiming"]

LINE_BYTES = 64
"""Bytes of an access: a burst of 8 on 64 wires."""
TICKS = 64
"""Ticks of a cycle of the ports' clock: the unit of time of the simulated DRAM."""
NAMED = (
    *("rcd", "rp", "ras", "rrd", "rrd_group", "faw", "rtp", "refi", "rfc"),
    *("starved", "ahead"),
)
"""Times that have the same name here and in `dram.h`."""
BEAT_BITS, COUNT_BITS = 32, 9
"""Bits of a beat's address in beats, and of the number of beats of a burst."""


@dataclass(frozen=True, kw_only=True)
class DramTiming:
    """A DRAM and its controller; times in nanoseconds, named as in data sheets.

    Each port's accesses are served in order. Of the ports' next accesses the one that can be read
    first goes first; of several, the one that has waited longest. Lines go round the bank groups,
    pages round the banks of a group.

    Parameters
    ----------
    groups, banks : bank groups, and banks in each; powers of two
    page_bytes : bytes of an open row over all chips
    clock : a cycle of the DRAM's clock
    burst_clocks, group_clocks : clocks from a read to the next one in another bank group, and in
        the same
    rcd, rp, cl, ras, rrd, rrd_group, faw, rtp, refi, rfc : as in data sheets; `rrd_group` is that
        of two banks of one group
    extra : what controller and interconnect add to the time of each access
    starved : an access that waits this long goes first
    outstanding : bursts of a port that the controller takes before their beats have left
    ahead : how far ahead of now the last chosen read may be when the next one is chosen
    """

    groups: int = 2
    banks: int = 4
    page_bytes: int = 8192
    clock: float = 0.9375
    burst_clocks: int = 4
    group_clocks: int = 6
    rcd: float = 14.16
    rp: float = 14.16
    cl: float = 14.16
    ras: float = 32
    rrd: float = 3.3
    rrd_group: float = 4.9
    faw: float = 21
    rtp: float = 7.5
    refi: float = 7800
    rfc: float = 350
    extra: float = 140
    starved: float = 1500
    outstanding: int = 6
    ahead: float = 8

    def numbers(self, clock_hz: int, beat_bytes: int) -> dict[str, int]:
        """The numbers of `dram.h` by their names, for ports of this clock and width."""
        burst = self.burst_clocks * self.clock
        times = {
            "burst_gap": burst,
            "group_gap": self.group_clocks * self.clock,
            "transfer": self.cl + burst + self.extra,
        }
        times |= {name: getattr(self, name) for name in NAMED}
        return {
            "beat_bytes": beat_bytes,
            "line_bytes": LINE_BYTES,
            "bank_groups": self.groups,
            "group_banks": self.banks,
            "page_lines": self.page_bytes // LINE_BYTES,
            "outstanding": self.outstanding,
            **{name: round(value * clock_hz * TICKS / 1e9) for name, value in times.items()},
        }


DDR4_2133 = DramTiming()
"""DDR4-2133 on 64 wires, as on the boards with a Zynq UltraScale+. `extra` and `outstanding` are
fitted to what bitnet-kv260 published of silicon; `tests/sim/models/test_dram.py` compares."""


class DramPort(wiring.Signature):
    """What a model tells the simulated DRAM of a port, and what it is told.

    Members
    -------
    arrives : out; a burst is taken in this cycle
    beat : out; the address of its first beat, in beats
    beats : out; how many it has
    leaves : out; the beat that is due goes out in this cycle
    room : in; the controller takes a burst in this cycle
    due : in; the next beat of the port's oldest burst is there
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "arrives": Out(1),
                "beat": Out(BEAT_BITS),
                "beats": Out(COUNT_BITS),
                "leaves": Out(1),
                "room": In(1),
                "due": In(1),
            }
        )
