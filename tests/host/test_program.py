"""Programs as the driver loads them: their checks, and their steps at another place."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.programs import random_decoder
from tritloom.host.models.blocks import decoder_program
from tritloom.host.program import Program, Routine, leaves_unit
from tritloom.rtl.spec.errors import CapacityError, InputError
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_program import Factor, Operation, Second, Step, check_program

CONFIG = VectorConfig(words=4096)


@pytest.fixture(scope="module")
def program() -> Program:
    return decoder_program(CONFIG, random_decoder(0))


STEPS = (
    (
        Step(operation=Operation.PRODUCT, a=1, b=2, d=3, count=4),
        Step(operation=Operation.PRODUCT, a=33, b=34, d=35, count=4),
    ),
    (
        Step(operation=Operation.PRODUCT, factor=Factor.SAME, a=1, d=3),
        Step(operation=Operation.PRODUCT, factor=Factor.SAME, a=33, d=35),
    ),
    (
        Step(operation=Operation.PRODUCT, factor=Factor.DIVISOR, b=2, d=3, from_core=True),
        Step(operation=Operation.PRODUCT, factor=Factor.DIVISOR, b=34, d=35, from_core=True),
    ),
    (
        Step(operation=Operation.PRODUCT, factor=Factor.SCALAR, a=1, b=2, codes=True),
        Step(operation=Operation.PRODUCT, factor=Factor.SCALAR, a=33, b=34, codes=True),
    ),
    (
        Step(operation=Operation.PRODUCT, factor=Factor.SAME, second=Second.VECTOR, a=1, c=4, d=3),
        Step(
            operation=Operation.PRODUCT, factor=Factor.SAME, second=Second.VECTOR, a=33, c=36, d=35
        ),
    ),
    (
        Step(operation=Operation.PRODUCT, second=Second.SCALAR, a=1, b=2, c=4, d=3),
        Step(operation=Operation.PRODUCT, second=Second.SCALAR, a=33, b=34, c=36, d=35),
    ),
    (
        Step(operation=Operation.PRODUCT, second=Second.SAME, a=1, b=2, d=3),
        Step(operation=Operation.PRODUCT, second=Second.SAME, a=33, b=34, d=35),
    ),
    (
        Step(operation=Operation.DIVIDE, a=1, b=2, d=3),
        Step(operation=Operation.DIVIDE, a=33, b=34, d=35),
    ),
    (Step(operation=Operation.ROOT, a=1, d=3), Step(operation=Operation.ROOT, a=33, d=35)),
    (Step(operation=Operation.MAXIMUM, d=3), Step(operation=Operation.MAXIMUM, d=35)),
    (Step(operation=Operation.RUN, a=1), Step(operation=Operation.RUN, a=7)),
    (Step(operation=Operation.END), Step(operation=Operation.END)),
)


@pytest.mark.parametrize(("step", "moved"), STEPS, ids=lambda step: step.operation.name)
def test_moved_steps(step, moved):
    program = Program(
        steps=(step,),
        routines={},
        vectors={},
        constants=np.zeros(0, np.float32),
        constants_at=0,
        words=8,
        layers=((1, 1), (1, 1)),
    )
    assert program.moved(32, [9, 7]) == [moved]


def test_moved_programs_are_accepted(program):
    """At any place that holds them; and no word before the place or behind it is named."""
    layers = {index + 9: shape for index, shape in enumerate(program.layers)}
    most = VectorConfig(words=-(-(program.words + 64) // 32) * 32)
    steps = program.moved(64, list(layers))
    for routine in program.routines.values():
        check_program(steps[routine.first :][: routine.count], most, layers)
    assert min(address for step in steps for _, address, _ in step.reads()) >= 64


def test_routines_are_whole(program):
    """They follow each other, and cover all steps."""
    end = 0
    for name, routine in program.routines.items():
        assert routine.first == end
        end += routine.count
        operations = [step.operation for step in program.steps_of(name)]
        assert operations.index(Operation.END) == routine.count - 1
    assert end == len(program.steps)


@pytest.mark.parametrize(
    ("base", "layers", "message"),
    [
        (33, 8, "base must be a multiple of 32, not 33"),
        (32, 7, "the program has 8 layers, not 7"),
    ],
)
def test_wrong_places(program, base, layers, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        program.moved(base, range(layers))


def test_what_check_refuses(program):
    few = VectorConfig(words=program.words // 32 * 32)
    with pytest.raises(CapacityError, match=f"needs {program.words} vector words, the device has"):
        program.check(few)
    long = replace(program, steps=program.steps * 3)
    with pytest.raises(CapacityError, match=f"needs {len(long.steps)} steps, the device has 512"):
        long.check(CONFIG)
    cut = replace(program, routines={"begin": Routine(first=0, count=3)})
    with pytest.raises(InputError, match=r"^routine begin: the last step of a program must be END"):
        cut.check(CONFIG)


@pytest.mark.parametrize(
    ("value", "message"),
    [(1e-39, "1e-39"), (-(2.0**126), "-8.50706e"), (np.nan, "nan"), (-np.inf, "-inf")],
)
def test_constants_outside_the_range(program, value, message):
    constants = program.constants.copy()
    constants[5] = value
    with pytest.raises(InputError, match=f"from 2\\^-126 to below 2\\^126, not {message}"):
        replace(program, constants=constants).check(CONFIG)


def test_numbers_that_leave_the_unit():
    below = np.nextafter(np.float32(2.0**126), np.float32(0))
    values = np.array([0, -0.0, 1e-45, below, -below, 2.0**126, -(2.0**126), np.inf, np.nan])
    assert leaves_unit(values.astype(np.float32)).tolist() == [False] * 5 + [True] * 4
