"""The client of `tritloom serve` in C++, against servers that do what a real one seldom does."""

import socket
import struct
import subprocess
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from tests.support import ROOT
from tritloom.host.serve.wire import HEADER, MAGIC, READ_BYTES, Kind, Receiver
from tritloom.sim.tools import find_cxx

pytestmark = pytest.mark.sim

GONE = "no the server has gone; start tritloom serve, then this program again"
OTHER = "no the server speaks another protocol; start tritloom serve, then this program again"


@pytest.fixture(scope="module")
def asks(tmp_path_factory):
    """The program of `asks.cc`."""
    program = tmp_path_factory.mktemp("asks") / "asks"
    source = ROOT / "tests" / "host" / "llama" / "asks.cc"
    flags = ["-std=c++17", "-O1", f"-I{ROOT / 'host' / 'llama'}"]
    subprocess.run([*find_cxx(), *flags, source, "-o", program], check=True)
    return program


@contextmanager
def listening(path, answer):
    """A server that calls `answer(link, receiver, n)` for each message n, until it returns False.

    Members of what it yields: `bodies` of the messages.
    """
    bodies = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve():
            link, _ = server.accept()
            with link:
                receiver = Receiver(link)
                while (message := receiver.receive()) is not None:
                    assert message[0] == Kind.PRODUCTS
                    bodies.append(bytes(message[1]))
                    if answer(link, len(bodies) - 1) is False:
                        return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield bodies
        thread.join(30)
        assert not thread.is_alive()


def run(asks, path, *sizes, signals=False):
    command = [asks, path, str(int(signals)), *map(str, sizes)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stdout.splitlines(), ran.stderr


def body_of(size):
    """What `asks.cc` sends."""
    k = np.arange(size)
    return struct.pack("<II", 7, size) + (k * 7 + k // 251).astype(np.uint8).tobytes()


def ok(answer):
    checksum = 1
    for byte in answer:
        checksum = (checksum * 31 + byte) % 2**32
    return f"ok {len(answer)} {checksum}"


def header(size, kind=Kind.PRODUCTS, magic=MAGIC):
    return HEADER.pack(magic, kind, size)


ROOM = READ_BYTES - HEADER.size
"""Bytes of an answer that come with its header in one call, at most."""


@pytest.mark.parametrize("signals", [False, True])
@pytest.mark.parametrize("slow", [False, True])
def test_messages_of_all_sizes(asks, tmp_path, signals, slow):
    """Also if signals interrupt the calls, and a server reads and answers slowly."""
    sizes = [0, 1, 256, 3_000_000, 5]
    answers = [np.random.default_rng(n).bytes(size) for n, size in enumerate([0, 1, ROOM, 900_000])]
    answers.append(np.random.default_rng(9).bytes(ROOM + 1))

    def answer(link, n):
        message = header(len(answers[n])) + answers[n]
        if slow:
            for byte in message[:20]:
                time.sleep(0.002)
                link.sendall(bytes([byte]))
            time.sleep(0.05)
            message = message[20:]
        link.sendall(message)

    with listening(tmp_path / "s", answer) as bodies:
        status, lines, _ = run(asks, tmp_path / "s", *sizes, signals=signals)
    assert (status, lines) == (0, [ok(each) for each in answers])
    assert bodies == [body_of(size) for size in sizes]


def test_an_interrupted_message_goes_on(asks, tmp_path):
    """The server reads nothing for a while, so the message waits half sent."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        process = subprocess.Popen(
            [asks, tmp_path / "s", "1", "4000000"], stdout=subprocess.PIPE, text=True
        )
        link, _ = server.accept()
        with link:
            time.sleep(0.1)
            kind, body = Receiver(link).receive()
            assert (kind, bytes(body)) == (Kind.PRODUCTS, body_of(4_000_000))
            link.sendall(header(2) + b"ab")
            out, _ = process.communicate(timeout=30)
    assert out.splitlines() == [ok(b"ab")]


def test_a_refusal_is_no_loss(asks, tmp_path):
    def answer(link, n):
        link.sendall(header(4, Kind.ERROR) + b"why?" if n == 0 else header(3) + b"yes")

    with listening(tmp_path / "s", answer) as bodies:
        assert run(asks, tmp_path / "s", 3, 4)[1] == ["no why?", ok(b"yes")]
    assert len(bodies) == 2


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (b"", GONE),
        (header(10)[:-1], GONE),
        (header(10) + b"123456789", GONE),
        (header(ROOM + 9) + bytes(ROOM), GONE),
        (header(3, magic=MAGIC + 1) + b"abc", OTHER),
        (header(3) + b"abcd", OTHER),
    ],
)
def test_a_loss_is_for_good(asks, tmp_path, answer, line):
    """The later questions fail at once, with the same reason, and reach no server."""

    def give(link, n):
        link.sendall(answer)
        return line == OTHER

    with listening(tmp_path / "s", give) as bodies:
        assert run(asks, tmp_path / "s", 3, 4, 5)[1] == [line] * 3
    assert len(bodies) == 1


def test_a_server_that_ends_in_the_middle_of_a_question(asks, tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        process = subprocess.Popen(
            [asks, tmp_path / "s", "0", "4000000"], stdout=subprocess.PIPE, text=True
        )
        link, _ = server.accept()
        with link:
            assert link.recv(1)
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out.splitlines()) == (0, [GONE])


def test_no_server(asks, tmp_path):
    path = tmp_path / "none"
    message = f"tritloom: {path}: No such file or directory; start tritloom serve there\n"
    assert run(asks, path, 1) == (2, [], message)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    message = f"tritloom: {path}: Connection refused; start tritloom serve there\n"
    assert run(asks, path, 1) == (2, [], message)


@pytest.mark.parametrize("length", [107, 108, 500])
def test_the_path_of_the_socket(asks, length):
    path = "/" + "x" * (length - 1)
    why = "No such file or directory; start tritloom serve there"
    if length > 107:
        why = "the path of a socket cannot be so long"
    assert run(asks, path) == (2, [], f"tritloom: {path}: {why}\n")
