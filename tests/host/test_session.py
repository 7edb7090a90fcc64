"""The link session: order, credit, repetition and errors, against the reference device."""

import copy
import os
import pickle
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

import pytest

from tests.support import quick_first
from tests.support.faults import FaultyTransport
from tritloom.host.device import Device
from tritloom.host.session import (
    LINK_CYCLES_PER_BYTE,
    MAX_RETRIES,
    SMALLEST_PAYLOAD,
    Command,
    Session,
)
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.spec import requests
from tritloom.rtl.spec.commands import (
    OVERHEAD_BYTES,
    PROTOCOL_VERSION,
    Opcode,
    Request,
    Response,
    Status,
    identity,
    seal,
)
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError, DeviceTimeout, InputError, ProtocolError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.sim.device.reference import ReferenceTransport

WIDE = replace(TINY, slots=8)
ABOUT = identity(WIDE)


class Recorder(ReferenceTransport):
    """The reference device. It keeps requests and time-outs; hooks may lose and change packets."""

    timeout_s = 0.25

    def __init__(self, config: AcceleratorConfig = WIDE) -> None:
        super().__init__(config)
        self.requests: list[Request] = []
        self.timeouts: list[float] = []
        self.silences = 0
        self.lose: Callable[[Request], bool] = lambda request: False
        self.change: Callable[[bytes], bytes | None] = lambda packet: packet

    def reopen(self) -> None:
        """As `connect` to the same device does, after the session has closed the link."""
        self._closed = False

    def send(self, packet: bytes) -> None:
        request = Request.parse(packet)
        assert request is not None
        self.requests.append(request)
        if not self.lose(request):
            super().send(packet)

    def receive(self, timeout_s: float) -> bytes | None:
        self.timeouts.append(timeout_s)
        while (packet := super().receive(timeout_s)) is not None:
            if (changed := self.change(packet)) is not None:
                return changed
        self.silences += 1
        return None


def start(transport: object, config: AcceleratorConfig = WIDE) -> Session:
    session = Session(transport, "test")
    assert session.open() == PROTOCOL_VERSION
    session.configure(config)
    return session


def reads(count: int, offset: int = 0) -> list[Command]:
    """Commands whose responses are all different."""
    return [
        Command(
            opcode=Opcode.IDENTIFY,
            address=(offset + i) % (len(ABOUT) - 7),
            count=8,
            response_bytes=8,
        )
        for i in range(count)
    ]


def exact(session: Session, commands: list[Command]) -> bool:
    return all(
        session.require(command).payload == ABOUT[command.address : command.address + 8]
        for command in commands
    )


def exact_after(session: Session, commands: list[Command]) -> bool:
    session.enqueue(*commands)
    return exact(session, commands)


def test_every_device_takes_what_is_sent_before_its_configuration_is_known():
    assert TINY.max_payload >= SMALLEST_PAYLOAD
    transport = Recorder()
    session = Session(transport, "test")
    session.open()
    session.enqueue(*reads(2))
    assert len(transport.requests) == 2, "RESET, then one command"


def test_commands_are_numbered_from_one_and_fill_the_window():
    transport = Recorder()
    session = start(transport)
    commands = reads(20)
    session.enqueue(*commands)
    assert [request.seq for request in transport.requests] == list(range(1 + WIDE.window))
    assert exact(session, commands)
    assert [request.seq for request in transport.requests] == list(range(21))
    assert {request.session for request in transport.requests} == {session.number}
    assert (session.retransmissions, session.discarded, transport.silences) == (0, 0, 0)


def test_responses_can_be_awaited_in_any_order():
    session = start(Recorder())
    commands = reads(20)
    session.enqueue(*commands)
    assert exact(session, commands[::-1])


def test_a_command_is_equal_to_itself_alone():
    """A session may have the same request twice."""
    first, second = reads(1) + reads(1)
    assert first.pack() == second.pack() and first != second
    assert len({first, second}) == 2


def test_sessions_differ():
    assert len({Session(Recorder(), "test").number for _ in range(50)}) == 50


@pytest.mark.parametrize("slots", [2, 4, 8, 64])
def test_the_credit_is_never_exceeded(slots):
    """With responses that come late: what is undone is what the receive buffer must hold."""
    config = replace(TINY, slots=slots)
    most = 0

    class Late(ReferenceTransport):
        def __init__(self) -> None:
            super().__init__(config)
            self.buffered: list[bytes] = []

        def send(self, packet: bytes) -> None:
            nonlocal most
            assert len(packet) <= config.packet_bytes
            self.buffered.append(packet)
            most = max(most, len(self.buffered))

        def receive(self, timeout_s: float) -> bytes | None:
            if not self.buffered:
                return None
            super().send(self.buffered.pop(0))
            return super().receive(timeout_s)

    transport = Late()
    session = start(transport, config)
    about = identity(config)
    commands = [
        Command(opcode=Opcode.IDENTIFY, address=i % 50, count=1, response_bytes=1)
        for i in range(300)
    ]
    session.enqueue(*commands)
    assert all(session.require(c).payload == about[c.address : c.address + 1] for c in commands)
    assert most == config.window
    assert session.retransmissions == 0


def test_a_lost_command_is_repeated_with_those_behind_it_and_without_waiting():
    transport = Recorder(replace(TINY, slots=4))
    session = start(transport, transport.device.config)
    lost = [2]
    transport.lose = lambda request: request.seq in lost and not lost.remove(request.seq)
    commands = reads(6)
    session.enqueue(*commands)
    assert [session.require(command).status for command in commands] == [Status.OK] * 6
    seqs = [request.seq for request in transport.requests]
    assert seqs == [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]
    assert (session.retransmissions, transport.silences) == (3, 0)


def test_the_last_command_lost_is_repeated_after_silence():
    transport = Recorder()
    session = start(transport)
    lost = [3]
    transport.lose = lambda request: request.seq in lost and not lost.remove(request.seq)
    commands = reads(3)
    session.enqueue(*commands)
    assert exact(session, commands)
    assert (session.retransmissions, transport.silences) == (1, 1)


def test_a_lost_response_is_replayed_and_the_command_not_executed_again():
    transport = Recorder()
    executed: list[int] = []
    execute = transport.device._execute
    transport.device._execute = lambda request: executed.append(request.seq) or execute(request)
    session = start(transport)
    lost = [2, 5]

    def lose_response(packet: bytes) -> bytes | None:
        seq = Response.parse(packet).seq
        return None if seq in lost and not lost.remove(seq) else packet

    transport.change = lose_response
    commands = reads(6)
    session.enqueue(*commands)
    assert exact(session, commands)
    assert executed == [1, 2, 3, 4, 5, 6]
    assert (session.retransmissions, transport.silences) == (2, 0)


def test_nothing_is_sent_that_would_end_the_replay_of_an_undone_command():
    transport = Recorder(replace(TINY, slots=4))
    session = start(transport, transport.device.config)
    lost = [2] * 5

    def lose_response(packet: bytes) -> bytes | None:
        seq = Response.parse(packet).seq
        return None if seq in lost and not lost.remove(seq) else packet

    transport.change = lose_response
    commands = reads(9)
    session.enqueue(*commands)
    assert [session.require(command).status for command in commands] == [Status.OK] * 9
    assert commands[1].sends == 6


def test_a_repeated_response_is_discarded():
    transport = Recorder()
    session = start(transport)
    copies: list[bytes] = []

    def lose_and_repeat(packet: bytes) -> bytes | None:
        response = Response.parse(packet)
        if response.seq == 1 and not copies:
            copies.append(packet)
            return None
        if response.seq == 2 and len(copies) == 1:
            copies.append(packet)
            transport._responses.appendleft(packet)
        return packet

    transport.change = lose_and_repeat
    commands = reads(3)
    session.enqueue(*commands)
    assert exact(session, commands)
    assert [command.bytes_rx for command in commands] == [28] * 3
    assert session.discarded == 1


@pytest.mark.parametrize("slots", [2, 8, 64])
def test_sequence_numbers_wrap(slots):
    config = replace(TINY, slots=slots)
    inner = ReferenceTransport(config)
    transport = FaultyTransport(
        inner, lose=0.05, duplicate=0.05, reorder=0.05, corrupt=0.05, seed=slots
    )
    session = start(transport, config)
    session._flight[-1].seq = 0xFFC0
    inner.device._expected = 0xFFC1
    commands = reads(300)
    about = identity(config)
    session.enqueue(*commands)
    for command in commands:
        assert session.require(command).payload == about[command.address : command.address + 8]
    assert commands[-1].seq == (0xFFC0 + 300) & 0xFFFF


def test_a_device_that_stops_responding():
    transport = Recorder()
    session = start(transport)
    transport.lose = lambda request: True
    commands = reads(2)
    session.enqueue(*commands)
    with pytest.raises(DeviceTimeout) as caught:
        session.wait(commands[0])
    assert str(caught.value) == (
        "test does not respond to IDENTIFY, tried 9 times; "
        "check its power, bitstream, cable and baud, then connect again"
    )
    assert commands[0].sends == 1 + MAX_RETRIES
    for call in (lambda: session.wait(commands[1]), lambda: session.enqueue(*reads(1))):
        with pytest.raises(DeviceError, match=r"test: the session ended with an error; connect"):
            call()
    with pytest.raises(DeviceError, match="connect again"):
        session.check()
    transport.lose = lambda request: False
    transport.reopen()
    again = start(transport)
    commands = reads(9)
    again.enqueue(*commands)
    assert exact(again, commands)


def test_no_device_at_all():
    transport = Recorder()
    transport.lose = lambda request: True
    with pytest.raises(DeviceTimeout, match="test does not respond to RESET, tried 9 times"):
        Session(transport, "test").open()
    assert len({(r.session, r.opcode) for r in transport.requests}) == 1
    assert [request.seq for request in transport.requests] == [-n & 0xFFFF for n in range(9)]
    assert transport._closed


def test_progress_allows_as_many_retries_again():
    transport = Recorder(TINY)
    session = start(transport, TINY)
    seen: dict[int, int] = {}

    def lose(request: Request) -> bool:
        seen[request.seq] = seen.get(request.seq, 0) + 1
        return seen[request.seq] <= MAX_RETRIES

    transport.lose = lose
    for command in reads(5):
        assert session.call(command).status == Status.OK


def test_what_a_former_session_left_in_the_link_is_ignored():
    transport = Recorder()
    former = start(transport)
    former.enqueue(*reads(WIDE.window))
    transport._responses.appendleft(transport.device.process(transport.requests[0].pack()))
    stale = list(transport._responses)
    assert len(stale) == 1 + WIDE.window
    session = start(transport)
    assert session.discarded == 1 + WIDE.window
    transport._responses.extend(stale)
    for request in transport.requests[1 : 1 + WIDE.window]:  # late commands, too
        transport._responses.append(transport.device.process(request.pack()))
    commands = reads(20, offset=5)
    session.enqueue(*commands)
    assert exact(session, commands)


def test_a_device_that_was_reset():
    transport = Recorder()
    session = start(transport)
    transport.device.process(Request(Opcode.RESET, session=session.number ^ 1).pack())
    command = reads(1)[0]
    session.enqueue(command)
    with pytest.raises(DeviceError) as caught:
        session.wait(command)
    assert str(caught.value) == "test was reset; connect again"
    assert (transport.silences, command.sends) == (0, 1 + MAX_RETRIES)


def test_no_session_long_ago_says_nothing_about_a_silence():
    transport = Recorder()
    session = start(transport)
    late = Request(Opcode.COUNTERS, seq=1, session=session.number ^ 1).pack()
    transport._responses.append(transport.device.process(late))
    assert exact_after(session, reads(3))
    transport.lose = lambda request: True
    with pytest.raises(DeviceTimeout):
        session.call(reads(1)[0])


def test_corrupt_responses_are_ignored():
    transport = Recorder()
    session = start(transport)
    damaged = [False]

    def damage(packet: bytes) -> bytes:
        damaged[0] = not damaged[0]
        return packet[:20] + bytes([packet[20] ^ 1]) + packet[21:] if damaged[0] else packet

    transport.change = damage
    commands = reads(20)
    session.enqueue(*commands)
    assert exact(session, commands)
    assert session.discarded >= 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"opcode": Opcode.READ}, "responded to IDENTIFY with opcode 5 and 8 bytes, not 8"),
        ({"payload": b"1234567"}, "responded to IDENTIFY with opcode 2 and 7 bytes, not 8"),
        ({"status": Status.BAD_STATE}, "responded to IDENTIFY with opcode 2 and 8 bytes, not 0"),
    ],
)
def test_a_response_that_the_protocol_does_not_allow(change, message):
    transport = Recorder()
    session = start(transport)
    transport.change = lambda packet: replace(Response.parse(packet), **change).pack()
    with pytest.raises(ProtocolError, match=message):
        session.call(reads(1)[0])
    with pytest.raises(DeviceError, match="connect again"):
        session.check()


def test_a_refused_command_leaves_the_session_and_the_others_whole():
    session = start(Recorder())
    good = reads(4)
    bad = Command(opcode=Opcode.RUN, index=3, count=1)
    session.enqueue(*good[:2], bad, *good[2:])
    with pytest.raises(DeviceError) as caught:
        session.require(bad)
    assert str(caught.value) == "test refused RUN of index 3, count 1, address 0: BAD_STATE"
    assert exact(session, good)


def test_an_unknown_status_is_an_error():
    transport = Recorder()
    session = start(transport)
    transport.change = lambda p: replace(Response.parse(p), status=99, payload=b"").pack()
    with pytest.raises(DeviceError, match="unknown status 99"):
        session.call(reads(1)[0])


def test_a_link_that_babbles_is_a_timeout():
    transport = Recorder()
    session = start(transport)
    noise = [0]

    def receive(timeout_s: float) -> bytes:
        noise[0] += 1
        return b"noise"

    transport.receive = receive
    with pytest.raises(DeviceTimeout):
        session.call(reads(1)[0])
    assert noise[0] < 2000
    transport.reopen()
    with pytest.raises(DeviceTimeout):
        Session(transport, "test").open()
    assert noise[0] < 4000


def test_a_device_that_only_refuses_order_is_a_timeout():
    transport = Recorder()
    session = start(transport)
    transport.device._expected = 0x8000
    with pytest.raises(DeviceTimeout):
        session.call(reads(1)[0])
    assert transport.silences == 0


@pytest.mark.parametrize("method", ["send", "receive"])
def test_a_broken_link_is_a_clear_error(method):
    transport = Recorder()
    session = start(transport)

    def pulled(argument: object) -> None:
        raise OSError("device not configured")

    setattr(transport, method, pulled)
    with pytest.raises(DeviceError) as caught:
        session.call(reads(1)[0])
    assert str(caught.value) == (
        "test: the link failed (device not configured); check it and connect again"
    )
    with pytest.raises(DeviceError, match="connect again"):
        session.check()


def test_close():
    transport = Recorder()
    session = start(transport)
    done, late = reads(2)
    session.call(done)
    session.enqueue(late)
    session.close()
    session.close()
    assert session.require(done).payload == ABOUT[:8]
    with pytest.raises(DeviceError, match=r"^test is closed; connect again$"):
        session.wait(late)


def test_patience_covers_the_work_and_the_bytes_under_way():
    transport = Recorder()
    session = start(transport)
    assert transport.timeouts == [0.25]
    commands = [replace(command, cycles=50_000_000) for command in reads(2)]
    session.enqueue(*commands)
    session.wait(commands[0])
    link = LINK_CYCLES_PER_BYTE * (8 + 2 * OVERHEAD_BYTES)
    assert transport.timeouts[-1] == pytest.approx(0.25 + 2 * 2 * (50e6 + link) / WIDE.clock_hz)


def test_patience_knows_a_slow_link():
    config = replace(TINY, link=Uart(baud=115200))
    transport = Recorder(config)
    session = start(transport, config)
    session.call(reads(1)[0])
    cycles = 12 * config.link.divisor(config) * (8 + 2 * OVERHEAD_BYTES)
    assert transport.timeouts[-1] == pytest.approx(0.25 + 2 * cycles / config.clock_hz)
    assert transport.timeouts[-1] - 0.25 > 10 * (8 + 2 * OVERHEAD_BYTES) / 115200


def test_bytes_are_counted_with_repetitions():
    transport = Recorder()
    session = start(transport)
    lost = [1]
    transport.lose = lambda request: request.seq in lost and not lost.remove(request.seq)
    command = reads(1)[0]
    session.call(command)
    assert (command.sends, command.bytes_tx, command.bytes_rx) == (2, 40, 28)


def test_an_interrupt_at_any_line_loses_nothing():
    """Raises KeyboardInterrupt at the n-th line that the session executes, for every n."""

    class Tracer:
        def __init__(self, line: int) -> None:
            self.left = line

        def __call__(self, frame: FrameType, event: str, argument: object) -> object:
            if not frame.f_code.co_filename.endswith("session.py"):
                return None
            if event == "line":
                self.left -= 1
                if self.left == 0:
                    raise KeyboardInterrupt
            return self

    line = 0
    interrupted = True
    before = sys.gettrace()
    while interrupted:
        line += 1
        transport = Recorder(replace(TINY, slots=4))
        session = start(transport, transport.device.config)
        lost = [2]
        transport.lose = lambda request, lost=lost: (
            request.seq in lost and not lost.remove(request.seq)
        )
        commands, more = reads(5), reads(5, offset=30)
        about = identity(transport.device.config)
        session.enqueue(*commands)
        interrupted = False
        try:
            sys.settrace(Tracer(line))
            session.wait(commands[-1])
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(before)
        session.enqueue(*more)
        for command in [*more, *commands]:
            expected = about[command.address : command.address + 8]
            assert session.require(command).payload == expected, line
        assert transport.silences == 0, line
        assert [command.seq for command in commands + more] == list(range(1, 11)), line
    assert line > 200


def test_a_command_that_an_interrupt_kept_from_being_sent_is_sent_by_the_next_wait():
    """Also if no later command shows the loss."""
    transport = Recorder()
    session = start(transport)
    send = session._send

    def interrupt(command: Command) -> None:
        session._send = send
        raise KeyboardInterrupt

    session._send = interrupt
    command = reads(1)[0]
    with pytest.raises(KeyboardInterrupt):
        session.enqueue(command)
    assert session.require(command).payload == ABOUT[:8]
    assert (command.sends, transport.silences) == (1, 0)


@pytest.mark.parametrize("lost", [[], [0], [0, -1]])
def test_the_attempts_to_open_are_no_loss(lost):
    transport = Recorder()
    lost = [seq & 0xFFFF for seq in lost]
    transport.lose = lambda request: request.seq in lost and not lost.remove(request.seq)
    session = start(transport)
    session.call(reads(1)[0])
    assert not session._unsent


@pytest.mark.parametrize("lost", [[], [1], [3]])
def test_lost_packets_are_looked_for_only_after_a_loss(lost):
    """To look for them takes a step for each command in the window, so it must be rare."""
    transport = Recorder()
    transport.lose = lambda request: request.seq in lost and not lost.remove(request.seq)
    session = start(transport)
    commands = reads(3)
    session.enqueue(*commands)
    assert not session._unsent
    assert exact(session, commands)
    assert lost == []
    assert not session._unsent


@quick_first("rate", [0.1, 0.01])
@quick_first("slots", [2, 4, 16])
def test_ten_thousand_commands_on_a_bad_link(slots, rate):
    """Each with its own response; at one in ten, a session may give up, but never hang or lie."""
    config = replace(TINY, slots=slots)
    about = identity(config)
    count = 10_000 if rate < 0.1 else 2_000
    faulty = FaultyTransport(
        ReferenceTransport(config),
        lose=rate,
        duplicate=rate,
        reorder=rate,
        corrupt=rate,
        seed=slots,
    )
    done = 0
    while done < count:
        try:
            session = start(faulty, config)
            commands = reads(count - done)
            session.enqueue(*commands)
            for command in commands:
                expected = about[command.address : command.address + 8]
                assert session.require(command).payload == expected
                done += 1
        except DeviceError:
            assert rate >= 0.1, "a link with one packet in a hundred lost must not be given up"
    assert min(faulty.faults.values()) > count * rate / 4
    assert len(faulty.faults) == 8


@pytest.mark.parametrize("opcode", [Opcode.IDENTIFY, Opcode.COUNTERS])
def test_a_response_to_a_command_that_was_never_sent_is_discarded(opcode):
    """One that an interrupt has kept from being sent, a later one, one of another session."""
    transport = Recorder()
    session = start(transport)
    command = reads(1)[0]
    command.seq = 1
    session._unsent = True
    session._flight.append(command)  # as if an interrupt had come here
    for seq, number in ((1, session.number), (2, session.number), (1, session.number ^ 1)):
        for status in (Status.OK, Status.NO_SESSION, Status.NAK):
            response = Response(opcode, seq, number, status, payload=b"forgery!")
            session._accept(response.pack())
    assert command.response is None
    assert session.discarded == 9
    assert not session._stranger
    assert session._retries == 0
    assert session.require(command).payload == ABOUT[:8]


@pytest.mark.parametrize("status", [Status.NO_SESSION, Status.NAK])
def test_a_response_of_another_session_says_nothing_about_ours(status):
    transport = Recorder()
    session = start(transport)
    command = reads(1)[0]
    session.enqueue(command)
    sends = command.sends
    forged = Response(Opcode.IDENTIFY, command.seq, session.number ^ 1, status)
    transport._responses.appendleft(forged.pack())
    assert session.require(command).payload == ABOUT[:8]
    assert (command.sends, session.discarded) == (sends, 1)


def test_a_late_response_to_an_attempt_to_open_is_none_to_a_command():
    """Of several RESETs, all but one response come after the session began."""
    transport = Recorder()
    responses: list[bytes] = []

    def keep(packet: bytes) -> bytes | None:
        responses.append(packet)
        return packet if len(responses) == 4 else None

    transport.change = keep
    session = Session(transport, "test")
    assert session.open() == PROTOCOL_VERSION
    assert session._latency_s == 0, "the last attempt has succeeded"
    transport.change = lambda packet: packet
    session.configure(WIDE)
    transport._responses.extend(responses)
    commands = reads(9)
    assert exact_after(session, commands)
    assert [command.seq for command in commands] == list(range(1, 10))
    assert session.discarded == 4


def test_a_late_response_to_reset_tells_the_latency(monkeypatch):
    now_s = 100.0
    monkeypatch.setattr("tritloom.host.session.time.monotonic", lambda: now_s)
    transport = Recorder()
    responses: list[bytes] = []

    def delay(packet: bytes) -> bytes | None:
        nonlocal now_s
        now_s += 0.2
        responses.append(packet)
        return responses[0] if len(responses) == 3 else None

    transport.change = delay
    session = Session(transport, "test")
    session.open()
    assert session._latency_s == pytest.approx(0.6)
    transport.change = lambda packet: packet
    session.configure(WIDE)
    session.enqueue(*reads(3))
    assert session._patience_s() == pytest.approx(0.25 + 1.25 * 0.6, rel=1e-3)
    for command in reads(40):
        session.call(command)
    assert session._latency_s < 0.01, "the link is quick after all"


def test_an_echo_is_no_device():
    class Echo(Recorder):
        def send(self, packet: bytes) -> None:
            self._responses.append(packet)

    transport = Echo()
    with pytest.raises(ProtocolError, match=r"^test returns what is sent to it and is no device; "):
        Session(transport, "test").open()
    assert transport._closed


@pytest.mark.parametrize("failure", ["timeout", "link", "protocol"])
def test_a_session_that_fails_closes_its_link(failure):
    transport = Recorder()
    session = start(transport)
    if failure == "timeout":
        transport.lose = lambda request: True
    elif failure == "link":
        transport.change = lambda packet: (_ for _ in ()).throw(OSError("pulled"))
    else:
        transport.change = lambda p: replace(Response.parse(p), opcode=Opcode.READ).pack()
    with pytest.raises(DeviceError):
        session.call(reads(1)[0])
    assert transport._closed


def test_a_link_that_cannot_be_closed_hides_no_error():
    transport = Recorder()
    session = start(transport)
    transport.lose = lambda request: True

    def close() -> None:
        raise OSError("no such device")

    transport.close = close
    with pytest.raises(DeviceTimeout):
        session.call(reads(1)[0])


def test_a_session_cannot_be_pickled_or_copied():
    session = start(Recorder())
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InputError, match=r"^test: a connected device cannot be copied or pic"):
            duplicate(session)


def test_a_session_belongs_to_one_process(monkeypatch):
    transport = Recorder()
    session = start(transport)
    process = os.getpid()
    monkeypatch.setattr("tritloom.host.session.os.getpid", lambda: process + 1)
    with pytest.raises(DeviceError, match=r"^test was connected by another process; close it and"):
        _ = session.lock
    session.close()
    assert transport._closed


def test_a_device_of_the_first_protocol_is_refused():
    """Its session had 32 bits, with the low ones where they are today; the echo is the same."""

    class Old(Recorder):
        def send(self, packet: bytes) -> None:
            self.requests.append(Request.parse(packet))
            header = struct.unpack_from("<HHIBBHI", packet)
            _, seq, session, opcode, _, _, _ = header
            self._responses.append(seal(struct.pack("<HHIBBHI", 20, seq, session, opcode, 0, 1, 1)))

    transport = Old()
    with pytest.raises(ProtocolError) as caught:
        Device(transport, url="test")
    assert str(caught.value) == (
        "test speaks protocol 1, this driver 2; build its bitstream with this version"
    )
    assert transport._closed
    assert [request.opcode for request in transport.requests] == [Opcode.RESET]


def numbers(monkeypatch: pytest.MonkeyPatch, *values: int) -> None:
    """Sessions take these numbers, one after the other."""
    left = list(values)
    monkeypatch.setattr("tritloom.host.session.secrets.randbelow", lambda limit: left.pop(0) - 1)


def test_a_number_that_is_in_use_on_the_device_is_not_taken(monkeypatch):
    """Its RESET would change nothing: the layers of the former session would stay."""
    transport = Recorder()
    numbers(monkeypatch, 77)
    former = start(transport)
    assert exact_after(former, reads(3))
    layer = requests.define_layer(0, 0, LayerShape(1, 1))
    former.call(Command(opcode=Opcode.DEFINE, index=0, payload=layer.payload))
    transport.requests.clear()
    numbers(monkeypatch, 77, 77, 78)
    session = start(transport)
    assert session.number == 78
    assert [(r.session, r.opcode) for r in transport.requests] == [
        (77, Opcode.RESET),
        (77, Opcode.RESET),
        (78, Opcode.RESET),
    ]
    assert exact_after(session, reads(5))
    with pytest.raises(DeviceError, match="READ of index 0, count 1, address 0: BAD_STATE"):
        session.call(Command(opcode=Opcode.READ, index=0, count=1))


def test_a_number_is_kept_while_only_responses_are_lost(monkeypatch):
    """A second RESET of the same number finds the first command expected: it began the session."""
    transport = Recorder()
    numbers(monkeypatch, 5)
    lost = [0]
    transport.change = lambda packet: None if (lost.append(1) or len(lost) < 4) else packet
    assert start(transport).number == 5


def test_a_device_that_always_expects_another_command_is_given_up():
    transport = Recorder()
    transport.change = lambda p: replace(Response.parse(p), expected=9).pack()
    with pytest.raises(DeviceTimeout):
        Session(transport, "test").open()
    assert len({request.session for request in transport.requests}) > 1


def test_numbers_have_the_bits_of_the_header():
    numbers_drawn = [Session(Recorder(), "test").number for _ in range(200)]
    assert min(numbers_drawn) >= 1 and max(numbers_drawn) < 1 << 24
    assert max(numbers_drawn) >= 1 << 20


def test_a_memory_error_says_what_to_do_and_the_session_goes_on():
    transport = Recorder()
    session = start(transport)
    failed, good = reads(2)
    transport.change = lambda p: (
        replace(Response.parse(p), status=Status.MEMORY_ERROR, payload=b"").pack()
        if Response.parse(p).seq == 1
        else p
    )
    session.enqueue(failed, good)
    with pytest.raises(DeviceError) as caught:
        session.require(failed)
    assert str(caught.value) == (
        f"test refused IDENTIFY of index 0, count 8, address {failed.address}: MEMORY_ERROR: the "
        "weight memory could not read a word; try again, and if that fails too, load the layer "
        "again or run the device's self-test"
    )
    assert exact(session, [good])
    session.check()


def test_a_memory_has_a_remedy_of_its_own():
    transport = Recorder()
    session = start(transport)
    session.configure(replace(TINY, memory=Sdram(words=64)))
    (failed,) = reads(1)
    transport.change = lambda p: (
        replace(Response.parse(p), status=Status.MEMORY_ERROR, payload=b"").pack()
        if Response.parse(p).seq == 1
        else p
    )
    with pytest.raises(DeviceError) as caught:
        session.call(failed)
    remedy = Sdram.void_remedy
    assert str(caught.value).endswith(f"the weight memory could not read a word; {remedy}")
    assert "right at no phase of its clock" in remedy and "\n" not in remedy


class TestAcknowledged:
    """The low byte of the last seq up to which every response has arrived."""

    def test_one_command_at_a_time(self):
        transport = Recorder()
        session = start(transport)
        for command in reads(300):
            session.call(command)
        assert [(r.seq, r.acknowledged) for r in transport.requests] == [(0, 0)] + [
            (seq, (seq - 1) & 0xFF) for seq in range(1, 301)
        ]

    def test_after_a_loss(self):
        """The responses behind a lost one do not count until it has come."""
        transport = Recorder()
        session = start(transport)
        lost = [3]
        transport.lose = lambda request: request.seq in lost and not lost.remove(request.seq)
        assert exact_after(session, reads(20))
        sent: dict[int, list[int]] = {}
        for request in transport.requests:
            sent.setdefault(request.seq, []).append(request.acknowledged)
        assert len(sent[3]) == 2 and sent[3][0] == 0 and sent[3][1] == 2
        assert sent[WIDE.window][0] == 0, "nothing had come when the first window was sent"

    @pytest.mark.parametrize("rate", [0.02, 0.1])
    def test_never_more_than_what_has_come(self, rate):
        """On a bad link: it never goes back, and all that it names was received before."""
        received: set[int] = set()

        class Watch(FaultyTransport):
            def send(self, packet: bytes) -> None:
                request = Request.parse(packet)
                if request.opcode != Opcode.RESET:
                    first_missing = next(n for n in range(1, 100_000) if n not in received)
                    assert request.acknowledged == (first_missing - 1) & 0xFF
                super().send(packet)

            def receive(self, timeout_s: float) -> bytes | None:
                packet = super().receive(timeout_s)
                response = None if packet is None else Response.parse(packet)
                if (
                    response is not None
                    and response.session == session.number
                    and response.status == Status.OK
                    and response.opcode == Opcode.IDENTIFY
                ):
                    received.add(response.seq)
                return packet

        faults = {"lose": rate, "duplicate": rate, "reorder": rate, "corrupt": rate}
        watched = Watch(ReferenceTransport(WIDE), **faults, seed=11)
        session = Session(watched, "test")
        session.open()
        session.configure(WIDE)
        assert exact_after(session, reads(600))
        assert received == set(range(1, 601))
