"""Shared by the tests that send packets to an accelerator in Amaranth's simulator."""

import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from amaranth.hdl import Value

from tritloom.rtl.spec.commands import (
    COUNTERS,
    OPCODE_BITS,
    Opcode,
    Request,
    Response,
    counters_of,
)
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
        names = counters_of(config)
        hidden = ["cycles", *names[len(COUNTERS) :]]
        if config.memory.latency(config) is None:
            hidden += ["run_cycles", "stall_cycles"]
        masked = bytearray(payload)
        for name in hidden:
            at = 8 * names.index(name)
            masked[at : at + 8] = bytes(8)
        payload = bytes(masked)
    if response.opcode == Opcode.RESULTS and config.memory.latency(config) is None:
        value = 0
    if response.opcode == Opcode.GET and payload:
        value = min(value, 1)
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

    def received(self, response: bytes) -> int:
        """A response has come; its number in `responses`."""
        owed = self._owed.take(response)
        assert owed is not None, "a response that the device does not owe"
        self.responses[owed.number] = response
        return owed.number

    def nothing_comes(self) -> None:
        """The device has had the time for all responses."""
        self._owed.drop_optional()


def is_counters(packet: bytes) -> bool:
    """Whether a packet must go alone: the response counts the packets that have come."""
    opcode = packet[OPCODE_AT] if len(packet) > OPCODE_AT else 0
    return opcode % (1 << OPCODE_BITS) == Opcode.COUNTERS


def beats_of(packet: bytes, beat_bytes: int, rng: random.Random) -> list[dict[str, int]]:
    """The beats of a packet, the last one filled up with noise."""
    whole = packet + rng.randbytes(-len(packet) % beat_bytes)
    return [
        {
            "data": int.from_bytes(whole[start : start + beat_bytes], "little"),
            "last": start + beat_bytes == len(whole),
        }
        for start in range(0, len(whole), beat_bytes)
    ]


def packets_in(beats: list[dict[str, int]], beat_bytes: int) -> list[bytes]:
    """The packets in beats, each cut to the length that it states."""
    packets, packet = [], b""
    for beat in beats:
        packet += beat["data"].to_bytes(beat_bytes, "little")
        if beat["last"]:
            length = int.from_bytes(packet[:2], "little")
            assert 0 <= len(packet) - length < beat_bytes, "beats and length do not agree"
            packets.append(packet[:length])
            packet = b""
    assert not packet, "a packet has no end"
    return packets


def run_packets(
    dut: Any,
    config: AcceleratorConfig,
    packets: list[tuple[bytes, bytes | None]],
    *,
    idle: float = 0.0,
    pause: float = 0.0,
    seed: int = 0,
    deadline_cycles: int = 400_000,
    aborted: Collection[int] = (),
    peers: Sequence[int] = (),
    background: Sequence[Any] = (),
) -> list[bytes | None]:
    """Send packets to an accelerator, at most its window unanswered; the responses.

    Each response has the place of its packet; `None` stands for that to a duplicate which never
    came, see `Conversation`. The links of `tests.support.peers` can abort packets: those of the
    numbers `aborted`. They also say which peer each packet is from: `peers`, a number a packet. A
    response must go to the peer whose packet it answers. `background`: test benches beside, such as
    the stores of a memory's model.
    """
    conversation = Conversation(config)
    rng = random.Random(seed)
    beat_bytes = config.link.beat_bytes
    i_payload, o_payload = Value.cast(dut.i.payload), Value.cast(dut.o.payload)
    i_valid, o_ready = dut.i.valid, dut.o.ready
    receivers = [dut.to_peer] if peers else []
    owners = [peer for peer, (_, right) in zip(peers, packets, strict=False) if right is not None]

    async def testbench(ctx):
        # One loop with one wait in each cycle: the simulator is fastest this way.
        inputs = Inputs(ctx)
        at = quiet = 0
        beats: list[dict[str, int]] = []
        current: list[dict[str, int]] = []
        offered = seen = False
        waiting = None
        for _ in range(deadline_cycles):
            if not beats and at < len(packets):
                if quiet > QUIET_CYCLES and conversation.done:
                    conversation.nothing_comes()
                if conversation.may_send(packets[at][0]):
                    beats = beats_of(packets[at][0], beat_bytes, rng)
                    conversation.sent(*packets[at])
                    at += 1
            if not offered and beats and rng.random() >= idle:
                offered = True
                inputs.set(i_payload, beats[0]["data"] | beats[0]["last"] << 8 * beat_bytes)
                if aborted:
                    inputs.set(dut.abort, beats[0]["last"] and at - 1 in aborted)
                if peers:
                    inputs.set(dut.peer, peers[at - 1])
            elif not offered:
                inputs.set(i_payload, 0x1A5)
            ready = seen if pause == 1.0 else rng.random() >= pause
            inputs.set(i_valid, offered)
            inputs.set(o_ready, ready)
            _, _, ready_in, valid, item, *receiver = await ctx.tick().sample(
                dut.i.ready, dut.o.valid, o_payload, *receivers
            )
            quiet = 0 if valid or (ready_in and offered) else quiet + 1
            if offered and ready_in:
                offered = False
                beats.pop(0)
            now = (item, *receiver)
            assert waiting is None or (valid and now == waiting), "a response did not hold"
            seen = bool(valid and not ready)
            waiting = now if seen else None
            if valid and ready:
                data = item & ((1 << 8 * beat_bytes) - 1)
                current.append({"data": data, "last": item >> 8 * beat_bytes})
                if current[-1]["last"]:
                    (response,) = packets_in(current, beat_bytes)
                    number = conversation.received(response)
                    assert not peers or receiver == [owners[number]], "to another peer"
                    current.clear()
            if at == len(packets) and not beats and conversation.done:
                return
        came = sum(response is not None for response in conversation.responses)
        raise TimeoutError(f"{came} responses in {deadline_cycles} cycles")

    simulate(dut, testbench, background=background, deadline_cycles=0)
    return conversation.responses
