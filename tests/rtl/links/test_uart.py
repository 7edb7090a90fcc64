"""UART: the line's shape by the standard, sampling with a slow or fast other end, the link."""

import random
from dataclasses import replace

import pytest

from tests.support import quick_first
from tritloom.rtl.links.uart import UartReceiver, UartTransmitter
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.errors import ConfigError
from tritloom.sim.conformance.streams import simulate, sink, source

BYTES = [0x00, 0xFF, 0x55, 0xAA, 0x01, 0x80]


def line_of(values: list[int], divisor: float) -> list[int]:
    """The line's level in each cycle, for bits of `divisor` cycles; idle before and after."""
    bits = [1] * 3
    for value in values:
        bits += [0, *(value >> n & 1 for n in range(8)), 1]
    bits += [1] * 3
    cycles = round(len(bits) * divisor)
    return [bits[min(int(cycle / divisor), len(bits) - 1)] for cycle in range(cycles)]


@quick_first("divisor", [5, 4, 8, 27])
@pytest.mark.parametrize("idle", [0.0, 0.9])
def test_the_transmitter_sends_8n1(divisor: int, idle: float) -> None:
    rng = random.Random(divisor)
    values = BYTES + rng.choices(range(256), k=10)
    dut = UartTransmitter(divisor)
    levels: list[int] = []

    async def watch(ctx):
        for _ in range((len(values) * 12 + 40) * divisor):
            levels.append(ctx.get(dut.tx))
            await ctx.tick()

    simulate(dut, source(dut.i, values, idle), watch, deadline_cycles=20_000)
    received, at = [], 0
    while 0 in levels[at:]:
        at = levels.index(0, at)
        frame = [levels[at + n * divisor : at + (n + 1) * divisor] for n in range(10)]
        assert all(len(set(bit)) == 1 for bit in frame), "a bit changed within its time"
        assert (frame[0][0], frame[9][0]) == (0, 1)
        received.append(sum(bit[0] << n for n, bit in enumerate(frame[1:9])))
        at += 10 * divisor
    assert received == values


@quick_first("divisor", [5, 4, 8, 27])
@pytest.mark.parametrize("error", [-0.02, 0.0, 0.02])
def test_the_receiver_bears_a_baud_error(divisor: int, error: float) -> None:
    values = BYTES + random.Random(1).choices(range(256), k=10)
    dut = UartReceiver(divisor)
    received: list[int] = []

    async def drive(ctx):
        for level in line_of(values, divisor * (1 + error)):
            ctx.set(dut.rx, level)
            await ctx.tick()

    simulate(dut, drive, sink(dut.o, len(values), received), deadline_cycles=20_000)
    assert received == values


def test_glitches_and_broken_bytes_are_not_bytes() -> None:
    divisor = 8
    dut = UartReceiver(divisor)
    received: list[int] = []
    broken = [0] * (10 * divisor) + [1] * (2 * divisor)  # no stop bit
    glitch = [0] * 2 + [1] * (2 * divisor)

    async def drive(ctx):
        for level in [1] * 8 + glitch + broken + glitch + line_of([0x42], divisor):
            ctx.set(dut.rx, level)
            await ctx.tick()

    simulate(dut, drive, sink(dut.o, 1, received), deadline_cycles=20_000)
    assert received == [0x42]


@pytest.mark.parametrize(
    ("clock_hz", "baud", "message"),
    [
        (
            25_000_000,
            3_000_000,
            "link: baud must be within 2% of clock_hz / n: the nearest to 3000000",
        ),
        (8_000_000, 3_000_000, "link: baud must be 1200 to 2000000, not 3000000"),
        (100_000_000, 4_000_000, "link: baud must be 1200 to 3000000, not 4000000"),
        (100_000_000, 300, "link: baud must be 1200 to 3000000, not 300"),
        (100_000_000, 9600.0, "link: baud must be an integer, not 9600.0"),
    ],
)
def test_baud_is_checked_against_the_clock(clock_hz: int, baud: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TINY, clock_hz=clock_hz, link=Uart(baud=baud))


def test_link_is_no_layout() -> None:
    config = replace(TINY, clock_hz=24_000_000, link=Uart(baud=3_000_000))
    assert config.link.divisor(config) == 8
    assert config.link.cycles_per_byte(config) == 80
    assert [TINY.link.framed_bytes(20), config.link.framed_bytes(20)] == [20, 28]
    assert config.layout_digest == TINY.layout_digest
