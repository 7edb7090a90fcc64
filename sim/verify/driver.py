"""Drives a design under cocotb and compares each response with the reference device's.

Only what follows from the clock has its own check: the cycles of COUNTERS lie between the command
and its response, and any number of cycles of RUN, which RESULTS states, is right where the memory
has no formula for it, and any number of cycles of EXECUTE, which GET states.
"""

from __future__ import annotations

import faulthandler
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from functools import wraps
from time import monotonic
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import Trigger

from tritloom.rtl.spec.commands import (
    LAYER,
    OPCODE_BITS,
    SESSION_BITS,
    VECTOR_COUNTERS,
    Opcode,
    Request,
    Response,
    Status,
    pack_counters,
    unpack_counters,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import act_limits, pack_weights
from tritloom.sim.device.reference import ReferenceDevice
from tritloom.sim.verify import requests
from tritloom.sim.verify.clocks import Clocks
from tritloom.sim.verify.pairs import Pair, pair_of
from tritloom.sim.verify.patience import drain_cycles, patience
from tritloom.sim.verify.pins import Pins, beats_of, packet_of
from tritloom.sim.verify.requests import Trits
from tritloom.sim.verify.responses import Expected, Responses, describe, difference, name_of
from tritloom.sim.verify.settings import config, report, watchdog_s

__all__ = ["PATTERNS", "Driver", "bench", "covered", "overlapped"]

PATTERNS = {"none": (0.0, 0), "light": (0.2, 2), "heavy": (0.4, 7)}
"""Pauses of a stream: the probability of one after a transfer, and its most cycles."""
WATCHDOG_CYCLES = 2000
"""Cycles that may take `watchdog_s`; a simulator that takes longer is stuck, and is ended."""
TIMED = (Opcode.RESULTS, Opcode.GET, Opcode.COUNTERS)
"""Commands whose response depends on the clock."""
OPCODE_BYTE = 8
"""Where the opcode stands in a packet."""
SHORT_COMMAND_CYCLES = 300
"""Cycles in which any design executes a command of few bytes that needs no memory."""
CLOCK_SLACK = 2
"""Cycles by which the design's cycle counter may differ from the bench's."""

covered: set[tuple[int, int]] = set()
"""Opcode and status of each response that the benches have seen."""
overlapped: set[Pair] = set()
"""The pairs of commands, one directly behind the other, that the benches have seen succeed."""


class Driver:
    """One design under test: its clock, its two streams and the reference device beside it.

    `idle` and `stall` name the `PATTERNS` of pauses on `i` and of back-pressure on `o`. Inputs
    change after a falling edge and everything is sampled before the next rising one, so no
    simulator's order of events matters.
    """

    def __init__(self, dut: Any, name: str, idle: str = "none", stall: str = "none") -> None:
        self.pins = Pins(dut)
        self.config = config()
        self.random = random.Random(f"{cocotb.RANDOM_SEED} {name} {idle} {stall}")
        self.beat_bytes = self.config.link.beat_bytes
        self.idle, self.stall = PATTERNS[idle], PATTERNS[stall]
        self.reference = ReferenceDevice(self.config)
        self.cycles = self.session = self.seq = self.dropped = 0
        self.blocked = False
        self.patience = patience(self.config)
        self._pending: deque[bytes] = deque()
        self._sending: deque[int] = deque()
        self._uncertain: deque[bytes] = deque()
        self._owed = Responses()
        self._before: Request | None = None  # the last command, if it succeeds
        self._timed: dict[bytes, bytes] = {}
        self._response = bytearray()
        self._complete = True
        self._waiting_payload: int | None = None
        self._ready = 0
        self.pins.surround(f"{cocotb.RANDOM_SEED} {name}")
        self._clocks = Clocks(self.config, self.pins.memory_clock, self.random)

    async def power(self) -> None:
        """Reset by the pin; the device is then as at power-up, except for its memories."""
        pins = self.pins
        pins.clock.value = pins.i.valid.value = pins.o.ready.value = 0
        pins.i.put(0)
        for pin in pins.held:
            pin.value = 0
        pins.reset.value = pins.reset_level
        for level in (1, 0, 1, 0, 1, 0):
            await self._clocks.half
            pins.clock.value = level
        pins.reset.value = 1 - pins.reset_level
        start = self.config.memory.start_cycles(self.config)
        for level in (1, 0) * (self._clocks.more_reset + start):
            await self._clocks.half
            pins.clock.value = level
        self.reference = ReferenceDevice(self.config)
        self.cycles, self.session, self.seq, self.dropped = start, 0, 0, 0
        for queue in (self._pending, self._sending, self._uncertain, self._owed):
            queue.clear()
        self._before = None
        self._complete, self._waiting_payload, self._ready = True, None, 0

    async def begin(self) -> None:
        """Power-up and a new session."""
        await self.power()
        await self.renew()

    async def renew(self) -> None:
        """Begin another session."""
        self.session, self.seq = self.random.randrange(1, 1 << SESSION_BITS), 0
        await self.send(Request(Opcode.RESET, session=self.session).pack())

    def command(self, opcode: int, **fields: Any) -> bytes:
        """The packet of the next command of the session."""
        return self.pack(Request(opcode, **fields))

    def pack(self, request: Request) -> bytes:
        """The packet of a request as the next command of the session."""
        self.seq = (self.seq + 1) % 65536
        return replace(request, seq=self.seq, session=self.session).pack()

    def last(self) -> Response:
        """The last response."""
        response = Response.parse(packet_of(bytes(self._response), self.beat_bytes))
        assert response is not None
        return response

    async def do(self, opcode: int, expect: Status | None = None, **fields: Any) -> Response:
        """Execute one command; `expect` is its status, where the bench is sure of it."""
        await self.send(self.command(opcode, **fields))
        response = self.last()
        assert expect is None or response.status == expect, (
            f"status of {name_of(opcode)} must be {expect!r}, not {response.status}"
        )
        return response

    async def execute(self, commands: Iterable[Request]) -> None:
        """Send requests as the next commands of the session; check every response."""
        await self.send(*(self.pack(request) for request in commands))

    async def send(self, *packets: bytes) -> None:
        """Send packets, at most `window` of them without a response; check every response.

        The response to a duplicate may come later, or never, if it was sent before the first
        response had come.
        """
        self._pending.extend(packets)
        await self._clock(lambda: not (self._pending or self._sending or self._owed.due))

    async def quiet(self, cycles: int) -> None:
        """Let time pass; no response may come that is not owed."""
        end = self.cycles + cycles
        await self._clock(lambda: self.cycles >= end)

    async def begin_to_send(self, packet: bytes, cycles: int) -> None:
        """Send a packet, or what gets through in `cycles`; its response may begin."""
        self._queue(packet)
        self._expect(packet)
        end = self.cycles + cycles
        await self._clock(lambda: self.cycles >= end)

    async def send_blocked(self, packets: Sequence[bytes]) -> None:
        """Send packets while no response is taken, each when the device is done with the last.

        Then take and check all responses. The device must have room for the packets, and execute
        each in `SHORT_COMMAND_CYCLES`.
        """
        self.blocked = True
        for packet in packets:
            await self.begin_to_send(packet, len(packet) + SHORT_COMMAND_CYCLES)
        assert not self._sending, "the receive buffer must hold what the window allows"
        self.blocked = False
        await self._clock(lambda: not self._owed.due)

    async def flood(self, packets: Sequence[bytes]) -> list[bytes]:
        """Send packets while no response is taken, then take the responses.

        The device gets time for each of the first two: one may wait in the processor and one in
        the sender.

        Returns
        -------
        list[bytes]
            The packets that the device dropped.
        """
        self.blocked = True
        for number, packet in enumerate(packets):
            self._queue(packet)
            await self._clock(lambda: not self._sending)
            if number < 2:
                await self.quiet(drain_cycles(self.config))
        assert int(self.pins.o.valid.value) == 1, "o.valid must not wait for o.ready"
        self.blocked = False
        self._uncertain.extend(packets)
        left = -1
        while left != len(self._uncertain):
            left = len(self._uncertain)
            await self.quiet(drain_cycles(self.config))
        await self._clock(lambda: not self._owed.due)
        dropped = list(self._uncertain)
        self._uncertain.clear()
        self.dropped += len(dropped)
        return dropped

    def _queue(self, packet: bytes) -> None:
        self._sending.extend(beats_of(packet, self.beat_bytes, self.random))

    def _expect(self, packet: bytes) -> None:
        seq = self.reference.next_seq
        response = self.reference.process(packet)
        request = Request.parse(packet)
        pair = None
        if request is not None and response is not None and self.reference.next_seq != seq:
            right = Response.parse(response)
            failed = right is None or right.status != Status.OK or right.opcode == Opcode.RESET
            if self._before is not None and not failed:
                pair = pair_of(self._before, request)
            self._before = None if failed else request
        self._owed.add(packet, response, pair)

    def _next_packet(self, quiet_cycles: int) -> None:
        """Start the next packet if its response has room.

        COUNTERS goes alone, because its response counts the packets that have come. No byte has
        come or gone for `quiet_cycles`.
        """
        if not self._owed.due and quiet_cycles > drain_cycles(self.config):
            self._owed.drop_optional()
        packet = self._pending[0]
        opcode = packet[OPCODE_BYTE] % (1 << OPCODE_BITS) if len(packet) > OPCODE_BYTE else None
        room = 1 if opcode == Opcode.COUNTERS else self.config.window
        if self._owed.has(Opcode.COUNTERS) or len(self._owed) >= room:
            return
        self._queue(self._pending.popleft())
        self._expect(packet)

    async def _clock(self, done: Callable[[], bool]) -> None:
        """Run the clock until `done`; the heart of the bench, once for every cycle."""
        i, o, rng, half = self.pins.i, self.pins.o, self.random, self._clocks.half
        clk, i_valid, i_ready = self.pins.clock, i.valid, i.ready
        o_valid, o_ready = o.valid, o.ready
        offered = False
        pause = hold = 0
        progress = self.cycles
        while not done():
            if not offered and pause == 0:
                if not self._sending and self._pending:
                    self._next_packet(self.cycles - progress)
                if self._sending:
                    i_valid.value = 1
                    i.put(self._sending[0])
                    offered = True
            wanted = int(hold == 0 and not self.blocked)
            if wanted != self._ready:
                o_ready.value = self._ready = wanted
            await half
            self.cycles += 1
            accepted = offered and int(i_ready.value) == 1
            if int(o_valid.value):
                payload = o.get()
                assert self._waiting_payload in (None, payload), (
                    f"o.payload must hold until it is taken, in cycle {self.cycles}"
                )
                self._waiting_payload = None if wanted else payload
                if wanted:
                    progress = self.cycles
                    self._receive(payload)
            else:
                assert self._waiting_payload is None, (
                    f"o.valid must hold until it is taken, in cycle {self.cycles}"
                )
            clk.value = 1
            await half
            clk.value = 0
            pause, hold = max(0, pause - 1), max(0, hold - 1)
            if accepted:
                progress = self.cycles
                self._sending.popleft()
                offered = False
                if not self._sending and self._owed.last and not self.blocked:
                    self._owed.last.sent_cycle = self.cycles
                if rng.random() < self.idle[0]:
                    pause = rng.randint(1, self.idle[1])
                if pause or not (self._sending or self._pending):
                    i_valid.value = 0
                    i.put(rng.getrandbits(8 * self.beat_bytes + 1))
                elif not self._sending:
                    i_valid.value = 0
            if hold == 0 and rng.random() < self.stall[0]:
                hold = rng.randint(1, self.stall[1])
            if self.cycles % WATCHDOG_CYCLES == 0:
                faulthandler.dump_traceback_later(watchdog_s(), exit=True)
            if self.cycles - progress > self.patience and self._is_late():
                owed = self._owed.first
                waiting = f"response to {describe(owed.request)}" if owed else "end of a packet"
                raise AssertionError(f"no {waiting} in {self.patience} cycles")

    def _is_late(self) -> bool:
        """Whether the design has something to do: a byte to take, or a response to send."""
        return bool(self._sending or (self._owed.due and not self.blocked))

    def _receive(self, payload: int) -> None:
        """Take one beat of a response."""
        above, data = divmod(payload, 1 << 8 * self.beat_bytes)
        keep, last = divmod(above, 2)
        if self._complete:
            self._response.clear()
            if not self._owed and self._uncertain:
                self._expect(self._uncertain.popleft())
        self._complete = last == 1
        self._response += data.to_bytes(self.beat_bytes, "little")
        owed = self._owed.first
        assert owed, f"the design sent {data:#0{2 + 2 * self.beat_bytes}x} when it owed nothing"
        assert len(self._response) <= self.config.packet_bytes, (
            f"response to {describe(owed.request)} must end by {self.config.packet_bytes} bytes"
        )
        whole = len(self._response)
        packet = b""
        if self._complete:
            packet = packet_of(bytes(self._response), self.beat_bytes)
            whole = len(packet)
        if self.pins.o.keep is not None:
            belong = self.beat_bytes + whole - len(self._response)  # bytes of this beat
            assert keep == (1 << belong) - 1, (
                f"keep must mark the lowest {belong} bytes of a beat, not be {keep:#x}"
            )
        if self._complete:
            owed = self._owed.take(packet)
            assert owed is not None
            self._compare(owed, packet)

    def _compare(self, owed: Expected, packet: bytes) -> None:
        request, right = owed.request, Response.parse(owed.response)
        assert right is not None
        covered.add((right.opcode, right.status))
        if owed.pair is not None:
            overlapped.add(owed.pair)
        if (first := self._timed.get(owed.response)) is not None:
            assert packet == first, (
                f"the response to {describe(request)} must be the first one again"
            )
            return
        response = Response.parse(packet)
        assert response is not None, (
            f"response to {describe(request)} has a wrong checksum or length: {packet.hex()}"
        )
        seen = response
        if right.status == Status.OK:
            if request.opcode in TIMED:
                self._timed[owed.response] = packet
            if request.opcode == Opcode.RESULTS and formula_cycles(self.config) is None:
                assert response.value > 0, f"RUN must take a cycle or more, not {response.value}"
                seen = replace(response, value=right.value)
            elif request.opcode == Opcode.GET:
                most = self.cycles if right.value else 0
                assert min(right.value, 1) <= response.value <= most, (
                    f"EXECUTE must take at most {most} cycles, not {response.value}"
                )
                seen = replace(response, value=right.value)
            elif request.opcode == Opcode.COUNTERS:
                payload = self._check_counters(owed, response.payload, right.payload)
                seen = replace(response, payload=payload)
        assert seen == right, f"response to {describe(request)}: {difference(right, seen)}"

    def _check_counters(self, owed: Expected, payload: bytes, right: bytes) -> bytes:
        """Check what follows from the clock; the payload with the reference's numbers for it."""
        if len(payload) != len(right):
            return payload
        seen, model = (unpack_counters(self.config, counters) for counters in (payload, right))
        cycles, run, stall = seen["cycles"], seen["run_cycles"], seen["stall_cycles"]
        assert owed.sent_cycle - CLOCK_SLACK <= cycles <= self.cycles + CLOCK_SLACK, (
            f"cycles must be {owed.sent_cycle} to {self.cycles}, not {cycles}"
        )
        assert stall <= run <= cycles, (
            f"stall_cycles {stall}, run_cycles {run} and cycles {cycles} must be in this order"
        )
        assert seen["dropped_packets"] == self.dropped, (
            f"dropped_packets must be {self.dropped}, not {seen['dropped_packets']}"
        )
        timed = ["cycles", "stall_cycles", "dropped_packets"]
        if self.config.vector is not None:
            program, waits = (seen[name] for name in VECTOR_COUNTERS)
            assert waits <= program <= cycles, (
                f"vector_stall_cycles {waits}, vector_cycles {program} and cycles {cycles} must be "
                "in this order"
            )
            timed += VECTOR_COUNTERS
        for name in timed:
            seen[name] = model[name]
        if formula_cycles(self.config) is None:
            seen["run_cycles"] = model["run_cycles"]
        return pack_counters(seen.values())

    # What a host sends for a layer.

    def dirty(self, image: bytes) -> bytes:
        """The image with random bits above each word; the device has no memory for them."""
        words = np.frombuffer(image, np.uint8).reshape(-1, self.config.word_bytes).copy()
        spare = 8 * self.config.word_bytes - self.config.word_bits
        noise = np.frombuffer(self.random.randbytes(len(words)), np.uint8)
        words[:, -1] |= noise & (0xFF << (8 - spare) & 0xFF)
        return words.tobytes()

    def layer(self, index: int, base: int, trits: Trits) -> list[bytes]:
        """Packets that define, write and commit a layer."""
        shape = LayerShape.of(self.config, *trits.shape)
        image = pack_weights(self.config, trits)
        commands = requests.layer(self.config, index, base, shape, image, self.dirty)
        return [self.pack(request) for request in commands]

    def open_layer(self, index: int, base: int, shape: LayerShape, image: bytes) -> list[bytes]:
        """Packets that define and write a layer."""
        layer = LAYER.pack(base, shape.tiles, shape.row_groups)
        writes = requests.writes(self.config, index, self.dirty(image))
        define = self.command(Opcode.DEFINE, index=index, payload=layer)
        return [define, *(self.pack(request) for request in writes)]

    def bank(self) -> int:
        """Any bank of the design."""
        return self.random.randrange(self.config.banks)

    def loads(self, codes: Trits, bank: int = 0) -> list[bytes]:
        """The packets of `requests.loads`: activations of all tokens, int8 [tokens, in]."""
        return [self.pack(each) for each in requests.loads(self.config, codes, self.random, bank)]

    def results(self, out_features: int, bank: int = 0) -> list[bytes]:
        """RESULTS packets for all tokens of a bank, of several sizes."""
        commands = requests.results(self.config, out_features, self.random, bank)
        return [self.pack(request) for request in commands]

    def trits(self, shape: tuple[int, int], kind: str) -> Trits:
        """Weights of a kind, int8 [out, in]; see `values`."""
        return values(self.random, shape, kind, ALPHABETS[self.config.alphabet])

    def codes(self, in_features: int, kind: str) -> Trits:
        """Activations of a kind, int8 [tokens, in]; see `values`."""
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


def formula_cycles(config: AcceleratorConfig) -> int | None:
    """The cycles of the smallest RUN; `None` where no formula gives them."""
    return config.run_cycles(LayerShape(1, 1))


def bench(
    run: Callable[..., Coroutine[Trigger, None, None]],
) -> Callable[..., Coroutine[Trigger, None, None]]:
    """Make a bench report its end and its time, and end a simulator that is stuck."""

    @wraps(run)
    async def wrapper(dut: Any, **parameters: str) -> None:
        name = " ".join([run.__name__, *(f"{key}={value}" for key, value in parameters.items())])
        faulthandler.dump_traceback_later(watchdog_s(), exit=True)
        begin = monotonic()
        result = "FAILED"
        try:
            await run(dut, **parameters)
            result = "passed"
        finally:
            faulthandler.cancel_dump_traceback_later()
            report(f"{name}\t{result}\t{monotonic() - begin:.3f}")

    return wrapper
