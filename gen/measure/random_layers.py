"""Measures random norms and layers of a known model's shapes on a vector unit, with hard inputs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritloom.gen.flow.tools import Progress
from tritloom.gen.measure.block import device_of, reference
from tritloom.gen.measure.operations import Call, Counts, Recorder, compare_calls
from tritloom.gen.workloads import MIXES
from tritloom.host.device import connect
from tritloom.host.layer import TernaryLayer
from tritloom.host.models.decoder import Decoder
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.float_units import FLOAT32
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.rounding import round_to
from tritloom.rtl.spec.vector_facts import WRAP_WORDS

__all__ = ["hard_inputs", "hard_layer", "hard_sums", "measure_random_layers", "norm_inputs"]

F32 = NDArray[np.float32]

EPS = 1e-5
SEGMENTS = 4
"""Runs of rows with a scale of their own: one divisor each."""
SPARE_WORDS = 512
"""Vector words beside two vectors: sums of a norm, scales and other constants."""
ABSMAX = 127
"""With this greatest magnitude the scale of codes is 1, so a code is its rounded input, and the
divisor of the sums is the layer's scale."""
FARTHEST = 255
"""How many times the least possible distance a hard quotient is from the half of its last place."""


def measure_random_layers(
    model: str,
    url: str,
    tokens: int,
    rows: int | None = None,
    progress: Progress = lambda line: None,
    *,
    bfloat16: bool = False,
    lanes: int | None = None,
) -> dict[str, Any]:
    """Compute random layers and norms of a model's shapes on a device, and compare each float.

    Parameters
    ----------
    model : one of `MIXES`
    url : of a device with a vector unit; a simulated one gets room for these shapes
    tokens : of each layer and norm
    rows : most rows of a layer; all by default
    progress : gets lines about the progress
    bfloat16 : whether the operations round to bfloat16
    lanes : of the unit that a simulated device gets; the device's own by default

    Returns
    -------
    An object that `tritloom measure block --help` explains.

    Raises
    ------
    ConfigError : the device has no vector unit
    CapacityError : a layer or a norm does not fit
    DeviceError : the device failed
    """
    mix = MIXES[model][1]
    shapes = sorted({(out if rows is None else min(out, rows), given) for _, given, out, _ in mix})
    widths = sorted({given for _, given in shapes})
    opened, config = device_of(
        url, bfloat16=bfloat16, lanes=lanes, needs=lambda known: _with_room(known, shapes)
    )
    rng = np.random.default_rng(2)
    decoder = Decoder(
        blocks=(),
        hidden=widths[0],
        inner=widths[-1],
        queries=0,
        keys=0,
        final_norm=np.zeros(0, np.float32),
        eps=EPS,
        bfloat16=bfloat16,
    )
    against, golden = reference(decoder)
    counts = Counts()
    with connect(opened, config=config) as device:
        for features in widths:
            recorder = Recorder(decoder, golden)
            weight = round_to(rng.normal(1, 0.5, features).astype(np.float32), bfloat16)
            recorder.norm(round_to(norm_inputs(rng, features, tokens), bfloat16), weight)
            gate, up = (
                round_to(rng.normal(0, 2, (tokens, features)).astype(np.float32), bfloat16)
                for _ in range(2)
            )
            recorder.activation(gate, up)
            recorder.add(gate, up)
            _compare(device, recorder, counts, bfloat16, progress)
        for out, given in shapes:
            recorder = Recorder(decoder, golden)
            layer = hard_layer(rng, out, given)
            recorder.linear(layer, round_to(hard_inputs(rng, given, tokens), bfloat16))
            _compare(device, recorder, counts, bfloat16, progress)
        used = device.info.config
    words = ["tritloom", "measure", "block", model, "--device", url, "--tokens", str(tokens)]
    words += ([] if rows is None else ["--rows", str(rows)]) + ["--bfloat16"] * bfloat16
    words += [] if lanes is None else ["--lanes", str(lanes)]
    return {
        "model": model,
        "device": url,
        "tokens": tokens,
        "bfloat16": bfloat16,
        "layers": [f"{out} × {given}" for out, given in shapes],
        "norms": widths,
        "against": against,
        **counts.figures(),
        "config": used.to_dict(),
        "command": shlex.join(words),
    }


def _compare(
    device: Any, recorder: Recorder, counts: Counts, bfloat16: bool, progress: Progress
) -> None:
    calls: Sequence[Call] = list(recorder.calls.values())
    compare_calls(device, calls, counts, eps=EPS, bfloat16=bfloat16, progress=progress)


def _with_room(config: AcceleratorConfig, shapes: Sequence[tuple[int, int]]) -> AcceleratorConfig:
    """The configuration with room for each of the layers, one at a time."""
    unit = config.vector
    assert unit is not None
    widest = max(max(shape) for shape in shapes)
    inputs = max(given for _, given in shapes)
    words = -(-(2 * widest + SPARE_WORDS) // WRAP_WORDS) * WRAP_WORDS
    tiles = -(-inputs // config.lanes)
    config = replace(
        config,
        max_in_features=max(config.max_in_features, tiles * config.lanes),
        max_out_features=max(config.max_out_features, _whole(config, shapes)),
        vector=replace(unit, words=max(unit.words, words)),
    )
    needed = max(LayerShape.of(config, *shape).words for shape in shapes)
    if not hasattr(config.memory, "words"):
        raise ConfigError(f"the weight memory {config.memory} has no words; name another device")
    return replace(config, memory=replace(config.memory, words=max(config.memory.words, needed)))


def _whole(config: AcceleratorConfig, shapes: Sequence[tuple[int, int]]) -> int:
    """The most rows of the layers, as whole row groups."""
    return -(-max(out for out, _ in shapes) // config.rows) * config.rows


def norm_inputs(rng: np.random.Generator, features: int, tokens: int) -> F32:
    """Inputs of norms, float32 `[tokens, features]`.

    They are of every size for which neither squares nor outputs are subnormal, some all zero, some
    all alike, and some with one number that is far greater than all others.
    """
    x = rng.normal(0, 1, (tokens, features)) * 2.0 ** rng.integers(-30, 30, (tokens, 1))
    x[1::8] = 0
    x[2::8] = x[2::8, :1]
    x[3::8, features // 2] *= 2.0**16
    x[4::8, ::3] = 0
    return x.astype(np.float32)


def hard_inputs(rng: np.random.Generator, features: int, tokens: int) -> F32:
    """Inputs of a BitLinear, float32 `[tokens, features]`, of eight kinds in turn.

    0. 127, and below it a half of each power of two: with `hard_layer` the hardest quotients.
    1. All codes are ties, or nearly.
    2. Zeros of both signs.
    3. Subnormal numbers, whose greatest magnitude is below the smallest scale.
    4. Subnormal numbers beside 1.
    5. Any magnitudes up to 2^120.
    6. Magnitudes around the floor 1e-5 of the scale.
    7. Normally distributed.
    """
    x = rng.normal(0, 1, (tokens, features)).astype(np.float32)
    signs = rng.choice(np.array([-1, 1], np.float32), (tokens, features))
    subnormal = signs * np.float32(2.0**-140) * rng.integers(0, 1 << 13, x.shape)
    for token in range(tokens):
        match token % 8:
            case 0:
                x[token] = ABSMAX
                x[token, -7:] = 2.0 ** np.arange(6, -1, -1)
            case 1:
                x[token] = rng.integers(-ABSMAX, ABSMAX, features) + 0.5
                near = rng.random(features) < 0.3
                x[token, near] = np.nextafter(x[token, near], np.float32(0))
                x[token, 0] = ABSMAX
            case 2:
                x[token] = 0 * signs[token]
            case 3:
                x[token] = subnormal[token]
            case 4:
                x[token] = subnormal[token]
                x[token, 0] = 1
            case 5:
                x[token] *= 2.0 ** rng.integers(-120, 117, features).astype(np.float32)
            case 6:
                x[token] = 1e-5 * rng.uniform(-2, 2) * rng.random(features)
    return x


def hard_layer(rng: np.random.Generator, out: int, given: int) -> TernaryLayer:
    """A layer with scales that divide, one for each segment of rows.

    Its first rows have the sums that are hardest to divide by their scale when the input is the
    first of `hard_inputs`; the others are random.
    """
    trits = rng.integers(-1, 2, (out, given), dtype=np.int8)
    scales = np.empty(out, np.float32)
    limit = ABSMAX * (given - 7)
    for rows in np.array_split(np.arange(out), min(SEGMENTS, out)):
        divisor = int(rng.integers(1 << 22, 1 << 23)) * 2 + 1
        scales[rows] = np.float32(divisor * 2.0 ** int(rng.integers(-30, 0)))
        for row, total in zip(rows, hard_sums(divisor, limit), strict=False):
            whole, rest = divmod(total, ABSMAX)
            trits[row] = 0
            trits[row, :whole] = 1
            trits[row, -7:] = [rest >> bit & 1 for bit in range(6, -1, -1)]
            trits[row] *= rng.choice(np.array([-1, 1], np.int8))
    return TernaryLayer.from_trits(trits, scales, scale_divides=True)


def hard_sums(divisor: int, limit: int) -> list[int]:
    """Sums below `limit` whose quotients by an odd divisor of 24 bits are near a half.

    The quotient A / D is near the half between two float32 if 2^k · A is c modulo 2 · D, for a
    small odd c, where 2^(k-1) · A / D has 24 bits. The hardest come first.
    """
    p = FLOAT32.precision
    sums: dict[int, int] = {}
    for power in range(p, 2 * p + 1):
        inverse = pow(pow(2, power, divisor), -1, divisor)
        for distance in range(1, FARTHEST + 1, 2):
            for sign in (1, -1):
                total = sign * distance * inverse % divisor
                quotient = (total << (power - 1)) // divisor
                if total < limit and quotient.bit_length() == p:
                    sums.setdefault(total, distance)
    return sorted(sums, key=lambda total: (sums[total], total))
