"""Packets over UDP, against the reference device behind a socket of the loopback interface."""

import re
import socket
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.support.udp_board import UdpBoard
from tritloom.host import Device, DeviceError, DeviceTimeout, InputError, TernaryLayer, connect
from tritloom.host.links import udp
from tritloom.host.links.contract import DeviceUrl
from tritloom.host.links.datagrams import PlainDatagrams, datagrams
from tritloom.host.links.patience import HASTE_S
from tritloom.host.links.udp import UdpTransport, open_device
from tritloom.host.session import Command, Session
from tritloom.rtl.links.udp_facts import PACKET_PORT
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.commands import Opcode, Request, Response, identity
from tritloom.rtl.spec.config import TINY

WIDE = replace(
    TINY,
    slots=32,
    memory=BlockRam(words=1 << 13),
    max_in_features=256,
    max_out_features=256,
    packet_bytes=1024,
)
MOVERS = {"blocks": datagrams, "plain": PlainDatagrams}


def opened(board: UdpBoard, mover: str) -> Device:
    transport = UdpTransport(*board.address, MOVERS[mover])
    return Device(transport, url=board.url)


@pytest.mark.parametrize("mover", MOVERS)
def test_products_are_exact(mover):
    rng = np.random.default_rng(1)
    with UdpBoard(WIDE) as board, opened(board, mover) as device:
        assert device.info.config == WIDE
        trits = rng.integers(-1, 2, (256, 256)).astype(np.int8)
        handle = device.load(TernaryLayer.from_trits(trits, scale=0.5))
        codes = rng.integers(-128, 128, (20, 256)).astype(np.int8)
        codes[0], codes[1] = -128, 127
        sums = device.matmul(handle, codes)
        assert np.array_equal(sums, codes.astype(np.int32) @ trits.T.astype(np.int32))
        assert device.selftest().ok


@pytest.mark.parametrize("mover", MOVERS)
@pytest.mark.parametrize("rate", [0.01, pytest.param(0.05, marks=pytest.mark.sim)])
def test_a_bad_network(mover, rate):
    """Datagrams lost, repeated and reordered: every response is exact, no RUN is done twice."""
    about = identity(WIDE)
    count = 2000
    with UdpBoard(WIDE, lose=rate, duplicate=rate, reorder=rate, seed=3) as board:
        session = Session(UdpTransport(*board.address, MOVERS[mover]), board.url)
        session.open()
        session.configure(WIDE)
        commands = [
            Command(opcode=Opcode.IDENTIFY, address=i % 300, count=8, response_bytes=8)
            for i in range(count)
        ]
        session.enqueue(*commands)
        for command in commands:
            expected = about[command.address : command.address + 8]
            assert session.require(command).payload == expected
        session.close()
        assert session.retransmissions > 0
        assert min(board.faults.values()) > count * rate / 8
        assert len(board.faults) == 6


def test_a_product_on_a_bad_network():
    rng = np.random.default_rng(2)
    with UdpBoard(WIDE, lose=0.02, duplicate=0.02, reorder=0.02, seed=5) as board:
        with connect(board.url) as device:
            trits = rng.integers(-1, 2, (120, 200)).astype(np.int8)
            handle = device.load(TernaryLayer.from_trits(trits, scale=0.5))
            codes = rng.integers(-128, 128, (16, 200)).astype(np.int8)
            for _ in range(5):
                sums = device.matmul(handle, codes)
                assert np.array_equal(sums, codes.astype(np.int32) @ trits.T.astype(np.int32))
        assert board.faults["in lose"] and board.faults["out reorder"]


@pytest.mark.parametrize(
    ("most_bytes", "longest"),
    [(1 << 16, 4096), (4095, 1472), (1471, 1200), (1199, 508), (100, 64)],
)
def test_packets_are_as_long_as_the_network_carries(most_bytes, longest, monkeypatch):
    """The device could take 4,096 bytes; what the network carries is tried."""
    monkeypatch.setattr(udp, "PATIENCE_S", 0.02)
    config = replace(WIDE, packet_bytes=4096)
    rng = np.random.default_rng(3)
    with UdpBoard(config, most_bytes=most_bytes) as board, connect(board.url) as device:
        trits = rng.integers(-1, 2, (256, 256)).astype(np.int8)
        handle = device.load(TernaryLayer.from_trits(trits, scale=0.5))
        codes = rng.integers(-128, 128, (3, 256)).astype(np.int8)
        sums = device.matmul(handle, codes)
        assert np.array_equal(sums, codes.astype(np.int32) @ trits.T.astype(np.int32))
        assert longest - 16 < board.longest <= longest


def test_a_lost_probe_is_no_short_packet():
    """A size is tried again before a shorter one is."""
    with UdpBoard(WIDE) as board:
        passed = [False, False, True]
        deliver = board._deliver

        def lose(direction: str, packet: bytes, asker: tuple[str, int]) -> None:
            request = Request.parse(packet)
            probe = direction == "in" and request.opcode == Opcode.RESET and request.payload
            if not probe or passed.pop(0):
                deliver(direction, packet, asker)

        board._deliver = lose
        with connect(board.url) as device:
            assert device._session.payload_limit(4096) == 1004
            assert passed == []
            assert device.selftest().ok


def test_a_cable_is_pulled_and_put_back(monkeypatch):
    monkeypatch.setattr(udp, "PATIENCE_S", 0.02)
    with UdpBoard(WIDE) as board:
        with connect(board.url) as device:
            board.pulled = True
            with pytest.raises(DeviceTimeout) as caught:
                device.counters()
            assert re.fullmatch(
                rf"{board.url} does not respond to COUNTERS, tried \d+ times; check its power, "
                r"bitstream and cable; `tritloom devices` shows the boards of this network, then "
                r"connect again",
                str(caught.value),
            )
            with pytest.raises(DeviceError, match="connect again"):
                device.counters()
        board.pulled = False
        with connect(board.url) as device:
            assert device.counters().packets > 0


def test_the_board_reboots():
    with UdpBoard(WIDE) as board:
        with connect(board.url) as device:
            board.reboot()
            with pytest.raises(DeviceError) as caught:
                device.counters()
            assert str(caught.value) == f"{board.url} was reset; connect again"
        with connect(board.url) as device:
            assert device.selftest().ok


def test_the_board_gets_another_address(monkeypatch):
    """The old one has no board any more, and the system says so."""
    monkeypatch.setattr(udp, "PATIENCE_S", 0.02)
    board = UdpBoard(WIDE)
    device = connect(board.url)
    board.close()
    with pytest.raises(DeviceTimeout) as caught:
        device.counters()
    assert "; the network says: Connection refused; check its power, " in str(caught.value)
    device.close()
    with UdpBoard(WIDE, address=("127.0.0.2", 0)) as board, connect(board.url) as device:
        assert device.counters().packets > 0


def test_a_stranger_s_datagrams_do_not_come_in():
    """The socket is connected: the system drops what is not from the device."""
    with UdpBoard(WIDE) as board:
        transport = UdpTransport(*board.address)
        session = Session(transport, board.url)
        session.open()
        forged = Response(Opcode.IDENTIFY, 1, session.number, payload=b"forgery!").pack()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(forged, transport._socket.getsockname())
        command = Command(opcode=Opcode.IDENTIFY, count=8, response_bytes=8)
        assert session.call(command).payload == identity(WIDE)[:8]
        assert session.discarded == 0
        session.close()


def test_one_packet_at_a_time():
    """As code that knows only `Transport` uses it."""
    with UdpBoard(WIDE) as board:
        transport = UdpTransport(*board.address)
        for seq in range(3):
            transport.send(Request(Opcode.RESET, seq=seq, session=5).pack())
        time.sleep(0.1)
        packets = [transport.receive(1.0) for _ in range(2)]
        packets += transport.receive_block(1.0)
        assert [Response.parse(packet).seq for packet in packets] == [0, 1, 2]
        assert transport.receive(0.01) is None
        transport.close()
        transport.close()


def test_a_silence_shortens_the_time_out_and_packets_lengthen_it_again():
    with UdpBoard(WIDE) as board:
        transport = UdpTransport(*board.address)
        assert transport.timeout_s == udp.PATIENCE_S
        assert transport.receive_block(0.01) == []
        assert transport.timeout_s < udp.PATIENCE_S / 4
        for _ in range(256):
            transport.send(Request(Opcode.RESET, session=5).pack())
            assert len(transport.receive_block(1.0)) == 1
        assert transport.timeout_s == udp.PATIENCE_S
        transport.close()


def test_a_packet_ends_what_silences_have_lengthened():
    with UdpBoard(WIDE) as board:
        transport = UdpTransport(*board.address)
        for _ in range(10):
            assert transport.receive_block(0.001) == []
        assert transport._patience.haste_s > 2 * HASTE_S
        transport.send(Request(Opcode.RESET, session=5).pack())
        assert len(transport.receive_block(1.0)) == 1
        assert transport._patience.haste_s == HASTE_S
        transport.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("udp", 'udp needs an address, as in "udp://10.77.0.2"'),
        ("udp://:5", 'udp needs an address, as in "udp://10.77.0.2"'),
        ("udp://127.0.0.1:0", "the port of a udp device must be 1 to 65535, not '0'"),
        ("udp://127.0.0.1:65536", "the port of a udp device must be 1 to 65535, not '65536'"),
        ("udp://127.0.0.1:²", "the port of a udp device must be 1 to 65535, not '²'"),
        ("udp://127.0.0.1:", "the port of a udp device must be 1 to 65535, not ''"),
        ("udp://127.0.0.1?baud=3", "unknown key 'baud' for device 'udp'; it takes none"),
        (
            "udp://256.0.0.1",
            "udp needs an IPv4 address or a name that this computer knows, not '256.0.0.1'",
        ),
    ],
)
def test_wrong_urls(url, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        connect(url)


def test_the_port_of_devices_unless_another_is_given():
    for text, port in (("udp://127.0.0.1", PACKET_PORT), ("udp://localhost:77", 77)):
        transport = open_device(DeviceUrl.parse(text), None)
        assert transport._socket.getpeername() == ("127.0.0.1", port)
        transport.close()


@pytest.mark.parametrize("error", [OSError(101, "Network is unreachable"), OSError(13, "Denied")])
def test_no_network_leads_there(error, monkeypatch):
    class Nowhere(socket.socket):
        def connect(self, address: object) -> None:
            raise error

    monkeypatch.setattr(udp.socket, "socket", Nowhere)
    with pytest.raises(DeviceError) as caught:
        connect("udp://10.77.0.2")
    assert (
        str(caught.value)
        == {
            101: "no network of this computer leads to 10.77.0.2 (Network is unreachable); give "
            "its network card an address beside it, such as `sudo ip addr add 10.77.0.1/24 dev "
            "NAME`",
            13: "cannot open a socket to 10.77.0.2: Permission denied",
        }[error.errno]
    )
