"""Blocks of datagrams: both ways to move them give the same results."""

import errno
import signal
import socket
import sys
import threading
import time

import pytest

from tritloom.host.links import datagrams as module
from tritloom.host.links.datagrams import (
    BLOCK,
    FEW,
    LONGEST_BYTES,
    PITCH_BYTES,
    ManyDatagrams,
    PlainDatagrams,
    datagrams,
)

KINDS = [
    PlainDatagrams,
    pytest.param(
        ManyDatagrams,
        marks=pytest.mark.skipif(sys.platform != "linux", reason="the calls are Linux's"),
    ),
]
PATIENCE_S = 5.0


@pytest.fixture
def ports():
    """Two connected sockets."""
    pair = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for port in pair:
        port.bind(("127.0.0.1", 0))
        port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    for port, other in zip(pair, reversed(pair), strict=True):
        port.connect(other.getsockname())
    yield pair
    for port in pair:
        port.close()


def packets_of(*sizes: int) -> list[bytes]:
    return [bytes((number + byte) & 0xFF for byte in range(n)) for number, n in enumerate(sizes)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 15, BLOCK])
def test_a_block_comes_as_it_was_sent(ports, kind, count):
    """Every datagram whole, in order, whatever the sizes of the block before it were."""
    out, into = kind(ports[0]), kind(ports[1])
    for sizes in (
        [20] * count,
        [1472] * count,
        [20 + 37 * n for n in range(count)],
        [LONGEST_BYTES - n for n in range(count)],
        [1] * count,
    ):
        packets = packets_of(*sizes)
        out.send(packets)
        received: list[bytes] = []
        while len(received) < count and (more := into.receive(PATIENCE_S)):
            received += more
        assert received == packets
    assert out.trouble == into.trouble == ""


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_a_block_comes_in_blocks(ports, kind):
    out, into = kind(ports[0]), kind(ports[1])
    packets = packets_of(*[100] * (2 * BLOCK + 5))
    for start in range(0, len(packets), BLOCK):
        out.send(packets[start : start + BLOCK])
    received = [into.receive(PATIENCE_S) for _ in range(3)]
    assert [len(block) for block in received] == [BLOCK, BLOCK, 5]
    assert [packet for block in received for packet in block] == packets


@pytest.mark.parametrize("kind", KINDS)
def test_a_datagram_that_is_too_long_is_cut_off(ports, kind):
    """So that it is no packet; the datagrams beside it are whole."""
    packets = packets_of(30, PITCH_BYTES + 100, 40)
    for packet in packets:
        ports[0].send(packet)
    received = kind(ports[1]).receive(PATIENCE_S)
    assert received == [packets[0], packets[1][:PITCH_BYTES], packets[2]]
    assert PITCH_BYTES > LONGEST_BYTES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timeout_s", [0.0, 0.02, 0.001])
def test_nothing_comes(ports, kind, timeout_s):
    """It waits as long as it was asked to, and receives what comes later."""
    into = kind(ports[1])
    started_s = time.monotonic()
    assert into.receive(timeout_s) == []
    assert time.monotonic() - started_s >= timeout_s
    ports[0].send(b"late")
    assert into.receive(PATIENCE_S) == [b"late"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_waits_for_the_first_datagram_alone(ports, kind):
    into = kind(ports[1])
    sender = threading.Timer(0.05, lambda: ports[0].send(b"first"))
    sender.start()
    started_s = time.monotonic()
    assert into.receive(10 * PATIENCE_S) == [b"first"]
    assert time.monotonic() - started_s < 5 * PATIENCE_S
    sender.join()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, BLOCK])
def test_nobody_is_there(kind, count):
    """The system says so in a later call. It is a loss like any other, and no error."""
    port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        address = other.getsockname()
        port.connect(address)
        other.close()
        link = kind(port)
        link.send(packets_of(*[50] * count))
        assert link.receive(0.01) == []
        link.send(packets_of(*[50] * count))
        assert link.trouble == "Connection refused"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(address)
            again.connect(port.getsockname())
            link.receive(0.001)
            link.send(packets_of(*[60] * count))
            again.settimeout(PATIENCE_S)
            assert again.recv(100) == packets_of(60)[0]
            again.send(b"here")
            assert link.receive(PATIENCE_S) == [b"here"]
            assert link.trouble == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [FEW, BLOCK])
def test_a_late_error_costs_one_datagram(kind, count):
    """The one in whose call the system tells of an earlier one; those behind it are sent."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again,
    ):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            address = other.getsockname()
        port.connect(address)
        port.send(b"nobody")
        again.bind(address)
        again.settimeout(PATIENCE_S)
        packets = packets_of(*range(10, 10 + count))
        kind(port).send(packets)
        assert [again.recv(100) for _ in packets[1:]] == packets[1:]
        again.settimeout(0.02)
        with pytest.raises(TimeoutError):
            again.recv(100)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, FEW + 1])
def test_a_datagram_that_no_network_takes_is_lost(ports, kind, count):
    """The others of its block are sent."""
    link = kind(ports[0])
    packets = packets_of(*[10] * count)
    packets[-1] = bytes(70_000)
    if kind is ManyDatagrams and count > FEW:
        packets[-1] = bytes(PITCH_BYTES)
    link.send(packets)
    received: list[bytes] = []
    while len(received) < count - 1:
        received += PlainDatagrams(ports[1]).receive(PATIENCE_S)
    assert received[: count - 1] == packets[:-1]
    assert link.trouble == ("" if len(packets[-1]) == PITCH_BYTES else "Message too long")


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_socket_is_an_error(ports, kind):
    link = kind(ports[0])
    ports[0].close()
    for count in (1, BLOCK):
        with pytest.raises(OSError, match="Bad file descriptor"):
            link.send(packets_of(*[10] * count))
    with pytest.raises(OSError, match="Bad file descriptor"):
        link.receive(0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_does_not_end_a_wait(ports, kind):
    """Python runs its handler, and the wait goes on; a handler that raises ends it."""
    into = kind(ports[1])
    seen: list[int] = []

    def handler(number: int, frame: object) -> None:
        seen.append(number)
        if len(seen) == 1:
            ports[0].send(b"after")
        else:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert into.receive(PATIENCE_S) == [b"after"]
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            into.receive(PATIENCE_S)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) == 2


def test_a_system_that_allows_no_large_buffers():
    """It gets the largest one that it allows, or keeps its own."""

    class Small(socket.socket):
        allowed = 1 << 20

        def setsockopt(self, level, option, value):
            if option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                if value > self.allowed:
                    raise OSError(errno.ENOBUFS, "No buffer space available")
                asked.append(value)
                return
            super().setsockopt(level, option, value)

    asked: list[int] = []
    with Small(socket.AF_INET, socket.SOCK_DGRAM) as port:
        datagrams(port)
        assert asked == [1 << 20] * 2
        Small.allowed = 0
        datagrams(port)
        assert asked == [1 << 20] * 2


def test_the_way_of_this_system(ports, monkeypatch):
    """The socket gets large buffers. Other systems than Linux have no calls for a block."""
    kind = ManyDatagrams if sys.platform == "linux" else PlainDatagrams
    before = ports[0].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert type(datagrams(ports[0])) is kind
    assert ports[0].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= before
    monkeypatch.setattr(module.sys, "platform", "darwin")
    assert type(datagrams(ports[1])) is PlainDatagrams
