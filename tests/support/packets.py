"""Shared by the tests that send packets to an accelerator in Amaranth's simulator."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from amaranth.hdl import Value

from tritloom.rtl.spec.commands import COUNTERS, OPCODE_BITS, Opcode, Request, Response
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.sim.conformance.streams import simulate
from tritloom.sim.verify.responses import Responses

OPCODE_AT = 8
QUIET_CYCLES = 2000
"""Cycles without a byte after which a response that has not come never does."""


class Inputs:
    """Sets signals only when they change: each `ctx.set` costs the simulator a settling."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx
        self._values: dict[int, Any] = {}

    def set(self, signal: Any, value: Any) -> None:
        if self._values.get(id(signal)) != value:
            self._values[id(signal)] = value
            self._ctx.set(signal, value)


def comparable(config: AcceleratorConfig, packet: bytes) -> Response:
    """A response without what the reference device cannot know: its clock."""
    response = Response.parse(packet)
    assert response is not None, "a response's checksum or length is wrong"
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
    if response.opcode == Opcode.RESULTS and config.memory.latency(config) is None:
        value = 0
    return replace(response, value=value, payload=payload)


def assert_responses(
    config: AcceleratorConfig,
    packets: list[tuple[bytes, bytes | None]],
    responses: Sequence[bytes | None],
) -> None:
    """Each response is the expected one, as far as the reference device can know it.

    `responses`: one for each packet that has one; `None` for a duplicate that the device dropped,
    see `Conversation`.
    """
    owed = [(packet, response) for packet, response in packets if response is not None]
    for (packet, expected), response in zip(owed, responses, strict=True):
        if response is not None:
            seen = comparable(config, response)
            assert seen == comparable(config, expected), Request.parse(packet)


class Conversation:
    """Which packets may be sent, and which of them each response is to.

    Members
    -------
    responses : one for each packet that was sent and has one, in their order; `None` where it has
        not come. It never comes for a duplicate that the device was allowed to drop.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.responses: list[bytes | None] = []
        self._window = config.window
        self._owed = Responses()

    @property
    def done(self) -> bool:
        """Every response has come that must come."""
        return self._owed.due == 0

    def may_send(self, packet: bytes) -> bool:
        """Whether the window has room; COUNTERS goes alone, as it counts what has come."""
        room = 1 if is_counters(packet) else self._window
        return not self._owed.has(Opcode.COUNTERS) and len(self._owed) < room

    def sent(self, packet: bytes, right: bytes | None) -> None:
        """A packet is sent; `right` is the response that the reference device gives."""
        if right is not None:
            self._owed.add(packet, right)
            self.responses.append(None)

    def received(self, response: bytes) -> None:
        """A response has come."""
        owed = self._owed.take(response)
        assert owed is not None, "a response that the device does not owe"
        self.responses[owed.number] = response

    def nothing_comes(self) -> None:
        """The device has had the time for all responses."""
        self._owed.drop_optional()


def is_counters(packet: bytes) -> bool:
    """Whether a packet must go alone: the response counts the packets that have come."""
    opcode = packet[OPCODE_AT] if len(packet) > OPCODE_AT else 0
    return opcode % (1 << OPCODE_BITS) == Opcode.COUNTERS


def run_packets(
    dut: Any,
    config: AcceleratorConfig,
    packets: list[tuple[bytes, bytes | None]],
    *,
    idle: float = 0.0,
    pause: float = 0.0,
    seed: int = 0,
    deadline_cycles: int = 400_000,
) -> list[bytes | None]:
    """Send packets to an accelerator, at most its window unanswered; the responses.

    Each response has the place of its packet; `None` stands for that to a duplicate which never
    came, see `Conversation`.
    """
    conversation = Conversation(config)
    rng = random.Random(seed)
    i_payload, o_payload = Value.cast(dut.i.payload), Value.cast(dut.o.payload)
    i_valid, o_ready = dut.i.valid, dut.o.ready

    async def testbench(ctx):
        # One loop with one wait in each cycle: the simulator is fastest this way.
        inputs = Inputs(ctx)
        at = quiet = 0
        packet, position = b"", 0
        current = bytearray()
        offered = seen = False
        waiting = None
        for _ in range(deadline_cycles):
            if position == len(packet) and at < len(packets):
                if quiet > QUIET_CYCLES and conversation.done:
                    conversation.nothing_comes()
                if conversation.may_send(packets[at][0]):
                    packet, position = packets[at][0], 0
                    conversation.sent(*packets[at])
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
            _, _, ready_in, valid, item = await ctx.tick().sample(
                dut.i.ready, dut.o.valid, o_payload
            )
            quiet = 0 if valid or (ready_in and offered) else quiet + 1
            if offered and ready_in:
                offered = False
                position += 1
            assert waiting is None or (valid and item == waiting), "a response did not hold"
            seen = bool(valid and not ready)
            waiting = item if seen else None
            if valid and ready:
                current.append(item & 0xFF)
                if item >> 8:
                    conversation.received(bytes(current))
                    current.clear()
            if at == len(packets) and position == len(packet) and conversation.done:
                return
        came = sum(response is not None for response in conversation.responses)
        raise TimeoutError(f"{came} responses in {deadline_cycles} cycles")

    simulate(dut, testbench, deadline_cycles=0)
    return conversation.responses
