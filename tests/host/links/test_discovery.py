"""Boards that are found by a broadcast, and their addresses."""

import errno
import re
import socket
import threading

import pytest

from tritloom.host.links import discovery
from tritloom.host.links.discovery import address_text, find_boards, mac_text, set_address
from tritloom.rtl.links.udp_facts import (
    Announcement,
    address_request,
    discovery_request,
)
from tritloom.rtl.spec.errors import DeviceError, InputError

WAIT_S = 0.3
MACS = [bytes.fromhex("025452495402"), bytes.fromhex("025452495403")]


class Board:
    """Answers as a board does, behind a socket of the loopback interface; `loses` questions."""

    def __init__(self, mac: bytes, address: str, loses: int = 0, noise: bytes = b"") -> None:
        self.mac, self.address, self.noise = mac, socket.inet_aton(address), noise
        self.loses = loses
        self.questions: list[bytes] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.place = self._socket.getsockname()
        self._ended = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._ended:
            try:
                question, asker = self._socket.recvfrom(2048)
            except (TimeoutError, ConnectionRefusedError):
                continue
            self.questions.append(question)
            if self.loses:
                self.loses -= 1
                continue
            if self.noise:
                self._socket.sendto(self.noise, asker)
            addressed = question != discovery_request()
            if addressed:
                if question[10:16] != self.mac:
                    continue
                self.address = question[16:]
            self._socket.sendto(
                Announcement(
                    mac=self.mac, address=self.address, build_digest=bytes(8), addressed=addressed
                ).to_bytes(),
                asker,
            )


@pytest.fixture
def boards():
    made = [Board(MACS[1], "10.77.0.3"), Board(MACS[0], "10.77.0.2", loses=1, noise=b"TRITLOOM?")]
    yield made
    for board in made:
        board.close()


def test_all_boards_answer_in_the_order_of_their_addresses(boards):
    """A question that is lost is asked again; what is no announcement is ignored."""
    found = find_boards(WAIT_S, [board.place for board in boards])
    assert [(mac_text(b.mac), address_text(b.address)) for b in found] == [
        ("02:54:52:49:54:02", "10.77.0.2"),
        ("02:54:52:49:54:03", "10.77.0.3"),
    ]
    assert boards[0].questions == [discovery_request()] * 2


def test_one_board_gets_another_address(boards):
    targets = [board.place for board in boards]
    for mac in ("02:54:52:49:54:02", "02-54-52-49-54-02"):
        board = set_address(mac, "192.168.1.77", WAIT_S, targets)
        assert (board.mac, board.address) == (MACS[0], bytes([192, 168, 1, 77]))
    assert boards[0].address == bytes([10, 77, 0, 3]), "the other one keeps its own"
    assert boards[0].questions[0] == address_request(MACS[0], bytes([192, 168, 1, 77]))
    assert [address_text(b.address) for b in find_boards(WAIT_S, targets)] == [
        *("10.77.0.3", "192.168.1.77"),
    ]


def test_a_board_that_is_not_there(boards):
    with pytest.raises(DeviceError) as caught:
        set_address("02:00:00:00:00:99", "10.77.0.9", WAIT_S, [boards[0].place])
    assert str(caught.value) == (
        "no board of the MAC address 02:00:00:00:00:99 answers; `tritloom devices` lists the "
        "boards that do"
    )


def announced(mac: bytes, address: str, *, addressed: bool) -> bytes:
    return Announcement(
        mac=mac, address=socket.inet_aton(address), build_digest=bytes(8), addressed=addressed
    ).to_bytes()


def test_answers_to_another_question_do_not_count():
    """Of another computer's question, or of another board."""
    noise = announced(MACS[1], "10.77.0.9", addressed=True)
    board = Board(MACS[0], "10.77.0.2", noise=noise)
    try:
        found = find_boards(WAIT_S, [board.place])
        assert [b.mac for b in found] == [MACS[0]]
        board.noise = announced(MACS[0], "10.77.0.9", addressed=False)
        assert set_address(mac_text(MACS[0]), "10.77.0.9", WAIT_S, [board.place]).addressed
        board.noise, board.mac = noise, MACS[1]
        with pytest.raises(DeviceError, match="no board of the MAC address 02:54:52:49:54:02"):
            set_address(mac_text(MACS[0]), "10.77.0.9", WAIT_S, [board.place])
    finally:
        board.close()


@pytest.mark.parametrize(
    ("mac", "address", "message"),
    [
        ("02:54:52:49:54", "10.77.0.2", "a MAC address is like 02:54:52:49:54:02, not "),
        ("02:54:52:49:54:0g", "10.77.0.2", "a MAC address is like 02:54:52:49:54:02, not "),
        ("02:54:52:49:54:02", "10.77.0", "an address is like 10.77.0.2, not '10.77.0'"),
        ("02:54:52:49:54:02", "::1", "an address is like 10.77.0.2, not '::1'"),
    ],
)
def test_wrong_addresses(mac, address, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        set_address(mac, address)


@pytest.mark.parametrize("address", ["0.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255"])
def test_addresses_that_no_board_takes(address):
    with pytest.raises(InputError, match=re.escape(address)):
        set_address("02:54:52:49:54:02", address)


def test_every_network_card_is_asked(monkeypatch):
    """A card that cannot send, or has lost its address, does not keep the others from it."""
    sent, bound = [], []

    class Port(socket.socket):
        def bind(self, address):
            bound.append(address[0])
            if address[0] == "10.1.1.1":
                raise OSError(errno.EADDRNOTAVAIL, "gone")

        def sendto(self, data, target):
            sent.append((bound[-1], data, target))
            if len(sent) == 1:
                raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(discovery.socket, "socket", Port)
    monkeypatch.setattr(discovery, "_own_addresses", lambda: ["10.1.1.1", "10.2.2.2"])
    assert find_boards(0.01) == []
    assert bound == ["", "10.1.1.1", "10.2.2.2"]
    assert len(sent) == 4
    assert {(data, target) for _, data, target in sent} == {
        (discovery_request(), ("255.255.255.255", 21587))
    }


def test_own_addresses():
    """Those that a socket can have, without the loopback interface's."""
    addresses = discovery._own_addresses()
    assert not any(address.startswith("127.") for address in addresses)
    for address in addresses:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
            port.bind((address, 0))
