"""Each rule of the hardware, broken in turn in the emitted Verilog: a bench must fail."""

import re
from dataclasses import replace

import pytest

from tests.support.broken import broken
from tritloom.gen.emit.verilog import emit
from tritloom.rtl.control import states
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.sim.verify import run as module
from tritloom.sim.verify.run import verify_design

CONFIG = AcceleratorConfig(
    lanes=10,
    rows=2,
    tokens=2,
    fill=2,
    memory=BlockRam(words=40),
    max_in_features=40,
    max_out_features=12,
    max_layers=4,
    packet_bytes=128,
    slots=4,
)
NOT_SEEN = ("unsent",)
"""Rules with these bounds are not broken: a device may drop a duplicate, and it may answer it."""
MODULE = re.compile(r"^module \\?tritloom\.processor[\w.]* ?\(.*?^endmodule", re.M | re.S)
RULE = re.compile(
    r"^  assign (?P<name>\S+) += (?P<left>.+?) (?P<how>>=|>|<=) (?P<right>.+);$", re.M
)
CONSTANT = re.compile(r"(\d+)'[hd]([0-9a-f]+)")
SWAPPED = {">": ">=", ">=": ">", "<=": "<"}


def dropped(match):
    """The rule never holds."""
    return "1'h0"


def off_by_one(match):
    """The bound itself is on the other side."""
    return f"{match['left']} {SWAPPED[match['how']]} {match['right']}"


def low_bits(match):
    """Only as many bits as the bound has are compared."""
    constant = CONSTANT.fullmatch(match["right"])
    if constant is None:
        return None
    base = 16 if "'h" in constant[0] else 10
    bits = int(constant[2], base).bit_length()
    width = int(constant[1])
    if bits >= width:
        return None
    mask = f"{width}'h{(1 << bits) - 1:x}"
    return f"({match['left']} & {mask}) {match['how']} {match['right']}"


def rules(verilog):
    """The comparisons of the command processor and its parts, with their place in the text."""
    return [
        (text.start() + match.start(), text.start() + match.end(), match)
        for text in MODULE.finditer(verilog)
        for match in RULE.finditer(text[0])
        if match["right"] not in NOT_SEEN
    ]


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("breaking", [dropped, off_by_one, low_bits])
def test_every_broken_rule_is_noticed(breaking, monkeypatch):
    order = ("checks", "protocol", "mixed")
    monkeypatch.setattr(
        module, "BENCHES", tuple(f"tritloom.sim.verify.benches.{name}" for name in order)
    )
    verilog = emit(CONFIG)
    survivors = []
    tried = 0
    for start, end, match in rules(verilog):
        expression = breaking(match)
        if expression is None:
            continue
        tried += 1
        broken = f"{verilog[:start]}  assign {match['name']} = {expression};{verilog[end:]}"
        if verify_design(broken, CONFIG, fail_fast=True).ok:
            survivors.append(match[0].strip())
    assert tried >= 10
    assert survivors == []


@pytest.mark.sim
def test_the_next_command_waits_for_a_response_that_is_not_stored(monkeypatch):
    """Without it, a NAK that is being sent turns into the response of the next command."""
    copy = broken(states, 'm.next = "SENT"', 'm.next = "HEADER"')
    monkeypatch.setattr("tritloom.rtl.control.acceptor.CommandStates", copy.CommandStates)
    monkeypatch.setattr(module, "BENCHES", ("tritloom.sim.verify.benches.protocol",))
    result = verify_design(emit(CONFIG), CONFIG)
    failed = [bench.name for bench in result.benches if not bench.ok]
    assert failed == ["unread"]


@pytest.mark.sim
@pytest.mark.parametrize("opcode", ["LOAD", "SCALES"])
def test_what_a_layer_reads_is_not_overwritten(opcode, monkeypatch):
    """Without the wait, the command stores in the bank of the layer that runs."""
    start = f"self._start(Opcode.{opcode}, "
    copy = broken(states, f"{start}ports.may_load, ", f"{start}1, ")
    monkeypatch.setattr("tritloom.rtl.control.acceptor.CommandStates", copy.CommandStates)
    monkeypatch.setattr(module, "BENCHES", ("tritloom.sim.verify.benches.protocol",))
    monkeypatch.setenv("COCOTB_TEST_FILTER", "replays")
    config = replace(CONFIG, scale=ScaleConfig(kind="float", group=10))
    result = verify_design(emit(config), config)
    assert [bench.name for bench in result.benches if not bench.ok] == ["replays"]
