"""The table of checks: its order, its text, and the first check that a request fails."""

from dataclasses import replace

import pytest

from tests.support import plugins
from tritloom.rtl.spec.checks import (
    ALL_CHECKS,
    LayerState,
    Quantity,
    State,
    check_table,
    checks_of,
    first_failure,
)
from tritloom.rtl.spec.commands import LAYER, Opcode, Request, Status
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.rtl.spec.vector_facts import VectorConfig


def test_every_opcode_has_its_checks_in_the_order_of_their_stages():
    plain = [opcode for opcode in Opcode if opcode < Opcode.PUT]
    of_unit = [opcode for opcode in Opcode if Opcode.PUT <= opcode <= Opcode.EXECUTE]
    assert list(ALL_CHECKS) == list(Opcode) == [*plain, *of_unit, Opcode.SCALES]
    for change, opcodes in (
        ({}, plain),
        ({"vector": VectorConfig(words=64)}, plain + of_unit),
        ({"scale": ScaleConfig(kind="fixed")}, plain),
        ({"scale": ScaleConfig(kind="float")}, [*plain, Opcode.SCALES]),
    ):
        assert list(checks_of(replace(TINY, **change))) == opcodes
    for checks in ALL_CHECKS.values():
        stages = [check.stage for check in checks]
        assert stages == sorted(stages)
        assert len(set(checks)) == len(checks)


def test_check_table():
    lines = check_table().splitlines()
    assert lines[:3] == [
        "| opcode | must hold | else |",
        "|---|---|---|",
        "| IDENTIFY | payload bytes = 0 | BAD_LENGTH |",
    ]
    assert len(lines) == 2 + sum(map(len, ALL_CHECKS.values()))
    for line in (
        "| IDENTIFY | 1 ≤ count ≤ max_payload | BAD_LENGTH |",
        "| DEFINE | index ≤ max_layers - 1 | OUT_OF_RANGE |",
        "| DEFINE | base + tiles × row groups ≤ memory_words | OUT_OF_RANGE |",
        "| READ | layer is open or committed | BAD_STATE |",
        "| COMMIT | address = CRC-32 of the layer's words | BAD_CHECKSUM |",
        "| LOAD | activation bank ≤ banks - 1 | OUT_OF_RANGE |",
        "| RUN | activation bank ≤ banks - 1 | OUT_OF_RANGE |",
        "| RUN | result bank ≤ banks - 1 | OUT_OF_RANGE |",
        "| SCALES | activation bank ≤ banks - 1 | OUT_OF_RANGE |",
        "| SCALES | address + words ≤ max_tiles | OUT_OF_RANGE |",
        "| RESULTS | result bank ≤ banks - 1 | OUT_OF_RANGE |",
        "| RESULTS | row groups of the bank's last RUN ≥ 1 | BAD_STATE |",
    ):
        assert line in lines


OPEN = State(layer=LayerState.OPEN, layer_words=4, layer_checksum=9)
DONE = State(layer=LayerState.COMMITTED, layer_words=4, result_row_groups=2)
FAILURES = [
    # The request, the state of the device, the status of the first check that fails.
    (Request(Opcode.RESET, payload=b"x"), State(), None),
    (Request(Opcode.IDENTIFY, count=108, address=20), State(), None),
    (Request(Opcode.IDENTIFY, count=109), State(), Status.BAD_LENGTH),
    (Request(Opcode.IDENTIFY, count=1, address=1000), State(), Status.OUT_OF_RANGE),
    (Request(Opcode.DEFINE, index=9, payload=bytes(9)), State(), Status.BAD_LENGTH),
    (Request(Opcode.DEFINE, index=3, payload=LAYER.pack(32, 4, 8)), State(), None),
    (Request(Opcode.DEFINE, index=4, payload=LAYER.pack(32, 4, 8)), State(), Status.OUT_OF_RANGE),
    (Request(Opcode.DEFINE, payload=LAYER.pack(33, 4, 8)), State(), Status.OUT_OF_RANGE),
    (Request(Opcode.DEFINE, payload=LAYER.pack(0, 0, 8)), State(), Status.OUT_OF_RANGE),
    (Request(Opcode.WRITE, payload=b"x"), DONE, Status.BAD_STATE),
    (Request(Opcode.WRITE, address=2, payload=bytes(4)), OPEN, None),
    (Request(Opcode.WRITE, address=3, payload=bytes(5)), OPEN, Status.OUT_OF_RANGE),
    (Request(Opcode.WRITE, address=2, payload=bytes(5)), OPEN, Status.BAD_LENGTH),
    (Request(Opcode.WRITE, address=99), OPEN, None),
    (Request(Opcode.READ, count=4), OPEN, None),
    (Request(Opcode.READ, count=4), DONE, None),
    (Request(Opcode.READ, count=4, address=1), OPEN, Status.OUT_OF_RANGE),
    (Request(Opcode.READ, count=55), OPEN, Status.BAD_LENGTH),
    (Request(Opcode.COMMIT, address=9), OPEN, None),
    (Request(Opcode.COMMIT, address=8), OPEN, Status.BAD_CHECKSUM),
    (Request(Opcode.COMMIT, address=9), State(), Status.BAD_STATE),
    (Request(Opcode.LOAD, address=19, payload=b"x"), State(), None),
    (Request(Opcode.LOAD, address=20, payload=b"x"), State(), Status.OUT_OF_RANGE),
    (Request(Opcode.LOAD, index=1), State(), Status.OUT_OF_RANGE),
    (Request(Opcode.RUN, count=1), DONE, None),
    (Request(Opcode.RUN, count=2), DONE, Status.BAD_LENGTH),
    (Request(Opcode.RUN, count=1), OPEN, Status.BAD_STATE),
    (Request(Opcode.RESULTS, count=3), DONE, None),
    (Request(Opcode.RESULTS, count=3, address=1), DONE, Status.OUT_OF_RANGE),
    (Request(Opcode.RESULTS, count=3), OPEN, Status.BAD_STATE),
    (Request(Opcode.COUNTERS, payload=b"x"), State(), Status.BAD_LENGTH),
]


SCALES = [
    (Request(Opcode.SCALES, payload=bytes(16)), None),
    (Request(Opcode.SCALES), None),
    (Request(Opcode.SCALES, address=9), None),
    (Request(Opcode.SCALES, address=3, payload=bytes(4)), None),
    (Request(Opcode.SCALES, index=1), Status.OUT_OF_RANGE),
    (Request(Opcode.SCALES, activation_bank=1), Status.OUT_OF_RANGE),
    (Request(Opcode.SCALES, result_bank=1, count=7), None),
    (Request(Opcode.SCALES, address=4, payload=bytes(5)), Status.OUT_OF_RANGE),
    (Request(Opcode.SCALES, address=3, payload=bytes(5)), Status.BAD_LENGTH),
]


@pytest.mark.parametrize(("request_", "status"), SCALES)
def test_scales_of_activations(request_, status):
    """With 4 tiles of 5 inputs, so of 4 groups at most, and one bank."""
    config = replace(TINY, banks=1, scale=ScaleConfig(kind="float"))
    failed = first_failure(config, request_, DONE)
    assert (failed and failed.status) == status


ONE_BANK = replace(TINY, banks=1)
BANKS = [
    # A request, its status with one bank and with two.
    (Request(Opcode.LOAD, activation_bank=1), Status.OUT_OF_RANGE, None),
    (Request(Opcode.LOAD, result_bank=1), None, None),
    (Request(Opcode.RUN, count=1, activation_bank=1), Status.OUT_OF_RANGE, None),
    (Request(Opcode.RUN, count=1, result_bank=1), Status.OUT_OF_RANGE, None),
    (Request(Opcode.RUN, count=2, result_bank=1), Status.BAD_LENGTH, Status.BAD_LENGTH),
    (Request(Opcode.RESULTS, count=1, result_bank=1), Status.OUT_OF_RANGE, None),
    (Request(Opcode.RESULTS, count=1, activation_bank=1), None, None),
    (Request(Opcode.READ, count=1, activation_bank=1, result_bank=1), None, None),
    (Request(Opcode.COUNTERS, activation_bank=1, result_bank=1), None, None),
]


@pytest.mark.parametrize(("request_", "one", "two"), BANKS)
def test_only_the_banks_that_exist(request_, one, two):
    """A command that names a bank is refused if the device has only one; others ignore the bits."""
    for config, status in ((ONE_BANK, one), (TINY, two)):
        failed = first_failure(config, request_, DONE)
        assert (failed and failed.status) == status


@pytest.mark.parametrize(("request_", "state", "status"), FAILURES)
def test_first_failure(request_, state, status):
    """TINY: 5 lanes, 2 rows, 2 bytes a word, 64 words, 20 inputs, 4 layers, payloads of 108."""
    failed = first_failure(TINY, request_, state)
    assert (failed and failed.status) == status


def test_only_a_memory_that_can_fail_has_void_words():
    """Neither `CHECKS` of other devices nor the statuses that they can give tell of them."""
    failing = replace(TINY, memory=plugins.Failing(words=64))
    with_unit = replace(failing, vector=VectorConfig(words=192))
    for config, opcodes in (
        (TINY, set()),
        (failing, {Opcode.READ, Opcode.COMMIT, Opcode.RESULTS}),
        (with_unit, {Opcode.READ, Opcode.COMMIT, Opcode.RESULTS, Opcode.GET}),
    ):
        tables = checks_of(config).items()
        seen = {
            opcode
            for opcode, checks in tables
            if Quantity.VOID_WORDS in {check.quantity for check in checks}
        }
        assert seen == opcodes
    requests = [Request(Opcode.RESULTS, count=1), Request(Opcode.COMMIT), Request(Opcode.RESULTS)]
    void = replace(DONE, void_words=True, layer=LayerState.OPEN, layer_checksum=7)
    failed = [first_failure(failing, request, void) for request in requests]
    assert [check.status for check in failed] == [
        Status.MEMORY_ERROR,
        Status.MEMORY_ERROR,
        Status.BAD_LENGTH,
    ]
