"""Measures the CPU time that packets over UDP take on this computer.

The peer is another process of this computer, behind the loopback interface. It responds to every
packet. Its time is not counted, but what the system does in the name of the sender is, which on
loopback includes the delivery.
"""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tritloom.gen.measure.host import InstantTransport, crc_us
from tritloom.host.links.datagrams import datagrams
from tritloom.host.links.udp import UdpTransport
from tritloom.host.session import Command, Session
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import OVERHEAD_BYTES, Opcode
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["measure_host_link"]

SLOTS = (8, 32, 64)
"""Packets that the device buffers; one less is the window."""
SHORT = OVERHEAD_BYTES
CASES = ((1024, SHORT), (SHORT, 1024), (1472, SHORT), (SHORT, 1472), (1024, 1024))
"""Bytes of a command's packet, and of its response."""
CONFIG = AcceleratorConfig(
    lanes=20,
    rows=1,
    memory=BlockRam(words=1024),
    max_in_features=256,
    max_out_features=256,
    packet_bytes=2048,
    slots=SLOTS[0],
)
COMMANDS = 4000
ROUNDS = 8
"""How often everything is measured. The least time counts: other work on the computer only adds."""
PEER_WAIT_S = 30.0


def measure_host_link(rounds: int = ROUNDS, commands: int = COMMANDS) -> dict[str, Any]:
    """Measure packets over UDP on this computer, in microseconds of CPU time.

    Parameters
    ----------
    rounds : how often everything is measured; the least time of each counts
    commands : how many there are in a round

    Returns
    -------
    dict[str, Any]
        `host_cpu_us_per_packet`: of a command's packet and its response, by `slots`, then by the
        bytes of both, such as `1024 out, 20 in`. `crc32_us_per_kb` is a yardstick of the same
        computer: `zlib.crc32` of 1024 bytes.
    """
    return {
        "host_cpu_us_per_packet": {
            str(slots): {
                f"{out} out, {back} in": _least_us(slots, out, back, rounds, commands)
                for out, back in CASES
            }
            for slots in SLOTS
        },
        "crc32_us_per_kb": round(min(crc_us() for _ in range(rounds)), 3),
        "python": platform.python_version(),
        "command": "tritloom measure host --udp --json",
    }


def _least_us(slots: int, out: int, back: int, rounds: int, count: int) -> float:
    """CPU time of a command whose packet has `out` bytes, and whose response has `back`."""
    config = replace(CONFIG, slots=slots)
    payload = bytes(out - OVERHEAD_BYTES)
    opcode = Opcode.IDENTIFY if back > SHORT else Opcode.LOAD
    command = [sys.executable, "-m", "tritloom.gen.measure.host_link", str(back)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:
        try:
            assert peer.stdout is not None
            session = Session(UdpTransport("127.0.0.1", int(peer.stdout.readline())), "peer")
            session.open()
            session.configure(config)

            def run() -> None:
                made = [
                    Command(opcode=opcode, payload=payload, response_bytes=back - OVERHEAD_BYTES)
                    for _ in range(count)
                ]
                start_s = time.process_time()
                session.enqueue(*made)
                for each in made:
                    session.require(each)
                times.append(1e6 * (time.process_time() - start_s) / count)

            times: list[float] = []
            for _ in range(rounds):
                run()
            session.close()
        finally:
            peer.kill()
    return round(min(times), 2)


def serve_peer(back: int, announce: Callable[[int], None]) -> None:
    """Respond to packets with responses of `back` bytes, until the process is ended.

    Parameters
    ----------
    back : bytes of a response to IDENTIFY; others have no payload
    announce : gets the number of the port
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind(("127.0.0.1", 0))
        port.settimeout(PEER_WAIT_S)
        announce(port.getsockname()[1])
        first, sender = port.recvfrom(2048)
        port.connect(sender)
        link = datagrams(port)
        device = InstantTransport(CONFIG, identity_bytes=back - OVERHEAD_BYTES)
        packets = [first]
        while packets:
            for packet in packets:
                device.send(packet)
            link.send([response for _ in packets if (response := device.receive(0.0)) is not None])
            packets = link.receive(PEER_WAIT_S)


if __name__ == "__main__":
    serve_peer(int(sys.argv[1]), lambda number: print(number, flush=True))
