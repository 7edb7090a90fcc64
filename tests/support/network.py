"""A simulated board on a network, and what a host sees of it: the same on two kinds of network.

`python -m tests.support.network KIND WHAT` prints what `look` or `generate` found as JSON. Of the
kinds, `linux` makes a network namespace with a TAP device in it, so that Linux's own ARP, IP and
UDP meet the board; `user` has a host in user space. The status is 77 where Linux's network cannot
be had.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tests.support import ROOT
from tests.support.ethernet import ADDRESS, CONFIG, checksum
from tests.support.user_network import UserNetwork
from tritloom.host import TernaryLayer, connect
from tritloom.host.device import Device
from tritloom.host.links import udp
from tritloom.host.links.discovery import address_text, find_boards, mac_text, set_address
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.links.udp_facts import DISCOVERY_PORT, MAX_DATAGRAM, PACKET_PORT
from tritloom.rtl.spec.commands import Opcode, Request, Response, identity
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError, ToolError
from tritloom.sim.device.ethernet import EthernetBoard
from tritloom.sim.device.tap import EthernetBridge, host_address, open_tap

UNAVAILABLE = 77
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
PING_BYTES = (0, 1, 2, 56, 500, 1001, 1400, 1472)
TOO_LONG_BYTES = 3000
"""A ping that comes in fragments, which the board drops."""
OTHER = "10.77.0.77"
TIMEOUT_S = 10.0
"""A host that computes other things as well may be slow."""
SILENCE_S = 0.3
PATIENCE_S = 20.0
"""The driver's time-out where nothing is lost: on a busy computer the simulated board is late, and
packets that are sent again would not find room in it."""


class Network(Protocol):
    """A host beside the board."""

    bridge: EthernetBridge

    def url(self, address: str) -> str:
        """What `connect` takes."""

    def place(self, port: int) -> tuple[str, int]:
        """Where a program sends datagrams for a port of the board."""

    def everybody(self) -> list[tuple[str, int]] | None:
        """Where questions for all boards go; None for what the driver takes."""

    def ping(self, size: int, timeout_s: float = TIMEOUT_S) -> bool:
        """Whether random data of that size comes back."""

    def neighbours(self) -> dict[str, str]:
        """The MAC address of each IP address that this host knows."""

    def close(self) -> None: ...


class UserSpace:
    """A host in user space, at the other end of a socket pair."""

    def __init__(self, config: AcceleratorConfig) -> None:
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._network = UserNetwork(ends[0].detach())
        self.bridge = EthernetBridge(EthernetBoard(config), ends[1].detach())
        self._sequence = 0

    def url(self, address: str) -> str:
        place = self._network.relay(socket.inet_aton(address), PACKET_PORT)
        return f"udp://{place[0]}:{place[1]}"

    def place(self, port: int) -> tuple[str, int]:
        return self._network.relay(ADDRESS, port)

    def everybody(self) -> list[tuple[str, int]]:
        return [self._network.relay(b"\xff" * 4, DISCOVERY_PORT)]

    def ping(self, size: int, timeout_s: float = TIMEOUT_S) -> bool:
        self._sequence += 1
        if size > MAX_DATAGRAM:
            return False  # this host sends no fragments
        data = random.Random(size).randbytes(size)
        return self._network.ping(ADDRESS, data, self._sequence, timeout_s)

    def neighbours(self) -> dict[str, str]:
        return {address_text(a): mac_text(mac) for a, mac in self._network.neighbours.items()}

    def close(self) -> None:
        self.bridge.close()
        self._network.close()


class Linux:
    """This process, alone in a network namespace with a TAP device.

    Raises
    ------
    OSError, ToolError : this system does not allow it
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        enter_own_network()
        file = open_tap("tap0", host_address(config))
        self.bridge = EthernetBridge(EthernetBoard(config), file)
        self._sequence = 0

    def url(self, address: str) -> str:
        return f"udp://{address}"

    def place(self, port: int) -> tuple[str, int]:
        return address_text(ADDRESS), port

    def everybody(self) -> None:
        return None

    def ping(self, size: int, timeout_s: float = TIMEOUT_S) -> bool:
        """As the program of that name, with Linux's IP below."""
        self._sequence += 1
        data = random.Random(size).randbytes(size)
        message = struct.pack(">BBHHH", 8, 0, 0, 0x4321, self._sequence) + data
        message = message[:2] + checksum(message).to_bytes(2, "big") + message[4:]
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as port:
            port.settimeout(timeout_s)
            port.sendto(message, (address_text(ADDRESS), 0))
            while True:
                try:
                    answer = port.recv(1 << 16)[20:]
                except TimeoutError:
                    return False
                if answer[0] == 0 and answer[4:8] == message[4:8]:
                    return answer[8:] == data and checksum(answer) == 0

    def neighbours(self) -> dict[str, str]:
        lines = Path("/proc/net/arp").read_text().splitlines()[1:]
        entries = [line.split() for line in lines]
        return {entry[0]: entry[3] for entry in entries if entry[2] != "0x0"}

    def close(self) -> None:
        self.bridge.close()


NETWORKS = {"user": UserSpace, "linux": Linux}


def enter_own_network() -> None:
    """Move this process, which has one thread, to a network of its own.

    Raises
    ------
    OSError : the system does not allow it
    """
    users = (os.getuid(), os.getgid())
    calls = ctypes.CDLL(None, use_errno=True)
    if os.getuid() == 0:
        if calls.unshare(CLONE_NEWNET) == 0:
            return
    elif calls.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0:
        Path("/proc/self/setgroups").write_text("deny")
        for name, number in zip(("uid_map", "gid_map"), users, strict=True):
            Path(f"/proc/self/{name}").write_text(f"0 {number} 1")
        return
    raise OSError(ctypes.get_errno(), "unshare")


def look(network: Network) -> dict[str, Any]:
    """What a host sees of the board, and what the driver does with it."""
    return {
        "pings": [network.ping(size) for size in PING_BYTES],
        "ping of fragments": network.ping(TOO_LONG_BYTES, SILENCE_S),
        "neighbours": network.neighbours(),
        "plain socket": plain_socket(network),
        "found": [
            (mac_text(b.mac), address_text(b.address), b.build_digest.hex())
            for b in find_boards(2 * SILENCE_S, network.everybody())
        ],
        "products": products(network.url(address_text(ADDRESS))),
        "moved": moved(network),
        "cable": cable(network),
    }


def plain_socket(network: Network) -> list[str]:
    """Packets by hand, through a socket that knows nothing of this project."""
    said = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.connect(network.place(PACKET_PORT))
        for number, datagram in enumerate(
            (
                Request(Opcode.RESET, session=0x1234).pack(),
                Request(Opcode.IDENTIFY, seq=1, session=0x1234, count=40).pack(),
                Request(Opcode.IDENTIFY, seq=2, session=0x4321, count=40).pack(),
                Request(Opcode.COUNTERS, seq=2, session=0x1234).pack() + b"more",
                b"no packet",
                b"",
                Request(Opcode.IDENTIFY, seq=2, session=0x1234, address=3, count=5).pack(),
            )
        ):
            port.settimeout(SILENCE_S if number in (3, 4, 5) else TIMEOUT_S)
            port.send(datagram)
            try:
                response = Response.parse(port.recv(2048))
            except TimeoutError:
                said.append("silence")
                continue
            about = identity(network.bridge.config)
            exact = response.payload in (b"", about[:40], about[3:8])
            said.append(f"{response.opcode} {response.status} {len(response.payload)} {exact}")
    return said


@contextmanager
def patient_connect(url: str) -> Iterator[Device]:
    """As `connect`, with a driver that waits `PATIENCE_S`."""
    usual, udp.PATIENCE_S = udp.PATIENCE_S, PATIENCE_S
    try:
        with connect(url) as device:
            yield device
    finally:
        udp.PATIENCE_S = usual


def products(url: str) -> dict[str, Any]:
    """The self-test, and products of the extremes."""
    rng = np.random.default_rng(16)
    with patient_connect(url) as device:
        passed = device.selftest().ok
        trits = rng.integers(-1, 2, (60, 300)).astype(np.int8)
        trits[0], trits[1] = 1, -1
        codes = rng.integers(-128, 128, (24, 300)).astype(np.int8)
        codes[0], codes[1] = -128, 127
        handle = device.load(TernaryLayer.from_trits(trits, scale=0.5))
        expected = codes.astype(np.int32) @ trits.T.astype(np.int32)
        sums = [device.matmul(handle, codes) for _ in range(3)]
        return {
            "self-test": passed,
            "exact": all(np.array_equal(each, expected) for each in sums),
            "config": device.info.config == CONFIG,
            "longest packet": device._session._proved_bytes,
        }


def moved(network: Network) -> list[str]:
    """The board at another address, and back."""
    said = []
    mac = mac_text(CONFIG.link.mac_bytes)
    for address in (OTHER, address_text(ADDRESS)):
        board = set_address(mac, address, TIMEOUT_S, network.everybody())
        said.append(address_text(board.address))
        with patient_connect(network.url(address)) as device:
            said.append("ok" if device.counters().packets else "no packets")
    return said


def cable(network: Network) -> list[str]:
    """A cable that is pulled, a board that was without power: a clear error, then all is well."""
    said = []
    url = network.url(address_text(ADDRESS))
    for power_up in (False, True):
        with connect(url) as device:
            network.bridge.pull()
            if power_up:
                network.bridge.plug(power_up=True)
            try:
                device.counters()
            except DeviceError as error:
                said.append(str(error).removeprefix(url))
            network.bridge.plug()
        with patient_connect(url) as device:
            said.append("ok" if device.selftest().ok else "failed")
    return said


def generate(network: Network) -> dict[str, Any]:
    """The ids that transformers writes with layers of tinylm on the board, and on `sim`."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM

    from tritloom.host.torch import offload

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(ROOT / "models" / "tinylm", dtype=torch.float32)
    prompt = torch.tensor([[1, 5, 9, 12]])
    wrote: dict[str, Any] = {}
    simulated = replace(CONFIG, link=PacketStream(width=4))
    for name, url, config in (
        ("board", network.url(address_text(ADDRESS)), None),
        ("sim", "sim", simulated),
    ):
        with (
            connect(url, config=config) as device,
            offload(model, device, fit="layers", verify="always") as plan,
        ):
            ids = model.generate(prompt, max_new_tokens=12, do_sample=False, min_new_tokens=12)
            wrote[name] = ids[0].tolist()
            wrote[f"{name} cycles"] = plan.report().total.cycles
    ids = model.generate(prompt, max_new_tokens=12, do_sample=False, min_new_tokens=12)
    return wrote | {"transformers": ids[0].tolist()}


def main(kind: str, what: str = "look") -> int:
    try:
        network: Network = NETWORKS[kind](CONFIG)
    except (OSError, ToolError) as error:
        print(error, file=sys.stderr)
        return UNAVAILABLE
    try:
        print(json.dumps({"look": look, "generate": generate}[what](network)))
    finally:
        network.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
