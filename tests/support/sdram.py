"""An SDRAM controller at the model of its chip, for Amaranth's simulator."""

import random
from dataclasses import replace
from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.memories.line_contract import line_members
from tritloom.rtl.memories.sdram_facts import PHASES, SCAN_LINES, Sdram
from tritloom.rtl.memories.sdram_parts import BURST, PARTS, SdramPart
from tritloom.rtl.memories.sdram_scan import PATTERN, PATTERN_COLUMNS
from tritloom.rtl.memories.sdram_store import SdramStore
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.sim.conformance.streams import simulate, sink, source
from tritloom.sim.models.contract import VIOLATION_BITS, StoreSignature
from tritloom.sim.models.sdram import SdramModel
from tritloom.sim.models.surrounded import store_bench

Range = tuple[int, int]

ACCELERATOR = AcceleratorConfig(
    lanes=5,
    rows=8,
    fill=5,
    memory=Sdram(words=1 << 22),
    max_in_features=3072,
    max_out_features=6144,
    max_layers=64,
    link=PacketStream(width=2),
    packet_bytes=1024,
    slots=4,
    clock_hz=100_000_000,
)
"""A whole accelerator with all of a ULX3S's SDRAM. Tests share it: its simulation compiles once."""


def small_part(part: SdramPart, row_bits: int = 4, init_us: float = 0.5) -> SdramPart:
    """A part with few rows that is ready soon, in `PARTS` under a name of its own.

    A refresh is due as often as in the real part, so all rows are refreshed in less time.
    """
    fewer = 1 << part.row_bits - row_bits
    small = replace(
        part,
        name=f"test-{part.name}-{row_bits}",
        row_bits=row_bits,
        init_us=init_us,
        refreshes=part.refreshes // fewer,
        retention_ms=part.retention_ms / fewer,
    )
    PARTS[small.name] = small
    return small


def sdram_config(
    part: str, mhz: float = 100, words: int = 1 << 14, **options: Any
) -> AcceleratorConfig:
    """A small accelerator with words of 16 bits in a part."""
    return AcceleratorConfig(
        lanes=10,
        rows=1,
        memory=Sdram(words=words, part=part, **options),
        max_in_features=160,
        max_out_features=64,
        packet_bytes=256,
        clock_hz=round(mhz * 1e6),
    )


def pattern(bits: int) -> dict[int, int]:
    """The columns that the search for the phase leaves in the chip, by address."""
    words = {
        0: sum(1 << bit for bit in range(1, bits, 2)),
        1: sum(1 << b for b in range(0, bits, 2)),
    }
    columns = range(SCAN_LINES * BURST)
    return {n: words[PATTERN >> n % PATTERN_COLUMNS & 1] for n in columns}


class StoreAtChip(wiring.Component):
    """A `SdramStore` with the chip's model at its pads."""

    def __init__(self, config: AcceleratorConfig, store: Any = SdramStore, **options: Any) -> None:
        record = config.memory
        assert isinstance(record, Sdram)
        self.format = record.line_format(config)
        self.model = SdramModel(config, **options)
        self.controller = store(record, config, self.format)
        super().__init__(
            {
                **line_members(self.format),
                "store_0": Out(StoreSignature(self.model.stores[0])),
                "violation": Out(VIOLATION_BITS),
                "phase": Out(range(PHASES)),
                "failed": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.model = model = self.model
        m.submodules.controller = controller = self.controller
        for name, member in model.signature.members.items():
            if name.startswith("sdram_"):
                inside, outside = getattr(controller, name), getattr(model, name)
                m.d.comb += outside.eq(inside) if member.flow == In else inside.eq(outside)
        connect(m, flipped(self.i_write), controller.i_write)
        connect(m, flipped(self.i_read), controller.i_read)
        connect(m, controller.o, flipped(self.o))
        connect(m, model.store_0, flipped(self.store_0))
        m.d.comb += [
            self.violation.eq(model.violation),
            self.phase.eq(controller.scan.phase),
            self.failed.eq(controller.scan.failed),
        ]
        return m


class Broken(AssertionError):
    """The model refuses a command."""

    def __init__(self, number: int, cycle: int) -> None:
        super().__init__(f"{SdramModel.RULES[number]}, in cycle {cycle}")
        self.number = number


class Exchange:
    """Runs writes and ranges on a controller and compares every beat.

    Parameters
    ----------
    dut : the controller at the chip
    seed : of contents and pauses

    Members
    -------
    contents : the chip's columns by address
    asked, came : cycles in which a range was asked for, and in which a beat came
    phase, failed : what the search for the phase has found
    """

    def __init__(self, dut: StoreAtChip, seed: int) -> None:
        self.dut, self.seed = dut, seed
        self.part = dut.model.part
        self.contents: dict[int, int] = {}
        self.asked: list[int] = []
        self.came: list[int] = []
        self.phase, self.failed = 0, False

    def fill(self, lines: list[int]) -> None:
        """Put random columns into lines of the chip; the first ones keep what the scan writes."""
        rng = random.Random(self.seed)
        for line in lines:
            for column in range(BURST):
                self.contents[line * BURST + column] = rng.getrandbits(self.part.data_bits)

    def run(
        self,
        steps: list[tuple[list[Range], list[int]]],
        *,
        idle: float = 0.0,
        pause: float = 0.0,
        void: bool = False,
        rest_cycles: int = 4 * BURST,
        deadline_cycles: int = 60_000,
    ) -> None:
        """Each step reads ranges, then writes lines with new contents; then the bench only waits.

        With `void` all beats must be void; what they hold does not matter.

        Raises
        ------
        Broken : the model refuses a command
        AssertionError : a beat is wrong, or a written line
        """
        dut, rng = self.dut, random.Random(self.seed + 1)
        received: list[Any] = []
        broken: list[Broken] = []
        image = self.contents | pattern(self.part.data_bits)
        plan, expected = [], []
        for ranges, writes in steps:
            requests = [{"line": first, "count": count} for first, count in ranges]
            for first, count in ranges:
                for number in range(first, first + count):
                    expected += [image.get(number * BURST + n, 0) for n in range(BURST)]
            lines = []
            for number in writes:
                columns = [rng.getrandbits(self.part.data_bits) for _ in range(BURST)]
                for n, column in enumerate(columns):
                    image[number * BURST + n] = column
                bits = sum(c << n * self.part.data_bits for n, c in enumerate(columns))
                lines.append({"line": number, "data": bits})
            plan.append((requests, len(expected), lines))

        async def drive(ctx: Any) -> None:
            for requests, beats, lines in plan:
                await source(dut.i_read, requests, idle, self.seed)(ctx)
                while len(received) < beats:
                    await ctx.tick()
                await source(dut.i_write, lines, idle, self.seed + 2)(ctx)
            for _ in range(rest_cycles):
                await ctx.tick()
            self.phase, self.failed = ctx.get(dut.phase), bool(ctx.get(dut.failed))

        async def watch(ctx: Any) -> None:
            cycle = 0
            ticks = ctx.tick().sample(
                dut.violation, dut.i_read.valid & dut.i_read.ready, dut.o.valid & dut.o.ready
            )
            async for *_, number, asks, comes in ticks:
                if number and not broken:
                    broken.append(Broken(number, cycle))
                self.asked.extend([cycle] * asks)
                self.came.extend([cycle] * comes)
                cycle += 1

        try:
            simulate(
                dut,
                drive,
                sink(dut.o, len(expected), received, pause, self.seed),
                background=[store_bench(dut, self.contents), watch],
                deadline_cycles=deadline_cycles,
            )
        finally:  # a broken rule is the cause of a time-out
            if broken:
                raise broken[0]
        assert [bool(beat["error"]) for beat in received] == [void] * len(expected)
        if void:
            return
        assert [beat["data"] for beat in received] == expected
        assert {a: w for a, w in self.contents.items() if w} == {
            a: w for a, w in image.items() if w
        }
