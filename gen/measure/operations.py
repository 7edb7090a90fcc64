"""Compares single operations on a vector unit: each norm, BitLinear, activation and residual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritloom.gen.flow.tools import Progress
from tritloom.host.device import Device
from tritloom.host.layer import TernaryLayer
from tritloom.host.linear_program import LINEAR, linear_program
from tritloom.host.models.decoder import Decoder
from tritloom.host.models.golden_blocks import GoldenBlocks
from tritloom.host.program import Program, Routine, Vector
from tritloom.rtl.spec.rounding import round_to
from tritloom.rtl.spec.vector_facts import WRAP_WORDS, VectorConfig
from tritloom.rtl.spec.vector_operations import SUM_WORDS, ProgramBuilder

__all__ = ["KINDS", "Call", "Counts", "Recorder", "compare_calls", "norm_program"]

F32 = NDArray[np.float32]

KINDS = ("norm", "linear", "activation", "residual")
"""The operations that are compared one by one."""
INPUTS = {"norm": ("x",), "linear": ("x",), "activation": ("gate", "up"), "residual": ("x", "y")}
"""Vectors that each of them reads."""
OUTPUTS = {"norm": "x", "linear": "y", "activation": "gate", "residual": "x"}
"""The vector that each of them writes."""


@dataclass(slots=True)
class Counts:
    """How many floats were compared, and how many differ in a bit, by what was computed."""

    compared: dict[str, int] = field(default_factory=dict)
    different: dict[str, int] = field(default_factory=dict)

    def compare(self, what: str, device: F32, expected: F32) -> None:
        """Count the floats of two arrays of one shape.

        Raises
        ------
        ValueError : the shapes differ
        """
        if device.shape != expected.shape:
            raise ValueError(f"{what}: shape {device.shape}, not {expected.shape}")
        unlike = int((device.view(np.uint32) != expected.view(np.uint32)).sum())
        self.compared[what] = self.compared.get(what, 0) + device.size
        self.different[what] = self.different.get(what, 0) + unlike

    @property
    def unlike(self) -> int:
        """All floats that differ."""
        return sum(self.different.values())

    def figures(self) -> dict[str, Any]:
        """The sums, and the counts of each operation, as JSON has them."""
        return {
            "float_bits_compared": sum(self.compared.values()),
            "float_bits_different": self.unlike,
            "operations": {
                what: {"compared": count, "different": self.different[what]}
                for what, count in self.compared.items()
            },
        }


@dataclass(slots=True)
class Call:
    """An operation with one set of weights, and what it computed so far.

    Members
    -------
    kind : one of `KINDS`
    weight : float32 `[features]` of a norm, the layer of a BitLinear, else None
    inputs : of each call, arrays float32 `[tokens, features]` in the order of `INPUTS`
    outputs : of each call, float32 `[tokens, features]`
    """

    kind: str
    weight: F32 | TernaryLayer | None = None
    inputs: list[tuple[F32, ...]] = field(default_factory=list)
    outputs: list[F32] = field(default_factory=list)


class Recorder(GoldenBlocks):
    """Blocks whose operations `golden` computes; it keeps what each of them got and gave.

    Parameters
    ----------
    decoder : the weights
    golden : computes the operations

    Members
    -------
    calls : by kind and by the identity of the weights
    """

    def __init__(self, decoder: Decoder, golden: GoldenBlocks) -> None:
        super().__init__(decoder)
        self._golden = golden
        self.calls: dict[tuple[str, int], Call] = {}

    def norm(self, x: F32, weight: F32) -> F32:
        return self._keep("norm", weight, (x,), self._golden.norm(x, weight))

    def linear(self, layer: TernaryLayer, x: F32) -> F32:
        return self._keep("linear", layer, (x,), self._golden.linear(layer, x))

    def activation(self, gate: F32, up: F32) -> F32:
        return self._keep("activation", None, (gate, up), self._golden.activation(gate, up))

    def add(self, x: F32, y: F32) -> F32:
        return self._keep("residual", None, (x, y), self._golden.add(x, y))

    def _keep(self, kind: str, weight: Any, inputs: tuple[F32, ...], y: F32) -> F32:
        call = self.calls.setdefault((kind, id(weight)), Call(kind, weight))
        call.inputs.append(tuple(each.copy() for each in inputs))
        call.outputs.append(y)
        return y


def norm_program(unit: VectorConfig, weight: F32, eps: float, *, bfloat16: bool = False) -> Program:
    """A program whose routine `norm` computes `numerics.rms_norm` of the vector `x` in place.

    Raises
    ------
    CapacityError : the vector memory has no room
    InputError : more features than `ORDER_FEATURES`, or a weight beyond the numbers of the unit
    """
    builder = ProgramBuilder(unit, bfloat16=bfloat16)
    x = builder.reserve(len(weight))
    builder.place_sums(builder.reserve(SUM_WORDS, WRAP_WORDS))
    at = builder.words
    builder.rms_norm(x, len(weight), builder.place(round_to(weight, bfloat16)), eps, x)
    return _program(unit, builder, "norm", at, {"x": (x, len(weight))})


def _pair_program(unit: VectorConfig, kind: str, features: int, bfloat16: bool) -> Program:
    """A program of two vectors: `activation` or `residual`, in place of the first one."""
    builder = ProgramBuilder(unit, bfloat16=bfloat16)
    first, second = builder.reserve(features), builder.reserve(features)
    at = builder.words
    if kind == "activation":
        builder.relu2_times(first, second, features)
    else:
        builder.add_residual(first, second, features)
    vectors = zip(INPUTS[kind], (first, second), strict=True)
    return _program(unit, builder, kind, at, {name: (at, features) for name, at in vectors})


def _program(
    unit: VectorConfig,
    builder: ProgramBuilder,
    name: str,
    constants_at: int,
    vectors: Mapping[str, tuple[int, int]],
) -> Program:
    """The program of a builder with one routine; its constants begin at `constants_at`."""
    steps = tuple(builder.end())
    words = np.zeros(builder.words, np.uint32)
    for address, patterns in builder.contents.items():
        words[address : address + len(patterns)] = patterns
    program = Program(
        steps=steps,
        routines={name: Routine(first=0, count=len(steps))},
        vectors={each: Vector(address=at, count=count) for each, (at, count) in vectors.items()},
        constants=words[constants_at:].view(np.float32),
        constants_at=constants_at,
        words=builder.words,
        layers=(),
    )
    program.check(unit)
    return program


def compare_calls(
    device: Device,
    calls: Sequence[Call],
    counts: Counts,
    *,
    eps: float,
    bfloat16: bool,
    progress: Progress,
) -> None:
    """Compute each operation alone on the device, with the inputs that it had, and compare.

    Parameters
    ----------
    device : with a vector unit
    calls : what a `Recorder` kept
    counts : counts the floats by kind
    eps : of the norms
    bfloat16 : whether the operations round to bfloat16
    progress : gets a line for each operation

    Raises
    ------
    CapacityError : a layer or a program does not fit
    InputError : a layer that the unit does not compute
    DeviceError : the device failed
    """
    unit = device.info.config.vector
    assert unit is not None
    for done, call in enumerate(calls, 1):
        layers = []
        if call.kind == "norm":
            assert isinstance(call.weight, np.ndarray)
            program = norm_program(unit, call.weight, eps, bfloat16=bfloat16)
        elif call.kind == "linear":
            assert isinstance(call.weight, TernaryLayer)
            program = linear_program(unit, call.weight, bfloat16=bfloat16)
            layers.append(device.load(call.weight))
        else:
            program = _pair_program(unit, call.kind, call.outputs[0].shape[1], bfloat16)
        handle = device.load_program(program, layers)
        routine = LINEAR if call.kind == "linear" else call.kind
        for inputs, expected in zip(call.inputs, call.outputs, strict=True):
            given = dict(zip(INPUTS[call.kind], inputs, strict=True))
            output = OUTPUTS[call.kind]
            counts.compare(call.kind, handle.run(routine, given, [output])[output], expected)
        handle.unload()
        for layer in layers:
            device.unload(layer)
        progress(f"{done} of {len(calls)} operations alone, {counts.unlike} floats differ")
