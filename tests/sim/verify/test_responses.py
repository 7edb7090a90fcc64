"""Which response a packet from the device stands for: every one, but perhaps not a duplicate's."""

from dataclasses import replace

import pytest

from tritloom.rtl.spec.commands import Opcode, Request, Response, Status
from tritloom.rtl.spec.config import TINY
from tritloom.sim.device.reference import ReferenceDevice
from tritloom.sim.verify.responses import Responses

SESSION = 5


class Link:
    """The reference device and what it owes."""

    def __init__(self) -> None:
        self.device, self.owed = ReferenceDevice(TINY), Responses()
        self.send(Request(Opcode.RESET, session=SESSION))
        self.owed.clear()

    def send(self, request: Request) -> bytes:
        packet = replace(request, session=request.session or SESSION).pack()
        response = self.device.process(packet)
        self.owed.add(packet, response)
        return response

    def identify(self, seq: int) -> bytes:
        return self.send(Request(Opcode.IDENTIFY, seq, count=seq))


def test_every_response_comes_in_its_turn():
    link = Link()
    responses = [link.identify(seq) for seq in (1, 2, 3)]
    assert (len(link.owed), link.owed.due) == (3, 3)
    assert link.owed.first.response == responses[0] and link.owed.last.response == responses[2]
    for response in responses:
        assert link.owed.take(response).response == response
    assert link.owed.take(responses[0]) is None
    assert link.owed.first is link.owed.last is None


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_duplicate_of_what_has_not_come_is_optional(times):
    link = Link()
    first, *_ = [link.identify(1) for _ in range(3)]
    second = link.identify(2)
    assert (len(link.owed), link.owed.due) == (4, 2)
    for _ in range(times):
        assert link.owed.take(first).response == first
    assert link.owed.take(second).response == second
    assert len(link.owed) == 0


def test_a_duplicate_of_what_has_come_must_come():
    link = Link()
    first = link.identify(1)
    link.owed.take(first)
    link.identify(1)
    assert link.owed.due == 1
    assert link.owed.take(link.identify(2)).response == first, "it was skipped"


def test_optional_ones_that_never_come():
    link = Link()
    first = link.identify(1)
    link.identify(1)
    link.owed.take(first)
    assert (len(link.owed), link.owed.due) == (1, 0)
    assert link.owed.first.response == first
    link.owed.drop_optional()
    assert len(link.owed) == 0


def test_the_original_is_never_optional():
    """A command whose response has not come, after the response to a duplicate of another one."""
    link = Link()
    first, second = link.identify(1), link.identify(2)
    link.identify(1)
    link.owed.take(first)
    assert link.owed.take(first).response == second, "the second one was skipped"


@pytest.mark.parametrize(
    "request_",
    [
        Request(Opcode.IDENTIFY, 9, count=1),
        Request(Opcode.IDENTIFY, 1, session=77, count=1),
        Request(Opcode.RESET, 9),
    ],
    ids=["NAK", "NO_SESSION", "RESET"],
)
def test_what_is_not_stored_is_answered_each_time(request_):
    link = Link()
    assert link.send(request_) == link.send(request_)
    assert link.owed.due == 2


def test_a_nak_is_not_taken_for_the_duplicate():
    """The same seq again, when the response is no longer stored."""
    link = Link()
    first = link.identify(1)
    link.identify(1)
    for seq in range(2, 2 + TINY.window):
        link.identify(seq)
    nak = link.identify(1)
    assert Response.parse(nak).status == Status.NAK
    assert link.owed.take(first).response == first
    assert [link.owed.take(nak).response == nak for _ in range(TINY.window + 1)][-1]
    assert len(link.owed) == 0


def test_damage_counts_for_what_is_due():
    link = Link()
    first = link.identify(1)
    link.identify(1)
    second = link.identify(2)
    link.owed.take(first)
    assert link.owed.take(b"noise").response == second


def test_has():
    link = Link()
    link.identify(1)
    assert link.owed.has(Opcode.IDENTIFY) and not link.owed.has(Opcode.COUNTERS)
