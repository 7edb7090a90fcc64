"""How many cycles the vector unit takes for one block of a known model, beside its layers.

By the contract of cycles (`rtl/spec/vector_cycles.py`), which simulation confirms on small shapes.
"""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np

from tritloom.gen.plan.shapes import SHAPES, ModelShape
from tritloom.host.layer import TernaryLayer
from tritloom.host.models.blocks import decoder_program
from tritloom.host.models.decoder import Block, Decoder
from tritloom.rtl.spec.errors import CheckpointError, ConfigError
from tritloom.rtl.spec.vector_cycles import program_cycles
from tritloom.rtl.spec.vector_facts import STEPS, WORDS, VectorConfig
from tritloom.rtl.spec.vector_program import Operation

__all__ = ["shaped_decoder", "unit_cycles"]


def unit_cycles(
    model: str, *, lanes: int, multipliers: int, bfloat16: bool, macs_per_cycle: int
) -> dict[str, Any]:
    """The unit's own cycles for one block and one token, without waits for the core.

    Parameters
    ----------
    model : a name of `SHAPES` with relu², norms before `o` and `down`, and scales that divide
    lanes, multipliers, bfloat16 : of the unit
    macs_per_cycle : products of the engine in a cycle, for the time of the layers

    Returns
    -------
    An object that `tritloom measure block --help` explains.

    Raises
    ------
    CheckpointError : the model's shapes are not known
    ConfigError : the unit cannot be built, or `macs_per_cycle` is not positive
    CapacityError : the program needs more words than a unit can have
    """
    if model not in SHAPES:
        raise CheckpointError(f"unknown shapes {model!r}; give one of {', '.join(SHAPES)}")
    if macs_per_cycle < 1:
        raise ConfigError(f"macs must be at least 1, not {macs_per_cycle}")
    unit = VectorConfig(
        words=WORDS[1], steps=STEPS[1], lanes=lanes, multipliers=multipliers, bfloat16=bfloat16
    )
    program = decoder_program(unit, shaped_decoder(SHAPES[model], bfloat16=bfloat16))
    # From the attention of the first block to that of the second one: all operations of a block.
    steps = program.steps_of("block 0")
    layers = [program.layers[step.a] for step in steps if step.operation == Operation.RUN]
    engine = -(-sum(rows * columns for rows, columns in layers) // macs_per_cycle)
    cycles = program_cycles(steps, unit)
    elements = sum(step.count for step in steps if step.operation == Operation.PRODUCT)
    bound = -(-elements // lanes)
    words = ["tritloom", "measure", "block", model, "--cycles", "--macs", str(macs_per_cycle)]
    words += ["--lanes", str(lanes), "--multipliers", str(multipliers)]
    return {
        "model": model,
        "lanes": lanes,
        "multipliers": multipliers,
        "bfloat16": bfloat16,
        "steps": len(steps),
        "elements": elements,
        "vector_cycles": cycles,
        "bound_cycles": bound,
        "macs_per_cycle": macs_per_cycle,
        "engine_cycles": engine,
        "share_percent": round(100 * cycles / engine, 2),
        "bound_percent": round(100 * bound / engine, 2),
        "command": shlex.join([*words, *["--bfloat16"] * bfloat16]),
    }


def shaped_decoder(shape: ModelShape, *, bfloat16: bool) -> Decoder:
    """Two blocks of a shape: zero weights, and one scale that divides for each part of a layer."""
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size

    def layer(in_features: int, *parts: int) -> TernaryLayer:
        scales = np.repeat(np.arange(1, len(parts) + 1, dtype=np.float32), parts)
        trits = np.zeros((sum(parts), in_features), np.int8)
        return TernaryLayer.from_trits(trits, scales, scale_divides=True)

    hidden, inner = shape.hidden, shape.intermediate
    layers = {
        "qkv": layer(hidden, queries, keys, keys),
        "o": layer(queries, hidden),
        "gate_up": layer(hidden, inner, inner),
        "down": layer(inner, hidden),
    }

    def block() -> Block:
        return Block(
            **layers,
            input_norm=np.ones(hidden, np.float32),
            post_norm=np.ones(hidden, np.float32),
            attention_norm=np.ones(queries, np.float32),
            inner_norm=np.ones(inner, np.float32),
        )

    return Decoder(
        blocks=(block(), block()),
        hidden=hidden,
        inner=inner,
        queries=queries,
        keys=keys,
        final_norm=np.ones(hidden, np.float32),
        eps=1e-5,
        bfloat16=bfloat16,
    )
