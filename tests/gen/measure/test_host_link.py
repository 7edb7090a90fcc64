"""The measurement of packets over UDP: what is measured, not how long it takes."""

import socket
import subprocess
import sys
import time

import pytest

from tritloom.gen.measure import host_link
from tritloom.gen.measure.host import CRC_CALLS
from tritloom.gen.measure.host_link import CASES, CONFIG, SHORT, SLOTS, measure_host_link
from tritloom.host.links.udp import UdpTransport
from tritloom.host.session import Command, Session
from tritloom.rtl.spec.commands import OVERHEAD_BYTES, Opcode, Request


@pytest.mark.sim
def test_figures(monkeypatch):
    """Each round takes a second of that clock."""
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "process_time", lambda: float(next(clock)))
    monkeypatch.setattr(host_link, "SLOTS", SLOTS[:1])
    monkeypatch.setattr(host_link, "CASES", CASES[:2])
    result = measure_host_link(rounds=1, commands=50)
    assert result.pop("python").startswith("3.")
    assert result == {
        "host_cpu_us_per_packet": {
            str(slots): {f"{out} out, {back} in": 1e6 / 50 for out, back in CASES[:2]}
            for slots in SLOTS[:1]
        },
        "crc32_us_per_kb": 1e6 / CRC_CALLS,
        "command": "tritloom measure host --udp --json",
    }


@pytest.mark.parametrize(("out", "back"), CASES)
def test_the_peer_responds_with_packets_of_the_size(out, back):
    """And the packets that are sent have theirs."""
    command = [sys.executable, "-m", "tritloom.gen.measure.host_link", str(back)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:
        try:
            session = Session(UdpTransport("127.0.0.1", int(peer.stdout.readline())), "peer")
            session.open()
            session.configure(CONFIG)
            opcode = Opcode.IDENTIFY if back > SHORT else Opcode.LOAD
            commands = [
                Command(
                    opcode=opcode,
                    payload=bytes(out - OVERHEAD_BYTES),
                    response_bytes=back - OVERHEAD_BYTES,
                )
                for _ in range(40)
            ]
            session.enqueue(*commands)
            for each in commands:
                assert len(session.require(each).payload) == back - OVERHEAD_BYTES
            assert all(each.bytes_tx >= out and each.bytes_rx >= back for each in commands)
            session.close()
        finally:
            peer.kill()


def test_a_peer_that_nobody_asks_ends(monkeypatch):
    monkeypatch.setattr(host_link, "PEER_WAIT_S", 0.05)
    with pytest.raises(TimeoutError):
        host_link.serve_peer(SHORT, lambda number: None)


def test_a_peer_ends_when_it_is_asked_no_more(monkeypatch):
    monkeypatch.setattr(host_link, "PEER_WAIT_S", 0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        request = Request(Opcode.RESET, session=3).pack()
        host_link.serve_peer(SHORT, lambda number: port.sendto(request, ("127.0.0.1", number)))
        assert len(port.recv(100)) == SHORT
