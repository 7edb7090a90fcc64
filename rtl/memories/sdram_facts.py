"""Facts of the weight memory in SDR SDRAM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from types import MappingProxyType
from typing import Any, ClassVar

from tritloom.rtl.memories.line_facts import LineFormat, LineRecord
from tritloom.rtl.memories.sdram_parts import BURST, PARTS, SdramCycles, SdramPart
from tritloom.rtl.spec.plugins import Config, require, require_integer

__all__ = ["PHASES", "SCAN_LINES", "Sdram"]

PHASES = 16
"""Half cycles of the clock at which data may be taken, tried after power-up."""
PHASE_CYCLES = PHASES // 2
SCAN_LINES = 8
"""Lines, from line 0 on, that the search for the phase overwrites."""
USUAL_PHASE_CYCLES = 1
"""Whole cycles of the phase that a board is thought to need."""
MOST_REFRESHES = 16
USUAL_REFRESHES = 8
FIRST_REFRESHES = 8
"""AUTO REFRESH commands at power-up at least."""
MOST_HZ = 400_000_000
MOST_WAIT = 40
"""Cycles that a group of refreshes waits at most: for a burst, a write's recovery, and tRAS."""
LEAST_ACTIVE_DISTANCE = 2
"""Cycles from one ACTIVE to the next at least, as the controller chooses them."""
FIRST_BEAT = 9
"""Cycles from a range to its first beat, beside tRCD and the CAS latency."""
EXTRA_CYCLES = 12
"""Cycles that a refresh or a page may cost beyond the chip's times: one burst, and deciding."""
ORDER_CROSSING = 6
"""Cycles of the chip's clock at most in which a range crosses to it and a beat leaves it: the
phase, two synchronising registers, the queue's output, one to spare where both edges fall together,
and the register before the queue of beats."""
BEAT_CROSSING = 5
"""The same of the accelerator's clock for a beat."""


@dataclass(frozen=True, kw_only=True)
class Sdram(LineRecord):
    """Weight words in a chip of SDR SDRAM, at the accelerator's clock or at one of its own.

    Parameters
    ----------
    words : weight words that it holds
    part : the chip, a name of `PARTS`; its line is 8 columns, its beat a column
    cas : CAS latency, 2 or 3
    refreshes : AUTO REFRESH commands in a row, 1 to 16. More in a row close the pages less often.
        0 is 8, or fewer if a page could else stay open for longer than the part allows.
    clock_hz : clock of the chip and its controller; 0 is the accelerator's own
    """

    name: ClassVar[str] = "sdram"
    component: ClassVar[str] = "tritloom.rtl.memories.sdram:SdramMemory"
    model: ClassVar[str] = "tritloom.sim.models.sdram:SdramModel"
    bench: ClassVar[str] = "tritloom.sim.verify.sdram:attach"
    resource: ClassVar[str] = "sdram"
    tie: ClassVar[str] = "tritloom.boards.pins.sdram:tie"
    can_fail: ClassVar[bool] = True
    void_remedy: ClassVar[str] = (
        "after power-up the SDRAM's data was right at no phase of its clock; switch the device off "
        "and on, and if that fails too, check the chip's part and pins, or build with a lower clock"
    )
    pins: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "sdram_cke": "clock enable; all outputs need equal registers at the pads",
            "sdram_ras_n": "row address strobe, low when active",
            "sdram_cas_n": "column address strobe, low when active",
            "sdram_we_n": "write enable, low when active",
            "sdram_bank": "bank",
            "sdram_address": "row, or column",
            "sdram_dqm": "data masks, high when data is masked",
            "sdram_dq_i": "data from the chip, taken at the rising edge of the clock",
            "sdram_dq_i_fall": "data from the chip, taken at the falling edge half a cycle later",
            "sdram_dq_o": "data to the chip",
            "sdram_dq_oe": "high while dq_o drives the data pins, and some cycles around it",
        }
    )

    part: str = "ulx3s"
    cas: int = 3
    refreshes: int = 0
    clock_hz: int = 0

    @property
    def chip(self) -> SdramPart:
        """The part's facts."""
        return PARTS[self.part]

    def title(self) -> str:
        clock = f" at {self.clock_hz / 1e6:g} MHz" if self.clock_hz else ""
        return f"SDRAM {self.part}{clock}"

    def own_clock_hz(self, config: Config) -> int:
        return self.clock_hz

    def chip_hz(self, config: Config) -> int:
        """The clock of the chip and its controller."""
        return self.clock_hz or config.clock_hz

    def joined(self, config: Config) -> int:
        """Columns that enter the accelerator together: as many as the chip brings in its cycle."""
        columns = 1
        while columns * config.clock_hz < self.chip_hz(config) and columns < BURST:
            columns *= 2
        return columns

    def line_sizes(self, config: Config) -> tuple[int, int]:
        return self.chip.line_bits, self.chip.data_bits * self.joined(config)

    def peak_bits(self, config: Config) -> float:
        """A column in each cycle of the chip."""
        return self.chip.data_bits * self.chip_hz(config) / config.clock_hz

    def chip_format(self, config: Config) -> LineFormat:
        """The lines as the controller has them: a beat is a column."""
        return replace(self.line_format(config), beat_bits=self.chip.data_bits)

    def layout_dict(self) -> dict[str, Any]:
        """The line's bits beside the words: they decide where layers may begin."""
        return super().layout_dict() | {"line_bits": self.chip.line_bits}

    def cycles(self, config: Config) -> SdramCycles:
        """The part's times in cycles of the chip's clock."""
        return self.chip.cycles(self.chip_hz(config))

    def group(self, config: Config) -> int:
        """AUTO REFRESH commands in a row."""
        cycles = self.cycles(config)
        most = (cycles.ras_max - MOST_WAIT) // cycles.refresh_interval
        return self.refreshes or max(1, min(USUAL_REFRESHES, most))

    def interval(self, config: Config) -> int:
        """Cycles of the chip's clock from one group of AUTO REFRESH to the next.

        The chip refreshes its rows in turn. A row must be refreshed again within its part of the
        retention time, also if one group comes at once and a later one has to wait.
        """
        cycles = self.cycles(config)
        group = self.group(config)
        rows = 1 << self.chip.row_bits
        limit = cycles.retention * rows // self.chip.refreshes
        moves = 0 if rows % group == 0 else group * cycles.rfc  # a row's place in its group
        longest = (limit - MOST_WAIT - moves) // -(-rows // group)
        return min(group * cycles.refresh_interval, longest)

    def check(self, config: Config) -> None:
        require(
            isinstance(self.part, str) and self.part in PARTS,
            f"memory: part must be one of {', '.join(PARTS)}, not {self.part!r}",
        )
        periods = dict(self.chip.cas_ns)
        require_integer("memory: cas", self.cas, min(periods), max(periods))
        require_integer("memory: refreshes", self.refreshes, 0, MOST_REFRESHES)
        require_integer("memory: clock_hz", self.clock_hz, 0, MOST_HZ)
        require(
            self.chip_hz(config) <= BURST * config.clock_hz,
            f"memory: clock_hz must be at most {BURST} times the accelerator's, "
            f"not {self.clock_hz}",
        )
        super().check(config)
        lines = self.line_format(config).lines
        most_lines = 1 << self.chip.line_address_bits
        require(
            lines <= most_lines,
            f"memory: {self.part} holds {most_lines} lines of {self.chip.line_bits} bits, "
            f"not {lines}; choose fewer words",
        )
        fastest = round(1e9 / periods[self.cas])
        clock = "memory: clock_hz" if self.clock_hz else "clock_hz"
        require(
            self.chip_hz(config) <= fastest,
            f"{clock} must be at most {fastest} for {self.part} at CAS latency {self.cas}, "
            f"not {self.chip_hz(config)}",
        )
        cycles = self.cycles(config)
        group = self.group(config)
        # A page that nobody reads from stays open until the next refresh.
        longest = self.interval(config) + MOST_WAIT
        require(
            longest <= cycles.ras_max,
            f"memory: refreshes must be fewer, not {group}: a page of {self.part} may stay open "
            f"for {cycles.ras_max} cycles, not {longest}; choose 0",
        )
        # The controller has no timers for tRAS, tRC and tRRD: what it does takes longer.
        require(
            cycles.ras <= cycles.rcd + BURST
            and cycles.rc <= cycles.rcd + BURST + cycles.rp
            and cycles.rrd <= max(LEAST_ACTIVE_DISTANCE, cycles.rcd - 1),
            f"{clock} is too high for the bursts of {self.part}; choose a lower one",
        )

    def first_beat(self, config: Config) -> int:
        """Cycles from a range of lines to its first beat, if nothing holds it up.

        It counts `USUAL_PHASE_CYCLES` for the way of the data; a board may need more or fewer. With
        a clock of its own at most so many; how the clocks lie to each other decides.
        """
        first = FIRST_BEAT + self.cycles(config).rcd + self.cas + USUAL_PHASE_CYCLES
        if not self.clock_hz:
            return first
        first += ORDER_CROSSING + self.joined(config)
        return 1 + self._core_cycles(config, first) + BEAT_CROSSING

    def _core_cycles(self, config: Config, cycles: float) -> int:
        """Cycles of the accelerator in which so many of the chip's end."""
        return ceil(cycles * config.clock_hz / self.chip_hz(config))

    def start_cycles(self, config: Config) -> int:
        """The time after power-up, the chip's initialisation, and the search for the phase."""
        cycles = self.cycles(config)
        refreshes = max(FIRST_REFRESHES, self.group(config)) * cycles.rfc
        start = cycles.init + cycles.rp + refreshes + cycles.mrd + EXTRA_CYCLES
        around = cycles.rp + cycles.rcd + EXTRA_CYCLES  # of a page's commands
        write = around + 2 * BURST + cycles.wr
        read = around + BURST * SCAN_LINES + FIRST_BEAT + self.cas + PHASE_CYCLES
        scan = SCAN_LINES * write + PHASES * read
        return self._core_cycles(config, start + self._with_refreshes(config, scan))

    def _with_refreshes(self, config: Config, cycles: int) -> int:
        """Cycles of the chip in which so many are left beside the refreshes, at most.

        A refresh may come whenever one is due. Each makes time for further ones, but far less than
        an interval.
        """
        t, group = self.cycles(config), self.group(config)
        refresh = t.rp + group * t.rfc + t.rcd + BURST + EXTRA_CYCLES
        return cycles + refresh * (cycles // (self.interval(config) - refresh) + 2)

    def most_cycles(self, config: Config, words: int) -> int:
        """Every page may wait for its bank, and a refresh may come whenever one is due.

        The data may be taken at the last phase.
        """
        cycles = self.cycles(config)
        sizes = self.line_format(config)
        lines = -(-words * sizes.block_lines // sizes.block_words) + 2 * sizes.block_lines
        beats = lines * BURST
        pages = -(-lines // (1 << self.chip.page_bits)) + 1
        page = cycles.rp + cycles.rcd + BURST + EXTRA_CYCLES
        streaming = beats + pages * page + self.cas + PHASE_CYCLES + EXTRA_CYCLES
        if self.clock_hz:
            # At worst the chip waits in each cycle in which the accelerator takes a beat.
            taken = beats // self.joined(config) * self.chip_hz(config)
            streaming += -(-taken // config.clock_hz) + ORDER_CROSSING + self.joined(config)
        cycles_of_chip = self._with_refreshes(config, streaming)
        if not self.clock_hz:
            return max(words, cycles_of_chip)
        return max(words, 1 + self._core_cycles(config, cycles_of_chip) + BEAT_CROSSING)

    def expected(self, config: Config) -> tuple[int, float]:
        """The first word's way, and the share of cycles in which the chip gives data.

        A long range loses only the refreshes. A word may take several cycles of the chip.
        """
        cycles = self.cycles(config)
        group = self.group(config)
        lost = cycles.rp + group * cycles.rfc + cycles.rcd
        faster = self.chip_hz(config) / config.clock_hz
        rate = min(1.0, self.chip.data_bits * faster / config.word_bits)
        sizes = self.line_format(config)
        latency = sizes.first_word_cycles(self.first_beat(config))
        return latency, rate * (1 - lost / self.interval(config))
