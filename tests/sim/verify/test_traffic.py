"""The random traffic: most commands are executed, and it repeats from its seed."""

from collections import Counter

import pytest

from tests.sim.verify.test_boundaries import CONFIGS, LEAST
from tritloom.rtl.spec.checks import CHECKS
from tritloom.rtl.spec.commands import Opcode, Request, Response, Status
from tritloom.rtl.spec.config import TINY
from tritloom.sim.verify.traffic import Traffic

NOT_EXECUTED = (Status.NAK, Status.NO_SESSION)


def statuses(traffic):
    responses = [Response.parse(packet) for _, packet in traffic.packets if packet is not None]
    return [response.status for response in responses]


@pytest.mark.parametrize("seed", [0, 1, 2, 105])
@pytest.mark.parametrize("name", CONFIGS)
def test_most_commands_are_executed(name, seed):
    traffic = Traffic(CONFIGS[name], seed)
    traffic.random(300)
    seen = statuses(traffic)
    counts = Counter(seen)
    executed = len(seen) - sum(counts[status] for status in NOT_EXECUTED)
    assert executed > 0.8 * len(seen)
    assert counts[Status.OK] > 0.5 * len(seen)
    longest = run = 0
    for status in seen:
        run = run + 1 if status in NOT_EXECUTED else 0
        longest = max(longest, run)
    assert longest <= 8
    dropped = sum(packet is None for _, packet in traffic.packets)
    assert 0.02 * len(seen) < dropped < 0.2 * len(seen)


def test_every_opcode_and_status_comes():
    seen = set()
    for seed in range(12):
        traffic = Traffic(TINY, seed)
        traffic.random(300)
        for packet, response in traffic.packets:
            if response is not None:
                seen.add((Request.parse(packet).opcode, Response.parse(response).status))
    for opcode, checks in CHECKS.items():
        wanted = {Status.OK} | {check.status for check in checks}
        if opcode == Opcode.LOAD:
            wanted.discard(Status.BAD_LENGTH)  # TINY fills one byte a word
        assert {(opcode, status) for status in wanted} <= seen, opcode
    assert set(Status) == {status for _, status in seen}


def test_it_repeats_from_its_seed():
    first, second, other = (Traffic(TINY, seed) for seed in (3, 3, 4))
    for traffic in (first, second, other):
        traffic.random(60)
    assert first.packets == second.packets != other.packets


def test_a_reset_is_followed():
    """After a RESET to any session, the next command is in order."""
    traffic = Traffic(TINY, 1)
    traffic.command(Opcode.COUNTERS)
    for session in (7, 7, 0, 9):
        traffic.reset(session)
        assert traffic.command(Opcode.IDENTIFY, count=1).status == Status.OK


def test_layers_stay_in_the_last_words():
    traffic = Traffic(TINY, 2, words=12, tiles=2)
    traffic.prepare()
    traffic.random(400)
    definitions = 0
    for packet, response in traffic.packets:
        request = Request.parse(packet)
        if response is None or request.opcode != Opcode.DEFINE:
            continue
        if Response.parse(response).status == Status.OK:
            base = int.from_bytes(request.payload[:4], "little")
            tiles = int.from_bytes(request.payload[4:6], "little")
            row_groups = int.from_bytes(request.payload[6:8], "little")
            definitions += 1
            assert base >= TINY.memory_words - 12 and tiles <= 2
            assert base + tiles * row_groups <= TINY.memory_words
    assert definitions > 20


def test_the_smallest_device():
    traffic = Traffic(LEAST, 5, words=12, tiles=3)
    traffic.reset(4)
    traffic.prepare()
    traffic.random(100)
    assert set(statuses(traffic)) >= {Status.OK, Status.BAD_LENGTH, Status.OUT_OF_RANGE}
