"""Commands of a vector unit through a session, over a link that loses and damages packets."""

from dataclasses import fields, replace

import pytest

from tests.support.faults import KINDS, FaultyTransport
from tests.support.packets import comparable
from tests.support.program_host import CONFIG
from tritloom.host.command import Command
from tritloom.host.session import Session
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.spec.commands import Opcode, Request, Status
from tritloom.rtl.spec.requests import response_bytes
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.sim.device.reference import ReferenceTransport
from tritloom.sim.device.simulated import SimulatedDevice
from tritloom.sim.verify.traffic import Traffic

WIDE = replace(
    CONFIG, slots=8, link=PacketStream(width=8), vector=VectorConfig(words=192, multipliers=2)
)
FIELDS = [field.name for field in fields(Request)]
PROGRAM_CYCLES = 3000
"""More than any random program takes with its layers."""


class Commands(Traffic):
    """Random traffic without faults or a RESET: the session makes those.

    Members
    -------
    done : each command, and the response of the reference device
    """

    def __init__(self, config, seed):
        self.done = []
        super().__init__(config, seed)

    def _execute(self, command):
        response = super()._execute(command)
        self.done.append((command, response))
        return response

    def _reset(self):
        """A session begins only once."""


def asked(config, request):
    """The command of a session for a request."""
    values = {name: getattr(request, name) for name in FIELDS if name not in ("seq", "session")}
    size = min(response_bytes(config, request), config.max_payload)
    return Command(**values, response_bytes=size, cycles=PROGRAM_CYCLES)


def told(config, response):
    """What a session's response must be, whatever the clock, seq and session are."""
    seen = comparable(config, response.pack())
    payload = b"" if seen.opcode == Opcode.COUNTERS else seen.payload
    same = {"seq": 0, "session": 0, "expected": 0, "acknowledged": 0}
    same |= {"activation_bank": 0, "result_bank": 0}
    return replace(seen, payload=payload, **same)


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
