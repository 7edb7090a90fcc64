"""Commands of a vector unit through a session, over a link that loses and damages packets."""

from dataclasses import replace

import pytest

from tests.support.faults import KINDS, FaultyTransport
from tests.support.program_host import CONFIG
from tests.support.session_traffic import Commands, asked, told
from tritloom.host.session import Session
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.spec.commands import Opcode, Status
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.sim.device.reference import ReferenceTransport
from tritloom.sim.device.simulated import SimulatedDevice

WIDE = replace(
    CONFIG, slots=8, link=PacketStream(width=8), vector=VectorConfig(words=192, multipliers=2)
)


def campaign(inner, config, count):
    """Every response of a session over a link with one packet in a hundred lost or damaged."""
    rates = dict.fromkeys(KINDS, 0.01)
    faulty = FaultyTransport(inner, **rates, seed=5)
    session = Session(faulty, "test")
    session.open()
    session.configure(config)
    traffic = Commands(config, 7)
    while len(traffic.done) < count:
        traffic.random(100)
    statuses = set()
    batch = 50
    for start in range(0, count, batch):
        some = traffic.done[start : start + batch]
        commands = [asked(config, request) for request, _ in some]
        session.enqueue(*commands)
        for command, (request, expected) in zip(commands, some, strict=True):
            response = session.wait(command)
            assert told(config, response) == told(config, expected), request
            statuses.add((request.opcode, response.status))
    for opcode in (Opcode.PUT, Opcode.GET, Opcode.PROGRAM, Opcode.COMMIT_PROGRAM, Opcode.EXECUTE):
        assert (opcode, Status.OK) in statuses
    assert (Opcode.GET, Status.NOT_FINITE) in statuses
    assert len(faulty.faults) == 8 and min(faulty.faults.values()) > count / 400
    session.close()


def test_a_thousand_commands():
    campaign(ReferenceTransport(CONFIG), CONFIG, 1000)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("config", "stall"),
    [
        pytest.param(CONFIG, 0, id="1-byte"),
        pytest.param(WIDE, 5, id="8-bytes-stalled", marks=pytest.mark.slow),
    ],
)
def test_ten_thousand_commands_to_the_hardware(config, stall):
    """Every response is exact, and no session ends."""
    campaign(SimulatedDevice(config, stall), config, 10_000)
