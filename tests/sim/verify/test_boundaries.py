"""The boundary requests tell apart every check and every check that is wrong in one way."""

import struct
from dataclasses import dataclass, replace

import pytest

from tests.support.layers import GROUPS, WIDE
from tests.support.line_store import TestLines
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.checks import (
    CHECKS,
    SCALE_CHECKS,
    UNITS,
    VECTOR_CHECKS,
    Check,
    LayerState,
    Limit,
    Quantity,
    checks_of,
    first_failure,
    value_of,
)
from tritloom.rtl.spec.commands import OPCODE_BITS, Opcode, Request, Status
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.sim.verify.boundaries import (
    boundary_requests,
    opcode_requests,
    order_requests,
    possible,
    scenes,
)
from tritloom.sim.verify.pairs import banks_read

LEAST = AcceleratorConfig(
    lanes=5,
    rows=1,
    fill=5,
    memory=BlockRam(words=1),
    max_in_features=5,
    max_out_features=1,
    max_layers=1,
    packet_bytes=128,
    slots=2,
)
LARGE = AcceleratorConfig(
    lanes=40,
    rows=5,
    tokens=4,
    fill=8,
    memory=BlockRam(words=1500),
    max_in_features=1000,
    max_out_features=300,
    max_layers=256,
    packet_bytes=2048,
    slots=8,
)
ONE_BANK = replace(WIDE, banks=1)
VECTOR = replace(TINY, vector=VectorConfig(words=192))
VECTOR_LEAST = replace(LEAST, vector=VectorConfig(words=64))
CONFIGS = {"one bank": ONE_BANK, "tiny": TINY, "wide": WIDE, "least": LEAST, "large": LARGE}
BLOCKS = replace(TINY, lanes=15, memory=TestLines(words=64, line_bits=64, beat_bits=32))
"""4 weight words of 48 bits are a block of 3 lines."""
CONFIGS["blocks"] = BLOCKS
CONFIGS["groups"] = GROUPS
CONFIGS["float scales"] = replace(WIDE, scale=ScaleConfig(kind="float", group=20))
CONFIGS |= {"vector": VECTOR, "vector least": VECTOR_LEAST}
OF_OPTIONS = {"vector": VECTOR_CHECKS, "float scales": SCALE_CHECKS}


def scenes_of(config):
    words = 6 if config.align > 1 else 2
    return scenes(config, LayerShape(1, min(words, config.max_row_groups, config.memory_words)))


def reachable(config, opcode, check):
    """Whether a request can fail a check at all, in the scenes of a configuration."""
    match check.quantity:
        case Quantity.INDEX:
            return check.bounds(config, Request(opcode), None)[1] < 255
        case Quantity.REST_BYTES:
            room = config.max_layers > 1 and config.memory_words > 1
            return UNITS[opcode].of(config) > 1 and (room or opcode != Opcode.WRITE)
        case Quantity.ACTIVATION_BANK | Quantity.RESULT_BANK:
            return config.banks == 1
        case Quantity.RESULT_ROW_GROUPS:
            return config.banks > 1
        case Quantity.PROGRAM_STEPS:
            return check.least != 1
        case Quantity.NOT_FINITE | Quantity.VOID_WORDS:
            return False
        case Quantity.LAYER_STATE:
            return opcode != Opcode.READ or config.max_layers > 2
        case _:
            return True


@pytest.mark.parametrize("name", CONFIGS)
def test_every_check_fails_first_for_a_request(name):
    config = CONFIGS[name]
    for opcode, checks in checks_of(config).items():
        failed = {
            first_failure(config, request, scene.state(request))
            for scene in scenes_of(config)
            for request in boundary_requests(config, scene, opcode)
        }
        for check in checks:
            assert check in failed or not reachable(config, opcode, check), (opcode, str(check))


@dataclass(frozen=True, slots=True)
class Wrong(Check):
    """A check that may be wrong: other bounds, or a quantity whose high bits are ignored."""

    low_off: int = 0
    high_off: int = 0
    bits: int = 64

    def holds(self, config, request, state):
        least, most = self.bounds(config, request, state)
        value = value_of(self.quantity, config, request, state) & ((1 << self.bits) - 1)
        return least + self.low_off <= value <= most + self.high_off


FIELDS = {
    Quantity.INDEX: 8,
    Quantity.COUNT: 16,
    Quantity.ADDRESS: 32,
    Quantity.TILES: 16,
    Quantity.ROW_GROUPS: 32,
    Quantity.MEMORY_END: 32,
    Quantity.ITEMS_END: 32,
    Quantity.WORDS_END: 32,
    Quantity.ROW_GROUPS_END: 32,
    Quantity.ACTIVATION_BANK: 1,
    Quantity.RESULT_BANK: 1,
    Quantity.GROUP_TILES: 16,
    Quantity.RESULTS_END: 0,
}


def broken(check, **how):
    """The check with another bound or fewer bits; without `how` it is right."""
    return Wrong(*(getattr(check, name) for name in Check.__dataclass_fields__), **how)


def wrong_checks(config, check):
    """All ways to break a check that change what some request gets."""
    least, most = (
        bound.of(config) if isinstance(bound, Limit) else bound
        for bound in (check.least, check.most)
    )
    yield broken(check, low_off=-1, high_off=1 << 40)  # no check at all
    if check.quantity in FIELDS:
        yield broken(check, high_off=1)
        yield broken(check, high_off=-1)
        if least == 1:
            yield broken(check, low_off=-1)
        first = most.bit_length() if type(most) is int else 6
        for bits in range(first, FIELDS[check.quantity]):
            yield broken(check, bits=bits)


def is_masked(config, opcode, check, wrong):
    """A broken check that no request of a configuration can show."""
    if not reachable(config, opcode, check):
        return True
    most = check.most.of(config) if isinstance(check.most, Limit) else None
    if opcode == Opcode.COMMIT and wrong.high_off == -1 and check.quantity == Quantity.ADDRESS:
        return True  # the bench commits the layer after the boundary requests
    # The shape must fit in the memory, and its sums in a bank, or the last checks of DEFINE fail
    # with the same status.
    if check.quantity in (Quantity.TILES, Quantity.ROW_GROUPS):
        value = max(most + wrong.high_off, 1 << wrong.bits & 0xFFFFFFFF)
        sums = check.quantity == Quantity.ROW_GROUPS and value > config.result_row_groups
        return value >= config.memory_words or (config.max_group_sums > 0 and sums)
    return False


@pytest.mark.parametrize(
    ("name", "opcode"),
    [
        (name, opcode)
        for name in ("one bank", "tiny", "wide", "large", "blocks", "groups", *OF_OPTIONS)
        for opcode, checks in OF_OPTIONS.get(name, CHECKS).items()
        if checks
    ],
)
def test_every_wrong_check_is_noticed(name, opcode):
    config = CONFIGS[name]
    checks = checks_of(config)[opcode]
    cases = [
        (request, scene.state(request))
        for scene in scenes_of(config)
        for request in boundary_requests(config, scene, opcode)
    ]

    def statuses(checks):
        for request, state in cases:
            try:
                failed = (check for check in checks if not check.holds(config, request, state))
                yield next((check.status for check in failed), Status.OK)
            except struct.error:  # a DEFINE of another length passed its first check
                yield None

    rules = [broken(check) for check in checks]
    right = list(statuses(rules))
    for (request, state), status in zip(cases, right, strict=True):
        if status is not None:
            failed = first_failure(config, request, state)
            assert (failed.status if failed else Status.OK) == status
    for number, check in enumerate(checks):
        for wrong in wrong_checks(config, check):
            others = (*rules[:number], wrong, *rules[number + 1 :])
            noticed = any(
                seen != status for seen, status in zip(statuses(others), right, strict=True)
            )
            assert noticed or is_masked(config, opcode, check, wrong), (str(check), wrong)


@pytest.mark.parametrize("config", [TINY, VECTOR, CONFIGS["float scales"]])
def test_opcodes_that_do_not_exist(config):
    opcodes = {request.opcode for request in opcode_requests(config)}
    assert not opcodes & set(checks_of(config))
    assert opcodes | set(checks_of(config)) >= set(Opcode)
    for opcode in checks_of(config):
        for bit in range(OPCODE_BITS):
            assert opcode ^ 1 << bit in opcodes | set(checks_of(config))


@pytest.mark.parametrize("name", CONFIGS)
def test_fields_that_a_command_ignores(name):
    """Each bank that a command does not name, and `acknowledged`, which no command reads."""
    config = CONFIGS[name]
    for opcode in checks_of(config):
        sent = [
            request
            for scene in scenes_of(config)
            for request in boundary_requests(config, scene, opcode)
        ]
        if opcode not in (Opcode.COMMIT, Opcode.DEFINE):  # a right one may be left out
            assert any(request.acknowledged for request in sent)
            ignored = {"activation_bank", "result_bank"} - banks_read(opcode)
            assert all(any(getattr(request, name) for request in sent) for name in ignored)
    for name in ("activation_bank", "result_bank", "acknowledged"):
        assert any(getattr(request, name) for request in opcode_requests(config))


@pytest.mark.parametrize("window", [1, 3, 63])
def test_order_requests_are_never_the_next_command(window):
    requests = list(order_requests(expected=200, session=77, window=window))
    assert all((request.seq, request.session) != (200, 77) for request in requests)
    assert {request.session ^ 77 for request in requests} == {0} | {1 << bit for bit in range(24)}
    seqs = {request.seq for request in requests if request.session == 77}
    assert all(not 1 <= 200 - seq <= window for seq in seqs)
    assert {200 ^ 1 << bit for bit in range(6, 16)} <= seqs


@pytest.mark.parametrize("name", CONFIGS)
def test_possible(name):
    config = CONFIGS[name]
    pairs = possible(config, scenes_of(config))
    assert (Opcode.RESULTS, Status.BAD_STATE) in pairs
    assert (Opcode.COMMIT, Status.BAD_CHECKSUM) in pairs
    assert (Opcode.COUNTERS, Status.NAK) in pairs
    assert ((Opcode.LOAD, Status.BAD_LENGTH) in pairs) == (config.fill > 1)
    of_unit = {
        (Opcode.GET, Status.NOT_FINITE),
        (Opcode.EXECUTE, Status.BAD_STATE),
        (Opcode.EXECUTE, Status.OUT_OF_RANGE),
        (Opcode.COMMIT_PROGRAM, Status.BAD_CHECKSUM),
        (Opcode.COMMIT_PROGRAM, Status.OUT_OF_RANGE),
        (Opcode.COMMIT_PROGRAM, Status.BAD_STATE),
    }
    assert pairs & of_unit == (of_unit if config.vector else set())


def test_scenes_of_a_device_for_one_layer():
    first, second = scenes_of(LEAST)
    assert (first.committed, first.open, first.undefined) == (None, 0, None)
    assert (second.committed, second.open, second.undefined) == (0, None, None)
    (only,) = scenes_of(TINY)
    assert (only.committed, only.open, only.undefined) == (0, 1, 3)
    assert only.state(Request(Opcode.READ, index=3)).layer == LayerState.UNDEFINED
