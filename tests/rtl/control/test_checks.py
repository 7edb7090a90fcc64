"""The checks in hardware: all of them can be made, in the order of the table."""

from dataclasses import replace

import pytest
from amaranth.hdl import Fragment, Module, Signal

from tests.support.line_store import TestLines
from tritloom.rtl.control.checks import HeaderChecks, status_of
from tritloom.rtl.control.layer_table import entry_layout
from tritloom.rtl.control.layouts import REQUEST
from tritloom.rtl.spec import checks
from tritloom.rtl.spec.checks import CHECKS, Check, Quantity, Stage
from tritloom.rtl.spec.commands import Opcode, Status
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.scale_facts import ScaleConfig

GROUPS = replace(TINY, max_group_sums=32)
SCALES = replace(TINY, scale=ScaleConfig(group=10))
BLOCKS = replace(TINY, lanes=15, memory=TestLines(words=64, line_bits=64, beat_bits=64))


def checks_of(config: AcceleratorConfig = TINY) -> HeaderChecks:
    request, left, position, items = Signal(REQUEST), Signal(8), Signal(10), Signal(16)
    entry = Signal(entry_layout(config))
    m = Module()
    Fragment.get(m, None)  # or Amaranth warns that the module is not used
    return HeaderChecks(m, config, request, left, position, items, entry, Signal())


@pytest.mark.parametrize(
    "config", [TINY, BLOCKS, GROUPS, SCALES], ids=["tiny", "blocks", "groups", "scales"]
)
@pytest.mark.parametrize("opcode", CHECKS)
def test_order_and_status_are_those_of_the_table(opcode, config):
    statuses = [status for _, status in checks_of(config).failures(opcode)]
    table = [c.status for c in checks.checks_of(config)[opcode] if c.stage == Stage.HEADER]
    assert statuses == table
    aligned = [c for c in checks.checks_of(config)[opcode] if c.quantity in checks.OF_BLOCKS]
    assert bool(aligned) == (config is BLOCKS and opcode in (Opcode.DEFINE, Opcode.WRITE))


@pytest.mark.parametrize(
    "change", [{"quantity": Quantity.TILES}, {"least": 0}, {"quantity": Quantity.ITEMS_END}]
)
def test_a_check_that_the_hardware_cannot_make(monkeypatch, change):
    """A rule that is changed in the table alone is refused, not ignored."""
    rule = next(check for check in CHECKS[Opcode.RUN] if check.quantity == Quantity.LAYER_STATE)
    table = {Opcode.RUN: (replace(rule, **change),)}
    monkeypatch.setattr("tritloom.rtl.control.checks.checks_of", lambda config: table)
    with pytest.raises(NotImplementedError, match="the processor cannot make the check"):
        checks_of().failures(Opcode.RUN)


def test_status_of():
    for opcode, rules in CHECKS.items():
        for check in rules:
            assert isinstance(check, Check)
            assert status_of(opcode, check.quantity) == check.status
    assert status_of(Opcode.COMMIT, Quantity.ADDRESS) == Status.BAD_CHECKSUM
