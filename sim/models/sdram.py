"""A chip of SDR SDRAM that refuses what its data sheet forbids.

It is written from the data sheets (`tritloom.rtl.memories.sdram_parts`), apart from the controller.
It knows commands, times and rows, and nothing of segments or groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory

from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.memories.sdram_parts import SdramCycles, column_seen
from tritloom.rtl.memories.sdram_store import sdram_pads
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.sim.models.contract import MemoryModel, Store

__all__ = ["SdramModel"]

ACTIVE, READ, WRITE, PRECHARGE, REFRESH, MODE = 0b011, 0b101, 0b100, 0b010, 0b001, 0b000
NOTHING = 0b111
ALL_BANKS = 10
"""Bit of the address: PRECHARGE closes all banks; READ and WRITE close theirs by themselves."""
COLUMNS = 8
INITIAL_REFRESHES = 8
MASK_CYCLES = 2
"""Cycles from a mask until it hides a column that is read."""
UNDRIVEN = 0x5A
"""What a byte reads as while nobody drives it."""
ROUND_TRIP_NS = 4.5
"""In the middle of what the ways to and from a chip are thought to take."""
LEAST = ("rcd", "rp", "ras", "rc", "rrd", "rfc", "wr", "mrd", "init")


class Age:
    """Cycles since an event, up to a limit; at power-up the event is that long ago."""

    def __init__(self, m: Module, name: str, limit: int, event: Value) -> None:
        self.value = Signal(range(limit + 1), init=limit, name=name)
        with m.If(event):
            m.d.sync += self.value.eq(1)
        with m.Elif(self.value != limit):
            m.d.sync += self.value.eq(self.value + 1)

    def less(self, cycles: int) -> Value:
        """Whether the event is fewer cycles ago."""
        return self.value < cycles


class SdramModel(MemoryModel):
    """The chip, and the registers at the FPGA's pads.

    Parameters
    ----------
    config : its memory is an `Sdram`
    stricter : by how many cycles a time is stricter than in the data sheet, by its name in
        `SdramCycles`; for tests of the model
    retention : cycles in which all refreshes must come, instead of the data sheet's; for tests that
        are shorter
    round_trip_ns : from the FPGA's clock to the chip and back to the registers at the FPGA's pads,
        at least 0; see `tritloom.rtl.memories.sdram_parts.margins`
    spread_ns : by which a column is stable at the pads for less time
    """

    RULES: ClassVar[Mapping[int, str]] = {
        1: "the time after power-up before the first command",
        2: "tRCD, from ACTIVE to READ or WRITE",
        3: "tRP, from PRECHARGE to ACTIVE, REFRESH or MODE",
        4: "tRAS, from ACTIVE to PRECHARGE",
        5: "the most that a row may stay open",
        6: "tRC, from ACTIVE to ACTIVE of a bank",
        7: "tRRD, from ACTIVE to ACTIVE of two banks",
        8: "tRFC, after REFRESH",
        9: "tWR, from the last written column to PRECHARGE",
        10: "tMRD, after MODE",
        11: "the order of initialisation: PRECHARGE of all banks, eight REFRESH, MODE",
        12: "the mode: bursts of 8 in order, and the CAS latency of the configuration",
        13: "ACTIVE of a closed bank only",
        14: "READ and WRITE of an open bank only",
        15: "READ and WRITE without precharge, at the first column of a line",
        16: "whole bursts: a command cuts one off",
        17: "REFRESH and MODE with all banks closed only",
        18: "the data pins: two drive them, or nobody does in a WRITE",
        19: "the age of a row: it was refreshed too long ago",
        20: "the rows: there is none of that number",
        21: "the commands: this one is not known, or the clock is not enabled",
    }

    def __init__(
        self,
        config: AcceleratorConfig,
        *,
        stricter: Mapping[str, int] | None = None,
        retention: int | None = None,
        round_trip_ns: float = ROUND_TRIP_NS,
        spread_ns: float = 0,
    ) -> None:
        record = config.memory
        if not isinstance(record, Sdram):
            raise ConfigError(f"memory {record.name!r} is no SDRAM")
        if round_trip_ns < 0:
            raise ConfigError(f"round_trip_ns must be at least 0, not {round_trip_ns}")
        self.part = record.chip
        self.cas = record.cas
        self.seen = [
            column_seen(self.part, record.chip_hz(config), half, round_trip_ns, spread_ns)
            for half in (0, 1)
        ]
        cycles = record.cycles(config)
        known = {field.name for field in fields(SdramCycles)}
        for name, more in (stricter or {}).items():
            if name not in known:
                raise ConfigError(f"stricter must name times of SdramCycles, not {name!r}")
            sign = 1 if name in LEAST else -1
            cycles = replace(cycles, **{name: getattr(cycles, name) + sign * more})
        self.cycles = cycles if retention is None else replace(cycles, retention=retention)
        pads = {name: member.flip() for name, member in sdram_pads(self.part).items()}
        words = 1 << (self.part.line_address_bits + (COLUMNS - 1).bit_length())
        super().__init__(config, pads, (Store(words=words, bits=self.part.data_bits),))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._broken: list[tuple[int, Value]] = []
        pad = self._pad_registers(m)
        order = Signal(3)
        m.d.comb += order.eq(Cat(pad["we_n"], pad["cas_n"], pad["ras_n"]))
        self._is = {
            each: Signal(name=f"is_{name}")
            for name, each in (
                ("active", ACTIVE),
                ("read", READ),
                ("write", WRITE),
                ("precharge", PRECHARGE),
                ("refresh", REFRESH),
                ("mode", MODE),
            )
        }
        for each, signal in self._is.items():
            m.d.comb += signal.eq(order == each)
        self._ready = Signal()  # the mode is set
        rows = self._banks(m, pad)
        self._initialise(m, pad, order)
        self._ages_of_rows(m)
        self._columns(m, pad, rows)
        for number, broken in reversed(self._broken):
            with m.If(broken):
                m.d.comb += self.violation.eq(number)
        return m

    def _rule(self, number: int, broken: Value) -> None:
        self._broken.append((number, broken))

    def _pad_registers(self, m: Module) -> dict[str, Signal]:
        """The outputs of the FPGA behind the registers at its pads."""
        registers = {}
        for name in ("cke", "ras_n", "cas_n", "we_n", "bank", "address", "dqm", "dq_o", "dq_oe"):
            inside = getattr(self, f"sdram_{name}")
            init = -1 if name.endswith("_n") or name == "dqm" else 0
            register = Signal(len(inside), name=f"pad_{name}", init=init & ((1 << len(inside)) - 1))
            m.d.sync += register.eq(inside)
            registers[name] = register
        return registers

    def _banks(self, m: Module, pad: Mapping[str, Signal]) -> Any:
        """The state of the banks, and the times of their commands; the open row of each."""
        t, order = self.cycles, self._is
        active, precharge = order[ACTIVE], order[PRECHARGE]
        column = order[READ] | order[WRITE]
        bank, address = pad["bank"], pad["address"]
        count = 1 << self.part.bank_bits
        is_open = Signal(count)
        rows = Array(Signal(self.part.row_bits, name=f"row_{n}") for n in range(count))
        since_any = Age(m, "since_any_active", t.rrd, active)
        self._since_refresh = Age(m, "since_refresh", t.rfc, order[REFRESH])
        self._since_mode = Age(m, "since_mode", t.mrd, order[MODE])
        self._since_column = Age(m, "since_column", COLUMNS, column)
        closing = Signal()  # the last PRECHARGE is too short ago for REFRESH and MODE
        for number in range(count):
            here = bank == number
            shuts = precharge & (here | address[ALL_BANKS])
            opened = Signal(name=f"open_{number}")
            m.d.comb += opened.eq(is_open[number])
            limit = max(t.ras_max + 1, t.rc)
            act = Age(m, f"since_active_{number}", limit, active & here)
            pre = Age(m, f"since_precharge_{number}", t.rp, shuts)
            read = Age(m, f"since_read_{number}", COLUMNS, order[READ] & here)
            write = Age(m, f"since_write_{number}", COLUMNS + t.wr, order[WRITE] & here)
            with m.If(active & here):
                m.d.sync += [is_open[number].eq(1), rows[number].eq(address)]
            with m.If(shuts):
                m.d.sync += is_open[number].eq(0)
            with m.If(pre.less(t.rp)):
                m.d.comb += closing.eq(1)
            self._rule(2, column & here & act.less(t.rcd))
            self._rule(3, active & here & pre.less(t.rp))
            self._rule(4, shuts & opened & act.less(t.ras))
            self._rule(5, opened & ~act.less(t.ras_max + 1))
            self._rule(6, active & here & act.less(t.rc))
            self._rule(9, shuts & opened & write.less(COLUMNS - 1 + t.wr))
            self._rule(13, active & here & opened)
            self._rule(14, column & here & ~opened)
            self._rule(16, shuts & opened & (read.less(COLUMNS) | write.less(COLUMNS)))
        self._rule(3, (order[REFRESH] | order[MODE]) & closing)
        self._rule(7, active & since_any.less(t.rrd))
        self._rule(15, column & (address[ALL_BANKS] | (address[:3] != 0)))
        self._rule(16, column & self._since_column.less(COLUMNS))
        self._rule(17, (order[REFRESH] | order[MODE]) & is_open.any())
        self._rule(20, active & (address >= 1 << self.part.row_bits))
        return rows

    def _initialise(self, m: Module, pad: Mapping[str, Signal], order: Signal) -> None:
        """The order of the first commands, and what must rest after REFRESH and MODE."""
        t, commands = self.cycles, self._is
        some = order != NOTHING
        waited = Signal(range(t.init + 1))
        shut = Signal()  # all banks were closed
        refreshes = Signal(range(INITIAL_REFRESHES + 1))
        with m.If(waited != t.init):
            m.d.sync += waited.eq(waited + 1)
        with m.If(commands[PRECHARGE] & pad["address"][ALL_BANKS]):
            m.d.sync += shut.eq(1)
        with m.If(commands[REFRESH] & (refreshes != INITIAL_REFRESHES)):
            m.d.sync += refreshes.eq(refreshes + 1)
        with m.If(commands[MODE]):
            m.d.sync += self._ready.eq(1)
        needs_mode = commands[ACTIVE] | commands[READ] | commands[WRITE]
        mode = self.cas << 4 | 0b011
        self._rule(1, some & (waited != t.init))
        self._rule(8, some & self._since_refresh.less(t.rfc))
        self._rule(10, some & self._since_mode.less(t.mrd))
        self._rule(11, needs_mode & ~self._ready)
        self._rule(11, commands[REFRESH] & ~shut)
        self._rule(11, commands[MODE] & (refreshes != INITIAL_REFRESHES))
        self._rule(12, commands[MODE] & ((pad["address"] != mode) | (pad["bank"] != 0)))
        known = Signal()
        m.d.comb += known.eq(Cat(commands.values()).any())
        self._rule(21, some & (~known | ~pad["cke"]))

    def _ages_of_rows(self, m: Module) -> None:
        """Each cycle looks at the age of one row; all are seen long before any could be too old."""
        t, rows = self.cycles, 1 << self.part.row_bits
        # A chip whose rows are fewer than its refreshes has each of them refreshed more than once.
        limit = t.retention * rows // self.part.refreshes
        bits = (limit + 2 * rows).bit_length() + 1
        now, begun = Signal(bits, init=1), Signal(bits)
        scan = Signal(self.part.row_bits)
        next_row = Signal(self.part.row_bits)  # the chip's own counter of AUTO REFRESH
        m.submodules.stamps = stamps = Memory(shape=bits, depth=rows, init=[])
        write, read = stamps.write_port(), stamps.read_port(domain="comb")
        age = Signal(bits)
        m.d.sync += [now.eq(now + 1), scan.eq(scan + 1)]
        m.d.comb += [
            write.addr.eq(next_row),
            write.data.eq(now),
            write.en.eq(self._is[REFRESH]),
            read.addr.eq(scan),
            # A row that was never refreshed holds nothing from before the chip was ready.
            age.eq(now - Mux(read.data == 0, begun, read.data)),
        ]
        with m.If(self._is[REFRESH]):
            m.d.sync += next_row.eq(next_row + 1)
        with m.If(~self._ready):
            m.d.sync += begun.eq(now)
        self._rule(19, self._ready & (age > limit))

    def _columns(self, m: Module, pad: Mapping[str, Signal], rows: Any) -> None:
        """What READ brings and WRITE takes."""
        port = self.store_0
        low = (COLUMNS - 1).bit_length()
        line = Signal(self.part.line_address_bits)  # of the command in this cycle
        m.d.comb += line.eq(
            Cat(pad["address"][low : self.part.column_bits], pad["bank"], rows[pad["bank"]])
        )

        # The column's word comes a cycle after its address, CAS cycles after the READ.
        begins, of = self._is[READ], line
        for stage in range(self.cas - 1):
            later, later_line = Signal(name=f"begins_{stage}"), Signal.like(line)
            m.d.sync += [later.eq(begins), later_line.eq(of)]
            begins, of = later, later_line
        read_line, read_column = Signal.like(line), Signal(low)
        fetches, drives, drove = Signal(), Signal(), Signal()
        m.d.comb += fetches.eq(begins | (read_column != 0))
        with m.If(fetches):
            m.d.sync += read_column.eq(read_column + 1)
        with m.If(begins):
            m.d.sync += read_line.eq(of)
        m.d.sync += [drives.eq(fetches), drove.eq(drives)]

        write_line, write_column = Signal.like(line), Signal(low)
        puts = Signal()
        m.d.comb += puts.eq(self._is[WRITE] | (write_column != 0))
        with m.If(puts):
            m.d.sync += write_column.eq(write_column + 1)
        with m.If(self._is[WRITE]):
            m.d.sync += write_line.eq(line)
        m.d.comb += [
            port.address.eq(Cat(read_column, Mux(begins, of, read_line))),
            port.data.eq(pad["dq_o"]),
        ]
        with m.If(puts):
            m.d.comb += [
                port.address.eq(Cat(write_column, Mux(self._is[WRITE], line, write_line))),
                port.write.eq(~pad["dqm"]),
            ]

        mask: Value = pad["dqm"]
        for _ in range(MASK_CYCLES):
            later_mask = Signal.like(pad["dqm"], name="masked")
            m.d.sync += later_mask.eq(mask)
            mask = later_mask
        read = Signal(len(port.word), name="column_0", init=0)
        for byte in range(len(mask)):
            shown = drives & ~mask[byte]
            m.d.sync += read.word_select(byte, 8).eq(
                Mux(shown, port.word.word_select(byte, 8), UNDRIVEN)
            )
        # The registers at the pads have what came at the rising edge before the last one, and half
        # a cycle later. `read` is the column before that edge's, and what follows it is older.
        columns: list[Value] = [~read, read]
        pads = (self.sdram_dq_i, self.sdram_dq_i_fall)
        for pad_i, (cycles, stable) in zip(pads, self.seen, strict=True):
            while len(columns) <= cycles:
                older = Signal(len(read), name=f"column_{len(columns) - 1}")
                m.d.sync += older.eq(columns[-1])
                columns.append(older)
            changed = columns[cycles if stable else cycles - 1]  # has the bits that change first
            m.d.comb += pad_i.eq(
                Cat((columns[cycles], changed)[n % 2][n] for n in range(len(read)))
            )
        self._rule(18, pad["dq_oe"] & (drives | drove | fetches))
        self._rule(18, puts & ~pad["dq_oe"])
