"""Programs of a model's operations, interpreted, against `numerics`: the same bits."""

import sys

import numpy as np
import pytest

from tests.support.vector_programs import feed_forward, random_vector
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.errors import CapacityError, InputError
from tritloom.rtl.spec.rounding import round_to, sum_in_order
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_interpreter import VectorInterpreter
from tritloom.rtl.spec.vector_operations import ProgramBuilder
from tritloom.rtl.spec.vector_program import check_program

EPS = 1e-5
LENGTHS = [1, 2, 3, 4, 5, 7, 8, 11, 16, 31, 32, 33, 40, 63, 64, 100, 256, 300, 511, 512, 513]
LENGTHS += [555, 1024, 1543, 2560, 6912]
"""With and without whole rows, whole vectors and whole blocks."""
LONG_LENGTHS = [8160, 8192, 8193, 8704, 9000, 16384, 17000, 24576, 32767]
"""With the third level of sums."""

formats = pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])


multipliers = 1


@pytest.fixture(params=[1, 2], ids=["one", "two"], autouse=True)
def _multipliers(request, monkeypatch):
    """Every test is made with a unit of one and of two multipliers."""
    monkeypatch.setattr(sys.modules[__name__], "multipliers", request.param)


def unit_config(bfloat16, words):
    return VectorConfig(words=words, bfloat16=bfloat16, multipliers=multipliers)


def builder(bfloat16, words=4096):
    return ProgramBuilder(unit_config(bfloat16, words), bfloat16=bfloat16)


def interpreter(config, layers, core=None):
    """The unit beside a core that has the trits of `layers`."""

    def product(index, codes):
        return numerics.matmul(layers[index], codes[None])[0]

    return VectorInterpreter(config, core or product)


def execute(program, layers=None, core=None):
    """The memory after a program, as floats, and the interpreter."""
    steps = program.end()
    committed = {index: trits.shape for index, trits in (layers or {}).items()}
    check_program(steps, program.config, committed)

    unit = interpreter(program.config, layers, core)
    for address, patterns in program.contents.items():
        unit.memory[address : address + len(patterns)] = patterns
    unit.run(steps)
    return unit.memory.view(np.float32), unit


def same(left, right):
    return np.array_equal(
        np.asarray(left, np.float32).view(np.uint32), np.asarray(right, np.float32).view(np.uint32)
    )


def check_norm(features, bfloat16, seed=0):
    rng = np.random.default_rng(features + seed)
    program = builder(bfloat16, 65536)
    x, weight = random_vector(rng, features, bfloat16), random_vector(rng, features, bfloat16, 0.5)
    x_at, weight_at, to = program.place(x), program.place(weight), program.reserve(features)
    program.rms_norm(x_at, features, weight_at, EPS, to)
    program.rms_norm(x_at, features, weight_at, EPS, x_at)  # in place
    memory, unit = execute(program)
    expected = numerics.rms_norm(x, weight, EPS, bfloat16)
    assert same(memory[to : to + features], expected)
    assert same(memory[x_at : x_at + features], expected)
    assert not unit.not_finite


@formats
@pytest.mark.parametrize("features", LENGTHS)
def test_rms_norm(features, bfloat16):
    check_norm(features, bfloat16)


def check_sum(features, seed=0):
    rng = np.random.default_rng(features + seed)
    x = random_vector(rng, features, False)
    program = builder(False, 65536)
    total = program.sum_of_squares(program.place(x), features)
    memory, _ = execute(program)
    assert memory[total] == sum_in_order(np.square(x))


@pytest.mark.parametrize("features", LONG_LENGTHS)
def test_long_sums(features):
    check_sum(features)


@pytest.mark.slow
def test_many_sums():
    """Every length of short rows, and the lengths of models, with many vectors."""
    for features in range(1, 1200):
        check_sum(features)
    for features in LENGTHS + LONG_LENGTHS:
        for seed in range(1, 9):
            check_sum(features, seed)


@pytest.mark.parametrize("features", [0, 32768])
def test_norm_refused(features):
    program = builder(False, 65536)
    with pytest.raises(InputError) as error:
        program.sum_of_squares(0, features)
    assert str(error.value) == f"a norm must have 1 to 32767 features, not {features}"


def linear_case(rng, bfloat16, out_features, in_features):
    x = random_vector(rng, in_features, bfloat16)
    trits = rng.integers(-1, 2, (out_features, in_features), np.int8)
    return x, trits


@formats
@pytest.mark.parametrize("convention", ["divides", "multiplies", "per row"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
def test_linear(bfloat16, convention, with_bias, with_residual):
    rng = np.random.default_rng(21)
    for out_features, in_features in ((24, 40), (50, 333), (1, 7)):
        x, trits = linear_case(rng, bfloat16, out_features, in_features)
        scale = random_vector(rng, out_features if convention == "per row" else 1, bfloat16)
        bias = random_vector(rng, out_features, bfloat16) if with_bias else None
        program = builder(bfloat16)
        x_at, scale_at = program.place(x), program.place(scale)
        bias_at = None if bias is None else program.place(bias)
        s_at, to = program.reserve(1), program.reserve(out_features)
        hidden = random_vector(rng, out_features, bfloat16)
        hidden_at = program.place(hidden) if with_residual else None
        program.quantize(x_at, in_features, s_at)
        program.run(9)
        program.rescale(
            out_features, s_at, scale_at, to, bias=bias_at, residual=hidden_at,
            scale_divides=convention == "divides", scale_per_row=convention == "per row",
        )  # fmt: skip
        memory, unit = execute(program, {9: trits})
        _, s = numerics.absmax_quantize(x[None], bfloat16)
        assert memory[s_at] == s[0, 0]
        expected = numerics.bitlinear(
            x[None], trits, scale if convention == "per row" else scale[0],
            convention == "divides", bias, bfloat16,
        )  # fmt: skip
        if hidden_at is not None:
            to, expected = hidden_at, numerics.add_residual(hidden[None], expected, bfloat16)
        assert same(memory[to : to + out_features], expected[0])
        assert not unit.not_finite


@formats
def test_gated(bfloat16):
    """Gate and up of one layer, with scales of either sign, so that relu sees the right one."""
    rng = np.random.default_rng(22)
    config = VectorConfig(multipliers=2, bfloat16=bfloat16)
    for signs in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        x, trits = linear_case(rng, bfloat16, 2 * 37, 50)
        scales = np.abs(random_vector(rng, 2, bfloat16)) * np.float32(signs)
        program = ProgramBuilder(config, bfloat16=bfloat16)
        x_at, scale_at, s = program.place(x), program.place(scales), program.reserve(1)
        to, divisor = program.reserve(37), program.reserve(1)
        program.quantize(x_at, 50, s)
        program.run(2)
        program.rescale_gated(37, s, scale_at, scale_at + 1, to, divisor)
        memory, _ = execute(program, {2: trits})
        gate, up = (
            numerics.bitlinear(x[None], half, scale, True, None, bfloat16)
            for half, scale in zip((trits[:37], trits[37:]), scales, strict=True)
        )
        assert same(memory[to : to + 37], numerics.relu2_times(gate, up, bfloat16)[0])


@formats
def test_codes(bfloat16):
    """Ties, zeros, and in bfloat16 the code −128."""
    rng = np.random.default_rng(3)
    for case in range(40):
        x = random_vector(rng, 64, bfloat16)
        if case % 2:
            x = round_to(rng.integers(-254, 255, 64) / np.float32(2), bfloat16)
        if case == 4:
            x = np.zeros(64, np.float32)
        received = []

        def core(layer, codes, received=received):
            received.append(codes)
            return np.zeros(1, np.int32)

        program = builder(bfloat16)
        x_at, s = program.place(x), program.reserve(1)
        program.quantize(x_at, 64, s)
        program.run(0)
        program.rescale(1, s, program.constant(1.0), s, scale_divides=True)
        execute(program, {0: np.zeros((1, 64), np.int8)}, core)
        assert (received[0] == numerics.absmax_quantize(x[None], bfloat16)[0][0]).all()


def test_scale_per_row_must_multiply():
    with pytest.raises(InputError) as error:
        builder(False).rescale(2, 0, 1, 2, scale_divides=True, scale_per_row=True)
    assert str(error.value) == "a scale per row must multiply: scale_divides must be False"


@formats
def test_element_wise(bfloat16):
    """relu² · up, the residual and the rotary embedding, signs of zero among them."""
    rng = np.random.default_rng(8)
    count = 64
    gate, up, x, y, cos, sin = (random_vector(rng, count, bfloat16) for _ in range(6))
    gate[:4], up[:4] = [0.0, -0.0, -1.0, 1.0], [-1.0, 1.0, -2.0, -0.0]
    x[:3], y[:3] = [0.0, -0.0, 1.5], [-0.0, -0.0, -1.5]
    signed_sin = np.concatenate([-sin[: count // 2], sin[count // 2 :]])
    program = builder(bfloat16)
    places = [program.place(values) for values in (gate, up, x, y, x, cos, signed_sin)]
    gate_at, up_at, x_at, y_at, turned_at, cos_at, sin_at = places
    program.relu2_times(gate_at, up_at, count)
    program.add_residual(x_at, y_at, count)
    program.rotate(turned_at, cos_at, sin_at, count, program.reserve(count))
    memory, _ = execute(program)
    assert same(memory[gate_at:][:count], numerics.relu2_times(gate, up, bfloat16))
    assert same(memory[x_at:][:count], numerics.add_residual(x, y, bfloat16))
    assert same(memory[turned_at:][:count], numerics.rotate(x, cos, sin, bfloat16))


@formats
def test_feed_forward(bfloat16):
    """A whole block: norm, gate and up in one layer, relu² · up, norm, down, residual."""
    config = unit_config(bfloat16, 1024)
    for features, inner in ((48, 72), (100, 164)):
        words, steps, trits, x_at, expected = feed_forward(config, bfloat16, features, inner, 13)
        check_program(steps, config, {index: matrix.shape for index, matrix in trits.items()})
        unit = interpreter(config, trits)
        unit.memory[: len(words)] = words
        assert not unit.run(steps)
        assert same(unit.memory.view(np.float32)[x_at : x_at + features], expected)


def test_places():
    program = builder(False, 64)
    assert program.constant(2.0) == program.constant(2.0) == 0
    assert program.constant(-0.0) != program.constant(0.0)
    assert program.reserve(4, align=32) == 32
    with pytest.raises(CapacityError) as error:
        program.reserve(29)
    assert str(error.value) == "the vector memory has 64 words, 65 are needed"


def test_bfloat16_needs_the_unit():
    with pytest.raises(InputError) as error:
        ProgramBuilder(VectorConfig(), bfloat16=True)
    assert str(error.value) == "the unit has no bfloat16; build it with bfloat16 true"
