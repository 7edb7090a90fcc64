"""Operands for the float blocks, and a simulation that compares a block with its twin."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from amaranth.hdl import Value
from amaranth.sim import Simulator

from tritloom.rtl.spec.float_units import FLOAT32, FloatFormat
from tritloom.sim.conformance.streams import simulate, sink, source

QUICK = FloatFormat(3, 2)
"""A format of 64 patterns: all pairs are tested in a moment."""
SMALL = FloatFormat(4, 3)
"""A format of 256 patterns, whose sums can be farther apart than its precision."""

EDGES = [
    *[0x00000000, 0x00000001, 0x007FFFFF, 0x00800000, 0x00800001, 0x00FFFFFF, 0x01000000],
    *[0x33800000, 0x3EFFFFFF, 0x3F000000, 0x3F000001, 0x3F7FFFFF, 0x3F800000, 0x3F800001],
    *[0x3FC00000, 0x3FFFFFFF, 0x40000000, 0x42FDFFFF, 0x42FE0000, 0x42FF0000, 0x42FF0001],
    *[0x43000000, 0x43008000, 0x4B7FFFFF, 0x4B800000, 0x4EFFFFFF, 0x4F000000, 0x7E800000],
    *[0x7F000000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF],
]
"""Ends of the ranges of float32: zero, subnormal, normal, ties of int8, int32, infinity, NaN."""


def all_pairs(form: FloatFormat) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of two patterns of a format."""
    every = np.arange(1 << form.bits, dtype=np.uint32)
    return np.repeat(every, len(every)), np.tile(every, len(every))


def edge_pairs() -> tuple[np.ndarray, np.ndarray]:
    """Every pair of edges of float32, of both signs."""
    edges = np.array(EDGES, np.uint32)
    edges = np.concatenate([edges, edges | 0x80000000])
    return np.repeat(edges, len(edges)), np.tile(edges, len(edges))


def any_floats(rng: np.random.Generator, count: int) -> np.ndarray:
    """Patterns of float32, each as likely as any other."""
    return rng.integers(0, 1 << 32, count, np.uint64).astype(np.uint32)


def near_floats(rng: np.random.Generator, count: int, spread: float = 12) -> np.ndarray:
    """Patterns of numbers around 1, half of them with few bits, so that results tie."""
    size = np.exp2(rng.uniform(-spread, spread, count))
    pattern = (rng.standard_normal(count) * size).astype(np.float32).view(np.uint32)
    cut = rng.integers(0, 24, count).astype(np.uint32)
    return np.where(rng.random(count) < 0.5, pattern >> cut << cut, pattern)


def float_pairs(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of float32: a third any patterns, a sixth nearly opposite, the rest around 1."""
    rng = np.random.default_rng(seed)
    third = count // 3
    a, b = (
        np.concatenate([any_floats(rng, third), near_floats(rng, count - third)]) for _ in range(2)
    )
    opposite = slice(third, third + count // 6)
    change = np.uint32(1) << rng.integers(0, 24, count // 6).astype(np.uint32)
    b[opposite] = (a[opposite] ^ 0x80000000) + np.where(change > 1 << 22, 0, change)
    return a, b


def hard_quotients(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Numerators below 2^24 and odd divisors D of 24 bits, so that a · 2^k = ±1 modulo D.

    The quotient is as near to a half of some bit as one with that divisor can be.
    """
    rng = np.random.default_rng(seed)
    d = rng.integers(1 << 22, 1 << 23, count) * 2 + 1
    a = []
    for divisor in d.tolist():
        half = pow(pow(2, int(rng.integers(1, 27)), divisor), -1, divisor)
        a.append(half * int(rng.choice([1, -1])) % divisor)
    return np.array(a), d


def as_patterns(integers: np.ndarray) -> np.ndarray:
    """Integers of at most 24 bits as patterns of float32."""
    return integers.astype(np.float32).view(np.uint32)


def float_patterns(seed: int, count: int) -> np.ndarray:
    """Any float32, and numbers around 1."""
    rng = np.random.default_rng(seed)
    edges = np.array(EDGES, np.uint32)
    return np.concatenate(
        [edges, edges | 0x80000000, any_floats(rng, count), near_floats(rng, count)]
    )


def integers(bits: int, count: int) -> np.ndarray:
    """Ends of the range, ties of 24 bits, and others of any size."""
    rng = np.random.default_rng(bits)
    top = 1 << (bits - 1)
    numbers = rng.integers(-top, top, count) >> rng.integers(0, bits, count)
    ties = (rng.integers(1 << 23, 1 << 24, 200) << 1 | 1) << rng.integers(0, 8, 200)
    ties = np.concatenate([ties, -ties, ties + 1, ties - 1])
    ends = [0, 1, -1, top - 1, -top, 1 - top, top >> 1, -(top >> 1)]
    numbers = np.concatenate([ends, numbers, ties])
    return numbers[(numbers >= -top) & (numbers < top)]


def tokens(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Activations and the scale of their token; a third of the tokens have codes that tie."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 32)) * np.exp2(rng.uniform(-30, 30, (count, 1)))
    third = count // 3
    x[:third] = rng.integers(-254, 255, (third, 32)) / 2
    x[:third, 0] = 127
    x = (x * np.exp2(rng.integers(-6, 6, (count, 1)))).astype(np.float32)
    s = np.float32(127) * (np.float32(1) / np.abs(x).max(axis=1, keepdims=True))
    return x.ravel().view(np.uint32), np.repeat(s.ravel(), 32).view(np.uint32)


def run_pipeline(dut: Any, **inputs: np.ndarray) -> np.ndarray:
    """The results of a pipeline, one for each cycle's operands.

    They are read `dut.latency` cycles after their operands, while others are under way, so a block
    of another latency gives wrong ones.
    """
    ports = [Value.cast(getattr(dut, name)) for name in inputs]
    rows = list(zip(*(column.tolist() for column in inputs.values()), strict=True))
    output, results = Value.cast(dut.o).as_unsigned(), []

    async def bench(ctx: Any) -> None:
        for cycle in range(len(rows) + dut.latency):
            if cycle < len(rows):
                for port, value in zip(ports, rows[cycle], strict=True):
                    ctx.set(port, value)
            *_, value = await ctx.tick().sample(output)
            if cycle >= dut.latency:
                results.append(value)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return np.array(results, object)


def raw_streams(dut: Any, fields: dict[str, np.ndarray]) -> tuple[Any, Any, list[int]]:
    """Signals with the bits of a block's input and output payload, and the words to send."""
    layout = dut.i.payload.shape()
    words = [0] * len(next(iter(fields.values())))
    for name, column in fields.items():
        offset = layout[name].offset
        words = [word | value << offset for word, value in zip(words, column.tolist(), strict=True)]
    return Value.cast(dut.i.payload), Value.cast(dut.o.payload), words


def run_stream(dut: Any, idle: float = 0.0, pause: float = 0.0, **fields: np.ndarray) -> np.ndarray:
    """The results of a block with a stream of operands and one of results, as patterns."""
    i_raw, o_raw, words = raw_streams(dut, fields)
    received: list[int] = []
    simulate(
        dut,
        source(SimpleNamespace(payload=i_raw, valid=dut.i.valid, ready=dut.i.ready), words, idle),
        sink(
            SimpleNamespace(payload=o_raw, valid=dut.o.valid, ready=dut.o.ready),
            len(words),
            received,
            pause,
        ),
        deadline_cycles=200 * len(words) + 200,
    )
    return np.array(received, object)


def measured_latencies(dut: Any, **fields: np.ndarray) -> list[int]:
    """Cycles from the transfer of each of three operands to the first cycle with its result, if
    operands wait at the input and the output is always ready."""
    if not fields:
        ones = np.full(3, 0x3F800000, np.int64)
        fields = {"a": ones, "b": ones}
    i_raw, _, words = raw_streams(dut, fields)
    begins: list[int] = []
    ends: list[int] = []

    async def bench(ctx: Any) -> None:
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        ctx.set(i_raw, words[0])
        cycle = 0
        while len(ends) < len(words):
            if ctx.get(dut.o.valid):
                ends.append(cycle)
                assert ctx.get(dut.i.ready), "the next operands are taken as the result leaves"
            if ctx.get(dut.i.ready) and ctx.get(dut.i.valid):
                begins.append(cycle)
            await ctx.tick()
            ctx.set(dut.i.valid, len(begins) < len(words))
            ctx.set(i_raw, words[min(len(begins), len(words) - 1)])
            cycle += 1

    simulate(dut, bench)
    assert begins[1:] == ends[:-1]
    return [end - begin for begin, end in zip(begins, ends, strict=True)]


def assert_same(results: np.ndarray, expected: np.ndarray, *operands: np.ndarray) -> None:
    """Compare bit for bit; the message shows the first operands with a wrong result."""
    expected = np.asarray(expected).astype(object)
    wrong = np.flatnonzero(results != expected)
    lines = [
        " ".join(
            f"{int(value):x}" for value in (*(o[n] for o in operands), results[n], expected[n])
        )
        for n in wrong[:5]
    ]
    assert not len(wrong), f"{len(wrong)} differ: operands, result, expected: {'; '.join(lines)}"


__all__ = [
    "EDGES",
    "FLOAT32",
    "QUICK",
    "SMALL",
    "all_pairs",
    "any_floats",
    "as_patterns",
    "assert_same",
    "edge_pairs",
    "float_pairs",
    "float_patterns",
    "hard_quotients",
    "integers",
    "measured_latencies",
    "near_floats",
    "run_pipeline",
    "run_stream",
    "tokens",
]
