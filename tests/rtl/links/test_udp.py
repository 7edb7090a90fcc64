"""The link `udp` alone, in front of a loop: what it answers, what it passes on, what it drops."""

import random

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether

from tests.support.ethernet import (
    ADDRESS,
    EVERYONE,
    HOST_ADDRESS,
    HOST_MAC,
    LINK,
    MAC,
    arp_request,
    datagram,
    ethernet,
    hostile,
    ipv4,
    link_alone,
    packet_of,
    payload_of,
    ping,
    udp,
    wire_of,
)
from tritloom.rtl.links.udp_facts import (
    DISCOVERY_PORT,
    MAGIC,
    MAX_DATAGRAM,
    PACKET_PORT,
    address_request,
    discovery_request,
    parse_announcement,
)
from tritloom.sim.device.ethernet import IDLE_CYCLES, VALID

pytestmark = pytest.mark.sim
HEADERS = 66
"""Byte times beside a datagram, from preamble to gap."""


@pytest.fixture
def link():
    simulation = link_alone()
    simulation.run(limit_cycles=100)  # the PHY's side leaves its reset
    yield simulation
    simulation.close()


def answers(link, *frames):
    for frame in frames:
        link.send(frame)
    return link.run()


def with_sums(frame):
    """The frame with all checksums computed by scapy."""
    packet = Ether(frame)
    for layer in (IP, UDP, ICMP):
        if layer in packet:
            del packet[layer].chksum
    return bytes(packet)


def test_arp(link):
    (frame,) = answers(link, arp_request())
    assert len(frame) == 60 and frame[42:] == bytes(18)
    reply = Ether(frame)[ARP]
    assert (reply.op, reply.psrc, reply.pdst) == (2, LINK.address, "10.77.0.1")
    assert (reply.hwsrc, reply.hwdst) == (LINK.mac, HOST_MAC.hex(":"))
    assert (frame[:6], frame[6:12]) == (HOST_MAC, MAC)
    assert len(answers(link, arp_request(to=MAC))) == 1
    assert answers(link, arp_request(bytes((10, 77, 0, 3)))) == []


@pytest.mark.parametrize("size", [0, 1, 2, 17, 18, 19, 56, 1000, 1471, 1472])
def test_ping(link, size):
    """What stood in the buffer before, a longer ping, is nowhere in the padding."""
    answers(link, ping(1472, seed=9))
    (frame,) = answers(link, ping(size, size))
    assert frame[14 + 20] == 0 and with_sums(frame) == frame
    assert payload_of(frame) == payload_of(ping(size, size))
    assert int.from_bytes(frame[16:18], "big") == 28 + size
    assert frame[42 + size :] == bytes(max(0, 18 - size))
    assert (frame[:6], frame[26:34]) == (HOST_MAC, ADDRESS + HOST_ADDRESS)


@pytest.mark.parametrize("clock_hz", [62_500_000, 80_000_000, 125_000_000, 173_000_000])
def test_every_size_comes_back(clock_hz):
    """Sizes in order and at random, whose sum wraps around each buffer; real checksums."""
    link, rng = link_alone(clock_hz), random.Random(clock_hz)
    sizes = [*range(2, 70), *range(1000, 1040), *range(1456, MAX_DATAGRAM + 1)]
    sizes += rng.choices(range(2, MAX_DATAGRAM + 1), k=100)
    for start in range(0, len(sizes), 4):
        packets = [packet_of(rng, size) for size in sizes[start : start + 4]]
        frames = answers(link, *(datagram(p, port=len(p)) for p in packets))
        assert [payload_of(frame) for frame in frames] == packets
        for frame, packet in zip(frames, packets, strict=True):
            assert with_sums(frame) == frame
            assert Ether(frame)[UDP].dport == len(packet)
            assert Ether(frame)[UDP].sport == PACKET_PORT


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256, 512, 1024])
def test_sizes_that_divide_the_buffers(link, size):
    rng = random.Random(size)
    packets = [packet_of(rng, size) for _ in range(4 * 8192 // size)]
    link.run(limit_cycles=1000)
    frames = answers(link, *map(datagram, packets))
    assert [payload_of(frame) for frame in frames] == packets


@pytest.mark.parametrize("size", [20, 256, 1024, 1472])
def test_payload_each_way_at_once(link, size):
    """At 80 MHz the wire is busy without a pause: size / (size + 66) of 125 MB/s each way.

    The first frame alone takes its way in, twice through the device's clock, and out.
    """
    packet = packet_of(random.Random(size), size)
    count = 100_000 // size
    answers(link, datagram(packet))
    before = link.cycles
    frames = answers(link, *[datagram(packet)] * count)
    cycles = link.cycles - before - IDLE_CYCLES
    assert len(frames) == count
    assert 0 <= cycles - count * (size + HEADERS) <= 3 * size + 200


def test_a_sum_of_zero_is_sent_as_ones(link):
    """RFC 768: 0 would mean that there is no checksum."""
    body = bytearray(packet_of(random.Random(0), 20))
    (frame,) = answers(link, datagram(bytes(body)))
    total = int.from_bytes(frame[40:42], "big")
    word = int.from_bytes(body[10:12], "big") + total
    body[10:12] = ((word & 0xFFFF) + (word >> 16)).to_bytes(2, "big")
    (frame,) = answers(link, datagram(bytes(body)))
    assert frame[40:42] == b"\xff\xff" and payload_of(frame) == body


def test_answers_go_where_the_request_came_from(link):
    """Also if a stranger's packet comes in between."""
    rng = random.Random(3)
    frames, expected = [], []
    for number in range(40):
        packet = packet_of(rng, rng.randrange(20, 90))
        mac, address, port = rng.randbytes(6), rng.randbytes(4), rng.randrange(1, 65536)
        mac = bytes([mac[0] & 0xFE]) + mac[1:]
        frames.append(ethernet(ipv4(17, udp(packet, port=port), source=address), source=mac))
        expected.append((mac, address, port, packet))
        if number % 5 == 0:
            frames += [ping(8), arp_request()]
    got = [frame for frame in answers(link, *frames) if frame[23] == 17 and frame[12] == 8]
    got = [f for f in got if f[12:14] == b"\x08\x00"]
    assert [
        (f[:6], f[30:34], int.from_bytes(f[36:38], "big"), payload_of(f)) for f in got
    ] == expected


def discovery(payload, **kwargs):
    body = ipv4(17, udp(payload, port=7, to_port=DISCOVERY_PORT), **kwargs)
    return ethernet(body, to=EVERYONE)


def test_discovery_and_another_address(link):
    (frame,) = answers(link, discovery(discovery_request(), to=b"\xff" * 4))
    assert with_sums(frame) == frame
    found = parse_announcement(payload_of(frame))
    assert (found.mac, found.address, found.addressed) == (MAC, ADDRESS, False)
    assert (frame[:6], frame[30:34]) == (HOST_MAC, HOST_ADDRESS)
    assert frame[34:38] == DISCOVERY_PORT.to_bytes(2, "big") + (7).to_bytes(2, "big")
    new = bytes((192, 168, 1, 77))
    (frame,) = answers(link, discovery(address_request(MAC, new), to=b"\xff" * 4))
    found = parse_announcement(payload_of(frame))
    assert (found.address, found.addressed, frame[26:30]) == (new, True, new)
    assert with_sums(frame) == frame
    assert answers(link, arp_request(), ping(4), datagram(packet_of(random.Random(1), 30))) == []
    assert len(answers(link, arp_request(new))) == 1


def test_discovery_that_is_not_meant(link):
    other = MAC[:5] + bytes([MAC[5] ^ 1])
    new = bytes((192, 168, 1, 77))
    ask = discovery_request()
    wrong = [
        address_request(other, new),
        *(MAGIC + b"\0\2" + MAC + bytes((first, 1, 1, 1)) for first in (0, 127, 224, 240, 255)),
        address_request(MAC, new)[:-1],
        address_request(MAC, new) + b"\0",
        ask[:-1],
        ask + b"\0",
        ask[:-1] + b"\3",
        *(ask[:n] + bytes([ask[n] ^ 4]) + ask[n + 1 :] for n in range(8)),
    ]
    assert answers(link, *map(discovery, wrong)) == []
    damaged = wire_of(discovery(address_request(MAC, new)), flip=(52, 0))
    link.send_wire(damaged)
    assert link.run() == []
    assert len(answers(link, arp_request())) == 1  # it has its address still


def test_nothing_before_the_fcs(link):
    """One flipped bit anywhere in a frame, a frame cut anywhere, an error of the PHY: no effect."""
    rng = random.Random(5)
    good = datagram(packet_of(rng, 40))
    frames = [good, ping(40), arp_request(), discovery(address_request(MAC, b"\x0a\1\1\1"))]
    for frame in frames:
        size = max(60, len(frame)) + 4
        for place in range(size):
            link.send_wire(wire_of(frame, flip=(place, rng.randrange(8))))
            link.send_wire(wire_of(frame, cut=place))
            link.send_wire(wire_of(frame, error=place))
    assert link.run() == []
    assert [payload_of(frame) for frame in answers(link, good)] == [payload_of(good)]
    assert len(answers(link, arp_request())) == 1


def test_a_datagram_that_is_one_byte_longer_than_its_frame(link):
    """The frame is odd, so half of its last word is no byte of it."""
    for size in (21, 301, 1471):
        packet = (size + 1).to_bytes(2, "little") + bytes(size - 2)
        body = ipv4(17, udp(packet, length=size + 9), length=size + 29)
        assert len(body) % 2
        assert answers(link, ethernet(body)) == []
        body = ipv4(17, udp(packet + b"\0"))
        assert len(answers(link, ethernet(body))) == 1


def test_short_messages(link):
    """An echo request without its number, and a datagram without a byte, get no answer."""
    message = bytes((8, 0)) + (0xF7FF).to_bytes(2, "big")
    for size in range(8):
        assert answers(link, ethernet(ipv4(1, (message + bytes(8))[:size]))) == []
    assert len(answers(link, ethernet(ipv4(1, message + bytes(4))))) == 1
    for size in range(9):
        assert answers(link, ethernet(ipv4(17, udp(b"")[:size]))) == []
    assert len(answers(link, ping(0))) == 1


def test_preambles(link):
    """A short preamble is enough, a carrier without a start byte is skipped."""
    good = datagram(packet_of(random.Random(6), 40))
    link.send_wire(wire_of(good, preamble=1))
    assert len(link.run()) == 1
    link.send_wire(wire_of(good, preamble=0))
    assert len(link.run()) == 1
    link.send_wire([VALID | 0x33, *wire_of(good)])
    link.send_wire([VALID | 0x55] * 100 + [0] * 12)
    link.send_wire([VALID] * 3000 + [0] * 12)
    assert link.run() == []
    assert len(answers(link, good)) == 1


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_hostile_frames(link, count):
    """Only the good ones are answered, in their order; the link is whole afterwards."""
    rng, sent, got = random.Random(count), [], []
    for _ in range(count // 200):
        for _ in range(200):
            good = datagram(packet_of(rng, rng.randrange(20, 100)))
            if rng.randrange(16) == 0:
                sent.append(payload_of(good))
                link.send(good)
            else:
                link.send_wire(hostile(rng, good))
        got += [payload_of(frame) for frame in link.run(idle_cycles=500)]
    assert got == sent
    assert len(answers(link, arp_request(), ping(8))) >= 1
