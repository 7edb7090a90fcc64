# amaranth: UnusedElaboratable=no
"""The vector unit against its interpreter: the same words, codes and `not_finite`, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil

from tests.support import quick_first
from tests.support.float_blocks import EDGES, any_floats, near_floats
from tests.support.vector_programs import feed_forward
from tests.support.vector_units import SUM_BITS, compare, run_unit
from tritloom.rtl.core.vector_pipeline import VectorPipeline
from tritloom.rtl.core.vector_unit import VectorUnit
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.errors import ConfigError, InputError
from tritloom.rtl.spec.rounding import round_to
from tritloom.rtl.spec.vector_cycles import program_cycles, step_cycles
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_operations import ProgramBuilder
from tritloom.rtl.spec.vector_program import (
    Factor,
    Operation,
    Second,
    Step,
    check_program,
)

WORDS = 128
CONFIGS = {
    "two lanes": VectorConfig(words=WORDS, lanes=2),
    "four lanes": VectorConfig(words=WORDS, lanes=4, multipliers=2, bfloat16=True),
    "float32": VectorConfig(words=WORDS),
    "bfloat16": VectorConfig(words=WORDS, bfloat16=True),
    "two": VectorConfig(words=WORDS, multipliers=2, bfloat16=True),
}
END = Step(operation=Operation.END)
TOP = 1 << (SUM_BITS - 1)
SUMS = [0, 1, -1, TOP - 1, -TOP, 0x10101, -0x18080, 255, 257]
FLOWS = [(0.0, 0.0), (0.5, 0.3), (0.2, 0.9)]

CYCLES = {
    (False, 1, 1): 6748,
    (True, 1, 1): 6874,
    (False, 2, 1): 5074,
    (True, 2, 1): 5226,
    (False, 2, 2): 3264,
    (True, 2, 4): 2628,
}
"""Of the vector unit for tinylm's feed-forward, by bfloat16, multipliers and lanes."""

configs = quick_first("config", [*CONFIGS.values()][::-1], [*CONFIGS][::-1])


def product(factor=Factor.VECTOR, **fields):
    return Step(operation=Operation.PRODUCT, factor=factor, **fields)


def words_of(rng, count=WORDS):
    """Words around 1, and a few of any size, edges of the format among them."""
    words = near_floats(rng, count, 4)
    where = rng.random(count)
    words = np.where(where < 0.1, any_floats(rng, count), words)
    return np.where(where > 0.9, rng.choice(np.array(EDGES, np.uint32), count), words)


def core(layer, codes):
    """Sums of a layer with as many outputs as its index."""
    sums = np.resize(SUMS, layer) + int(codes.astype(int).sum()) * (np.arange(layer) % 3)
    return np.clip(sums, -TOP, TOP - 1)


def any_step(rng, config, **fields):
    """A step with random fields that `check_program` accepts; those in `fields` as they are."""
    while True:
        operations = [Operation.PRODUCT] * 6 + [Operation.DIVIDE, Operation.ROOT]
        operation = Operation(int(rng.choice(operations)))
        values = {
            "operation": operation,
            "bfloat16": config.bfloat16 and rng.random() < 0.5,
            **{name: int(rng.integers(WORDS)) for name in "ad"},
        }
        if operation == Operation.PRODUCT:
            values["factor"] = Factor(int(rng.integers(4)))
            values["count"] = int(rng.choice([1, 2, 3, 16, 33, 40, 70]))
            values["relu"] = rng.random() < 0.3
            values["add"] = rng.random() < 0.5
            values["wrap"] = rng.random() < 0.4
            if config.multipliers == 2:
                values["second"] = Second(int(rng.integers(4)))
            if values.get("second") in (Second.VECTOR, Second.SCALAR):
                values["c"] = int(rng.integers(WORDS))
        if operation != Operation.ROOT and values.get("factor") != Factor.SAME:
            values["b"] = int(rng.integers(WORDS))
        if values.get("wrap"):
            values["d"] = values["d"] // 32 * 32
        step = Step(**values | fields)
        if step.operation != operation:
            continue
        try:
            check_program([replace(step, from_core=False, codes=False), END], config, {})
        except InputError:
            continue
        return step


def any_program(rng, config, steps, layers):
    """Random steps, a MAXIMUM, and a RUN whose codes and results are two steps each."""
    program = [any_step(rng, config) for _ in range(steps)]
    taken = any_step(rng, config, operation=Operation.PRODUCT, a=0, add=False, wrap=False)
    coded = any_step(rng, config, operation=Operation.PRODUCT, d=0, add=False, wrap=False)
    results = taken.count
    program += [
        product(count=5, a=3, b=20, d=40),
        Step(operation=Operation.MAXIMUM, d=int(rng.integers(WORDS))),
        replace(coded, codes=True),
        product(Factor.SCALAR, count=2, a=9, b=8, codes=True, bfloat16=config.bfloat16),
        Step(operation=Operation.RUN, a=2 * results),
        replace(taken, from_core=True),
        product(Factor.DIVISOR, count=results, b=5, d=taken.d, from_core=True, bfloat16=False),
        any_step(rng, config),
        END,
    ]
    layers[2 * results] = (2 * results, coded.count + 2)
    return program


def check_random(config, seed, steps, idle=0.0, pause=0.0):
    rng = np.random.default_rng(seed)
    programs = []
    while len(programs) < 2:
        layers = {}
        program = any_program(rng, config, steps, layers)
        try:
            check_program(program, config, layers)
        except InputError:
            continue
        programs.append((program, layers))
    for program, layers in programs:
        flow = {"idle": idle, "pause": pause, "seed": seed}
        (outcome,) = compare(config, words_of(rng), [program], core, layers, **flow)
        if idle == pause == 0:
            # A RUN waits until the last code is out of the queue.
            waits = outcome.cycles - outcome.stalls - program_cycles(program, config)
            assert 0 <= waits <= 6


@pytest.mark.sim
@configs
@pytest.mark.parametrize("flow", range(len(FLOWS)))
def test_random_programs(config, flow):
    check_random(config, 10 + flow, 6, *FLOWS[flow])


@pytest.mark.slow
@configs
@pytest.mark.parametrize("seed", range(12))
def test_many_random_programs(config, seed):
    check_random(config, 1000 + seed, 15, *FLOWS[seed % len(FLOWS)])


@pytest.mark.sim
@configs
def test_step_cycles(config):
    """The contract of cycles, step by step; none of them waits."""
    rng = np.random.default_rng(2)
    words = near_floats(rng, WORDS, 3)
    steps = [
        product(count=1),
        product(count=40, a=40, b=80),
        product(Factor.SAME, count=33, a=64, add=True, wrap=True),
        product(Factor.SCALAR, count=7, b=9, d=20, add=True),
        product(Factor.DIVISOR, count=3, b=9, d=20),
        Step(operation=Operation.DIVIDE, a=1, b=2, d=3),
        Step(operation=Operation.ROOT, a=1, d=3),
    ]
    if config.multipliers == 2:
        steps += [
            product(Factor.SAME, second=Second.SCALAR, count=3, a=9, c=80, d=20),
            product(Factor.DIVISOR, second=Second.SCALAR, count=3, b=9, c=80, d=20, add=True),
            product(Factor.SCALAR, second=Second.VECTOR, count=5, b=9, c=80, d=20),
            product(second=Second.SAME, count=5, b=9, d=20, relu=True),
        ]
    programs = [[step, END] for step in steps]
    programs.append([steps[0], Step(operation=Operation.MAXIMUM), END])
    outcomes = compare(config, words, [[END], *programs])
    for outcome, program in zip(outcomes, [[END], *programs], strict=True):
        assert outcome.cycles == program_cycles(program, config)
        assert outcome.stalls == 0
    two, narrow = config.multipliers == 2, config.bfloat16
    beside = 18 + 3 * narrow + two * (5 + narrow)
    assert step_cycles(product(count=100), config) == 100 // config.lanes + beside


@pytest.mark.sim
@configs
def test_results_are_read_at_once(config):
    """Each step reads the last word that the step before it wrote, as a vector or a scalar."""
    words = near_floats(np.random.default_rng(4), WORDS, 1)
    steps = [
        product(count=3, a=0, b=10, d=20),
        product(count=1, a=22, b=22, d=23),
        product(Factor.SCALAR, count=2, a=22, b=23, d=24),
        product(Factor.SAME, count=1, a=25, d=26),
        product(Factor.SAME, count=1, a=1, d=26, add=True),
        Step(operation=Operation.MAXIMUM, d=27),
        product(count=1, a=27, b=26, d=28),
        Step(operation=Operation.DIVIDE, a=27, b=28, d=29),
        product(count=1, a=29, b=29, d=30),
        Step(operation=Operation.ROOT, a=30, d=31),
        product(Factor.DIVISOR, count=1, a=0, b=31, d=32),
        Step(operation=Operation.DIVIDE, a=32, b=31, d=33),
        Step(operation=Operation.ROOT, a=33, d=34),
        END,
    ]
    compare(config, words & 0x7FFFFFFF, [steps])


@configs
def test_floor_of_the_maximum(config):
    """A scale is made of 1e-5 at least; as bfloat16 that is another number."""
    floors = (numerics.SCALE_FLOOR, round_to(numerics.SCALE_FLOOR, True))
    numbers = [1.0, 0.0, *floors, np.nextafter(floors[0], 0), -np.nextafter(floors[1], 1)]
    words = np.zeros(WORDS, np.float32)
    words[: len(numbers)] = numbers
    programs = [
        [
            product(Factor.SCALAR, count=1, a=a, d=20, bfloat16=bfloat16),
            Step(operation=Operation.MAXIMUM, d=21),
            END,
        ]
        for bfloat16 in sorted({False, config.bfloat16})
        for a in range(1, len(numbers))
    ]
    compare(config, words.view(np.uint32), programs)


@configs
def test_converts(config):
    """No signal has two drivers, which only a conversion notices."""
    assert "module" in rtlil.convert(VectorUnit(config, SUM_BITS), name="top", emit_src=False)


@configs
def test_wrapped_sums(config):
    """The same sum takes its next element 32 cycles later, beginning at any multiple of 32."""
    words = near_floats(np.random.default_rng(6), WORDS, 2)
    for bfloat16 in {False, config.bfloat16}:
        step = product(Factor.SAME, a=0, add=True, wrap=True, bfloat16=bfloat16)
        compare(
            config,
            words,
            [[replace(step, count=96, d=96), END], [replace(step, a=32, count=64), END]],
        )


@pytest.mark.sim
def test_not_finite():
    """Sticky to the end of the program; a program without it clears it. Codes are watched too."""
    config = CONFIGS["float32"]
    words = np.full(WORDS, np.float32(1).view(np.uint32))
    words[1], words[2], words[3], words[4], words[5] = (
        0x7FC00000,
        0,
        0x7E800000,
        0x7E7FFFFF,
        0xFFC00000,
    )
    ok = [product(count=1, a=4, b=10, d=20), END]
    programs = [
        ok,
        [product(count=1, a=3, b=10, d=20), product(count=1, a=10, b=10, d=21), END],
        ok,
        [product(count=1, a=1, b=2, d=20), END],
        [product(count=1, a=5, b=10, d=20, relu=True), END],
        ok,
        [Step(operation=Operation.DIVIDE, a=10, b=2, d=20), product(count=1, a=2, b=2, d=21), END],
        [product(Factor.DIVISOR, count=1, a=10, b=2, d=20), END],
        [
            product(count=1, a=10, b=1, codes=True),
            Step(operation=Operation.RUN, a=1),
            product(count=1, b=10, d=20, from_core=True),
            END,
        ],
    ]
    outcomes = compare(config, words, programs, core, {1: (1, 1)})
    flags = [outcome.not_finite for outcome in outcomes]
    assert flags == [False, True, False, True, True, False, True, True, True]


@pytest.mark.sim
def test_slow_core():
    """More codes than the queue holds wait for the core, and so does the layer."""
    config = CONFIGS["float32"]
    words = near_floats(np.random.default_rng(9), WORDS, 4)
    program = [
        product(count=100, b=10, codes=True),
        Step(operation=Operation.RUN, a=50),
        product(Factor.SCALAR, count=50, b=3, d=40, from_core=True, relu=True),
        END,
    ]
    quick, slow = (
        compare(config, words, [program], core, {50: (50, 100)}, pause=pause, idle=pause)[0]
        for pause in (0.0, 0.9)
    )
    assert quick.stalls <= 2
    assert slow.stalls > 500
    assert len(slow.codes) == 100


@pytest.mark.sim
@pytest.mark.parametrize("sum_bits", [2, 18, 25])
def test_sum_bits(sum_bits):
    """Extremes of the core's results, in any width that is converted without a rounding."""
    top = 1 << (sum_bits - 1)
    sums = np.array([0, 1, -1, top - 1, -top, 1 - top, top >> 1, -(top >> 1)])
    words = near_floats(np.random.default_rng(9), 64, 4)
    program = [
        product(count=1, codes=True),
        Step(operation=Operation.RUN, a=3),
        product(Factor.DIVISOR, count=8, b=3, d=40, from_core=True),
        END,
    ]
    config = VectorConfig(words=64)
    compare(config, words, [program], lambda layer, codes: sums, {3: (8, 1)}, sum_bits=sum_bits)


@pytest.mark.parametrize("sum_bits", [1, 26])
def test_sum_bits_refused(sum_bits):
    with pytest.raises(ConfigError) as error:
        VectorPipeline(VectorConfig(), sum_bits)
    assert str(error.value) == f"sum_bits must be 2 to 25, not {sum_bits}"


def check_feed_forward(
    bfloat16, features, inner, seed, *, words=512, multipliers=1, lanes=1, **flow
):
    config = VectorConfig(words=words, bfloat16=bfloat16, multipliers=multipliers, lanes=lanes)
    contents, steps, trits, x_at, expected = feed_forward(config, bfloat16, features, inner, seed)

    def product_of(layer, codes):
        return numerics.matmul(trits[layer], codes[None])[0]

    layers = {index: matrix.shape for index, matrix in trits.items()}
    (outcome,) = compare(config, contents, [steps], product_of, layers, **flow)
    results = outcome.words[x_at : x_at + features]
    assert (results == expected.view(np.uint32)).all()
    assert not outcome.not_finite
    return outcome, program_cycles(steps, config)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("bfloat16", "multipliers", "lanes"), [(False, 1, 1), (True, 2, 1), (False, 1, 2), (True, 2, 4)]
)
def test_feed_forward(bfloat16, multipliers, lanes):
    """A whole block of a model, equal to the golden model; with odd sizes on several lanes."""
    features, inner = (40, 64) if lanes == 1 else (37, 61)
    options = {"multipliers": multipliers, "lanes": lanes, "idle": 0.3, "pause": 0.3}
    check_feed_forward(bfloat16, features, inner, 3, **options)


@pytest.mark.sim
@pytest.mark.parametrize("lanes", [2, 4])
@pytest.mark.parametrize("features", [1, 3, 7, 9, 31, 45, 64, 101])
def test_norm_on_lanes(lanes, features):
    """PyTorch's order of sums, with any remainder of rows, at odd addresses."""
    config = VectorConfig(words=512, lanes=lanes, multipliers=2)
    rng = np.random.default_rng(features)
    builder = ProgramBuilder(config)
    builder.reserve(int(rng.integers(1, 8)))
    x, weight = (rng.normal(0, 1, features).astype(np.float32) for _ in range(2))
    at, weight_at = builder.place(x), builder.place(weight)
    to = builder.reserve(features)
    builder.rms_norm(at, features, weight_at, 1e-5, to)
    words = np.zeros(512, np.uint32)
    for address, patterns in builder.contents.items():
        words[address : address + len(patterns)] = patterns
    (outcome,) = compare(config, words, [builder.end()])
    expected = numerics.rms_norm(x[None], weight, 1e-5)[0]
    assert (outcome.words[to : to + features] == expected.view(np.uint32)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("bfloat16", "multipliers", "lanes"), CYCLES)
def test_tinylm_feed_forward(bfloat16, multipliers, lanes):
    """The shapes of tinylm, and what the program takes beside a core that never makes it wait."""
    outcome, cycles = check_feed_forward(
        bfloat16, 256, 512, 1, words=4096, multipliers=multipliers, lanes=lanes
    )
    assert 0 <= outcome.cycles - outcome.stalls - cycles <= 10
    assert cycles == CYCLES[bfloat16, multipliers, lanes]


def test_deadline():
    """A program that waits for a core that gives nothing is noticed by the tests' deadline."""
    program = [product(count=1, a=0, b=1, d=2, from_core=True), END]
    with pytest.raises(TimeoutError, match="not done in 300 cycles"):
        run_unit(VectorConfig(words=64), np.zeros(64, np.uint32), [program], deadline_cycles=300)
