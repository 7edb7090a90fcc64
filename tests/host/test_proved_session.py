"""Which packets pass on the way to the device."""

from dataclasses import replace

import pytest

from tritloom.host.proved_session import FIRST_PROBE, TRIES, ProvedSession
from tritloom.host.session import SMALLEST_PAYLOAD, Command
from tritloom.rtl.spec.commands import Opcode, Request, Response, identity
from tritloom.rtl.spec.config import TINY
from tritloom.sim.device.reference import ReferenceTransport

WIDE = replace(TINY, slots=8, packet_bytes=2048)


class Network(ReferenceTransport):
    """Drops packets of more than `most_bytes`; keeps the size of each RESET."""

    packet_bytes = 1472

    def __init__(self, most_bytes: int) -> None:
        super().__init__(WIDE)
        self.most_bytes = most_bytes
        self.resets: list[int] = []

    def send(self, packet: bytes) -> None:
        if Request.parse(packet).opcode == Opcode.RESET:
            self.resets.append(len(packet))
        if len(packet) <= self.most_bytes:
            super().send(packet)


def start(transport: ReferenceTransport) -> ProvedSession:
    session = ProvedSession(transport, "test")
    session.open()
    session.configure(WIDE)
    return session


@pytest.mark.parametrize(
    ("most_bytes", "sizes", "payload"),
    [
        (2048, [2048], 2028),
        (2047, [2048] * TRIES + [1472], 1452),
        (1471, [2048] * TRIES + [1472] * TRIES + [1200], 1180),
        (1000, [2048] * TRIES + [1472] * TRIES + [1200] * TRIES + [508], 488),
        (
            100,
            [2048] * TRIES + [1472] * TRIES + [1200] * TRIES + [508] * TRIES,
            SMALLEST_PAYLOAD,
        ),
    ],
)
def test_the_longest_that_passes_counts(most_bytes, sizes, payload):
    """Before, the session takes what networks carry in general."""
    transport = Network(most_bytes)
    session = start(transport)
    assert session.payload_limit(4076) == 1452
    transport.resets.clear()
    session.prove(WIDE)
    assert transport.resets == sizes
    assert session.payload_limit(4076) == payload
    assert session.payload_limit(50) == min(50, payload)
    command = Command(opcode=Opcode.IDENTIFY, count=8, response_bytes=8)
    assert session.call(command).payload == identity(WIDE)[:8]
    assert (command.seq, session.retransmissions, session._unsent) == (1, 0, False)


def test_no_size_is_tried_that_the_device_does_not_take():
    transport = Network(600)
    session = start(transport)
    transport.resets.clear()
    session.prove(replace(WIDE, packet_bytes=1024))
    assert transport.resets == [1024] * TRIES + [508]


def test_only_the_response_to_the_same_packet_counts():
    """Not that to an earlier RESET, not that of another session, not a refusal."""
    transport = Network(100)
    session = start(transport)
    for seq, number, status in (
        (0, session.number, 0),
        (FIRST_PROBE + 1, session.number, 0),
        (FIRST_PROBE, session.number ^ 1, 0),
        (FIRST_PROBE, session.number, 2),
    ):
        response = Response(Opcode.RESET, seq=seq, session=number, status=status)
        transport._responses.append(response.pack())
    session.prove(WIDE)
    assert session.payload_limit(4076) == SMALLEST_PAYLOAD
    assert session.discarded == 4


def test_a_link_that_carries_any_packet_is_not_asked():
    transport = ReferenceTransport(WIDE)
    sent: list[bytes] = []
    session = start(transport)
    transport.send = sent.append
    session.prove(WIDE)
    assert sent == []
    assert session.payload_limit(4076) == 4076
