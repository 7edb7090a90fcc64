"""Boards on this computer's networks: who is there, and which address a board has.

A question goes out as a broadcast, on each network card, so that it reaches boards whose address is
none of that network. Each board sends its answer to the asker alone.
"""

from __future__ import annotations

import ipaddress
import re
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress

from tritloom.rtl.links.udp_facts import (
    DISCOVERY_PORT,
    Announcement,
    address_request,
    discovery_request,
    parse_announcement,
)
from tritloom.rtl.spec.errors import ConfigError, DeviceError, InputError

__all__ = ["address_text", "find_boards", "mac_text", "set_address"]

EVERYBODY = "255.255.255.255"
WAIT_S = 0.4
"""Time in which every board has answered; a board takes microseconds, a busy computer longer."""
ASKS = 2
"""How often a question is asked, in case that it or its answer is lost."""
SIOCGIFADDR = 0x8915
"""Linux's number of the call that gives the address of a network card."""
MOST_ANSWER_BYTES = 2048


def find_boards(
    wait_s: float = WAIT_S, targets: Iterable[tuple[str, int]] | None = None
) -> list[Announcement]:
    """The boards that answer, in the order of their addresses.

    Parameters
    ----------
    wait_s : how long to wait for answers
    targets : addresses and ports to ask instead of everybody
    """
    found = {
        (board.mac, board.address): board
        for board in _ask(discovery_request(), wait_s, targets)
        if not board.addressed
    }
    return sorted(found.values(), key=lambda board: (board.address, board.mac))


def set_address(
    mac: str,
    address: str,
    wait_s: float = WAIT_S,
    targets: Iterable[tuple[str, int]] | None = None,
) -> Announcement:
    """Give a board another IP address, which it has until it is switched off.

    Parameters
    ----------
    mac : MAC address of the board, such as `02:54:52:49:54:02`
    address : its new IPv4 address
    wait_s, targets : as of `find_boards`

    Raises
    ------
    InputError : no such addresses
    DeviceError : the board does not answer
    """
    if not re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", mac):
        raise InputError(f"a MAC address is like 02:54:52:49:54:02, not {mac!r}")
    number = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    try:
        new = ipaddress.IPv4Address(address).packed
        request = address_request(number, new)
    except ValueError:
        raise InputError(f"an address is like 10.77.0.2, not {address!r}") from None
    except ConfigError as error:
        raise InputError(str(error)) from None
    for board in _ask(request, wait_s, targets):
        if board.addressed and (board.mac, board.address) == (number, new):
            return board
    raise DeviceError(
        f"no board of the MAC address {mac_text(number)} answers; `tritloom devices` lists the "
        "boards that do"
    )


def mac_text(mac: bytes) -> str:
    """A MAC address as people write it."""
    return mac.hex(":")


def address_text(address: bytes) -> str:
    """An IPv4 address as people write it."""
    return str(ipaddress.IPv4Address(address))


def _ask(
    request: bytes, wait_s: float, targets: Iterable[tuple[str, int]] | None
) -> Iterator[Announcement]:
    """The answers to a question that is asked on every network card."""
    if targets is None:
        targets = [(EVERYBODY, DISCOVERY_PORT)]
        sources = ["", *_own_addresses()]
    else:
        targets, sources = list(targets), [""]
    with ExitStack() as stack:
        ports = []
        for source in sources:
            port = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            port.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            try:
                port.bind((source, 0))
            except OSError:  # the network card has lost its address
                continue
            port.setblocking(False)
            ports.append(port)
        for _ in range(ASKS):
            for port in ports:
                for target in targets:
                    _send(port, request, target)
            yield from _answers(ports, time.monotonic() + wait_s / ASKS)


def _send(port: socket.socket, request: bytes, target: tuple[str, int]) -> None:
    with suppress(OSError):  # a network card without a cable reaches nobody
        port.sendto(request, target)


def _answers(ports: list[socket.socket], deadline_s: float) -> Iterator[Announcement]:
    while (left_s := deadline_s - time.monotonic()) > 0:
        for port in select.select(ports, [], [], left_s)[0]:
            try:
                payload = port.recv(MOST_ANSWER_BYTES)
            except OSError:  # a computer that has no board refuses the question
                continue
            board = parse_announcement(payload)
            if board is not None:
                yield board


def _own_addresses() -> list[str]:
    """The IPv4 addresses of this computer's network cards, but for the loopback interface.

    On Linux, a broadcast leaves by the card whose address its socket has.
    """
    try:
        import fcntl

        names = [name for _, name in socket.if_nameindex()]
    except (ImportError, OSError):
        try:
            found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
        except OSError:
            return []
        return sorted({str(entry[4][0]) for entry in found} - {"127.0.0.1"})
    addresses = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        for name in names:
            try:
                answer = fcntl.ioctl(port, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has none
                continue
            addresses.add(socket.inet_ntoa(answer[20:24]))
    return sorted(address for address in addresses if not address.startswith("127."))
