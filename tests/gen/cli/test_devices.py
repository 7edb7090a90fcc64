import json

import pytest

from tritloom.boards.board import board_names, load_board
from tritloom.gen.cli import devices
from tritloom.host.links import discovery
from tritloom.rtl.links.udp_facts import Announcement

MAC = bytes.fromhex("025452495402")


def announcement(build_digest: bytes, last: int = 2) -> Announcement:
    return Announcement(
        mac=MAC, address=bytes([10, 77, 0, last]), build_digest=build_digest, addressed=False
    )


@pytest.fixture(autouse=True)
def found(monkeypatch):
    """The ports of this computer and the boards on its networks, which a test may add to."""
    ports = [("serial:///dev/ttyUSB1", "ULX3S FPGA"), ("serial:///dev/ttyUSB0", "iCEBreaker")]
    boards: list[Announcement] = []
    monkeypatch.setattr("tritloom.host.links.serial.serial_ports", lambda: ports)
    monkeypatch.setattr(discovery, "find_boards", lambda: boards)
    return boards


def test_text(run):
    status, out, err = run("devices")
    assert (status, err) == (0, "")
    assert [line.split("  ")[0] for line in out.splitlines()] == [
        *("sim", "golden", "serial:///dev/ttyUSB0", "serial:///dev/ttyUSB1"),
    ]
    assert out.endswith("serial:///dev/ttyUSB1  ULX3S FPGA\n")


def test_json(run):
    status, out, _ = run("devices", "--json")
    assert status == 0
    assert json.loads(out)[2] == {"url": "serial:///dev/ttyUSB0", "description": "iCEBreaker"}


def test_boards_on_ethernet(run, found):
    """After the ports. A board whose configuration is known has its name."""
    name = next(iter(board_names()))
    digest = load_board(name).build_config.build_digest
    found += [announcement(digest), announcement(b"\1\2\3\4\5\6\7\x08", last=9)]
    _, out, _ = run("devices", "--json")
    assert json.loads(out)[4:] == [
        {
            "url": "udp://10.77.0.2",
            "description": f"{name} on Ethernet, MAC address 02:54:52:49:54:02",
            "mac": "02:54:52:49:54:02",
            "address": "10.77.0.2",
            "build_digest": digest.hex(),
            "board": name,
        },
        {
            "url": "udp://10.77.0.9",
            "description": "build 0102030405060708 on Ethernet, MAC address 02:54:52:49:54:02",
            "mac": "02:54:52:49:54:02",
            "address": "10.77.0.9",
            "build_digest": "0102030405060708",
            "board": None,
        },
    ]
    _, out, _ = run("devices")
    assert out.splitlines()[4].startswith("udp://10.77.0.2        " + name + " on Ethernet, MAC ")


def test_presets_have_names_of_their_own():
    for name in board_names():
        board = load_board(name)
        for preset in board.presets:
            digest = board.with_preset(preset).build_config.build_digest
            assert devices._board_of(digest) == f"{name}, preset {preset}"
    assert devices._board_of(bytes(8)) is None


def test_set_address(run, monkeypatch):
    asked = []

    def set_address(mac, address):
        asked.append((mac, address))
        return announcement(bytes(8), last=77)

    monkeypatch.setattr(discovery, "set_address", set_address)
    command = ("devices", "--set-address", "02:54:52:49:54:02", "10.77.0.77", "--json")
    status, out, err = run(*command)
    assert (status, err, asked) == (0, "", [("02:54:52:49:54:02", "10.77.0.77")])
    assert [device["url"] for device in json.loads(out)] == ["udp://10.77.0.77"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("02:54", "10.0.0.1"), "a MAC address is like 02:54:52:49:54:02, not '02:54'"),
        (("02:54:52:49:54:02", "10.0.0"), "an address is like 10.77.0.2, not '10.0.0'"),
    ],
)
def test_wrong_addresses(run, arguments, message):
    assert run("devices", "--set-address", *arguments) == (1, "", f"tritloom: error: {message}\n")
