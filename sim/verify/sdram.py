"""A chip of SDR SDRAM at the pads of a design under test, with the registers between both.

It has the chip's banks, rows and bursts, so that what is written comes back. It refuses commands
that make no sense; the chip's times are checked by its model in the simulated FPGA.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.memories.sdram_parts import BURST, SdramPart, column_seen
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["SdramChip", "attach"]

NOTHING, ACTIVE, READ, WRITE, PRECHARGE, REFRESH, MODE = 0b111, 0b011, 0b101, 0b100, 0b010, 0b001, 0
ALL_BANKS = 1 << 10
MOST_CYCLES = 3
"""Cycles of the chip's clock that the way to it and back takes at most."""


class SdramChip:
    """What a chip does in each cycle of its clock.

    Parameters
    ----------
    part : its sizes and times
    cas : its CAS latency
    clock_hz : its clock
    round_trip_ns : see `tritloom.rtl.memories.sdram_parts.margins`
    """

    def __init__(self, part: SdramPart, cas: int, clock_hz: int, round_trip_ns: float) -> None:
        self.part = part
        self._words: dict[int, int] = {}
        self._rows: list[int | None] = [None] * (1 << part.bank_bits)
        # From a command's cycle to that of the edge at which its first column is seen: the register
        # at the command's pads, the latency, and what the way takes.
        seen = [column_seen(part, clock_hz, half, round_trip_ns) for half in (0, 1)]
        self._delays = [(cas + cycles, stable) for cycles, stable in seen]
        self._now = 0
        self._columns: dict[int, int] = {}  # by the cycle of the command and the column's number
        self._writes = 0  # columns of a WRITE still to come
        self._place = 0  # of the next one

    def cycle(self, order: int, bank: int, address: int, data: int) -> list[int]:
        """The data at the design's inputs in the next cycle: of the rising and the falling edge.

        Parameters
        ----------
        order : `ras_n`, `cas_n`, `we_n` of this cycle, the first one highest
        bank, address, data : the pads in this cycle

        Raises
        ------
        AssertionError : the command does not fit the state of the bank
        """
        if order == ACTIVE:
            assert self._rows[bank] is None, f"SDRAM: ACTIVE of bank {bank}, which is open"
            self._rows[bank] = address
        elif order == PRECHARGE:
            for number in range(len(self._rows)) if address & ALL_BANKS else (bank,):
                self._rows[number] = None
        elif order in (READ, WRITE):
            row = self._rows[bank]
            assert row is not None, f"SDRAM: READ or WRITE of bank {bank}, which is closed"
            assert not self._writes, "SDRAM: READ or WRITE within a WRITE"
            column = address % (1 << self.part.column_bits)
            line = (row << self.part.bank_bits | bank) << self.part.column_bits | column
            if order == WRITE:
                self._place, self._writes = line, BURST
            else:
                for n in range(BURST):
                    self._columns[self._now + n] = self._words.get(line + n, 0)
        elif order in (REFRESH, MODE):
            assert not any(row is not None for row in self._rows), "SDRAM: REFRESH of open banks"
        if self._writes:
            self._words[self._place] = data
            self._place += 1
            self._writes -= 1
        self._now += 1
        last = max(delay for delay, _ in self._delays)
        self._columns.pop(self._now - last - 2, None)
        seen = []
        for delay, stable in self._delays:
            column = self._columns.get(self._now - 1 - delay, 0)
            seen.append(column if stable else column ^ (1 << self.part.data_bits) - 1)
        return seen


def attach(
    dut: Any, config: AcceleratorConfig, clock: Any, reset: Any, reset_active_high: bool, seed: str
) -> None:
    """Put a chip at the pads `sdram_…` of a design.

    Parameters
    ----------
    dut : the design, in cocotb
    config : its configuration, whose memory is an `Sdram`
    clock : the chip's, a pin of the design
    reset, reset_active_high : of the design; a chip has no reset
    seed : of the round trip
    """
    import cocotb
    from cocotb.triggers import RisingEdge

    record = config.memory
    assert isinstance(record, Sdram)
    most_ns = MOST_CYCLES * 1e9 / record.chip_hz(config)
    round_trip_ns = random.Random(seed).uniform(0, most_ns)
    chip = SdramChip(record.chip, record.cas, record.chip_hz(config), round_trip_ns)
    names = ("ras_n", "cas_n", "we_n", "bank", "address", "dq_o")
    pads = [getattr(dut, f"sdram_{name}") for name in names]
    inputs = (dut.sdram_dq_i, dut.sdram_dq_i_fall)
    for pin in inputs:
        pin.value = 0
    edge: Callable[[Any], Any] = RisingEdge

    async def run() -> None:
        while True:
            await edge(clock)
            ras, cas, we, bank, address, written = (int(pad.value) for pad in pads)
            columns = chip.cycle(ras << 2 | cas << 1 | we, bank, address, written)
            for pin, column in zip(inputs, columns, strict=True):
                pin.value = column

    cocotb.start_soon(run())
