"""Which layer shapes the bench `layers` runs, and under which pauses."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape

__all__ = ["Pair", "Shape", "layer_cycles", "plan"]

Pair = tuple[str, str]
"""Names of the pauses on the input and on the output."""
Shape = tuple[int, int]
"""Output and input features of a layer."""
MAX_LAYERS = 200
"""Layers at most in a plan."""
COMMAND_CYCLES = 60
"""Cycles of a command beyond those of its payload, about."""
LAYER_COMMANDS = 7
"""Commands of the smallest layer, about."""


def layer_cycles(config: AcceleratorConfig, out_features: int, in_features: int) -> int:
    """About how many cycles a layer takes: write, commit, load, run, read."""
    shape = LayerShape.of(config, out_features, in_features)
    weights = shape.words * (2 * config.word_bytes + 3)
    activations = config.tokens * shape.tiles * config.lanes
    loads = activations * (config.fill + 2) // config.fill
    results = 2 * config.tokens * shape.row_groups * config.rows * config.acc_bytes
    transfers = weights + loads + results
    commands = LAYER_COMMANDS + transfers // config.max_payload
    return transfers + commands * COMMAND_CYCLES + shape.words


def plan(
    config: AcceleratorConfig,
    patterns: Mapping[str, tuple[float, int]],
    *,
    budget_cycles: int,
    seed: int,
) -> dict[Pair, list[Shape]]:
    """Layer shapes for each pair of pauses: first the edges of the geometry, then random ones.

    Parameters
    ----------
    config : the configuration of the design
    patterns : for each kind of pauses, how likely one is after a transfer, and its most cycles
    budget_cycles : about how many cycles the shapes of one pair may take
    seed : of the random shapes

    Returns
    -------
    dict[Pair, list[Shape]]
        Every pair of pauses has at least one shape.
    """
    total = len(patterns) ** 2 * budget_cycles
    fifth = total // 5
    loads = dict.fromkeys(itertools.product(patterns, patterns), 0.0)
    planned: dict[Pair, list[Shape]] = {pair: [] for pair in loads}
    slow = {name: 1 + chance * (most + 1) / 2 for name, (chance, most) in patterns.items()}

    def assign(shape: Shape) -> None:
        """Give a shape to the pair that is then done first."""

        def end(pair: Pair) -> float:
            pace = (slow[pair[0]] + slow[pair[1]]) / 2
            return loads[pair] + pace * layer_cycles(config, *shape)

        pair = min(loads, key=end)
        loads[pair] = end(pair)
        planned[pair].append(shape)

    edges = dict.fromkeys(fitted(config, shape, fifth) for shape in edge_shapes(config))
    for shape in sorted(edges, key=lambda shape: -layer_cycles(config, *shape)):
        assign(shape)
    rng = random.Random(f"{seed} plan")
    lanes, rows = config.lanes, config.rows
    while any(not shapes for shapes in planned.values()) or sum(loads.values()) < total:
        shape = (rng.randint(1, 4 * rows + 1), rng.randint(1, 3 * lanes + 1))
        assign(fitted(config, shape, fifth))
        if sum(map(len, planned.values())) > MAX_LAYERS:
            break
    return planned


def edge_shapes(config: AcceleratorConfig) -> list[Shape]:
    """Shapes at the edges of the geometry: of lanes, rows, partial sums, limits."""
    lanes, rows = config.lanes, config.rows
    most = (config.max_out_features, config.max_in_features)
    inputs = [1, lanes - 1, lanes, lanes + 1, 2 * lanes, 3 * lanes - 1, most[1]]
    again = config.again_cycles
    outputs = [1, rows - 1, rows, rows + 1, rows * again]
    outputs += [rows * (again - 1) + 1, rows * (again + 1), most[0]]
    shapes = [(1, 1), (1, most[1]), (most[0], 1)]
    return shapes + [
        (outputs[(3 * n) % len(outputs)], inputs[n % len(inputs)])
        for n in range(max(len(inputs), len(outputs)))
    ]


def fitted(config: AcceleratorConfig, shape: Shape, most_cycles: int) -> Shape:
    """A shape made smaller until the design holds it and it takes at most some cycles."""
    out_features = max(1, min(shape[0], config.max_out_features))
    in_features = max(1, min(shape[1], config.max_in_features))
    while (
        LayerShape.of(config, out_features, in_features).words > config.memory_words
        or layer_cycles(config, out_features, in_features) > most_cycles
    ) and (out_features, in_features) != (1, 1):
        if out_features > config.rows or in_features == 1:
            out_features = max(1, out_features * 3 // 4)
        else:
            in_features = max(1, in_features * 3 // 4)
    return out_features, in_features
