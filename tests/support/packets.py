"""Shared by the tests that send packets to an accelerator in Amaranth's simulator."""

import random
from typing import Any

from amaranth.hdl import Value

from tritloom.rtl.spec.commands import COUNTERS, Opcode, Request, Response
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.sim.conformance.streams import simulate

OPCODE_AT = 8


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


def assert_responses(
    config: AcceleratorConfig, packets: list[tuple[bytes, bytes | None]], responses: list[bytes]
) -> None:
    """Each response is the expected one, as far as the reference device can know it."""
    owed = [(packet, response) for packet, response in packets if response is not None]
    for (packet, expected), response in zip(owed, responses, strict=True):
        assert comparable(config, response) == comparable(config, expected), Request.parse(packet)


def is_counters(packet: bytes) -> bool:
    """Whether a packet must go alone: the response counts the packets that have come."""
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
    """Send packets to an accelerator, at most its window unanswered; the responses."""
    owed = sum(response is not None for _, response in packets)
    responses: list[bytes] = []
    rng = random.Random(seed)
    i_payload, o_payload = Value.cast(dut.i.payload), Value.cast(dut.o.payload)
    i_valid, o_ready = dut.i.valid, dut.o.ready

    async def testbench(ctx):
        # One loop with one wait in each cycle: the simulator is fastest this way.
        inputs = Inputs(ctx)
        sent = at = 0
        packet, position, counted = b"", 0, False
        current = bytearray()
        offered = seen = False
        waiting = None
        for _ in range(deadline_cycles):
            if position == len(packet) and at < len(packets):
                counts = is_counters(packets[at][0])
                if sent - len(responses) < (1 if counts or counted else config.window):
                    packet, position, counted = packets[at][0], 0, counts
                    sent += packets[at][1] is not None
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
            if offered and ready_in:
                offered = False
                position += 1
            assert waiting is None or (valid and item == waiting), "a response did not hold"
            seen = bool(valid and not ready)
            waiting = item if seen else None
            if valid and ready:
                current.append(item & 0xFF)
                if item >> 8:
                    responses.append(bytes(current))
                    current.clear()
            if at == len(packets) and position == len(packet) and len(responses) == owed:
                return
        raise TimeoutError(f"{len(responses)} of {owed} responses in {deadline_cycles} cycles")

    simulate(dut, testbench, deadline_cycles=0)
    return responses
