"""The bench of random traffic, and the one that looks at what all benches have covered."""

from __future__ import annotations

from typing import Any

import cocotb

from tritloom.rtl.spec.commands import SESSION_BITS, Opcode, Status
from tritloom.sim.verify.benches.checks import all_scenes
from tritloom.sim.verify.benches.products import planned, shapes_done
from tritloom.sim.verify.boundaries import possible
from tritloom.sim.verify.driver import PATTERNS, Driver, bench, covered, overlapped
from tritloom.sim.verify.pairs import all_pairs
from tritloom.sim.verify.responses import name_of
from tritloom.sim.verify.settings import budget_cycles, config
from tritloom.sim.verify.traffic import Traffic

WORDS = 12
"""Weight words that `mix` uses: few, because it must write each of them first."""
TILES = 3
STEPS = 8
"""Steps of random traffic that are sent at once."""


@cocotb.test()
@cocotb.parametrize(idle=list(PATTERNS), stall=list(PATTERNS))
@bench
async def mix(dut: Any, idle: str, stall: str) -> None:
    """Commands at random, right and wrong, with lost order and damage between them.

    Where both streams are alike, every pair of commands that may overlap comes first.
    """
    t = Driver(dut, "mix", idle, stall)
    await t.power()
    traffic = Traffic(t.config, f"{cocotb.RANDOM_SEED} {idle} {stall}", words=WORDS, tiles=TILES)
    traffic.reset(t.random.randrange(1, 1 << SESSION_BITS))
    traffic.prepare()
    if idle == stall:
        traffic.overlap()
    sent = 0
    while True:
        await t.send(*(packet for packet, _ in traffic.packets[sent:]))
        sent = len(traffic.packets)
        if t.cycles >= budget_cycles():
            break
        traffic.random(STEPS)
    traffic.command(Opcode.COUNTERS)
    await t.send(*(packet for packet, _ in traffic.packets[sent:]))
    assert t.last().status == Status.OK


@cocotb.test()
@bench
async def coverage(dut: Any) -> None:
    """The benches before have seen what they must: statuses, pairs of commands, shapes."""
    for opcode in sorted({opcode for opcode, _ in covered}):
        statuses = [Status(status).name for code, status in sorted(covered) if code == opcode]
        cocotb.log.info("%s: %s", name_of(opcode), ", ".join(statuses))
    cocotb.log.info("layers (out × in): %s", ", ".join(f"{o}×{i}" for o, i in sorted(shapes_done)))
    missing = sorted(possible(config(), all_scenes()) - covered)
    assert not missing, "not exercised: " + ", ".join(
        f"{name_of(opcode)} {Status(status).name}" for opcode, status in missing
    )
    pairs = sorted(str(pair) for pair in all_pairs(config()) - overlapped)
    assert not pairs, f"commands that did not follow one another: {', '.join(pairs)}"
    shapes = {shape for shapes in planned().values() for shape in shapes}
    assert shapes == shapes_done, f"layers not exercised: {sorted(shapes - shapes_done)}"
