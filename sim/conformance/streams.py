"""Simulates a component with sources and sinks at its streams: seeded pauses, a deadline."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from amaranth.hdl import Value
from amaranth.lib import data
from amaranth.sim import Simulator

__all__ = [
    "FLOWS",
    "ContractError",
    "Testbench",
    "plain",
    "require",
    "simulate",
    "sink",
    "source",
]

FLOWS = [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.5, 0.5), (0.2, 1.0)]
"""Idle of a source × pause of a sink, as probabilities; with pause 1 a sink waits for `valid`."""

Testbench = Callable[[Any], Coroutine[Any, Any, None]]


class ContractError(AssertionError):
    """A component does not keep its contract."""


def require(condition: object, message: str) -> None:
    """Raise `ContractError` with a message unless a condition is true."""
    if not condition:
        raise ContractError(message)


def simulate(
    dut: Any,
    *testbenches: Testbench,
    background: Iterable[Testbench] = (),
    deadline_cycles: int = 20_000,
    clocks: Mapping[str, float] | None = None,
) -> None:
    """Run test benches until all have ended.

    Parameters
    ----------
    dut : the component
    testbenches : each is called with the simulator's context; they advance together
    background : test benches that nobody waits for
    deadline_cycles : cycles after which the simulation fails; 0 if the benches have their own limit
    clocks : further clock domains, and how many times faster than `sync` each is

    Raises
    ------
    TimeoutError
        The deadline came first.
    """
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for domain, faster in (clocks or {}).items():
        simulator.add_clock(1e-6 / faster, domain=domain)
    for testbench in testbenches:
        simulator.add_testbench(testbench)
    for testbench in background:
        simulator.add_testbench(testbench, background=True)

    async def deadline(ctx: Any) -> None:
        for _ in range(deadline_cycles):
            await ctx.tick()
        raise TimeoutError(f"not done in {deadline_cycles} cycles")

    if deadline_cycles:
        simulator.add_testbench(deadline, background=True)
    simulator.run()


def plain(payload: Any) -> Any:
    """A sampled payload as Python's numbers, lists and dictionaries."""
    if isinstance(payload, data.Const):
        shape = payload.shape()
        if isinstance(shape, data.ArrayLayout):
            return [plain(payload[index]) for index in range(shape.length)]
        return {name: plain(payload[name]) for name, _ in shape}
    return payload


def source(stream: Any, items: Iterable[Any], idle: float = 0.0, seed: int = 0) -> Testbench:
    """Test bench that sends `items`; while it is idle, the payload is noise."""

    async def testbench(ctx: Any) -> None:
        rng = random.Random(seed)
        for item in items:
            while rng.random() < idle:
                await noise(ctx, stream, rng)
            ctx.set(stream.payload, item)
            ctx.set(stream.valid, 1)
            await ctx.tick().until(stream.ready)
            ctx.set(stream.valid, 0)
        await noise(ctx, stream, rng)

    return testbench


async def noise(ctx: Any, stream: Any, rng: random.Random) -> None:
    """A cycle in which `stream` is idle."""
    raw = Value.cast(stream.payload)
    ctx.set(raw, rng.getrandbits(max(1, len(raw))) & ((1 << len(raw)) - 1))
    await ctx.tick()


def sink(
    stream: Any, count: int, received: list[Any], pause: float = 0.0, seed: int = 0
) -> Testbench:
    """Test bench that takes `count` payloads and appends them to `received`.

    Raises
    ------
    ContractError
        A payload changed, or `valid` fell, before the transfer.
    """

    async def testbench(ctx: Any) -> None:
        rng = random.Random(~seed)
        waiting, seen = None, False
        while len(received) < count:
            ready = seen if pause == 1.0 else rng.random() >= pause
            ctx.set(stream.ready, ready)
            *_, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
            payload = plain(payload)
            if waiting is not None:
                require(valid, "valid fell before the transfer")
                require(payload == waiting, "the payload changed before the transfer")
            waiting = payload if valid and not ready else None
            seen = bool(valid and not ready)
            if valid and ready:
                received.append(payload)
        ctx.set(stream.ready, 0)

    return testbench
