"""The steps of a product: each command once, in the right order, and the same for equal sizes."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from tests.support.layers import CONFIGS, ODD, SMALL
from tritloom.host.allocator import Allocator, cut_layer
from tritloom.host.plan import KEPT_TOKENS, Plan, plan_product
from tritloom.host.session import SMALLEST_PAYLOAD
from tritloom.rtl.spec import requests
from tritloom.rtl.spec.commands import Opcode
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape

CONFIGS = CONFIGS | {
    "one bank": replace(SMALL, banks=1),
    "limits below a tile": replace(SMALL, max_in_features=7, max_out_features=2, max_layers=64),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def plan_of(
    config: AcceleratorConfig, out_features: int, in_features: int, tokens: int, size: int = 0
) -> Plan:
    return plan_product(config, out_features, in_features, tokens, size or config.max_payload, 0, 0)


def opcodes(plan: Plan) -> list[Opcode]:
    return [Opcode(step.request.opcode) for step in plan.steps]


def test_the_order_of_commands():
    """Of five tokens, two at a time, and a layer of two pieces that need the same activations."""
    load, run, results = Opcode.LOAD, Opcode.RUN, Opcode.RESULTS
    config = replace(SMALL, packet_bytes=1024)
    two_banks = plan_of(config, 61, 10, 5)
    assert opcodes(two_banks) == [
        *(load, load, run),
        *(results, run, results),
        *(load, load, results, run, results),
        *(results, run, results),
        *(load, results, run, results),
        *(results, run, results),
    ]
    one_bank = plan_of(replace(config, banks=1), 61, 10, 5)
    product = [run, results, results]
    assert opcodes(one_bank) == [
        *(load, load, *product, *product),
        *(load, load, *product, *product),
        *(load, *[run, results] * 2),
    ]


def test_banks_take_turns():
    plan = plan_of(replace(SMALL, packet_bytes=1024), 61, 10, 5)
    runs = [step.request for step in plan.steps if step.request.opcode == Opcode.RUN]
    assert [run.activation_bank for run in runs] == [1, 1, 0, 0, 1, 1]
    assert [run.result_bank for run in runs] == [1, 0, 1, 0, 1, 0]
    assert (plan.activation_bank, plan.result_bank) == (1, 0)
    later = plan_product(SMALL, 1, 1, 1, SMALL.max_payload, 1, 0)
    assert (later.activation_bank, later.result_bank) == (0, 1)


@every_config
@pytest.mark.parametrize("small_packets", [False, True])
def test_what_is_loaded(config, small_packets):
    """The LOADs of a plan are those of the specification, for every token and piece."""
    size = SMALLEST_PAYLOAD if small_packets else config.max_payload
    shape = (config.max_out_features, min(config.max_in_features + 3, 40))
    codes = np.random.default_rng(1).integers(-8, 8, (5, shape[1]), np.int8)
    pieces = Allocator(replace(config, max_layers=256)).place(*shape)
    plan = plan_of(config, *shape, len(codes), size)
    commands = plan.commands(pieces, codes)
    loaded = [command for command in commands if command.opcode == Opcode.LOAD]
    right = [
        request
        for start in range(0, len(codes), config.tokens)
        for first, last in dict.fromkeys(
            (column, column + columns) for _, _, column, columns in cut_layer(config, *shape)
        )
        for token, row in enumerate(codes[start : start + config.tokens])
        for request in requests.load_activations(config, token, row[first:last], size)
    ]
    assert [(load.index, load.address, load.payload) for load in loaded] == [
        (load.index, load.address, load.payload) for load in right
    ]


@every_config
def test_what_is_computed_and_read(config):
    """Each piece once for every batch; the places of RESULTS cover the sums once a column."""
    shape = (config.max_out_features + 1, min(config.max_in_features + 3, 40))
    tokens = config.tokens + 1
    placed = Allocator(replace(config, max_layers=255)).place(*shape)
    pieces = tuple(replace(piece, index=piece.index + 1) for piece in placed)
    plan = plan_of(config, *shape, tokens)
    commands = plan.commands(pieces, np.zeros((tokens, shape[1]), np.int8))
    runs = [command for command in commands if command.opcode == Opcode.RUN]
    assert [(run.index, run.count) for run in runs] == [
        *((piece.index, config.tokens) for piece in pieces),
        *((piece.index, 1) for piece in pieces),
    ]
    covered = np.zeros((tokens, shape[0]), int)
    first_of_run = 0
    for command, step in zip(commands, plan.steps, strict=True):
        assert command.cycles == step.cycles
        assert (step.place is not None) == (command.opcode == Opcode.RESULTS)
        if step.place is not None:
            token, row, first, _ = step.place
            covered[token, row : row + command.count] += 1
            first_of_run += first
            assert command.response_bytes == command.count * config.acc_bytes
    assert (covered == len(plan.columns)).all()
    assert first_of_run == len(runs)


def test_patience_for_a_run():
    """The first RESULTS waits for its RUN, and RUN for the one before it."""
    plan = plan_of(replace(SMALL, packet_bytes=1024), 60, 10, 3)
    cycles = SMALL.run_cycles(LayerShape.of(SMALL, 60, 10))
    assert [(Opcode(step.request.opcode).name, step.cycles) for step in plan.steps] == [
        *(("LOAD", 0), ("LOAD", 0), ("RUN", cycles)),
        *(("LOAD", 0), ("RESULTS", cycles), ("RUN", 2 * cycles)),
        *(("RESULTS", 0), ("RESULTS", cycles)),
    ]
    one_bank = plan_of(replace(SMALL, packet_bytes=1024, banks=1), 60, 10, 3)
    runs = [step for step in one_bank.steps if step.piece is not None]
    assert [run.cycles for run in runs] == [cycles, cycles], "its RESULTS came before"


def test_equal_products_share_their_plan():
    """And what becomes of their commands changes nothing in it."""
    plan = plan_of(ODD, 20, 30, 2)
    before = deepcopy(plan.steps)
    (piece,) = Allocator(ODD).place(20, 30)
    for command in plan.commands((piece,), np.ones((2, 30), np.int8)):
        command.seq, command.session, command.payload = 7, 8, b"other"
        command.cycles += 1
    assert plan.steps == before
    assert plan_of(ODD, 20, 30, 2) is plan
    for other in (plan_of(ODD, 21, 30, 2), plan_of(ODD, 20, 31, 2), plan_of(ODD, 20, 30, 3)):
        assert other != plan
    assert plan_of(replace(ODD, banks=1), 20, 30, 2) != plan


def test_a_large_plan_is_not_kept():
    for tokens, kept in ((KEPT_TOKENS, True), (KEPT_TOKENS + 1, False)):
        plan = plan_of(ODD, 20, 30, tokens)
        assert (plan_of(ODD, 20, 30, tokens) is plan) == kept
