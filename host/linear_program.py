"""One BitLinear layer as a program of the vector unit, and when that is sooner than on the host."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tritloom.host.layer import TernaryLayer
from tritloom.host.program import Program, Routine, Vector
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.rounding import round_to
from tritloom.rtl.spec.vector_cycles import program_cycles
from tritloom.rtl.spec.vector_facts import WRAP_WORDS, VectorConfig
from tritloom.rtl.spec.vector_operations import SUM_WORDS, ProgramBuilder

__all__ = ["LINEAR", "linear_program", "runs_of_scales", "unit_is_sooner"]

F32 = NDArray[np.float32]

LINEAR = "linear"
"""Name of the only routine of such a program."""
MOST_SEGMENTS = 8
"""Runs of rows with one scale each that have steps of their own, if the scales multiply. Layers
that were stacked have a few. If there are more, each row has its scale."""
LEAST_FACTOR = np.float32(2.0**-100)
"""Least scale and bias. With a scale of at least that, or one that divides of at most its inverse,
no output is below 2^-126, which the unit would take for zero."""
FLOAT_BYTES = 4
HOST_CALL_S = 15e-6
HOST_FEATURE_S = 7e-9
"""What the host's CPU takes to quantize the inputs of a token and to rescale its outputs: for the
call, and for each of them. Measured with `numerics` on one core."""


def linear_program(
    unit: VectorConfig,
    layer: TernaryLayer,
    *,
    norm: F32 | None = None,
    eps: float = 0.0,
    bfloat16: bool = False,
) -> Program:
    """A program whose routine `linear` computes `numerics.bitlinear` from `x` to `y`.

    Parameters
    ----------
    unit : configuration of the vector unit
    layer : with one scale, one for each segment of rows, or one for each row
    norm : float32 `[in_features]`, weight of an RMSNorm of the inputs; None for no norm
    eps : of that norm
    bfloat16 : round each operation to bfloat16

    Raises
    ------
    CapacityError : the vector memory has no room, or the program memory has none for steps of each
        run of scales that divide
    InputError : the unit would not give the golden model's bits
    """
    _require_range(layer)
    builder = ProgramBuilder(unit, bfloat16=bfloat16)
    # The outputs take the place of the inputs: the core has all codes before its first result.
    io = builder.reserve(max(layer.in_features, layer.out_features))
    if norm is not None:
        builder.place_sums(builder.reserve(SUM_WORDS, WRAP_WORDS))
    s = builder.reserve(1)
    constants_at = builder.words
    if norm is not None:
        weight = builder.place(round_to(norm, bfloat16))
        builder.rms_norm(io, layer.in_features, weight, eps, io)
    builder.quantize(io, layer.in_features, s, measured=norm is not None)
    builder.run(0)
    bias = None if layer.bias is None else builder.place(round_to(layer.bias, bfloat16))
    segments = _segments(layer)
    rows_at = None
    if segments is None:
        segments = [(0, layer.out_features)]
        rows_at = builder.place(round_to(layer.scale, bfloat16))
    scales = np.broadcast_to(layer.scale, layer.out_features)
    for first, rows in segments:
        if rows_at is None:
            scale = builder.constant(float(round_to(scales[first : first + 1], bfloat16)[0]))
        else:
            scale = rows_at
        builder.rescale(
            rows,
            s,
            scale,
            io + first,
            scale_divides=layer.scale_divides,
            scale_per_row=rows_at is not None,
            bias=None if bias is None else bias + first,
        )
    steps = tuple(builder.end())
    words = np.zeros(builder.words, np.uint32)
    for address, patterns in builder.contents.items():
        words[address : address + len(patterns)] = patterns
    program = Program(
        steps=steps,
        routines={LINEAR: Routine(first=0, count=len(steps))},
        vectors={
            "x": Vector(address=io, count=layer.in_features),
            "y": Vector(address=io, count=layer.out_features),
        },
        constants=words[constants_at:].view(np.float32),
        constants_at=constants_at,
        words=builder.words,
        layers=((layer.out_features, layer.in_features),),
    )
    program.check(unit)
    return program


def runs_of_scales(layer: TernaryLayer, first: int, rows: int) -> list[tuple[int, int]]:
    """First row and number of rows of each run of equal scales, among `rows` rows from `first`."""
    scales = np.broadcast_to(layer.scale, layer.out_features)[first : first + rows]
    starts = [0, *(np.flatnonzero(scales[1:] != scales[:-1]) + 1).tolist(), rows]
    return [(first + start, end - start) for start, end in pairwise(starts)]


def _segments(layer: TernaryLayer) -> list[tuple[int, int]] | None:
    """The runs of equal scales; None if each row has its own, which multiplies.

    A run of scales that divide has steps of its own in any case, because the unit makes the
    reciprocal of a divisor before the results come. If they are too many, the program is too long.
    """
    segments = runs_of_scales(layer, 0, layer.out_features)
    return segments if layer.scale_divides or len(segments) <= MOST_SEGMENTS else None


def _require_range(layer: TernaryLayer) -> None:
    """`InputError` if the unit might take an output of the golden model for zero."""
    if layer.in_features == 1:
        raise InputError(
            "a layer of one feature has another sign of zero; compute the floats on the host"
        )
    size = np.abs(np.atleast_1d(layer.scale))
    wrong = (1 / size if layer.scale_divides else size) < LEAST_FACTOR
    if layer.bias is not None:
        wrong = np.append(wrong, (layer.bias != 0) & (np.abs(layer.bias) < LEAST_FACTOR))
    if wrong.any():
        raise InputError(
            "a scale or bias is so small that outputs may lie below 2^-126; compute the floats on "
            "the host"
        )


def unit_is_sooner(config: AcceleratorConfig, layer: TernaryLayer, program: Program) -> bool:
    """Whether one token is sooner there if the device computes the floats of a layer.

    Floats are more bytes on the link than codes and sums, and the unit takes cycles. But the host
    need not quantize and rescale.

    Parameters
    ----------
    config : of the device
    layer : which has one piece
    program : of `linear_program`
    """
    assert config.vector is not None
    features = layer.in_features + layer.out_features
    more_bytes = FLOAT_BYTES * features - layer.in_features - config.acc_bytes * layer.out_features
    # The layer itself takes as long either way.
    cycles: float = program_cycles(program.steps, config.vector)
    cycles += more_bytes * config.link.cycles_per_byte(config)
    return cycles / config.clock_hz < HOST_CALL_S + HOST_FEATURE_S * features
