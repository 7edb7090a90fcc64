"""A simulated board on a network: the driver's commands in frames, strangers, bad cables."""

import random
from dataclasses import replace

import numpy as np
import pytest

from tests.support.ethernet import (
    ADDRESS,
    CONFIG,
    HOST_ADDRESS,
    HOST_MAC,
    Cable,
    FrameTransport,
    arp_request,
    datagram,
    ethernet,
    hostile,
    ipv4,
    packet_of,
    payload_of,
    ping,
    udp,
    wire_of,
)
from tests.support.session_traffic import Commands, asked, told
from tritloom.host.device import Device
from tritloom.host.layer import TernaryLayer
from tritloom.host.session import Session
from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.spec.commands import Opcode, Request, Response, Status
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.errors import ConfigError, DeviceError
from tritloom.sim.conformance.operands import random_trits
from tritloom.sim.device.ethernet import EthernetBoard

pytestmark = pytest.mark.sim
OTHER = {"mac": bytes.fromhex("0a0b0c0d0e10"), "address": bytes((10, 77, 0, 9))}
HOLD_CYCLES = 125_000
"""A millisecond: what the configuration says."""


@pytest.fixture
def board():
    board = EthernetBoard(CONFIG)
    board.exchange([])
    yield board
    board.close()


def response(transport, request):
    transport.send(request.pack())
    packet = transport.receive(transport.timeout_s)
    return None if packet is None else Response.parse(packet)


def command(opcode, session, seq, **fields):
    return Request(opcode=opcode, session=session, seq=seq, **fields)


def test_driver_computes(board):
    """The driver's self-test, and products of a layer, with packets as long as a frame."""
    rng = np.random.default_rng(1)
    with Device(FrameTransport(board), url="udp") as device:
        assert device.selftest().ok
        weights = random_trits(CONFIG, rng, (64, 320))
        layer = device.load(TernaryLayer.from_trits(weights, 1.0))
        vectors = rng.integers(-128, 128, (5, 320)).astype(np.int8)
        vectors[0] = -128
        results = device.matmul(layer, vectors)
    assert np.array_equal(results, vectors.astype(np.int64) @ weights.T.astype(np.int64))


def test_another_link_or_memory():
    with pytest.raises(ConfigError) as error:
        EthernetBoard(TINY)
    assert "needs the udp link, not 'stream'" in str(error.value)


def test_closed(board):
    board.close()
    with pytest.raises(DeviceError, match="closed; make a new one"):
        board.exchange([])


def test_strangers(board):
    """Nobody but the owner gets anything but NO_SESSION, whatever session he claims."""
    owner, other = FrameTransport(board), FrameTransport(board, **OTHER)
    same_host = FrameTransport(board, port=5001)
    before = response(owner, command(Opcode.COUNTERS, 0, 1))
    assert before.status == Status.NO_SESSION  # nobody has it yet
    assert response(owner, command(Opcode.RESET, 7, 0)).status == Status.OK
    for stranger in (other, same_host, FrameTransport(board, mac=OTHER["mac"])):
        told = response(stranger, command(Opcode.COUNTERS, 7, 1))
        assert (told.status, told.expected) == (Status.NO_SESSION, 1)
    assert response(owner, command(Opcode.COUNTERS, 7, 1)).status == Status.OK
    # A repeated command is not repeated to a stranger.
    assert response(same_host, command(Opcode.COUNTERS, 7, 1)).status == Status.NO_SESSION
    assert response(owner, command(Opcode.COUNTERS, 7, 1)).status == Status.OK


def test_who_takes_the_device_over(board):
    owner, other = FrameTransport(board), FrameTransport(board, **OTHER)
    again = FrameTransport(board, port=5001)
    assert response(owner, command(Opcode.RESET, 7, 0)).status == Status.OK
    # Another host is refused while the owner was heard in the last millisecond.
    for session in (7, 8):
        assert response(other, command(Opcode.RESET, session, 0)).status == Status.NO_SESSION
    assert response(owner, command(Opcode.COUNTERS, 7, 1)).status == Status.OK
    # Each of the owner's commands begins the time anew.
    board.simulation.run(limit_cycles=HOLD_CYCLES * 9 // 10, idle_cycles=HOLD_CYCLES)
    assert response(owner, command(Opcode.COUNTERS, 7, 2)).status == Status.OK
    board.simulation.run(limit_cycles=HOLD_CYCLES * 9 // 10, idle_cycles=HOLD_CYCLES)
    assert response(other, command(Opcode.RESET, 8, 0)).status == Status.NO_SESSION
    board.simulation.run(limit_cycles=HOLD_CYCLES, idle_cycles=HOLD_CYCLES)
    # With the number of the session: it is a new one all the same.
    assert response(other, command(Opcode.RESET, 7, 0)).status == Status.OK
    told = response(owner, command(Opcode.COUNTERS, 7, 3))
    assert (told.status, told.expected) == (Status.NO_SESSION, 1)
    assert response(other, command(Opcode.COUNTERS, 7, 1)).status == Status.OK
    # The first host is now the stranger; on the owner's host a new program takes over at once.
    assert response(owner, command(Opcode.RESET, 9, 0)).status == Status.NO_SESSION
    second = FrameTransport(board, **OTHER, port=77)
    assert response(second, command(Opcode.RESET, 9, 0)).status == Status.OK
    assert response(other, command(Opcode.COUNTERS, 7, 2)).status == Status.NO_SESSION
    assert response(again, command(Opcode.RESET, 10, 0)).status == Status.NO_SESSION


def test_a_strangers_reset_during_a_run(board):
    """It waits for nothing and stops nothing; the layer's results are the owner's."""
    rng = np.random.default_rng(2)
    weights = random_trits(CONFIG, rng, (64, 320))
    vectors = rng.integers(-128, 128, (8, 320)).astype(np.int8)
    other = FrameTransport(board, **OTHER)
    sent = random.Random(3)

    def damage(direction, frame):
        if direction == "tx" and sent.random() < 0.2:
            kind = sent.choice([Opcode.RESET, Opcode.COUNTERS, Opcode.RUN])
            other.send(command(kind, sent.randrange(1 << 24), sent.randrange(3)).pack())
            board.simulation.send(sent.choice([ping(30), arp_request()]))
        return [frame]

    transport = FrameTransport(board, damage=damage)
    with Device(transport, url="udp") as device:
        layer = device.load(TernaryLayer.from_trits(weights, 1.0))
        for _ in range(4):
            results = device.matmul(layer, vectors)
            expected = vectors.astype(np.int64) @ weights.T.astype(np.int64)
            assert np.array_equal(results, expected)


def do_commands(board, cable, count):
    """Random commands, each of whose responses must be exact."""
    config = board.config
    session = Session(FrameTransport(board, damage=cable), "udp")
    session.open()
    session.configure(config)
    traffic = Commands(config, 7)
    while len(traffic.done) < count:
        traffic.random(100)
    under_way = 0
    for start in range(0, count, 50):
        some = traffic.done[start : start + 50]
        commands = [asked(config, request) for request, _ in some]
        session.enqueue(*commands)
        for command, (request, expected) in zip(commands, some, strict=True):
            under_way = max(under_way, sum(each.response is None for each in session._flight))
            assert told(config, session.wait(command)) == told(config, expected), request
    assert under_way == config.window
    session.close()


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_commands_over_a_bad_cable(board, count):
    """One frame in a hundred is lost, damaged, repeated, late, in each direction."""
    cable = Cable(0.01, seed=5)
    do_commands(board, cable, count)
    assert len(cable.faults) == 10 and min(cable.faults.values()) > count / 400
    # One after the other: the link has one place for a frame that waits for its answer.
    for request in (arp_request(), ping(8)):
        assert [frame[12:14] for frame in board.exchange([request])] == [request[12:14]]


@pytest.mark.slow
def test_the_widest_window():
    """With 32 slots 31 packets are under way, and each can be repeated."""
    board = EthernetBoard(replace(CONFIG, slots=32))
    board.exchange([])
    do_commands(board, Cable(0.01, seed=6), 2000)
    board.close()


def attack(rng, owner):
    """What is on the wire of a frame that must not change the device's state."""
    good = datagram(packet_of(rng, rng.randrange(20, 200)))
    if rng.random() < 0.5:
        return hostile(rng, good)
    session = rng.choice([owner, rng.randrange(1 << 24)])
    kind = rng.choice([Opcode.RESET, Opcode.DEFINE, Opcode.WRITE, Opcode.RUN, Opcode.LOAD])
    packet = command(
        kind, session, rng.randrange(8), index=rng.randrange(4), payload=rng.randbytes(10)
    ).pack()
    sender = (bytes((2, *rng.randbytes(5))), rng.randbytes(4))
    if kind != Opcode.RESET and rng.random() < 0.5:
        sender = rng.choice([(HOST_MAC, HOST_ADDRESS), (HOST_MAC, sender[1])])
    body = ipv4(17, udp(packet, port=rng.randrange(1, 5000)), source=sender[1])
    return wire_of(ethernet(body, source=sender[0]))


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_hostile_frames(board, count):
    """Among them spoofed sessions and addresses: the layer stays, and its results are exact."""
    rng, numpy = random.Random(count), np.random.default_rng(4)
    weights = random_trits(CONFIG, numpy, (64, 320))
    vectors = numpy.integers(-128, 128, (1, 320)).astype(np.int8)
    expected = vectors.astype(np.int64) @ weights.T.astype(np.int64)
    with Device(FrameTransport(board), url="udp") as device:
        layer = device.load(TernaryLayer.from_trits(weights, 1.0))
        for _ in range(count // 100):
            for _ in range(100):
                board.simulation.send_wire(attack(rng, device._session.number))
            assert np.array_equal(device.matmul(layer, vectors), expected)
        assert device.selftest().ok


def test_many_hosts_at_once(board):
    """Each gets its own responses, in its order, and the link goes on when they are too many."""
    hosts = [
        FrameTransport(board, mac=bytes((2, 0, 0, 0, 0, n)), address=bytes((10, 77, 1, n)))
        for n in range(1, 30)
    ]
    for number, host in enumerate(hosts):
        host.send(command(Opcode.COUNTERS, number, number).pack())
    frames = board.exchange([])
    seen = []
    for frame in frames:
        told = Response.parse(payload_of(frame))
        assert (frame[5], frame[33]) == (told.session + 1, told.session + 1)
        assert (told.status, told.seq) == (Status.NO_SESSION, told.session)
        assert (frame[26:30], frame[6:12]) == (ADDRESS, CONFIG.link.mac_bytes)
        seen.append(told.session)
    assert seen == sorted(seen) and len(seen) >= CONFIG.slots
    owner = FrameTransport(board)
    assert response(owner, command(Opcode.RESET, 7, 0)).status == Status.OK
    assert (owner.mac, owner.address) == (HOST_MAC, HOST_ADDRESS)


def test_outside_memory_is_refused():
    memory = Axi(words=64, width=64)
    config = replace(CONFIG, memory=memory)
    with pytest.raises(ConfigError, match="cannot have the memory 'axi'"):
        EthernetBoard(config)
