"""The clocks of a design under test."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import Timer

from tritloom.rtl.lib.crossing import LongReset
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["Clocks"]

HALF_STEPS = 1000
"""Half a cycle of a design whose memory has a clock of its own, in steps of the simulator."""


class Clocks:
    """How long half a cycle is; runs the memory's clock, if it has one of its own.

    Whoever drives the design drives its own clock. Where the memory's clock lies to it is random.

    Parameters
    ----------
    config : the design's
    memory_clock : the memory's pin
    rng : of the memory's phase

    Members
    -------
    half : half a cycle of the design's clock, to be awaited
    more_reset : cycles by which the design's own reset is longer than that of its pin
    """

    def __init__(self, config: AcceleratorConfig, memory_clock: Any, rng: random.Random) -> None:
        own_hz = config.memory.own_clock_hz(config)
        self.half = Timer(HALF_STEPS if own_hz else 1)
        self.more_reset = LongReset(config.clock_hz, own_hz).cycles if own_hz else 0
        if own_hz:
            half_steps = max(1, round(HALF_STEPS * config.clock_hz / own_hz))
            cocotb.start_soon(_run(memory_clock, half_steps, rng.randint(1, 2 * half_steps)))


async def _run(pin: Any, half_steps: int, first_steps: int) -> None:
    """Run a clock; its first edge comes after `first_steps`."""
    pin.value = 0
    await Timer(first_steps)
    half = Timer(half_steps)
    while True:
        pin.value = 1
        await half
        pin.value = 0
        await half
