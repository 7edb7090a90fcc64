"""The time that a DRAM takes: banks, bank groups, page misses, refresh, one data bus."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["DDR4_2133", "LINE_BYTES", "TICK_BITS", "TIME_BITS", "Dram", "DramTiming"]

LINE_BYTES = 64
"""Bytes of an access: a burst of 8 on 64 wires."""
TICK_BITS = 6
"""A clock cycle has 2 to this power of ticks, the unit of every time here."""
TIME_BITS = 40
AHEAD_CYCLES = 2
"""How far ahead of the data bus the next access is chosen at most: the bus is one access behind."""
OPEN_CYCLES = 25
"""How far ahead a row is opened at most."""
ACTIVATES = 4
"""Activates that may lie in one window of `faw`."""


@dataclass(frozen=True, kw_only=True)
class DramTiming:
    """A DRAM and its controller; times in nanoseconds, named as in data sheets.

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
    extra: float = 60
    starved: float = 1500


DDR4_2133 = DramTiming()
"""DDR4-2133 on 64 wires, as on the boards with a Zynq UltraScale+."""


class Dram(wiring.Component):
    """Decides when the accesses of several ports are served, at most one a cycle.

    Each port's accesses are served in order. Of the ports' next accesses the one that can be read
    first goes first; of several, one whose row is open.

    Parameters
    ----------
    timing : of the DRAM
    clock_hz : of the ports
    ports : how many there are

    Members
    -------
    now : in; ticks
    valid : in, a bit a port; it has an access
    line, born : in, a number a port: the access's address in `LINE_BYTES`, and when it came
    grant : out, a bit a port; its access is decided in this cycle
    done : out; ticks at which the data of the granted access are at the port
    """

    now: Signal
    valid: Signal
    line: Any
    born: Any
    grant: Signal
    done: Signal

    def __init__(self, timing: DramTiming, clock_hz: int, ports: int) -> None:
        self.timing, self.clock_hz, self.ports = timing, clock_hz, ports
        super().__init__(
            {
                "now": In(TIME_BITS),
                "valid": In(ports),
                "line": In(data.ArrayLayout(32, ports)),
                "born": In(data.ArrayLayout(TIME_BITS, ports)),
                "grant": Out(ports),
                "done": Out(TIME_BITS),
            }
        )

    def _ticks(self, nanoseconds: float) -> int:
        return round(nanoseconds * self.clock_hz * (1 << TICK_BITS) / 1e9)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        timing, ticks = self.timing, self._ticks
        number = timing.groups * timing.banks
        group_bits = (timing.groups - 1).bit_length()
        bank_bits = (timing.banks - 1).bit_length()
        column_bits = (timing.page_bytes // LINE_BYTES - 1).bit_length()

        def times(name: str) -> Array:
            return Array(Signal(TIME_BITS, name=f"{name}_{n}") for n in range(number))

        opened = Array(Signal(name=f"opened_{n}") for n in range(number))
        rows = Array(Signal(32, name=f"row_{n}") for n in range(number))
        activated, readable, closable = times("activated"), times("readable"), times("closable")
        last_read, last_activate = Signal(TIME_BITS), Signal(TIME_BITS)
        read_group, activate_group = Signal(range(timing.groups)), Signal(range(timing.groups))
        activates = [Signal(TIME_BITS, name=f"activate_{n}") for n in range(ACTIVATES)]
        refresh = Signal(TIME_BITS, init=ticks(timing.refi))
        turn = Signal(range(self.ports))

        choices = []
        for port in range(self.ports):
            line, born = self.line[port], self.born[port]
            group = line[:group_bits]
            rest = line[group_bits + column_bits :]
            bank = Cat(rest[:bank_bits], group)
            row = rest[bank_bits:]
            hit = opened[bank] & (rows[bank] == row)
            gap = last_read + Mux(
                group == read_group,
                ticks(timing.group_clocks * timing.clock),
                ticks(timing.burst_clocks * timing.clock),
            )
            closed = _latest(closable[bank], activated[bank] + ticks(timing.ras))
            activate = _latest(
                born,
                Mux(opened[bank], closed + ticks(timing.rp), activated[bank]),
                last_activate
                + Mux(group == activate_group, ticks(timing.rrd_group), ticks(timing.rrd)),
                activates[-1] + ticks(timing.faw),
            )
            time = Signal(TIME_BITS, name=f"time_{port}")
            m.d.comb += time.eq(
                Mux(
                    hit,
                    _latest(born, gap, readable[bank]),
                    _latest(activate + ticks(timing.rcd), gap),
                )
            )
            starved = self.now > born + ticks(timing.starved)
            place = (Const(port, turn.shape()) - turn)[: len(turn)]
            key = Signal(len(place) + TIME_BITS + 3, name=f"key_{port}")
            m.d.comb += key.eq(Cat(place, ~hit, time, ~starved, ~self.valid[port]))
            choices.append((key, time, hit, group, bank, row, 1 << port))

        chosen = reduce(self._sooner, choices)
        key, time, hit, group, bank, row, grant = chosen
        now = self.now
        refreshes = refresh <= _latest(last_read, now)
        ahead, opens = AHEAD_CYCLES << TICK_BITS, OPEN_CYCLES << TICK_BITS
        with m.If(refreshes):
            begin = Signal(TIME_BITS)
            m.d.comb += begin.eq(_latest(refresh, last_read, *closable) + ticks(timing.rp))
            for n in range(number):
                m.d.sync += [opened[n].eq(0), activated[n].eq(begin + ticks(timing.rfc))]
            m.d.sync += [
                last_read.eq(_latest(last_read, begin)),
                last_activate.eq(begin + ticks(timing.rfc) - ticks(timing.rrd)),
                refresh.eq(refresh + ticks(timing.refi)),
            ]
        with m.Elif(self.valid.any() & (last_read <= now + ahead) & (time <= now + opens)):
            m.d.comb += self.grant.eq(grant)
            m.d.sync += [
                last_read.eq(time),
                read_group.eq(group),
                closable[bank].eq(time + ticks(timing.rtp)),
                turn.eq(turn + 1),
            ]
            with m.If(~hit):
                activate = time - ticks(timing.rcd)
                m.d.sync += [
                    opened[bank].eq(1),
                    rows[bank].eq(row),
                    activated[bank].eq(activate),
                    readable[bank].eq(time),
                    last_activate.eq(activate),
                    activate_group.eq(group),
                    *(a.eq(b) for a, b in zip(activates, [activate, *activates[:-1]], strict=True)),
                ]
        transfer = timing.cl + timing.burst_clocks * timing.clock + timing.extra
        m.d.comb += self.done.eq(time + ticks(transfer))
        return m

    def _sooner(self, first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
        """The choice with the lower key."""
        later = second[0] < first[0]
        return tuple(Mux(later, b, a) for a, b in zip(first, second, strict=True))


def _latest(*times: Value) -> Value:
    """The greatest of some times."""
    return reduce(lambda first, second: Mux(first < second, second, first), times)
