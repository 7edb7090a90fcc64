"""A session over a transport that moves several packets in one call."""

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType

import pytest

from tests.support import quick_first
from tests.support.faults import FaultyTransport
from tritloom.host.session import BAD_WINDOW, SMALLEST_PAYLOAD, Command, Session
from tritloom.rtl.spec.commands import Opcode, Request, Status, identity
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError
from tritloom.sim.device.reference import ReferenceTransport

BLOCK = 4
WIDE = replace(TINY, slots=16)


class Blocks:
    """Makes blocks of the packets of another transport, which has them at once.

    Members
    -------
    sent : the packets of each call of `send_block`
    received : how many packets each call of `receive_block` gave
    """

    block = BLOCK

    def __init__(self, inner: ReferenceTransport | FaultyTransport) -> None:
        self.inner = inner
        self.sent: list[list[bytes]] = []
        self.received: list[int] = []

    @property
    def timeout_s(self) -> float:
        return self.inner.timeout_s

    def send(self, packet: bytes) -> None:
        raise AssertionError("the session has blocks")

    def receive(self, timeout_s: float) -> bytes | None:
        raise AssertionError("the session has blocks")

    def send_block(self, packets: Sequence[bytes]) -> None:
        assert 1 <= len(packets) <= self.block
        self.sent.append(list(packets))
        for packet in packets:
            self.inner.send(packet)

    def receive_block(self, timeout_s: float) -> list[bytes]:
        packets: deque[bytes] = deque()
        while len(packets) < self.block and (packet := self.inner.receive(timeout_s)) is not None:
            packets.append(packet)
        self.received.append(len(packets))
        return list(packets)

    def close(self) -> None:
        self.inner.close()


def start(transport: Blocks, config: AcceleratorConfig = WIDE) -> Session:
    session = Session(transport, "test")
    session.open()
    session.configure(config)
    transport.sent.clear()
    transport.received.clear()
    return session


def reads(count: int) -> list[Command]:
    """Commands whose responses are all different."""
    return [
        Command(opcode=Opcode.IDENTIFY, address=i % 200, count=8, response_bytes=8)
        for i in range(count)
    ]


def exact(session: Session, commands: list[Command], config: AcceleratorConfig = WIDE) -> bool:
    about = identity(config)
    return all(
        session.require(command).payload == about[command.address : command.address + 8]
        for command in commands
    )


def test_each_call_moves_a_whole_block():
    """What does not fill a block waits for more room, or for the last commands."""
    transport = Blocks(ReferenceTransport(WIDE))
    session = start(transport)
    commands = reads(WIDE.window + 5 * BLOCK)
    session.enqueue(*commands)
    assert [len(packets) for packets in transport.sent] == [4, 4, 4], "room for 3 is left"
    assert exact(session, commands)
    assert [len(packets) for packets in transport.sent] == [4, 4, 4, 4, 4, 4, 4, 4, 3]
    assert transport.received == [4, 4, 4, 4, 4, 4, 4, 4, 3]
    assert [Request.parse(p).seq for packets in transport.sent for p in packets] == list(
        range(1, 1 + len(commands))
    )
    assert (session.retransmissions, session.discarded) == (0, 0)


def test_the_last_commands_do_not_wait_for_a_whole_block():
    transport = Blocks(ReferenceTransport(WIDE))
    session = start(transport)
    session.enqueue(*reads(2))
    assert [len(packets) for packets in transport.sent] == [2]
    commands = reads(WIDE.window)
    session.enqueue(*commands)
    assert exact(session, commands)
    assert [len(packets) for packets in transport.sent] == [2, 4, 4, 4, 3]


@pytest.mark.parametrize("slots", [2, 4, 8])
def test_a_small_window_is_no_dead_end(slots):
    """A block is at most half the window, so something is always under way."""
    config = replace(TINY, slots=slots)
    transport = Blocks(ReferenceTransport(config))
    session = start(transport, config)
    commands = reads(40)
    session.enqueue(*commands)
    assert exact(session, commands, config)
    least = max(1, min(BLOCK, config.window // 2))
    sizes = [len(packets) for packets in transport.sent]
    assert min(sizes[:-1]) >= least or slots == 2
    assert session.retransmissions == 0


def test_the_last_commands_fill_what_room_there_is():
    transport = Blocks(ReferenceTransport(WIDE))
    session = start(transport)
    session.enqueue(*reads(WIDE.window))
    assert [len(packets) for packets in transport.sent] == [4, 4, 4, 3]


def test_half_of_a_small_window_is_enough():
    config = replace(TINY, slots=8)
    transport = Blocks(ReferenceTransport(config))
    session = start(transport, config)
    session.enqueue(*reads(40))
    assert [len(packets) for packets in transport.sent] == [4, 3]


def test_the_small_window_of_a_bad_link_is_no_dead_end():
    """It is smaller than the room for which a good link waits."""
    inner = ReferenceTransport(WIDE)
    transport = Blocks(inner)
    session = start(transport)
    session._share_again = 1.0
    commands = reads(200)
    session.enqueue(*commands)
    assert [len(packets) for packets in transport.sent] == [BAD_WINDOW]
    assert exact(session, commands)
    assert transport.received.count(0) == session.retransmissions == 0
    assert max(len(packets) for packets in transport.sent) == BLOCK, "the link is good after all"


def test_what_is_acknowledged_is_that_of_the_whole_block():
    transport = Blocks(ReferenceTransport(WIDE))
    session = start(transport)
    commands = reads(40)
    session.enqueue(*commands)
    assert exact(session, commands)
    acknowledged = [
        {Request.parse(packet).acknowledged for packet in packets} for packets in transport.sent
    ]
    assert acknowledged == [{0}, {0}, {0}, {4}, {8}, {12}, {16}, {20}, {24}, {28}]


def test_lost_packets_are_sent_again_in_blocks():
    inner = ReferenceTransport(WIDE)
    transport = Blocks(inner)
    session = start(transport)
    lost = [2]
    send = inner.send

    def lose(packet: bytes) -> None:
        seq = Request.parse(packet).seq
        if seq in lost:
            lost.remove(seq)
        else:
            send(packet)

    inner.send = lose
    commands = reads(12)
    session.enqueue(*commands)
    assert exact(session, commands)
    seqs = [[Request.parse(packet).seq for packet in packets] for packets in transport.sent]
    first = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    assert seqs == [*first, [2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12]]
    assert session.retransmissions == 11


@quick_first("rate", [0.03, 0.1])
@quick_first("slots", [4, 16, 64])
def test_a_bad_link(slots, rate):
    """Every result is exact, and small windows of a bad link do not stop it."""
    config = replace(TINY, slots=slots)
    faulty = FaultyTransport(
        ReferenceTransport(config),
        lose=rate,
        duplicate=rate,
        reorder=rate,
        corrupt=rate,
        seed=slots,
    )
    done, count = 0, 2000
    bad = False
    while done < count:
        try:
            session = start(Blocks(faulty), config)
            commands = reads(count - done)
            session.enqueue(*commands)
            for command in commands:
                assert exact(session, [command], config)
                bad = bad or session.payload_limit(1000) == SMALLEST_PAYLOAD
                done += 1
        except DeviceError:
            assert rate >= 0.1, "a link that loses less must not be given up"
    assert min(faulty.faults.values()) > count * rate / 4
    assert bad or slots <= BAD_WINDOW + 1


def test_a_session_takes_no_longer_packets_than_are_sure_to_pass():
    transport = Blocks(ReferenceTransport(WIDE))
    session = start(transport)
    assert session.payload_limit(4076) == 4076
    transport.packet_bytes = 1472
    assert (session.payload_limit(4076), session.payload_limit(1004)) == (1452, 1004)


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

    config = replace(TINY, slots=8)
    line = 0
    interrupted = True
    before = sys.gettrace()
    while interrupted:
        line += 1
        transport = Blocks(ReferenceTransport(config))
        session = start(transport, config)
        commands, more = reads(12), reads(12)
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
        assert exact(session, [*more, *commands], config), line
        assert [command.seq for command in commands + more] == list(range(1, 25)), line
    assert line > 150


def test_a_device_in_use_by_another_host():
    """It refuses RESET, as long as its owner is heard."""
    inner = ReferenceTransport(WIDE)
    process = inner.device.process

    def refuse(packet: bytes) -> bytes:
        request = Request.parse(packet)
        return inner.device._respond(request, Status.NO_SESSION)

    inner.device.process = refuse
    with pytest.raises(DeviceError) as caught:
        Session(Blocks(inner), "test").open()
    assert str(caught.value) == (
        "test is in use by another computer; end the session there, or switch that computer off, "
        "then connect again"
    )
    inner._closed = False
    inner.device.process = process
    session = start(Blocks(inner))
    commands = reads(3)
    session.enqueue(*commands)
    assert exact(session, commands)


def test_a_transport_says_what_to_do_about_silence():
    inner = ReferenceTransport(WIDE)
    inner.send = lambda packet: None
    transport = Blocks(inner)
    transport.remedy = "look at the lamp"
    with pytest.raises(DeviceError, match=r"RESET, tried 9 times; look at the lamp, then connect"):
        Session(transport, "test").open()
