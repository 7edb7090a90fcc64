"""The interpreter: each kind of step against plain NumPy, and when a result is not finite."""

import numpy as np
import pytest

from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.rounding import to_bfloat16
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_interpreter import VectorInterpreter
from tritloom.rtl.spec.vector_program import Factor, Operation, Step, check_program

CONFIG = VectorConfig(words=256, bfloat16=True)
END = Step(operation=Operation.END)
COUNT = 40
A, B, D = 0, 64, 128


def product(factor=Factor.VECTOR, **fields):
    return Step(
        operation=Operation.PRODUCT,
        factor=factor,
        **({"count": COUNT, "a": A, "b": 0 if factor == Factor.SAME else B, "d": D} | fields),
    )


def machine(core=None):
    unit = VectorInterpreter(CONFIG, core)
    rng = np.random.default_rng(5)
    unit.memory[:] = rng.standard_normal(CONFIG.words).astype(np.float32).view(np.uint32)
    return unit


def run(*steps, unit=None, layers=None):
    """The words of a, b and d before the steps, those of d afterwards, and the unit."""
    unit = unit or machine()
    before = unit.memory.view(np.float32).copy()
    steps = [*steps, END]
    check_program(steps, CONFIG, layers or {})
    unit.run(steps)
    a, b, d = (before[start : start + COUNT] for start in (A, B, D))
    return a, b, d, unit.memory.view(np.float32)[D : D + COUNT], unit


def test_factors():
    a, b, _, result, _ = run(product())
    assert (result == a * b).all()
    a, b, _, result, _ = run(product(Factor.SCALAR))
    assert (result == a * b[0]).all()
    a, _, _, result, _ = run(product(Factor.SAME))
    assert (result == a * a).all()
    a, b, _, result, _ = run(product(Factor.DIVISOR))
    assert (result == a / b[0]).all()


def test_flags():
    a, b, d, result, _ = run(product(Factor.SCALAR, add=True))
    assert (result == a * b[0] + d).all()
    a, b, _, result, _ = run(product(relu=True))
    assert (result == np.maximum(a, 0) * b).all()
    a, b, d, result, _ = run(product(Factor.SCALAR, add=True, bfloat16=True))
    assert (result == to_bfloat16(to_bfloat16(a * b[0]) + d)).all()


def test_wrap():
    """Element 32 is added to the sum that element 0 was added to."""
    a, _, d, result, _ = run(product(Factor.SAME, add=True, wrap=True))
    expected = d.copy()
    for i in range(COUNT):
        expected[i % 32] = a[i] * a[i] + expected[i % 32]
    assert (result == expected).all()


def test_scalars():
    one = Step(operation=Operation.DIVIDE, a=A, b=B, d=D)
    a, b, _, result, _ = run(one)
    assert result[0] == a[0] / b[0]
    unit = machine()
    unit.memory[A] &= 0x7FFFFFFF
    a, _, _, result, _ = run(Step(operation=Operation.ROOT, a=A, d=D, bfloat16=True), unit=unit)
    assert result[0] == to_bfloat16(np.sqrt(a[0]))


def test_maximum():
    """Of the last product only, and not less than 1e-5."""
    a, b, _, result, _ = run(
        product(), product(count=5), Step(operation=Operation.MAXIMUM, d=D + 39)
    )
    assert result[39] == np.abs(a * b)[:5].max()
    for bfloat16, floor in ((False, np.float32(1e-5)), (True, to_bfloat16(1e-5))):
        unit = machine()
        unit.memory[B] = 0
        step = Step(operation=Operation.MAXIMUM, d=D)
        *_, result, _ = run(product(Factor.SCALAR, bfloat16=bfloat16), step, unit=unit)
        assert result[0] == floor


def test_core():
    """Codes go to the core in order, and its results come back in order, over two steps."""
    calls = []

    def core(layer, codes):
        calls.append((layer, codes.tolist()))
        return np.arange(1000, 1000 + COUNT, dtype=np.int32)

    unit = machine(core)
    start = unit.memory.view(np.float32)[A : A + COUNT].copy() * 100
    unit.memory[A : A + COUNT] = start.view(np.uint32)
    unit.memory[B] = np.float32(1).view(np.uint32)
    results = {"a": 0, "from_core": True}
    *_, result, _ = run(
        product(Factor.SCALAR, codes=True, d=0),
        Step(operation=Operation.RUN, a=2),
        product(Factor.DIVISOR, count=30, **results),
        product(Factor.SCALAR, count=10, **results | {"d": D + 30}),
        unit=unit,
        layers={2: (COUNT, COUNT)},
    )
    assert calls == [(2, np.clip(np.rint(start), -128, 127).tolist())]
    assert (result == np.arange(1000, 1040)).all()
    assert not len(unit.codes)


def test_bfloat16_results():
    """A sum of the core is rounded before it is divided, and the quotient once more."""
    sums = np.arange(0x10000, 0x10000 + 77 * COUNT, 77, dtype=np.int32)
    unit = machine(lambda layer, codes: sums)
    unit.memory[B] = np.float32(3).view(np.uint32)
    *_, result, _ = run(
        product(codes=True, d=0),
        Step(operation=Operation.RUN),
        product(Factor.DIVISOR, a=0, from_core=True, bfloat16=True),
        unit=unit,
        layers={0: (COUNT, COUNT)},
    )
    expected = to_bfloat16(to_bfloat16(sums) / np.float32(3))
    assert (result == expected).all()
    assert (expected != to_bfloat16(sums.astype(np.float32) / np.float32(3))).any()


@pytest.mark.parametrize(
    ("pattern", "not_finite"),
    [
        (0x7E7FFFFF, False),  # just below 2^126
        (0x7E800000, True),
        (0xFE800000, True),
        (0x7F800000, True),
        (0xFF800000, True),
        (0x7FC00000, True),
        (0xFFFFFFFF, True),
    ],
)
@pytest.mark.parametrize("relu", [False, True])
def test_limit(pattern, not_finite, relu):
    """A magnitude from 2^126 on is noticed; relu makes zero of a negative number, not of NaN."""
    unit = machine()
    unit.memory[A + 3] = pattern
    unit.memory[B] = np.float32(1).view(np.uint32)
    run(product(Factor.SCALAR, relu=relu), unit=unit)
    assert unit.not_finite == (not_finite and not (relu and pattern == 0xFE800000))


def test_not_finite_is_sticky():
    """It holds to the end of the program, and not into the next one."""
    unit = machine()
    unit.memory[B] = 0
    run(Step(operation=Operation.DIVIDE, a=A, b=B, d=D), product(), unit=unit)
    assert unit.not_finite
    run(product(), unit=unit)
    assert not unit.not_finite


def test_codes_are_watched():
    """Codes saturate, so only the flag shows that a product was not finite."""
    unit = machine(lambda layer, codes: np.zeros(1, np.int32))
    unit.memory[A] = 0x7F800000
    take = product(Factor.SCALAR, a=0, count=1, from_core=True)
    run(
        product(codes=True, d=0), Step(operation=Operation.RUN), take,
        unit=unit, layers={0: (1, COUNT)},
    )  # fmt: skip
    assert unit.not_finite


def test_run_needs_a_core():
    with pytest.raises(InputError, match="a program with RUN needs a core"):
        machine().run([Step(operation=Operation.RUN), END])
