"""The bench of products: layers of all shapes at the edges of the geometry."""

from __future__ import annotations

from functools import cache
from typing import Any

import cocotb

from tritloom.rtl.spec.commands import Opcode, Status
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.requests import run_layer
from tritloom.sim.verify import plan
from tritloom.sim.verify.driver import PATTERNS, Driver, bench
from tritloom.sim.verify.patience import patience
from tritloom.sim.verify.settings import budget_cycles, config

shapes_done: set[plan.Shape] = set()
"""The layers that have been computed."""
KINDS = [("most", "least"), ("random", "random"), ("extreme", "extreme"), ("least", "most")]
"""Kinds of activations and weights, in turn."""


@cache
def planned() -> dict[plan.Pair, list[plan.Shape]]:
    """The shapes for each pair of pauses."""
    return plan.plan(config(), PATTERNS, budget_cycles=budget_cycles(), seed=cocotb.RANDOM_SEED)


def product(t: Driver, index: int, shape: plan.Shape, codes: str, tokens: int) -> list[bytes]:
    """Packets that load activations of a kind, run a layer and read its results, in any banks."""
    activations, results = t.bank(), t.bank()
    run = run_layer(index, tokens, activations, results)
    return [
        *t.loads(t.codes(shape[1], codes), activations),
        t.pack(run),
        *t.results(shape[0], results),
    ]


@cocotb.test()
@cocotb.parametrize(idle=list(PATTERNS), stall=list(PATTERNS))
@bench
async def layers(dut: Any, idle: str, stall: str) -> None:
    """Layers of all shapes at the geometry's edges, several resident; exact products."""
    t = Driver(dut, "layers", idle, stall)
    await t.begin()
    most_words, most_layers = t.config.memory_words, t.config.max_layers
    resident: dict[int, plan.Shape] = {}
    base = index = 0
    shapes = planned()[idle, stall]
    for number, shape in enumerate(shapes):
        words = t.config.stored_words(LayerShape.of(t.config, *shape).words)
        if number == 0 and most_layers > 1:  # at the end of memory and table, where it may stay
            place, at = most_layers - 1, t.config.memory_words - words
            most_words, most_layers = at, most_layers - 1
        else:
            if base + words > most_words or index == most_layers:
                resident = {key: value for key, value in resident.items() if key >= most_layers}
                base = index = 0
            if words > most_words:
                resident.clear()
                most_words = t.config.memory_words
            place, at = index, base
            base, index = base + words, index + 1
        codes, weights = KINDS[number % len(KINDS)]
        if shape[1] == max(in_features for _, in_features in shapes):
            codes, weights = "least", "least"  # −128 × −1 in the longest sum
        t.patience = patience(t.config) + 4 * plan.layer_cycles(t.config, *shape)
        await t.send(
            *t.layer(place, at, t.trits(shape, weights)),
            *product(t, place, shape, codes, t.random.randint(1, t.config.tokens)),
        )
        assert t.last().status == Status.OK
        resident[place] = shape
        shapes_done.add(shape)
    by_cycles = sorted(resident.items(), key=lambda item: plan.layer_cycles(t.config, *item[1]))
    for place, shape in by_cycles[:2]:
        await t.send(*product(t, place, shape, "random", 1))
        words = LayerShape.of(t.config, *shape).words
        count = min(words, t.config.max_payload // t.config.word_bytes)
        await t.do(Opcode.READ, Status.OK, index=place, address=words - count, count=count)
    await t.do(Opcode.COUNTERS, Status.OK)
