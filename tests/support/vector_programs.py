"""Programs of the vector unit for tests, and what they must give."""

import numpy as np

from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.rounding import round_to
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_operations import ProgramBuilder
from tritloom.rtl.spec.vector_program import Step


def random_vector(
    rng: np.random.Generator, count: int, bfloat16: bool, spread: float = 3.0
) -> np.ndarray:
    """Numbers whose sizes differ by up to 2^spread, both ways."""
    size = np.exp2(rng.uniform(-spread, spread, count))
    return round_to((rng.standard_normal(count) * size).astype(np.float32), bfloat16)


def feed_forward(
    config: VectorConfig, bfloat16: bool, features: int, inner: int, seed: int
) -> tuple[np.ndarray, list[Step], dict[int, np.ndarray], int, np.ndarray]:
    """A feed-forward with random weights.

    Gate and up are one layer. Returns the words before the program, its steps, the trits of its
    layers, the address of x, and the output that takes its place by the golden model.
    """
    rng = np.random.default_rng(seed)
    x = random_vector(rng, features, bfloat16, 1)
    weights = [random_vector(rng, count, bfloat16, 0.5) for count in (features, inner)]
    trits = {
        0: rng.integers(-1, 2, (2 * inner, features), np.int8),
        1: rng.integers(-1, 2, (features, inner), np.int8),
    }
    scales = np.abs(random_vector(rng, 3, bfloat16, 1))
    program = ProgramBuilder(config, bfloat16=bfloat16)
    x_at, scale_at = program.place(x), program.place(scales)
    weight_at = [program.place(weight) for weight in weights]
    normed, work = program.reserve(features), program.reserve(2 * inner)
    s = program.reserve(1)
    program.rms_norm(x_at, features, weight_at[0], 1e-5, normed)
    program.quantize(normed, features, s, measured=True)
    program.run(0)
    if config.multipliers == 2:
        program.rescale_gated(inner, s, scale_at, scale_at + 1, work, work + inner)
    else:
        for part in range(2):
            program.rescale(inner, s, scale_at + part, work + part * inner, scale_divides=True)
        program.relu2_times(work, work + inner, inner)
    program.rms_norm(work, inner, weight_at[1], 1e-5, work)
    program.quantize(work, inner, s, measured=True)
    program.run(1)
    program.rescale(features, s, scale_at + 2, normed, scale_divides=True, residual=x_at)
    steps = program.end()
    words = np.zeros(program.words, np.uint32)
    for address, patterns in program.contents.items():
        words[address : address + len(patterns)] = patterns

    hidden = numerics.rms_norm(x[None], weights[0], 1e-5, bfloat16)
    gate, up = (
        numerics.bitlinear(hidden, half, scale, True, None, bfloat16)
        for half, scale in zip((trits[0][:inner], trits[0][inner:]), scales[:2], strict=True)
    )
    inner_x = numerics.relu2_times(gate, up, bfloat16)
    hidden = numerics.rms_norm(inner_x, weights[1], 1e-5, bfloat16)
    y = numerics.bitlinear(hidden, trits[1], scales[2], True, None, bfloat16)
    return words, steps, trits, x_at, numerics.add_residual(x[None], y, bfloat16)[0]
