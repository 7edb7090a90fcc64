"""cocotb benches of an emitted accelerator: each answer byte for byte what `ReferenceDevice` gives.

`tritloom.sim.verify.run` runs them. The design's manifest is the file that `TRITLOOM_MANIFEST`
names; the plug-in modules of `TRITLOOM_PLUGINS`, with commas between, are imported before it is
read; a line for each bench that is done is added to the file `TRITLOOM_PROGRESS`.

Only what follows from the clock has its own check: the cycles of COUNTERS lie between the command
and its answer, and the cycles of RUN are taken as they are where the memory has no formula. A bench
writes each weight word and activation before it reads it, and begins with the reset pin and RESET.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import os
import random
import struct
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import cache, wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import Timer, Trigger
from numpy.typing import NDArray

from tritloom.rtl.links.port_names import PortNames, StreamNames
from tritloom.rtl.spec.commands import (
    COUNTERS,
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
from tritloom.rtl.spec.config import PARTIAL_SUM_CYCLES, AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import act_limits, pack_activations, pack_weights
from tritloom.sim.device.reference import ReferenceDevice

MANIFEST = "TRITLOOM_MANIFEST"
PLUGINS = "TRITLOOM_PLUGINS"
PROGRESS = "TRITLOOM_PROGRESS"
WATCHDOG = "TRITLOOM_WATCHDOG_S"

PATTERNS = {"none": (0.0, 0), "light": (0.2, 2), "heavy": (0.4, 7)}
"""Pauses of a stream: how likely one is after a transfer, and its most cycles."""
WATCHDOG_CYCLES = 2000
"""Cycles that may take `watchdog_s`; a simulator that takes longer is stuck, and ended."""

Trits = NDArray[np.int8]


@cache
def manifest() -> dict[str, Any]:
    """The configuration and the pins' names of the design under test."""
    for module in filter(None, os.environ.get(PLUGINS, "").split(",")):
        import_module(module)
    content: dict[str, Any] = json.loads(Path(os.environ[MANIFEST]).read_text(encoding="utf-8"))
    return content


@cache
def config() -> AcceleratorConfig:
    """The configuration of the design under test."""
    return AcceleratorConfig.from_dict(manifest()["config"])


class Pins:
    """The design's pins by their meaning; the manifest has their names.

    `i` and `o` are the streams of commands and responses.
    """

    def __init__(self, dut: Any) -> None:
        names = PortNames.from_dict(manifest()["interface"])
        self.clock = getattr(dut, names.clock)
        self.reset = getattr(dut, names.reset)
        self.reset_level = int(names.reset_active == "high")
        self.i = StreamPins(dut, names.commands)
        self.o = StreamPins(dut, names.responses)


class StreamPins:
    """The pins of one packet stream."""

    def __init__(self, dut: Any, names: StreamNames) -> None:
        self.data = getattr(dut, names.data)
        self.last = getattr(dut, names.last)
        self.valid = getattr(dut, names.valid)
        self.ready = getattr(dut, names.ready)
        for name, bits in names.widths.items():
            found = len(getattr(dut, name))
            assert found == bits, f"{name} must have {bits} bits, not {found}"

    def put(self, payload: int) -> None:
        """Offer a byte; bit 8 of `payload` is `last`."""
        self.data.value, self.last.value = payload & 0xFF, payload >> 8

    def get(self) -> int:
        """The byte that is offered; bit 8 is `last`."""
        return int(self.data.value) | int(self.last.value) << 8


@cache
def watchdog_s() -> float:
    """Seconds of wall clock, from `TRITLOOM_WATCHDOG_S` or five minutes."""
    return float(os.environ.get(WATCHDOG, "300"))


@cache
def budget_cycles() -> int:
    """Clock cycles of one bench that does as much as fits: less for designs that simulate fast."""
    return min(10_000, 1_000 + 200 * config().word_bytes)


covered: set[tuple[int, int]] = set()
"""Opcode and status of each answer seen."""
shapes_done: set[tuple[int, int]] = set()


@dataclass(slots=True)
class Expected:
    """An answer that the reference gave and the design owes."""

    request: Request
    answer: bytes
    sent_cycle: int = 0


class Bench:
    """One design under test: its clock, its two streams and the reference device beside it.

    `idle` and `stall` name the `PATTERNS` of pauses on `i` and of back-pressure on `o`. Inputs
    change after a falling edge and everything is sampled before the next rising one, so no
    simulator's order of events matters.
    """

    def __init__(self, dut: Any, name: str, idle: str = "none", stall: str = "none") -> None:
        self.pins = Pins(dut)
        self.config = config()
        self.random = random.Random(f"{cocotb.RANDOM_SEED} {name} {idle} {stall}")
        self.idle, self.stall = PATTERNS[idle], PATTERNS[stall]
        self.reference = ReferenceDevice(self.config)
        self.cycles = self.session = self.seq = self.dropped = 0
        self.blocked = False
        self.patience = 2_000 + 200 * self.config.word_bytes
        self._pending: deque[bytes] = deque()
        self._sending: deque[int] = deque()
        self._uncertain: deque[bytes] = deque()
        self._owed: deque[Expected] = deque()
        self._timed: dict[bytes, bytes] = {}
        self._answer = bytearray()
        self._complete = True
        self._held: int | None = None
        self._ready = 0

    async def power(self) -> None:
        """Reset by the pin; the device is then as at power-up, but for its memories."""
        pins = self.pins
        pins.clock.value = pins.i.valid.value = pins.o.ready.value = 0
        pins.i.put(0)
        pins.reset.value = pins.reset_level
        for _ in range(3):
            await Timer(1)
            pins.clock.value = 1
            await Timer(1)
            pins.clock.value = 0
        pins.reset.value = 1 - pins.reset_level
        self.reference = ReferenceDevice(self.config)
        self.cycles = self.session = self.seq = self.dropped = 0
        for queue in (self._pending, self._sending, self._uncertain, self._owed):
            queue.clear()
        self._complete, self._held, self._ready = True, None, 0

    async def begin(self) -> None:
        """Power-up and a new session."""
        await self.power()
        await self.renew()

    async def renew(self) -> None:
        self.session, self.seq = self.random.randrange(1, 1 << 32), 0
        await self.send(Request(Opcode.RESET, session=self.session).pack())

    def command(self, opcode: int, **fields: Any) -> bytes:
        """The packet of the next command of the session."""
        self.seq = (self.seq + 1) % 65536
        return Request(opcode, self.seq, self.session, **fields).pack()

    def last(self) -> Response:
        """The last answer."""
        answer = Response.parse(bytes(self._answer))
        assert answer is not None
        return answer

    async def do(self, opcode: int, expect: Status | None = None, **fields: Any) -> Response:
        """Execute one command; `expect` is its status, where the bench is sure of it."""
        await self.send(self.command(opcode, **fields))
        answer = self.last()
        assert expect is None or answer.status == expect, (
            f"status of {name_of(opcode)} must be {expect!r}, not {answer.status}"
        )
        return answer

    async def send(self, *packets: bytes) -> None:
        """Send packets, as many at once as may be unanswered; check every answer."""
        self._pending.extend(packets)
        await self._clock(lambda: not (self._pending or self._sending or self._owed))

    async def quiet(self, cycles: int) -> None:
        """Let time pass; nothing may come."""
        end = self.cycles + cycles
        await self._clock(lambda: self.cycles >= end)

    async def begin_to_send(self, packet: bytes, cycles: int) -> None:
        """Send a packet, or what gets through in `cycles`; its answer may begin."""
        self._queue(packet)
        self._expect(packet)
        end = self.cycles + cycles
        await self._clock(lambda: self.cycles >= end)

    async def flood(self, packets: Sequence[bytes]) -> list[bytes]:
        """Send packets while no answer is taken, then take the answers; returns the dropped ones.

        The first two are given time: one may wait in the processor and one in the sender.
        """
        self.blocked = True
        for number, packet in enumerate(packets):
            self._queue(packet)
            await self._clock(lambda: not self._sending)
            if number < 2:
                await self.quiet(3 * self.config.packet_bytes)
        assert int(self.pins.o.valid.value) == 1, "o.valid must not wait for o.ready"
        self.blocked = False
        self._uncertain.extend(packets)
        left = -1
        while left != len(self._uncertain):
            left = len(self._uncertain)
            await self.quiet(self.patience // 4)
        await self._clock(lambda: not self._owed)
        dropped = list(self._uncertain)
        self._uncertain.clear()
        self.dropped += len(dropped)
        return dropped

    def _queue(self, packet: bytes) -> None:
        self._sending.extend(packet)
        self._sending[-1] |= 0x100

    def _expect(self, packet: bytes) -> None:
        answer = self.reference.process(packet)
        request = Request.parse(packet)
        if answer is not None and request is not None:
            self._owed.append(Expected(request, answer))

    def _next_packet(self) -> None:
        """Start the next packet if its answer has room; COUNTERS goes alone: it counts others."""
        alone = any(owed.request.opcode == Opcode.COUNTERS for owed in self._owed)
        packet = self._pending[0]
        counts = packet[8:9] == bytes([Opcode.COUNTERS])
        if alone or len(self._owed) >= (1 if counts else self.config.window):
            return
        self._queue(self._pending.popleft())
        self._expect(packet)

    async def _clock(self, done: Callable[[], bool]) -> None:
        """Run the clock until `done`; the heart of the bench, once for every cycle."""
        i, o, rng, half = self.pins.i, self.pins.o, self.random, Timer(1)
        clk, i_valid, i_ready = self.pins.clock, i.valid, i.ready
        o_valid, o_ready = o.valid, o.ready
        offered = False
        pause = hold = 0
        progress = self.cycles
        while not done():
            if not offered and pause == 0:
                if not self._sending and self._pending:
                    self._next_packet()
                if self._sending:
                    i_valid.value = 1
                    i.put(self._sending[0])
                    offered = True
            wanted = int(hold == 0 and not self.blocked)
            if wanted != self._ready:
                o_ready.value = self._ready = wanted
            await half
            self.cycles += 1
            taken = offered and int(i_ready.value) == 1
            if int(o_valid.value):
                payload = o.get()
                assert self._held in (None, payload), (
                    f"o.payload must hold until it is taken, in cycle {self.cycles}"
                )
                self._held = None if wanted else payload
                if wanted:
                    progress = self.cycles
                    self._take(payload)
            else:
                assert self._held is None, (
                    f"o.valid must hold until it is taken, in cycle {self.cycles}"
                )
            clk.value = 1
            await half
            clk.value = 0
            pause, hold = max(0, pause - 1), max(0, hold - 1)
            if taken:
                progress = self.cycles
                self._sending.popleft()
                offered = False
                if not self._sending and self._owed and not self.blocked:
                    self._owed[-1].sent_cycle = self.cycles
                if rng.random() < self.idle[0]:
                    pause = rng.randint(1, self.idle[1])
                if pause or not (self._sending or self._pending):
                    i_valid.value = 0
                    i.put(rng.getrandbits(9))
                elif not self._sending:
                    i_valid.value = 0
            if hold == 0 and rng.random() < self.stall[0]:
                hold = rng.randint(1, self.stall[1])
            if self.cycles % WATCHDOG_CYCLES == 0:
                faulthandler.dump_traceback_later(watchdog_s(), exit=True)
            if self.cycles - progress > self.patience and (self._owed or self._sending):
                waiting = (
                    f"answer to {told(self._owed[0].request)}" if self._owed else "end of a packet"
                )
                raise AssertionError(f"no {waiting} in {self.patience} cycles")

    def _take(self, payload: int) -> None:
        """One byte of an answer."""
        if self._complete:
            self._answer.clear()
            if not self._owed and self._uncertain:
                self._expect(self._uncertain.popleft())
        self._complete = payload >= 0x100
        self._answer.append(payload & 0xFF)
        assert self._owed, f"the design sent {payload & 0xFF:#04x} when it owed nothing"
        owed = self._owed[0]
        assert len(self._answer) <= self.config.packet_bytes, (
            f"answer to {told(owed.request)} must end by {self.config.packet_bytes} bytes"
        )
        if self._complete:
            self._owed.popleft()
            self._compare(owed, bytes(self._answer))

    def _compare(self, owed: Expected, packet: bytes) -> None:
        request, right = owed.request, Response.parse(owed.answer)
        assert right is not None
        covered.add((request.opcode, right.status))
        if (first := self._timed.get(owed.answer)) is not None:
            assert packet == first, f"the answer to {told(request)} must be the first one again"
            return
        answer = Response.parse(packet)
        assert answer is not None, (
            f"answer to {told(request)} has a wrong checksum or length: {packet.hex()}"
        )
        seen = answer
        if right.status == Status.OK:
            if request.opcode in (Opcode.RUN, Opcode.COUNTERS):
                self._timed[owed.answer] = packet
            if request.opcode == Opcode.RUN and formula_cycles(self.config) is None:
                assert answer.value > 0, f"RUN must take a cycle or more, not {answer.value}"
                seen = replace(answer, value=right.value)
            elif request.opcode == Opcode.COUNTERS:
                payload = self._check_counters(owed, answer.payload, right.payload)
                seen = replace(answer, payload=payload)
        assert seen == right, f"answer to {told(request)}: {difference(right, seen)}"

    def _check_counters(self, owed: Expected, payload: bytes, right: bytes) -> bytes:
        """The payload with what follows from the clock checked and replaced by the reference's."""
        layout = f"<{len(COUNTERS)}Q"
        if len(payload) != len(right):
            return payload
        found = dict(zip(COUNTERS, struct.unpack(layout, payload), strict=True))
        model = dict(zip(COUNTERS, struct.unpack(layout, right), strict=True))
        cycles, run, stall = found["cycles"], found["run_cycles"], found["stall_cycles"]
        assert owed.sent_cycle - 2 <= cycles <= self.cycles + 2, (
            f"cycles must be {owed.sent_cycle} to {self.cycles}, not {cycles}"
        )
        assert stall <= run <= cycles, (
            f"stall_cycles {stall}, run_cycles {run} and cycles {cycles} must be in this order"
        )
        assert found["dropped_packets"] == self.dropped, (
            f"dropped_packets must be {self.dropped}, not {found['dropped_packets']}"
        )
        for name in ("cycles", "stall_cycles", "dropped_packets"):
            found[name] = model[name]
        if formula_cycles(self.config) is None:
            found["run_cycles"] = model["run_cycles"]
        return struct.pack(layout, *found.values())

    # What a driver does with a layer.

    def writes(self, index: int, image: bytes, address: int = 0) -> list[bytes]:
        """WRITE packets for an image, from one of the layer's words."""
        size = self.config.word_bytes
        step = self.config.max_payload // size * size
        return [
            self.command(
                Opcode.WRITE,
                index=index,
                address=address + at // size,
                payload=image[at : at + step],
            )
            for at in range(0, len(image), step)
        ]

    def dirty(self, image: bytes) -> bytes:
        """The image with random bits above each word, where it has room: the device has none."""
        words = np.frombuffer(image, np.uint8).reshape(-1, self.config.word_bytes).copy()
        spare = 8 * self.config.word_bytes - self.config.word_bits
        noise = np.frombuffer(self.random.randbytes(len(words)), np.uint8)
        words[:, -1] |= noise & (0xFF << (8 - spare) & 0xFF)
        return words.tobytes()

    def places(self, index: int, base: int, trits: Trits) -> list[bytes]:
        """Packets that define, write and commit a layer."""
        shape = LayerShape.of(self.config, *trits.shape)
        image = pack_weights(self.config, trits)
        layer = LAYER.pack(base, shape.tiles, shape.row_groups)
        return [
            self.command(Opcode.DEFINE, index=index, payload=layer),
            *self.writes(index, self.dirty(image)),
            self.command(Opcode.COMMIT, index=index, address=zlib.crc32(image)),
        ]

    def loads(self, codes: Trits) -> list[bytes]:
        """LOAD packets for the activations of all tokens, int8 [tokens, in]."""
        fill = self.config.fill
        step = self.config.max_payload // fill * fill
        packets = []
        for token, row in enumerate(codes):
            image = pack_activations(self.config, row)
            packets += [
                self.command(
                    Opcode.LOAD, index=token, address=at // fill, payload=image[at : at + step]
                )
                for at in range(0, len(image), step)
            ]
        return packets

    def reads(self, out_features: int) -> list[bytes]:
        """RESULTS packets for all tokens, in pieces of several sizes."""
        config = self.config
        most = config.max_payload // config.acc_bytes
        packets = []
        for token in range(config.tokens):
            row = 0
            while row < out_features:
                count = min(most, out_features - row)
                if count > config.rows and self.random.random() < 0.3:
                    count = self.random.randrange(1, count // config.rows + 1) * config.rows
                if count >= config.rows and row + count < out_features:
                    count -= count % config.rows  # the next piece begins with a group
                packets.append(
                    self.command(
                        Opcode.RESULTS, index=token, address=row // config.rows, count=count
                    )
                )
                row += count
        return packets

    def trits(self, shape: tuple[int, int], kind: str) -> Trits:
        return values(self.random, shape, kind, ALPHABETS[self.config.alphabet])

    def codes(self, in_features: int, kind: str) -> Trits:
        least, most = act_limits(self.config)
        return values(self.random, (self.config.tokens, in_features), kind, range(least, most + 1))


def values(rng: random.Random, shape: tuple[int, int], kind: str, choices: Sequence[int]) -> Trits:
    """int8 values: random ones, the extremes at random, or one extreme everywhere."""
    least, most = choices[0], choices[-1]
    numpy = np.random.default_rng(rng.getrandbits(64))
    match kind:
        case "least":
            return np.full(shape, least, np.int8)
        case "most":
            return np.full(shape, most, np.int8)
        case "extreme":
            return numpy.choice(np.array([least, most], np.int8), shape)
        case _:
            return numpy.choice(np.array(choices, np.int8), shape)


def name_of(opcode: int) -> str:
    names = {code.value: code.name for code in Opcode}
    return names.get(opcode, f"opcode {opcode}")


def told(request: Request) -> str:
    """A command as a line of a report shows it."""
    fields = ", ".join(f"{name} {getattr(request, name)}" for name in ("index", "count", "address"))
    return f"{name_of(request.opcode)} ({fields}, {len(request.payload)} bytes), seq {request.seq}"


def difference(right: Response, seen: Response) -> str:
    """What is wrong in an answer, on one line."""
    wrong = []
    for name in ("opcode", "seq", "session", "status", "expected", "value"):
        if getattr(right, name) != getattr(seen, name):
            wrong.append(f"{name} must be {getattr(right, name)}, not {getattr(seen, name)}")
    if len(right.payload) != len(seen.payload):
        wrong.append(f"payload must have {len(right.payload)} bytes, not {len(seen.payload)}")
    elif right.payload != seen.payload:
        pairs = enumerate(zip(right.payload, seen.payload, strict=True))
        at, (model, byte) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
        wrong.append(f"payload byte {at} must be {model:#04x}, not {byte:#04x}")
    return "; ".join(wrong)


def formula_cycles(config: AcceleratorConfig) -> int | None:
    """`None` where no formula gives the cycles of RUN."""
    return config.run_cycles(LayerShape(1, 1))


def bench(
    run: Callable[..., Coroutine[Trigger, None, None]],
) -> Callable[..., Coroutine[Trigger, None, None]]:
    """Tell the progress file when a bench is done, and end a simulator that is stuck."""

    @wraps(run)
    async def wrapper(dut: Any, **parameters: str) -> None:
        name = " ".join([run.__name__, *(f"{key}={value}" for key, value in parameters.items())])
        faulthandler.dump_traceback_later(watchdog_s(), exit=True)
        passed = False
        try:
            await run(dut, **parameters)
            passed = True
        finally:
            faulthandler.cancel_dump_traceback_later()
            if path := os.environ.get(PROGRESS):
                with open(path, "a", encoding="utf-8") as file:
                    file.write(f"{name}: {'passed' if passed else 'FAILED'}\n")

    return wrapper


@cocotb.test()
@bench
async def power_up(dut: Any) -> None:
    """Session 0 with 1 as the next seq, no layer, no results; first of all, in fresh memories."""
    t = Bench(dut, "power_up")
    await t.power()
    await t.send(Request(Opcode.IDENTIFY, 1, 77, count=4).pack())
    await t.send(Request(Opcode.IDENTIFY, 2, count=4).pack())
    answer = await t.do(Opcode.COUNTERS, Status.OK)
    assert answer.expected == 2
    await t.do(Opcode.RESULTS, Status.BAD_STATE, count=1)
    for index in {0, t.config.max_layers - 1}:
        await t.do(Opcode.RUN, Status.BAD_STATE, index=index, count=1)
        await t.do(Opcode.READ, Status.BAD_STATE, index=index, count=1)
    await t.send(Request(Opcode.RESET).pack())
    await t.do(Opcode.IDENTIFY, Status.OK, count=1)
    await t.renew()
    await t.do(Opcode.COUNTERS, Status.OK)
    await t.quiet(50)


@cocotb.test()
@cocotb.parametrize(idle=list(PATTERNS), stall=list(PATTERNS))
@bench
async def identify(dut: Any, idle: str, stall: str) -> None:
    """The identity that the design carries is its configuration's."""
    t = Bench(dut, "identify", idle, stall)
    await t.begin()
    size = len(identity(t.config))
    step = t.config.max_payload
    if idle != stall:  # whole and in order where both streams are alike; else a part
        first = t.random.randrange(size)
        await t.do(Opcode.IDENTIFY, address=first, count=min(step, size - first))
        return
    read = b""
    for at in range(0, size, step):
        read += (
            await t.do(Opcode.IDENTIFY, Status.OK, address=at, count=min(step, size - at))
        ).payload
    assert read == identity(t.config)
    await t.do(Opcode.IDENTIFY, Status.OUT_OF_RANGE, address=size - 1, count=2)


def layer_cycles(config: AcceleratorConfig, out_features: int, in_features: int) -> int:
    """About how many cycles a layer takes: write, commit, load, run, read."""
    shape = LayerShape.of(config, out_features, in_features)
    weights = shape.words * (2 * config.word_bytes + 3)
    loaded = config.tokens * shape.tiles * config.lanes
    loads = loaded * (config.fill + 2) // config.fill
    results = 2 * config.tokens * shape.row_groups * config.rows * config.acc_bytes
    transfers = weights + loads + results
    return 400 + transfers + transfers * 60 // config.max_payload + shape.words


@cache
def plan() -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Layer shapes (out, in) for each pair of patterns: the edges of the geometry, then random."""
    config_ = config()
    lanes, rows = config_.lanes, config_.rows
    most = (config_.max_out_features, config_.max_in_features)
    inputs = [1, lanes - 1, lanes, lanes + 1, 2 * lanes, 3 * lanes - 1, most[1]]
    outputs = [1, rows - 1, rows, rows + 1, rows * PARTIAL_SUM_CYCLES]
    outputs += [rows * (PARTIAL_SUM_CYCLES - 1) + 1, rows * (PARTIAL_SUM_CYCLES + 1), most[0]]
    total = 9 * budget_cycles()

    def fitted(out_features: int, in_features: int) -> tuple[int, int]:
        """The shape within the limits of the design, and a fifth of the cycles at most."""
        out_features = max(1, min(out_features, most[0]))
        in_features = max(1, min(in_features, most[1]))
        while (
            LayerShape.of(config_, out_features, in_features).words > config_.memory_words
            or layer_cycles(config_, out_features, in_features) > total // 5
        ) and (out_features, in_features) != (1, 1):
            if out_features > rows or in_features == 1:
                out_features = max(1, out_features * 3 // 4)
            else:
                in_features = max(1, in_features * 3 // 4)
        return out_features, in_features

    wanted = [(1, 1), (1, most[1]), (most[0], 1)]
    wanted += [
        (outputs[(3 * n) % len(outputs)], inputs[n % len(inputs)])
        for n in range(max(len(inputs), len(outputs)))
    ]
    rng = random.Random(f"{cocotb.RANDOM_SEED} plan")
    shapes = list(dict.fromkeys(fitted(*shape) for shape in wanted))
    loads = dict.fromkeys(itertools.product(PATTERNS, PATTERNS), 0.0)
    planned: dict[tuple[str, str], list[tuple[int, int]]] = {pair: [] for pair in loads}
    slow = {name: 1 + chance * (most_ + 1) / 2 for name, (chance, most_) in PATTERNS.items()}

    def assign(shape: tuple[int, int]) -> None:
        def end(pair: tuple[str, str]) -> float:
            pace = (slow[pair[0]] + slow[pair[1]]) / 2
            return loads[pair] + pace * layer_cycles(config_, *shape)

        pair = min(loads, key=end)
        loads[pair] = end(pair)
        planned[pair].append(shape)

    for shape in sorted(shapes, key=lambda shape: -layer_cycles(config_, *shape)):
        assign(shape)
    while any(not done for done in planned.values()) or sum(loads.values()) < total:
        assign(fitted(rng.randint(1, 4 * rows + 1), rng.randint(1, 3 * lanes + 1)))
        if sum(map(len, planned.values())) > 200:
            break
    return planned


@cocotb.test()
@cocotb.parametrize(idle=list(PATTERNS), stall=list(PATTERNS))
@bench
async def layers(dut: Any, idle: str, stall: str) -> None:
    """Layers of all shapes at the geometry's edges, several resident; exact products."""
    t = Bench(dut, "layers", idle, stall)
    await t.begin()
    most_words, most_layers = t.config.memory_words, t.config.max_layers
    resident: dict[int, tuple[int, int]] = {}
    base = index = 0
    kinds = [("most", "least"), ("random", "random"), ("extreme", "extreme"), ("least", "most")]
    shapes = plan()[idle, stall]
    for number, shape in enumerate(shapes):
        words = LayerShape.of(t.config, *shape).words
        if number == 0 and most_layers > 1:  # at the end of memory and table, where it may stay
            place, at = most_layers - 1, t.config.memory_words - words
            most_words, most_layers = at, most_layers - 1
        else:
            if base + words > most_words or index == most_layers:
                resident = {key: kept for key, kept in resident.items() if key >= most_layers}
                base = index = 0
            if words > most_words:
                resident.clear()
                most_words = t.config.memory_words
            place, at = index, base
            base, index = base + words, index + 1
        codes, weights = kinds[number % len(kinds)]
        if shape[1] == max(in_features for _, in_features in shapes):
            codes, weights = "least", "least"  # −128 × −1 in the longest sum
        t.patience = 2_000 + 4 * layer_cycles(t.config, *shape)
        await t.send(
            *t.places(place, at, t.trits(shape, weights)),
            *t.loads(t.codes(shape[1], codes)),
            t.command(Opcode.RUN, index=place, count=t.random.randint(1, t.config.tokens)),
            *t.reads(shape[0]),
        )
        assert t.last().status == Status.OK
        resident[place] = shape
        shapes_done.add(shape)
    for place, shape in sorted(resident.items(), key=lambda item: layer_cycles(t.config, *item[1]))[
        :2
    ]:
        await t.send(
            *t.loads(t.codes(shape[1], "random")),
            t.command(Opcode.RUN, index=place, count=1),
            *t.reads(shape[0]),
        )
        words = LayerShape.of(t.config, *shape).words
        count = min(words, t.config.max_payload // t.config.word_bytes)
        await t.do(Opcode.READ, Status.OK, index=place, address=words - count, count=count)
    await t.do(Opcode.COUNTERS, Status.OK)


@cocotb.test()
@cocotb.parametrize((("idle", "stall"), [(name, name) for name in PATTERNS]))
@bench
async def order(dut: Any, idle: str, stall: str) -> None:
    """Nothing is executed twice, out of order, or of another session."""
    t = Bench(dut, "order", idle, stall)
    await t.begin()
    trits = t.trits((1, 1), "random")
    done = t.places(0, 0, trits) + t.loads(t.codes(1, "random"))
    done += [t.command(Opcode.RUN, index=0, count=1), t.command(Opcode.RESULTS, count=1)]
    for number, packet in enumerate(done):
        await t.send(packet, packet)  # the second is a replay
        await t.send(*done[max(0, number + 1 - t.config.window) : number + 1])
    if len(done) > t.config.window:
        await t.send(done[-1 - t.config.window])
        assert t.last().status == Status.NAK
    gap = Request(Opcode.RUN, t.seq + 2, t.session, count=1).pack()
    far = Request(Opcode.RUN, t.seq + 32768, t.session, count=1).pack()
    late = Request(Opcode.RUN, 0, t.session, count=1, payload=bytes(3)).pack()
    for packet in (gap, far, late):
        await t.send(packet)
        assert t.last().status == Status.NAK
    other = Request(Opcode.RUN, t.seq + 1, t.session ^ 1, count=1, payload=bytes(3)).pack()
    await t.send(other)
    assert t.last().status == Status.NO_SESSION
    # The session's own number changes nothing, another one forgets all.
    reset = Request(Opcode.RESET, 99, t.session).pack()
    await t.send(reset)
    assert t.last().status == Status.OK and t.last().expected == t.seq + 1
    await t.do(Opcode.RUN, Status.OK, count=1)
    old = t.command(Opcode.RUN, count=1)
    await t.send(old)
    await t.renew()
    await t.send(old)
    assert t.last().status == Status.NO_SESSION
    await t.send(Request(Opcode.RUN, 0, t.session).pack())
    assert t.last().status == Status.NAK  # nothing to replay
    await t.do(Opcode.RESULTS, Status.BAD_STATE, count=1)
    for index in {0, t.config.max_layers - 1}:
        await t.do(Opcode.READ, Status.BAD_STATE, index=index, count=1)
    await t.do(Opcode.COUNTERS, Status.OK)
    await t.send(Request(Opcode.RESET, 1, t.session ^ 2, payload=b"x").pack())
    await t.quiet(20)


@cocotb.test()
@cocotb.parametrize((("idle", "stall"), [(name, name) for name in PATTERNS]))
@bench
async def damage(dut: Any, idle: str, stall: str) -> None:
    """Packets with a wrong checksum or length are dropped, and change nothing."""
    t = Bench(dut, "damage", idle, stall)
    await t.begin()
    rng = t.random
    good = Request(Opcode.RESET, 5, t.session ^ 0x55, address=rng.getrandbits(32)).pack()
    body = good[:-4]

    def flipped(bit: int) -> bytes:
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        return bytes(bad)

    bits = [8 * place + rng.randrange(8) for place in range(len(good))]
    sizes = [6, 15, HEADER_BYTES, OVERHEAD_BYTES - 1]
    bad = [flipped(bit) for bit in bits]
    bad += [rng.randbytes(1), good[:-1], good + b"\0", good + good, good[1:]]
    bad += [seal((len(good) + off).to_bytes(2, "little") + body[2:]) for off in (-1, 1, 256)]
    # A right checksum and the right length of a packet that is too short.
    bad += [bytes(4), *(seal(size.to_bytes(2, "little") + bytes(size - 6)) for size in sizes)]
    large = t.config.packet_bytes
    for size in (large + 1, large + 40, 2 * large):
        header = Request(Opcode.RESET, 5, t.session ^ 0x55, payload=bytes(size - OVERHEAD_BYTES))
        bad.append(header.pack())
    if idle == "none":
        bad.append(rng.randbytes(t.config.slots * large + 5))
    for number, packet in enumerate(bad):
        await t.send(packet)
        if number % 8 == 0:
            await t.do(Opcode.IDENTIFY, Status.OK, count=1)
    await t.do(Opcode.COUNTERS, Status.OK)
    # The largest packet is taken.
    payload = rng.randbytes(large - OVERHEAD_BYTES)
    await t.send(*(t.command(0, payload=payload) for _ in range(2)))
    await t.do(Opcode.COUNTERS, Status.OK)
    await t.quiet(50)


@cocotb.test()
@cocotb.parametrize((("idle", "stall"), [("none", "none"), ("light", "heavy")]))
@bench
async def overflow(dut: Any, idle: str, stall: str) -> None:
    """With nothing read, as many packets as may be unanswered find room; the rest are dropped."""
    t = Bench(dut, "overflow", idle, stall)
    await t.begin()
    packets = [
        t.command(0, index=number, payload=t.random.randbytes(t.config.max_payload))
        for number in range(t.config.slots + 4)
    ]
    dropped = await t.flood(packets)
    assert dropped and len(packets) - len(dropped) >= t.config.window, (
        f"the receive buffer must hold {t.config.window} packets, not drop {len(dropped)} "
        f"of {len(packets)}"
    )
    await t.send(*dropped)  # none of them was executed
    await t.do(Opcode.COUNTERS, Status.OK)


@cocotb.test()
@bench
async def restart(dut: Any) -> None:
    """The reset pin ends whatever the device is doing."""
    t = Bench(dut, "restart")
    shape = (t.config.rows, t.config.lanes)
    whole = 2 * OVERHEAD_BYTES
    for opcode, cycles in (
        (Opcode.COUNTERS, OVERHEAD_BYTES // 2),
        (Opcode.COUNTERS, 6 * OVERHEAD_BYTES),
        (Opcode.RUN, whole + 2),
        (Opcode.RUN, whole + t.config.engine_latency),
        (Opcode.COMMIT, whole + 4),
    ):
        await t.begin()
        await t.send(*t.places(0, 0, t.trits(shape, "random")), *t.loads(t.codes(1, "random")))
        await t.begin_to_send(t.command(opcode, count=1), cycles)
    await t.begin()
    await t.send(*t.places(0, 0, t.trits(shape, "random")), *t.loads(t.codes(1, "random")))
    await t.do(Opcode.RUN, Status.OK, count=1)
    await t.send(*t.reads(t.config.rows))
    await t.do(Opcode.COUNTERS, Status.OK)


def failures(t: Bench) -> list[tuple[Status, int, dict[str, Any]]]:
    """Commands that fail, with their status, for a device with layer 0 committed and 1 open.

    Both layers have one tile and one group, layer 1 directly behind layer 0 at word 0; layer
    `max_layers` - 1 is not defined.
    """
    config_, op = t.config, Opcode
    long, range_, state = Status.BAD_LENGTH, Status.OUT_OF_RANGE, Status.BAD_STATE
    size, word = len(identity(config_)), bytes(config_.word_bytes)
    far = 0xFFFF_FFFF
    last = config_.max_layers - 1
    tail = config_.activation_words
    act = bytes(config_.fill)
    cases: list[tuple[Status, int, dict[str, Any]]] = [
        (long, op.IDENTIFY, {"count": 1, "payload": b"x"}),
        (long, op.IDENTIFY, {"count": 0}),
        (long, op.IDENTIFY, {"count": config_.max_payload + 1}),
        (range_, op.IDENTIFY, {"count": 1, "address": size}),
        (range_, op.IDENTIFY, {"count": 1, "address": far}),
        (range_, op.IDENTIFY, {"count": 1, "address": 1 << 31}),
        (long, op.DEFINE, {"index": last}),
        (long, op.DEFINE, {"index": last, "payload": bytes(LAYER.size - 1)}),
        (long, op.DEFINE, {"index": last, "payload": bytes(LAYER.size + 1)}),
        (range_, op.WRITE, {"index": 1, "address": 1, "payload": word}),
        (range_, op.WRITE, {"index": 1, "address": far, "payload": word}),
        (state, op.WRITE, {"index": 0, "payload": word}),
        (long, op.READ, {"count": 0}),
        (long, op.READ, {"count": 1, "payload": b"x"}),
        (long, op.READ, {"count": config_.max_payload // config_.word_bytes + 1}),
        (range_, op.READ, {"count": 1, "address": 1}),
        (range_, op.READ, {"count": 1, "address": far}),
        (long, op.COMMIT, {"index": 1, "payload": b"xy"}),
        (state, op.COMMIT, {"index": 0}),
        (Status.BAD_CHECKSUM, op.COMMIT, {"index": 1, "address": 0}),
        (range_, op.LOAD, {"index": config_.tokens, "payload": act}),
        (range_, op.LOAD, {"index": 255, "payload": act}),
        (range_, op.LOAD, {"address": tail, "payload": act}),
        (range_, op.LOAD, {"address": far, "payload": act}),
        (long, op.RUN, {"count": 0}),
        (long, op.RUN, {"count": config_.tokens + 1}),
        (long, op.RUN, {"count": 1, "payload": b"x"}),
        (state, op.RUN, {"count": 1, "index": 1}),
        (long, op.RESULTS, {"count": 0}),
        (long, op.RESULTS, {"count": config_.max_payload // config_.acc_bytes + 1}),
        (long, op.RESULTS, {"count": 1, "payload": b"x"}),
        (range_, op.RESULTS, {"count": 1, "index": config_.tokens}),
        (range_, op.RESULTS, {"count": 1, "address": 1}),
        (range_, op.RESULTS, {"count": 1, "address": far}),
        (long, op.COUNTERS, {"payload": b"x"}),
        *((Status.BAD_OPCODE, code, {}) for code in (0, max(Opcode) + 1, 127, 255)),
        (Status.BAD_OPCODE, 0, {"payload": bytes(config_.max_payload)}),
    ]
    for layer in (
        (config_.memory_words, 1, 1),
        (config_.memory_words + 1, 1, 1),
        (far, 1, 1),
        (0, 0, 1),
        (0, 1, 0),
        (0, config_.max_tiles + 1, 1),
        (0, 1, config_.max_row_groups + 1),
        (0, 0xFFFF, 0xFFFF),
    ):
        cases.append((range_, op.DEFINE, {"index": last, "payload": LAYER.pack(*layer)}))
    if config_.word_bytes > 1:
        cases.append((long, op.WRITE, {"index": 1, "address": 1, "payload": word[1:]}))
    if 2 * config_.word_bytes <= config_.max_payload:
        cases.append((range_, op.READ, {"count": 2, "index": 1}))
    if (config_.rows + 1) * config_.acc_bytes <= config_.max_payload:
        cases.append((range_, op.RESULTS, {"count": config_.rows + 1}))
    if config_.fill > 1:
        cases.append((long, op.LOAD, {"payload": act[1:]}))
    if config_.max_layers < 256:
        wrong = {"index": config_.max_layers}
        for opcode in (op.WRITE, op.COMMIT, op.RUN, op.READ):
            cases.append((range_, opcode, wrong))
        cases.append((range_, op.DEFINE, wrong | {"payload": LAYER.pack(0, 1, 1)}))
    if last > 1:
        for opcode in (op.WRITE, op.COMMIT):
            cases.append((state, opcode, {"index": last}))
        for opcode in (op.READ, op.RUN):
            cases.append((state, opcode, {"index": last, "count": 1}))
    return cases


def possible(config_: AcceleratorConfig) -> set[tuple[int, int]]:
    """Each opcode with each status that it can have in a design."""
    op, ok = Opcode, Status.OK
    long, range_, state = Status.BAD_LENGTH, Status.OUT_OF_RANGE, Status.BAD_STATE
    table: dict[int, tuple[Status, ...]] = {
        op.RESET: (ok,),
        op.IDENTIFY: (ok, long, range_, Status.NAK, Status.NO_SESSION),
        op.DEFINE: (ok, long, range_),
        op.WRITE: (ok, range_, state, long)[: 4 if config_.word_bytes > 1 else 3],
        op.READ: (ok, long, range_, state),
        op.COMMIT: (ok, long, state, Status.BAD_CHECKSUM),
        op.LOAD: (ok, range_, long)[: 3 if config_.fill > 1 else 2],
        op.RUN: (ok, long, state, Status.NAK, Status.NO_SESSION),
        op.RESULTS: (ok, long, range_, state),
        op.COUNTERS: (ok, long),
        0: (Status.BAD_OPCODE,),
    }
    return {(opcode, status) for opcode, statuses in table.items() for status in statuses}


@cocotb.test()
@cocotb.parametrize((("idle", "stall"), [("none", "none"), ("heavy", "light")]))
@bench
async def errors(dut: Any, idle: str, stall: str) -> None:
    """Every status of every opcode; a command that fails changes nothing."""
    t = Bench(dut, "errors", idle, stall)
    await t.begin()
    await t.do(Opcode.RESULTS, Status.BAD_STATE, count=1)
    shape = (t.config.rows, t.config.lanes)
    image = pack_weights(t.config, t.trits(shape, "random"))
    await t.send(*t.places(0, 0, t.trits(shape, "random")), *t.loads(t.codes(1, "random")))
    two = t.config.max_layers > 1 and t.config.memory_words > 1
    if two:
        layer = LAYER.pack(1, 1, 1)
        await t.do(Opcode.DEFINE, Status.OK, index=1, payload=layer)
        await t.send(*t.writes(1, image))
    await t.do(Opcode.RUN, Status.OK, count=1)
    cases = [case for case in failures(t) if two or case[2].get("index") != 1]
    t.random.shuffle(cases)
    for number, (status, opcode, fields) in enumerate(cases):
        if opcode in (Opcode.WRITE, Opcode.LOAD, Opcode.DEFINE):
            fields = fields | {"count": t.random.getrandbits(16)}
        await t.do(opcode, status, **fields)
        if number % 6 == 0:
            await t.send(*t.reads(t.config.rows))
            assert t.last().status == Status.OK
    if two:
        await t.do(Opcode.COMMIT, Status.OK, index=1, address=zlib.crc32(image))
        await t.do(Opcode.RUN, Status.OK, index=1, count=1)
        await t.send(*t.reads(t.config.rows))
    await t.do(Opcode.RUN, Status.OK, index=0, count=1)
    await t.send(*t.reads(t.config.rows))
    await t.do(Opcode.COUNTERS, Status.OK)


class Mix:
    """Random commands, right and wrong, on a few words and activations that the bench has written.

    Layers lie only in the last `words` weight words and have at most `tiles` tiles.
    """

    def __init__(self, t: Bench) -> None:
        config_ = self.config = t.config
        self.t, self.random = t, t.random
        self.words = min(config_.memory_words, config_.max_row_groups, 12)
        self.base = config_.memory_words - self.words
        self.tiles = min(config_.max_tiles, 3, self.words)
        self.layers: dict[int, int] = {}
        self.sent: deque[bytes] = deque(maxlen=config_.window + 2)

    def image(self, words: int) -> bytes:
        if words == 0:
            return b""
        shape = (words * self.config.rows, self.config.lanes)
        return self.t.dirty(pack_weights(self.config, self.t.trits(shape, "random")))

    async def prepare(self) -> None:
        t = self.t
        trits = t.trits((self.words * self.config.rows, 1), "random")
        features = min(self.config.max_in_features, self.tiles * self.config.lanes)
        await t.send(*t.places(0, self.base, trits), *t.loads(t.codes(features, "random")))
        self.layers = {0: self.words}

    def index(self) -> int:
        rng = self.random
        if self.layers and rng.random() < 0.8:
            return rng.choice(sorted(self.layers))
        return rng.choice([rng.randrange(256), min(255, self.config.max_layers), 0])

    def around(self, *limits: int) -> int:
        """A number near 0 or one of the limits, rarely far away."""
        rng = self.random
        if rng.random() < 0.05:
            return rng.choice([0xFFFF, rng.getrandbits(16)])
        return max(0, rng.choice([0, *limits, rng.randint(0, max(limits))]) + rng.randint(-1, 1))

    def fields(self, opcode: int) -> dict[str, Any]:
        rng, config_ = self.random, self.config
        match opcode:
            case Opcode.IDENTIFY:
                size = len(identity(config_))
                count = rng.choice([1, rng.randint(0, 40)])
                return {"address": self.around(size - count, size), "count": count}
            case Opcode.DEFINE:
                return self._definition()
            case Opcode.WRITE:
                index = self.index()
                image = self.image(
                    rng.randint(0, min(3, config_.max_payload // config_.word_bytes))
                )
                if rng.random() < 0.2:
                    image = image[: rng.randint(0, len(image))]
                return {
                    "index": index,
                    "address": self.around(self.layers.get(index, 1)),
                    "count": rng.getrandbits(16),
                    "payload": image,
                }
            case Opcode.READ:
                index = self.index()
                words = self.layers.get(index, 1)
                return {
                    "index": index,
                    "address": self.around(words),
                    "count": self.around(1, config_.max_payload // config_.word_bytes),
                }
            case Opcode.LOAD:
                words = rng.randint(0, min(4, config_.max_payload // config_.fill))
                payload = rng.randbytes(words * config_.fill)
                if rng.random() < 0.2:
                    payload = payload[: rng.randint(0, len(payload))]
                return {
                    "index": self.around(config_.tokens),
                    "address": self.around(config_.activation_words),
                    "count": rng.getrandbits(16),
                    "payload": payload,
                }
            case Opcode.RUN:
                count = rng.randint(0, config_.tokens + 1)
                return {"index": self.index(), "count": count, "address": rng.getrandbits(32)}
            case Opcode.RESULTS:
                return {
                    "index": min(255, self.around(config_.tokens)),
                    "address": self.around(self.words),
                    "count": self.around(config_.rows, self.words * config_.rows),
                }
            case _:
                return {"index": rng.getrandbits(8), "count": rng.getrandbits(16)}

    def _definition(self) -> dict[str, Any]:
        rng, config_ = self.random, self.config
        index = rng.choice([0, config_.max_layers - 1, rng.randrange(config_.max_layers)])
        tiles = rng.randint(1, self.tiles)
        groups = rng.randint(1, self.words // tiles)
        base = self.base + rng.randint(0, self.words - tiles * groups)
        if rng.random() < 0.75:
            self.layers[index] = tiles * groups
            return {"index": index, "payload": LAYER.pack(base, tiles, groups)}
        wrong = [
            LAYER.pack(config_.memory_words + 1 - tiles * groups, tiles, groups),
            LAYER.pack(rng.choice([1 << 31, 0xFFFF_FFFF, 1 << 24]), tiles, groups),
            LAYER.pack(base, rng.choice([0, config_.max_tiles + 1, 0xFFFF]), groups),
            LAYER.pack(base, tiles, rng.choice([0, config_.max_row_groups + 1, 0xFFFF])),
            rng.randbytes(rng.choice([0, 7, 9, 12])),
        ]
        return {"index": index, "payload": rng.choice(wrong)}

    async def step(self) -> None:
        t, rng = self.t, self.random
        if rng.random() < 0.15 and self.sent:
            await self._fault()
            return
        opcode: int = rng.choice([*list(Opcode)[1:], Opcode.RUN, Opcode.RESULTS, Opcode.COMMIT])
        if opcode == Opcode.COMMIT:
            index = self.index()
            await self._send(t.command(opcode, index=index, address=rng.getrandbits(32)))
            if t.last().status == Status.BAD_CHECKSUM:
                await self._send(t.command(opcode, index=index, address=t.last().value))
            return
        fields = {"index": 0} | self.fields(opcode)
        fields["index"] = min(255, fields["index"])
        if "payload" not in fields and rng.random() < 0.05:
            fields["payload"] = rng.randbytes(rng.randint(1, 9))
        if rng.random() < 0.02:
            opcode = rng.choice([0, rng.randint(max(Opcode) + 1, 255)])
        await self._send(t.command(opcode, **fields))

    async def _send(self, packet: bytes) -> None:
        self.sent.append(packet)
        await self.t.send(packet)

    async def _fault(self) -> None:
        t, rng = self.t, self.random
        packet = rng.choice(self.sent)
        match rng.randrange(5):
            case 0:  # known ones again, the oldest beyond the window
                await t.send(*self.sent)
            case 1:
                bad = bytearray(packet)
                bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
                await t.send(bytes(bad))
            case 2:
                seq = (t.seq + rng.randint(2, 9)) % 65536
                await t.send(Request(rng.choice(list(Opcode)[1:]), seq, t.session).pack())
            case 3:
                opcode, seq = rng.choice(list(Opcode)[1:]), (t.seq + 1) % 65536
                await t.send(Request(opcode, seq, t.session ^ 4).pack())
            case _:
                await t.send(Request(Opcode.RESET, rng.getrandbits(16), t.session).pack())
                if rng.random() < 0.2:
                    await t.renew()
                    self.layers.clear()
                    self.sent.clear()


@cocotb.test()
@cocotb.parametrize(idle=list(PATTERNS), stall=list(PATTERNS))
@bench
async def mix(dut: Any, idle: str, stall: str) -> None:
    """Commands at random, right and wrong, with lost order and damage between them."""
    t = Bench(dut, "mix", idle, stall)
    await t.begin()
    mixed = Mix(t)
    await mixed.prepare()
    end = t.cycles + budget_cycles()
    while t.cycles < end:
        await mixed.step()
    await t.do(Opcode.COUNTERS, Status.OK)


@cocotb.test()
@bench
async def coverage(dut: Any) -> None:
    """The benches before have seen every status of every opcode and every planned shape."""
    for opcode in sorted({opcode for opcode, _ in covered}):
        statuses = [Status(status).name for code, status in sorted(covered) if code == opcode]
        cocotb.log.info("%s: %s", name_of(opcode), ", ".join(statuses))
    cocotb.log.info("layers (out × in): %s", ", ".join(f"{o}×{i}" for o, i in sorted(shapes_done)))
    missing = sorted(possible(config()) - covered)
    assert not missing, "not exercised: " + ", ".join(
        f"{name_of(opcode)} {Status(status).name}" for opcode, status in missing
    )
    planned = {shape for shapes in plan().values() for shape in shapes}
    assert planned == shapes_done, f"layers not exercised: {sorted(planned - shapes_done)}"
