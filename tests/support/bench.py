"""Shared by the tests of hardware: stream ends with seeded pauses, the deadline, the contracts that
every engine and weight memory has, and random traffic with the answers that it must get."""

import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from amaranth.hdl import Value
from amaranth.lib import data
from amaranth.sim import Simulator

from tritloom.rtl.core.core import Core
from tritloom.rtl.engines.contract import ACT_LATENCY, create_engine
from tritloom.rtl.engines.select_facts import SELECT
from tritloom.rtl.engines.table_facts import TABLE
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.memories.contract import create_memory
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.commands import (
    COUNTERS,
    CRC_BYTES,
    HEADER,
    HEADER_BYTES,
    LAYER,
    OVERHEAD_BYTES,
    Opcode,
    Request,
    Response,
    Status,
    identity,
    seal,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS, encodings
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import act_limits, pack_activations, pack_weights
from tritloom.rtl.spec.plugins import engines
from tritloom.sim.device.core import CoreSimulation
from tritloom.sim.device.reference import ReferenceDevice

OPCODE_AT = 8
FLOWS = [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.5, 0.5), (0.2, 1.0)]
"""Idle of a source × pause of a sink, as probabilities; pause 1 takes only what it has seen."""
KINDS = [(engine.name, name) for engine in (SELECT, TABLE) for name in engine.encodings]
"""Every engine with each encoding that it takes."""
VECTORS = 10_000


def simulate(dut: Any, *benches: Callable, deadline_cycles: int = 20_000) -> None:
    """Run benches until all have ended; a failure when that takes too long (0: they see to it)."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)

    async def deadline(ctx):
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


class Inputs:
    """Sets signals only when they change: each ``ctx.set`` costs the simulator a settling."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx
        self._values: dict[int, Any] = {}

    def set(self, signal: Any, value: Any) -> None:
        if self._values.get(id(signal)) != value:
            self._values[id(signal)] = value
            self._ctx.set(signal, value)


def source(stream: Any, items: Iterable[Any], idle: float = 0.0, seed: int = 0) -> Callable:
    """Bench that sends ``items``; while it is idle the payload is noise."""

    async def bench(ctx):
        rng = random.Random(seed)
        for item in items:
            while rng.random() < idle:
                await noise(ctx, stream, rng)
            ctx.set(stream.payload, item)
            ctx.set(stream.valid, 1)
            await ctx.tick().until(stream.ready)
            ctx.set(stream.valid, 0)
        await noise(ctx, stream, rng)

    return bench


async def noise(ctx: Any, stream: Any, rng: random.Random) -> None:
    """A cycle in which ``stream`` is idle."""
    raw = Value.cast(stream.payload)
    ctx.set(raw, rng.getrandbits(max(1, len(raw))) & ((1 << len(raw)) - 1))
    await ctx.tick()


def sink(stream: Any, count: int, received: list, pause: float = 0.0, seed: int = 0) -> Callable:
    """Bench that takes ``count`` payloads; fails if one changes or goes before it is taken."""

    async def bench(ctx):
        rng = random.Random(~seed)
        held, seen = None, False
        while len(received) < count:
            ready = seen if pause == 1.0 else rng.random() >= pause
            ctx.set(stream.ready, ready)
            *_, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
            payload = plain(payload)
            if held is not None:
                assert valid, "valid went before the transfer"
                assert payload == held, "the payload changed before the transfer"
            held = payload if valid and not ready else None
            seen = bool(valid and not ready)
            if valid and ready:
                received.append(payload)
        ctx.set(stream.ready, 0)

    return bench


def random_trits(
    config: AcceleratorConfig, rng: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray:
    """int8 weights of the alphabet."""
    return rng.choice(np.array(ALPHABETS[config.alphabet], np.int8), shape)


def random_codes(
    config: AcceleratorConfig, rng: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray:
    """int8 activations that the device can hold."""
    least, most = act_limits(config)
    return rng.integers(least, most + 1, shape).astype(np.int8)


def activations(
    dut: Any,
    config: AcceleratorConfig,
    codes: np.ndarray,
    running: Callable[[], bool],
    seed: int = 0,
) -> Callable:
    """Bench that is an engine's activation memory, of int8 [tokens, in]; noise beyond it."""
    memory = codes.reshape(config.tokens, -1, config.fill).transpose(1, 0, 2)
    words = memory.reshape(codes.shape[1] // config.fill, -1).tolist()
    least, most = act_limits(config)

    async def bench(ctx):
        rng = random.Random(seed)
        addresses = [0] * (ACT_LATENCY - 1)
        while running():
            *_, address = await ctx.tick().sample(dut.act_address)
            addresses.append(address)
            address = addresses.pop(0)
            noise = [rng.randint(least, most) for _ in words[0]]
            ctx.set(dut.i_act, words[address] if address < len(words) else noise)

    return bench


def signed_sums(sums: Any, negative: int, rows: int) -> list[int]:
    """An engine's sums, those of the rows in ``negative`` negated."""
    return [-x if negative >> n % rows & 1 else x for n, x in enumerate(plain(sums))]


def weight_words(config: AcceleratorConfig, trits: np.ndarray) -> list[int]:
    """The weight words of int8 [out, in]."""
    image, size = pack_weights(config, trits), config.word_bytes
    return [int.from_bytes(image[at : at + size], "little") for at in range(0, len(image), size)]


def run_words(
    config: AcceleratorConfig, tiles: list[list[int]], acts: np.ndarray
) -> list[list[int]]:
    """The sums of an engine's words, tile by tile, each of them as early as may be."""
    dut = create_engine(config)
    total = sum(map(len, tiles))
    taken: list[int] = []
    sums: list[list[int]] = []
    cycle = [0]

    async def watch(ctx):
        while len(sums) < total:
            *_, payload, negative = await ctx.tick().sample(dut.o_sums, dut.o_negative)
            if cycle[0] - config.engine_latency in taken[len(sums) : len(sums) + 1]:
                sums.append(signed_sums(payload, negative, config.rows))
            cycle[0] += 1

    async def bench(ctx):
        ctx.set(dut.i_start, 1)
        await ctx.tick()
        ctx.set(dut.i_start, 0)
        ctx.set(dut.i_more, 1)
        for left, words in zip(reversed(range(len(tiles))), tiles, strict=True):
            while not ctx.get(dut.ready):
                await ctx.tick()
            for number, word in enumerate(words):
                ctx.set(dut.i_word, word)
                ctx.set(dut.i_valid, 1)
                ctx.set(dut.i_swap, number == 0)
                ctx.set(dut.i_last, number == len(words) - 1)
                taken.append(cycle[0])
                await ctx.tick()
                ctx.set(dut.i_more, left > 0)
            ctx.set(dut.i_valid, 0)
            ctx.set(dut.i_swap, 0)
            ctx.set(dut.i_last, 0)

    serving = activations(dut, config, acts, lambda: len(sums) < total)
    simulate(dut, watch, serving, bench, deadline_cycles=40_000)
    return sums


def check_engine(config: AcceleratorConfig, *, groups: int, idle: float, seed: int) -> None:
    """The contract of ``rtl.engines.contract``: exact sums in order, at the promised cycles."""
    rng = np.random.default_rng(seed)
    chance = random.Random(seed)
    tiles = 4
    trits = random_trits(config, rng, (groups * config.rows, tiles * config.lanes))
    codes = random_codes(config, rng, (config.tokens, tiles * config.lanes))
    # The first tiles have the extreme sums of both signs.
    trits[: config.rows, : config.lanes] = -1
    trits[config.rows : 2 * config.rows, : config.lanes] = 1
    trits[: config.rows, config.lanes : 2 * config.lanes] = 1
    codes[:, : 2 * config.lanes] = act_limits(config)[0]
    words = weight_words(config, trits)
    products = np.einsum(
        "grtl,ktl->tgkr",
        trits.reshape(groups, config.rows, tiles, config.lanes).astype(np.int64),
        codes.reshape(config.tokens, tiles, config.lanes).astype(np.int64),
    ).reshape(tiles * groups, config.tokens * config.rows)

    dut = create_engine(config)
    readies: list[int] = []
    firsts: list[int] = []
    taken: list[int] = []
    sums: list[list[int]] = []
    cycle = [0]

    async def watch(ctx):
        ready_before = 0
        while len(sums) < len(words):
            *_, payload, negative, ready = await ctx.tick().sample(
                dut.o_sums, dut.o_negative, dut.ready
            )
            if cycle[0] - config.engine_latency in taken[len(sums) : len(sums) + 1]:
                sums.append(signed_sums(payload, negative, config.rows))
            if ready and not ready_before:
                readies.append(cycle[0])
            ready_before = ready
            cycle[0] += 1

    async def weights(ctx):
        ctx.set(dut.i_start, 1)
        await ctx.tick()
        ctx.set(dut.i_start, 0)
        ctx.set(dut.i_more, 1)
        for tile in range(tiles):
            if idle and tile:
                for _ in range(chance.randrange(4)):
                    await ctx.tick()
            while not ctx.get(dut.ready):
                await ctx.tick()
            for group in range(groups):
                while chance.random() < idle:
                    ctx.set(dut.i_word, chance.getrandbits(config.word_bits))
                    await ctx.tick()
                ctx.set(dut.i_word, words[tile * groups + group])
                ctx.set(dut.i_valid, 1)
                ctx.set(dut.i_swap, group == 0)
                ctx.set(dut.i_last, group == groups - 1)
                taken.append(cycle[0])
                if group == 0:
                    firsts.append(cycle[0])
                await ctx.tick()
                ctx.set(dut.i_valid, 0)
                ctx.set(dut.i_swap, 0)
                ctx.set(dut.i_last, 0)
                ctx.set(dut.i_more, tile + 1 < tiles)

    # The watch is first, so that in all of them a cycle has the same number.
    serving = activations(dut, config, codes, lambda: len(sums) < len(words), seed)
    simulate(dut, watch, serving, weights)
    assert sums == products.tolist()
    facts = engines[config.engine]
    assert readies[0] == facts.fill_cycles(config)
    if not idle:
        gaps = {after - before for before, after in pairwise(firsts)}
        reload = facts.reload_cycles(config)
        least = groups - 1 + reload if reload else groups
        assert gaps == {max(least, facts.tile_cycles(config))}


def loads_of(config: AcceleratorConfig, codes: np.ndarray) -> list[dict[str, int]]:
    """Activations int8 [tokens, in] as the activation buffer's words."""
    mask, bits = (1 << config.act_bits) - 1, config.act_bits
    return [
        {
            "token": token,
            "address": address,
            "word": sum((code & mask) << bits * n for n, code in enumerate(word)),
        }
        for token, words in enumerate(codes.reshape(config.tokens, -1, config.fill).tolist())
        for address, word in enumerate(words)
    ]


async def run_layer(
    ctx: Any, dut: Any, words: list[int], idle: float, seed: int
) -> tuple[int, int]:
    """Feed a ``Core`` the words of a run: its cycles until ``done``, and those that stalled."""
    chance = random.Random(seed)
    cycles = stalled = sent = 0
    offered = False
    while True:
        offered = sent < len(words) and (offered or chance.random() >= idle)
        ctx.set(dut.i_word.valid, offered)
        if offered:
            ctx.set(dut.i_word.payload, words[sent])
        *_, ready, done, stall, free = await ctx.tick().sample(
            dut.i_word.ready, dut.done, dut.stall, dut.i_run.ready
        )
        assert not free
        assert stall == (ready and not offered)
        stalled += stall
        cycles += 1
        if offered and ready:
            sent += 1
            offered = False
        if done:
            assert sent == len(words)
            return cycles, stalled


def last_numbers(shape: LayerShape) -> dict[str, int]:
    """A payload of ``Core``'s ``i_run``."""
    return {"last_tile": shape.tiles - 1, "last_group": shape.row_groups - 1}


def run_core(
    config: AcceleratorConfig,
    shapes: Sequence[LayerShape],
    *,
    idle: float = 0.0,
    pause: float = 0.0,
    seed: int = 0,
) -> tuple[list[int], list[int]]:
    """Random layers on a ``Core``, every third extreme: exact; each one's cycles and stalls."""
    rng = np.random.default_rng(seed)
    dut = Core(config)
    took: list[int] = []
    stalls: list[int] = []

    async def bench(ctx):
        for number, shape in enumerate(shapes):
            size = (shape.row_groups * config.rows, shape.tiles * config.lanes)
            trits = random_trits(config, rng, size)
            codes = random_codes(config, rng, (config.tokens, size[1]))
            if number % 3 == 0:
                trits[:], codes[:] = -1, act_limits(config)[0]
            loads = loads_of(config, codes)
            random.Random(number).shuffle(loads)
            await source(dut.i_load, loads, idle, number)(ctx)
            ctx.set(dut.i_run.payload, last_numbers(shape))
            ctx.set(dut.i_run.valid, 1)
            await ctx.tick().until(dut.i_run.ready)
            ctx.set(dut.i_run.valid, 0)
            words = weight_words(config, trits)
            cycles, stalled = await run_layer(ctx, dut, words, idle, number)
            took.append(cycles)
            stalls.append(stalled)
            totals: list[list[int]] = []
            for group in range(shape.row_groups):
                await source(dut.i_fetch, [group], idle, group)(ctx)
                await sink(dut.o, group + 1, totals, pause, group)(ctx)
            found = np.array(totals).reshape(shape.row_groups, config.tokens, config.rows)
            expected = codes.astype(np.int64) @ trits.T
            assert (found.transpose(1, 0, 2).reshape(config.tokens, -1) == expected).all()

    deadline = 20_000 + 8 * sum(config.run_cycles(shape) or 0 for shape in shapes)
    simulate(dut, bench, deadline_cycles=deadline)
    return took, stalls


def geometry(
    engine: str,
    encoding: str,
    lanes: int,
    rows: int,
    tokens: int,
    fill: int,
    act_bits: int,
    groups: int,
    inputs: int | None = None,
) -> AcceleratorConfig:
    inputs = inputs or lanes
    return AcceleratorConfig(
        engine=engine,
        encoding=encoding,
        alphabet=encodings[encoding].alphabet,
        lanes=lanes,
        rows=rows,
        tokens=tokens,
        fill=fill,
        act_bits=act_bits,
        memory=BlockRam(words=groups * (inputs // lanes)),
        max_in_features=inputs,
        max_out_features=groups * rows,
    )


def two_codes(
    engine: str, encoding: str, act_bits: int, *, tokens: int = 4, fill: int = 2, tiles: int = 2
) -> AcceleratorConfig:
    """Two codes in a row, a few tiles, and outputs for every weight of one code, twice."""
    group = encodings[encoding].trits_per_code
    groups = len(ALPHABETS[encodings[encoding].alphabet]) ** group
    lanes = 2 * group
    return geometry(
        engine, encoding, lanes, 2, tokens, fill, act_bits, max(groups, 16), tiles * lanes
    )


def random_vectors(config: AcceleratorConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four rows of weights, and ten thousand vectors of activations."""
    rng = np.random.default_rng(seed)
    codes = random_codes(config, rng, (VECTORS, config.max_in_features))
    return random_trits(config, rng, (4, config.max_in_features)), codes


def extreme_vectors(config: AcceleratorConfig) -> list[tuple[np.ndarray, np.ndarray]]:
    """For ``two_codes``: every weight of one code, and all extreme activations for it, the other
    code at its extremes; for either code."""
    group = encodings[config.encoding].trits_per_code

    def every(values: tuple[int, ...], first: int, second: int) -> np.ndarray:
        of_one = np.array(list(product(values, repeat=group)))
        other = np.tile([[first], [second]], (len(of_one), group))
        return np.concatenate([np.repeat(of_one, 2, axis=0), other], axis=1).astype(np.int8)

    trits = every(ALPHABETS[config.alphabet], -1, 1)
    codes = every(act_limits(config), *act_limits(config))
    return [(trits, codes), (trits[:, ::-1].copy(), codes[:, ::-1].copy())]


def check_core(core: CoreSimulation, trits: np.ndarray, codes: np.ndarray) -> None:
    """A layer on a compiled core: each sum exact, each run of the formula's cycles."""
    config = core.config
    cycles = config.run_cycles(LayerShape.of(config, *trits.shape))
    expected = numerics.matmul(trits, codes)
    done = 0
    for found, took in core.layer(trits, codes):
        assert took == cycles, config
        assert np.array_equal(found, expected[done : done + len(found)]), (config, done)
        done += len(found)
    assert done == len(codes)


def check_memory(
    config: AcceleratorConfig, *, idle: float, pause: float, seed: int, gapless: bool = False
) -> None:
    """The contract of ``rtl.memories.bram``; the cycles too, where its plug-in states them.

    ``gapless``: ranges asked for early follow each other without a pause.
    """
    rng = random.Random(seed)
    depth = config.memory_words
    words = {address: rng.getrandbits(config.word_bits) for address in range(depth)}
    writes = [{"address": a, "word": rng.getrandbits(config.word_bits)} for a in range(depth)]
    writes += [{"address": a, "word": word} for a, word in words.items()]
    ranges = [(0, depth), (depth - 1, 1)]
    for _ in range(12):
        start = rng.randrange(depth)
        ranges.append((start, rng.randint(1, min(6, depth - start))))
    expected = [words[start + n] for start, count in ranges for n in range(count)]

    dut = create_memory(config)
    received: list[int] = []
    accepted: list[int] = []
    came: list[int] = []

    async def write_then_read(ctx):
        await source(dut.i_write, writes, idle, seed)(ctx)
        # A write is over when it was taken: the next range sees it.
        requests = [{"address": start, "count": count} for start, count in ranges]
        await source(dut.i_read, requests, idle, seed)(ctx)

    async def watch(ctx):
        cycle = 0
        while len(received) < len(expected):
            *_, request, word = await ctx.tick().sample(
                dut.i_read.valid & dut.i_read.ready, dut.o.valid & dut.o.ready
            )
            accepted.extend([cycle] * request)
            came.extend([cycle] * word)
            cycle += 1

    simulate(dut, write_then_read, sink(dut.o, len(expected), received, pause, seed), watch)
    assert received == expected
    latency = config.memory.latency(config)
    if latency is not None and not idle and not pause:
        assert came[0] - accepted[0] == latency
        count = len(expected) if gapless else depth
        assert came[:count] == list(range(came[0], came[0] + count)), "words pause"


class Traffic:
    """Random packets, sound and otherwise, each with the answer of the reference device.

    ``packets``: pairs of packet and answer, ``None`` for those that are dropped without one.
    """

    def __init__(self, config: AcceleratorConfig, seed: int) -> None:
        self.config = config
        self.reference = ReferenceDevice(config)
        self.packets: list[tuple[bytes, bytes | None]] = []
        self._rng = random.Random(seed)
        self._session = 0
        self._seq = 1
        self._history: list[bytes] = []
        self._shapes: dict[int, tuple[int, int, int]] = {}

    def exchange(self, packet: bytes) -> bytes | None:
        answer = self.reference.process(packet)
        self.packets.append((packet, answer))
        return answer

    def command(self, opcode: int, **fields: Any) -> Response:
        """The next command in order."""
        packet = Request(opcode, self._seq, self._session, **fields).pack()
        answer = self.exchange(packet)
        assert answer is not None
        self._history.append(packet)
        self._seq = (self._seq + 1) % 65536
        response = Response.parse(answer)
        assert response is not None
        return response

    def reset(self, session: int) -> None:
        self.exchange(Request(Opcode.RESET, self._rng.randrange(65536), session).pack())
        if session != self._session:
            self._session, self._seq = session, 1
            self._history.clear()
            self._shapes.clear()

    def image(self, words: int) -> bytes:
        """Words of random trits, extreme ones among them."""
        config = self.config
        generator = np.random.default_rng(self._rng.getrandbits(32))
        trits = random_trits(config, generator, (words * config.rows, config.lanes))
        for row in trits:
            if self._rng.random() < 0.3:
                row[:] = self._rng.choice((-1, 1))
        return pack_weights(config, trits)

    def codes(self, count: int) -> bytes:
        """Activations; some of them the extreme ones alone."""
        if self._rng.random() < 0.3:
            return self._rng.choice((b"\x80", b"\x7f")) * count
        return self._rng.randbytes(count)

    def layer(self, index: int, base: int, tiles: int, groups: int) -> None:
        """Define, write and commit a layer of random trits, and load activations for it."""
        config = self.config
        self.command(Opcode.DEFINE, index=index, payload=LAYER.pack(base, tiles, groups))
        image = self.image(tiles * groups)
        step = config.max_payload // config.word_bytes
        for word in range(0, tiles * groups, step):
            part = image[word * config.word_bytes : (word + step) * config.word_bytes]
            self.command(Opcode.WRITE, index=index, address=word, payload=part)
        answer = self.command(Opcode.COMMIT, index=index, address=zlib.crc32(image))
        assert answer.status == Status.OK
        size = config.max_payload // config.fill * config.fill
        for token in range(config.tokens):
            codes = np.frombuffer(self.codes(tiles * config.lanes), np.int8)
            codes = pack_activations(config, codes)
            for start in range(0, len(codes), size):
                self.command(
                    Opcode.LOAD,
                    index=token,
                    address=start // config.fill,
                    payload=codes[start : start + size],
                )

    def results(self, groups: int) -> None:
        """Read all results of the last RUN."""
        config = self.config
        step = config.max_payload // config.acc_bytes // config.rows
        for token in range(config.tokens):
            for group in range(0, groups, step):
                count = min(step, groups - group) * config.rows
                self.command(Opcode.RESULTS, index=token, address=group, count=count)

    def product(self, index: int, base: int, tiles: int, groups: int) -> int:
        """A whole product; the cycles that its RUN takes."""
        self.layer(index, base, tiles, groups)
        answer = self.command(Opcode.RUN, index=index, count=self.config.tokens)
        assert answer.status == Status.OK
        self.results(groups)
        return answer.value

    def empty_product(self, index: int, base: int, tiles: int, groups: int) -> int:
        """A RUN with what is in memory, which must be as it was at power-up; its cycles."""
        self.command(Opcode.DEFINE, index=index, payload=LAYER.pack(base, tiles, groups))
        image = bytes(tiles * groups * self.config.word_bytes)
        self.command(Opcode.COMMIT, index=index, address=zlib.crc32(image))
        answer = self.command(Opcode.RUN, index=index, count=1)
        assert answer.status == Status.OK
        return answer.value

    def random(self, count: int) -> None:
        """``count`` steps of everything a link can bring."""
        steps = [
            (4, self._define),
            (6, self._write),
            (3, self._read),
            (4, self._commit),
            (4, self._load),
            (4, self._run),
            (6, self._results),
            (2, self._identify),
            (1, lambda: self.command(Opcode.COUNTERS)),
            (2, self._payload_not_taken),
            (1, self._unknown_opcode),
            (1, self._reset),
            (2, self._other_session),
            (3, self._again),
            (2, self._gap),
            (4, self._damaged),
            (1, self._tiny),
            (1, self._overlong),
        ]
        weights = [weight for weight, _ in steps]
        for _ in range(count):
            (step,) = self._rng.choices([step for _, step in steps], weights)
            step()

    def _index(self) -> int:
        if self._shapes and self._rng.random() < 0.7:
            return self._rng.choice(list(self._shapes))
        return self._rng.choice(
            [self._rng.randrange(self.config.max_layers), min(self.config.max_layers, 255), 255]
        )

    def _number(self, limit: int, bits: int) -> int:
        """A number near 0, near its limit, or far beyond it."""
        kind = self._rng.random()
        if kind < 0.6:
            return self._rng.randrange(limit + 1)
        if kind < 0.9:
            return min(limit + self._rng.randrange(3), (1 << bits) - 1)
        return self._rng.choice([1 << (bits - 1), (1 << bits) - 1, self._rng.getrandbits(bits)])

    def _define(self) -> None:
        config = self.config
        index = self._index()
        tiles = self._number(config.max_tiles, 16)
        groups = self._number(config.max_row_groups, 16)
        base = self._number(max(0, config.memory_words - tiles * groups), 32)
        payload = LAYER.pack(base, tiles, groups)
        if self._rng.random() < 0.1:
            payload = payload[: self._rng.randrange(9)] + bytes(self._rng.randrange(3))
        answer = self.command(Opcode.DEFINE, index=index, payload=payload)
        if answer.status == Status.OK:
            self._shapes[index] = (base, tiles, groups)
            if self._rng.random() < 0.7:
                self._complete(index)

    def _complete(self, index: int) -> None:
        """Fill a layer and commit it."""
        base, tiles, groups = self._shapes[index]
        if tiles * groups <= 64:
            self.layer(index, base, tiles, groups)

    def _words(self, index: int) -> int:
        _, tiles, groups = self._shapes.get(index, (0, 1, 1))
        return tiles * groups

    def _write(self) -> None:
        index = self._index()
        words = self._rng.randrange(self.config.max_payload // self.config.word_bytes + 1)
        payload = self.image(min(words, 8)) if words else b""
        if self._rng.random() < 0.2:
            payload = payload[: self._rng.randrange(len(payload) + 1)]
        address = self._number(self._words(index), 32)
        self.command(Opcode.WRITE, index=index, address=address, payload=payload)

    def _read(self) -> None:
        index = self._index()
        words = self._words(index)
        count = self._number(min(words, self.config.max_payload // self.config.word_bytes), 16)
        address = self._number(max(0, words - count), 32)
        self.command(Opcode.READ, index=index, address=address, count=count)

    def _commit(self) -> None:
        self.command(Opcode.COMMIT, index=self._index(), address=self._rng.getrandbits(32))

    def _load(self) -> None:
        config = self.config
        words = self._rng.randrange(config.max_payload // config.fill + 1)
        payload = self.codes(words * config.fill)
        if self._rng.random() < 0.2:
            payload = payload[: self._rng.randrange(len(payload) + 1)]
        self.command(
            Opcode.LOAD,
            index=self._number(config.tokens - 1, 8),
            address=self._number(max(0, config.activation_words - words), 32),
            payload=payload,
        )

    def _run(self) -> None:
        count = self._number(self.config.tokens, 16)
        self.command(Opcode.RUN, index=self._index(), count=count)

    def _results(self) -> None:
        config = self.config
        self.command(
            Opcode.RESULTS,
            index=self._number(config.tokens - 1, 8),
            address=self._number(config.max_row_groups, 32),
            count=self._number(config.max_payload // config.acc_bytes, 16),
        )

    def _identify(self) -> None:
        size = len(identity(self.config))
        count = self._number(min(size, self.config.max_payload), 16)
        self.command(Opcode.IDENTIFY, address=self._number(max(0, size - count), 32), count=count)

    def _payload_not_taken(self) -> None:
        takes_none = (Opcode.IDENTIFY, Opcode.READ, Opcode.COMMIT, Opcode.RUN, Opcode.RESULTS)
        opcode = self._rng.choice((*takes_none, Opcode.COUNTERS))
        payload = self._rng.randbytes(self._rng.randint(1, self.config.max_payload))
        self.command(opcode, index=self._index(), count=1, payload=payload)

    def _unknown_opcode(self) -> None:
        opcode = self._rng.choice((0, max(Opcode) + 1, 255))
        payload = self._rng.randbytes(self._rng.randrange(self.config.max_payload + 1))
        self.command(opcode, payload=payload)

    def _reset(self) -> None:
        if self._rng.random() < 0.4:
            payload = self._rng.randbytes(self._rng.randint(1, self.config.max_payload))
            self.exchange(
                Request(Opcode.RESET, 9, self._rng.getrandbits(32), payload=payload).pack()
            )
        self.reset(self._rng.choice((self._session, self._rng.getrandbits(32))))

    def _other_session(self) -> None:
        session = self._session ^ 1 << self._rng.randrange(32)
        opcode = self._rng.choice([opcode for opcode in Opcode if opcode != Opcode.RESET])
        payload = self._rng.randbytes(self._rng.randrange(self.config.max_payload + 1))
        self.exchange(Request(opcode, self._seq, session, payload=payload).pack())

    def _again(self) -> None:
        """One of the last commands, or its number on another one; it must not be executed."""
        if not self._history:
            return
        age = self._rng.randint(1, min(len(self._history), self.config.window + 2))
        packet = self._history[-age]
        if self._rng.random() < 0.3:
            other = Request(Opcode.LOAD, (self._seq - age) % 65536, self._session, payload=b"abc")
            packet = other.pack()
        self.exchange(packet)

    def _gap(self) -> None:
        ahead = self._rng.choice((1, 2, 3, 1000, 32768, 65000))
        seq = (self._seq + ahead) % 65536
        payload = self._rng.randbytes(self._rng.randrange(self.config.max_payload + 1))
        opcode = self._rng.choice((Opcode.WRITE, Opcode.LOAD))
        self.exchange(Request(opcode, seq, self._session, payload=payload).pack())

    def _sound(self) -> bytes:
        payload = self._rng.randbytes(self._rng.randrange(self.config.max_payload + 1))
        return Request(Opcode.LOAD, self._seq, self._session, payload=payload).pack()

    def _damaged(self) -> None:
        packet = bytearray(self._sound())
        kind = self._rng.randrange(4)
        if kind == 0:
            packet[self._rng.randrange(len(packet))] ^= 1 << self._rng.randrange(8)
        elif kind == 1:
            del packet[self._rng.randrange(1, len(packet)) :]
        elif kind == 2:
            packet += self._rng.randbytes(self._rng.randint(1, 9))
        else:  # only the length is wrong
            body = packet[:-CRC_BYTES]
            wrong = len(packet) + self._rng.choice((-1, 1, 256))
            packet = bytearray(seal(wrong.to_bytes(2, "little") + body[2:]))
        self.exchange(bytes(packet))

    def _tiny(self) -> None:
        """Too short for a header, its checksum right."""
        size = self._rng.randrange(OVERHEAD_BYTES - CRC_BYTES)
        packet = seal((size + CRC_BYTES).to_bytes(2, "little")[:size] + bytes(max(0, size - 2)))
        self.exchange(packet[-self._rng.randint(1, len(packet)) :])

    def _overlong(self) -> None:
        """Right in all but that it has more bytes than a packet may have."""
        size = self.config.packet_bytes + self._rng.choice((1, 2, 300))
        told = self._rng.choice((size, self.config.packet_bytes))
        head = HEADER.pack(told, self._seq, self._session, Opcode.LOAD, 0, 0, 0)
        self.exchange(seal(head + bytes(size - HEADER_BYTES - CRC_BYTES)))


def comparable(config: AcceleratorConfig, answer: bytes) -> Response:
    """An answer without what the reference device cannot know: its clock."""
    response = Response.parse(answer)
    assert response is not None, "an answer's checksum or length is wrong"
    value, payload = response.value, response.payload
    if response.opcode == Opcode.COUNTERS and payload:
        hidden = ["cycles"]
        if config.memory.latency(config) is None:
            hidden += ["run_cycles", "stall_cycles"]
        masked = bytearray(payload)
        for name in hidden:
            at = 8 * COUNTERS.index(name)
            masked[at : at + 8] = bytes(8)
        payload = bytes(masked)
    if response.opcode == Opcode.RUN and config.memory.latency(config) is None:
        value = 0
    return Response(
        response.opcode,
        response.seq,
        response.session,
        response.status,
        response.expected,
        value,
        payload,
    )


def assert_answers(
    config: AcceleratorConfig, packets: list[tuple[bytes, bytes | None]], answers: list[bytes]
) -> None:
    asked = [(packet, answer) for packet, answer in packets if answer is not None]
    for (packet, expected), answer in zip(asked, answers, strict=True):
        assert comparable(config, answer) == comparable(config, expected), Request.parse(packet)


def is_counters(packet: bytes) -> bool:
    """Whether it must go alone: the counters count what has arrived, not what was answered."""
    return packet[OPCODE_AT : OPCODE_AT + 1] == bytes([Opcode.COUNTERS])


def run_packets(
    dut: Any,
    config: AcceleratorConfig,
    packets: list[tuple[bytes, bytes | None]],
    *,
    idle: float = 0.0,
    pause: float = 0.0,
    seed: int = 0,
    deadline_cycles: int = 400_000,
) -> list[bytes]:
    """Send packets to an accelerator, no more unanswered than its window; its answers."""
    wanted = sum(answer is not None for _, answer in packets)
    answers: list[bytes] = []
    rng = random.Random(seed)
    i_payload, o_payload = Value.cast(dut.i.payload), Value.cast(dut.o.payload)
    i_valid, o_ready = dut.i.valid, dut.o.ready

    async def bench(ctx):
        # All in one loop: one wait a cycle is what the simulator is fast at.
        inputs = Inputs(ctx)
        asked = at = 0
        packet, position, counted = b"", 0, False
        current = bytearray()
        offered = seen = False
        held = None
        for _ in range(deadline_cycles):
            if position == len(packet) and at < len(packets):
                counts = is_counters(packets[at][0])
                if asked - len(answers) < (1 if counts or counted else config.window):
                    packet, position, counted = packets[at][0], 0, counts
                    asked += packets[at][1] is not None
                    at += 1
            if not offered and position < len(packet) and rng.random() >= idle:
                offered = True
                last = position == len(packet) - 1
                inputs.set(i_payload, packet[position] | last << 8)
            elif not offered:
                inputs.set(i_payload, 0x1A5)
            ready = seen if pause == 1.0 else rng.random() >= pause
            inputs.set(i_valid, offered)
            inputs.set(o_ready, ready)
            _, _, taken, valid, item = await ctx.tick().sample(dut.i.ready, dut.o.valid, o_payload)
            if offered and taken:
                offered = False
                position += 1
            assert held is None or (valid and item == held), "an answer did not hold"
            seen = bool(valid and not ready)
            held = item if seen else None
            if valid and ready:
                current.append(item & 0xFF)
                if item >> 8:
                    answers.append(bytes(current))
                    current.clear()
            if at == len(packets) and position == len(packet) and len(answers) == wanted:
                return
        raise TimeoutError(f"{len(answers)} of {wanted} answers in {deadline_cycles} cycles")

    simulate(dut, bench, deadline_cycles=0)
    return answers
