"""The random traffic: most commands are executed, and it repeats from its seed."""

from collections import Counter
from dataclasses import replace

import pytest

from tests.sim.verify.test_boundaries import CONFIGS, LEAST, VECTOR
from tests.support import quick_first
from tritloom.rtl.spec.checks import CHECKS, VECTOR_CHECKS, checks_of
from tritloom.rtl.spec.commands import LAYER, Opcode, Request, Response, Status
from tritloom.rtl.spec.config import TINY
from tritloom.sim.verify.pairs import all_pairs
from tritloom.sim.verify.traffic import Traffic

ONE_BANK = replace(TINY, banks=1)
NOT_EXECUTED = (Status.NAK, Status.NO_SESSION)


def statuses(traffic):
    responses = [Response.parse(packet) for _, packet in traffic.packets if packet is not None]
    return [response.status for response in responses]


@quick_first("seed", [105, 0, 1, 2])
@pytest.mark.parametrize("name", [*CONFIGS, "one bank"])
def test_most_commands_are_executed(name, seed):
    traffic = Traffic(CONFIGS.get(name, ONE_BANK), seed)
    traffic.random(300 if traffic.config.vector is None else 1000)
    seen = statuses(traffic)
    counts = Counter(seen)
    executed = len(seen) - sum(counts[status] for status in NOT_EXECUTED)
    assert executed > 0.9 * len(seen)
    assert counts[Status.OK] > 0.65 * len(seen)
    longest = run = 0
    for status in seen:
        run = run + 1 if status in NOT_EXECUTED else 0
        longest = max(longest, run)
    assert longest <= 8
    dropped = sum(packet is None for _, packet in traffic.packets)
    assert 0.02 * len(seen) < dropped < 0.2 * len(seen)
    assert traffic.pairs == all_pairs(traffic.config)


def test_every_opcode_and_status_comes():
    seen = set()
    for seed in range(12):
        traffic = Traffic(TINY, seed)
        traffic.random(300)
        for packet, response in traffic.packets:
            if response is not None:
                seen.add((Request.parse(packet).opcode, Response.parse(response).status))
    for opcode, checks in checks_of(TINY).items():
        wanted = {Status.OK} | {check.status for check in checks}
        if opcode == Opcode.LOAD:
            wanted.discard(Status.BAD_LENGTH)  # TINY fills one byte a word
        assert {(opcode, status) for status in wanted} <= seen, opcode
    of_others = {Status.MEMORY_ERROR, Status.NOT_FINITE}
    assert set(Status) - of_others == {status for _, status in seen}
    assert not {opcode for opcode, status in seen if status == Status.OK} & set(VECTOR_CHECKS)


def test_every_opcode_and_status_of_a_vector_unit_comes():
    seen = {(request.opcode, response.status) for request, response in sent(VECTOR, range(8))}
    for opcode in VECTOR_CHECKS:
        checks = checks_of(VECTOR)[opcode]
        wanted = {Status.OK} | {check.status for check in checks}
        if opcode == Opcode.EXECUTE:
            assert VECTOR.banks == 2  # so no bank is out of range, but steps are
        assert {(opcode, status) for status in wanted} <= seen, opcode


def sent(config, seeds):
    """The requests of random traffic, each with its response."""
    for seed in seeds:
        traffic = Traffic(config, seed)
        traffic.random(300)
        for packet, response in traffic.packets:
            if response is not None:
                yield Request.parse(packet), Response.parse(response)


def test_fields_that_a_command_ignores_are_random():
    bits = {opcode: set() for opcode in CHECKS}
    acknowledged = set()
    for request, response in sent(TINY, range(12)):
        acknowledged.add(request.acknowledged)
        if response.status == Status.OK:
            bits[request.opcode].add((request.activation_bank, request.result_bank))
    everything = {(activations, results) for activations in (0, 1) for results in (0, 1)}
    assert all(seen == everything for seen in bits.values())
    assert len(acknowledged) > 200


@pytest.mark.parametrize(
    ("opcode", "name"),
    [
        (Opcode.LOAD, "activation_bank"),
        (Opcode.RUN, "activation_bank"),
        (Opcode.RUN, "result_bank"),
        (Opcode.RESULTS, "result_bank"),
    ],
)
def test_a_bank_that_a_device_does_not_have(opcode, name):
    statuses = {
        response.status
        for request, response in sent(ONE_BANK, range(4))
        if request.opcode == response.opcode == opcode
        and getattr(request, name)
        and response.status not in NOT_EXECUTED
    }
    assert Status.OUT_OF_RANGE in statuses and Status.OK not in statuses


def test_banks_keep_what_they_hold():
    """A RUN of an older LOAD, a LOAD of a part, and results older than the last RUN."""
    older_loads = partial_loads = older_results = 0
    loaded = ran = None
    fresh = False  # the bank `loaded` was not read by a RUN
    for request, response in sent(TINY, range(3)):
        if response.status != Status.OK:
            continue
        if request.opcode == Opcode.LOAD:
            loaded, fresh = request.activation_bank, True
            partial_loads += 0 < len(request.payload) < TINY.activation_words * TINY.fill
        elif request.opcode == Opcode.RUN:
            older_loads += not fresh or request.activation_bank != loaded
            ran = request.result_bank
            fresh = fresh and request.activation_bank != loaded
        elif request.opcode == Opcode.RESULTS:
            older_results += request.result_bank != ran
    assert min(older_loads, partial_loads, older_results) > 20


@pytest.mark.parametrize("config", [*CONFIGS.values(), ONE_BANK])
def test_overlap_makes_every_pair(config):
    traffic = Traffic(config, 6, words=12, tiles=3)
    traffic.reset(4)
    traffic.prepare()
    before = len(traffic.packets)
    traffic.overlap()
    assert traffic.pairs == all_pairs(config)
    assert len(traffic.packets) - before < 4 * len(traffic.pairs)
    allowed = {Status.OK} if config.vector is None else {Status.OK, Status.NOT_FINITE}
    assert Status.OK in statuses(traffic) and allowed >= set(statuses(traffic))


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
            base, tiles, row_groups = LAYER.unpack(request.payload)
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
