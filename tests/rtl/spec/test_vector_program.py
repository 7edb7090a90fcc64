"""Programs of the vector unit: their encoding, and every reason to refuse one."""

from dataclasses import replace

import numpy as np
import pytest

from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_program import (
    FIELDS,
    STEP_BYTES,
    Factor,
    Operation,
    Second,
    Step,
    check_program,
    decode_program,
    encode_program,
)

CONFIG = VectorConfig(words=256)
END = Step(operation=Operation.END)
LAYERS = {3: (7, 5)}
CODES = Step(operation=Operation.PRODUCT, count=5, a=10, b=20, codes=True)
RUN = Step(operation=Operation.RUN, a=3)
RESULTS = Step(
    operation=Operation.PRODUCT, factor=Factor.DIVISOR, count=7, b=20, d=30, from_core=True
)
WHOLE = [CODES, Step(operation=Operation.MAXIMUM, d=1), RUN, RESULTS, END]


def product(**fields):
    return Step(operation=Operation.PRODUCT, **fields)


def some_step(rng):
    flags = {name: bool(rng.integers(2)) for name in FIELDS if FIELDS[name] == 1}
    addresses = {name: int(rng.integers(1 << 16)) for name in "abcd"}
    return Step(
        operation=Operation(int(rng.integers(len(Operation)))),
        factor=Factor(int(rng.integers(len(Factor)))),
        second=Second(int(rng.integers(len(Second)))),
        count=int(rng.integers(1, (1 << 16) + 1)),
        **addresses,
        **flags,
    )


def test_encoding_returns():
    rng = np.random.default_rng(13)
    steps = [some_step(rng) for _ in range(300)]
    encoded = encode_program(steps)
    assert len(encoded) == 300 * STEP_BYTES
    assert decode_program(encoded) == steps


def test_encoding_is_fixed():
    """The layout is part of the protocol: a change of it must be meant."""
    step = product(
        factor=Factor.DIVISOR, add=True, codes=True, count=0x1235, a=1, b=0x203, d=0xFFFF
    )
    assert encode_program([step]).hex() == "0193341201000302ffff0000"
    step = replace(step, second=Second.SCALAR, c=0x1234)
    assert encode_program([step]).hex() == "8193341201000302ffff3412"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"a": 65536}, "step 1: a must be 0 to 65535, not 65536"),
        ({"d": -1}, "step 1: d must be 0 to 65535, not -1"),
        ({"count": 0}, "step 1: count must be 1 to 65536, not 0"),
        ({"count": 65537}, "step 1: count must be 1 to 65536, not 65537"),
    ],
)
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(InputError) as error:
        encode_program([END, product(**fields)])
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (bytes(13), "a program must have 12 bytes a step, not 13 bytes in all"),
        (b"\x06" + bytes(11), "step 0: operation must be 0 to 5, not 6"),
        (bytes(12) + b"\xff" + bytes(11), "step 1: operation must be 0 to 5, not 63"),
    ],
)
def test_bytes_that_are_no_program(encoded, message):
    with pytest.raises(InputError) as error:
        decode_program(encoded)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "steps",
    [
        [END],
        WHOLE,
        [CODES, RUN, replace(RESULTS, count=3), replace(RESULTS, count=4), END],
        [replace(CODES, count=2), replace(CODES, count=3), RUN, RESULTS, END],
        [CODES, RUN, RESULTS, CODES, RUN, RESULTS, END],
        [product(count=100, a=50, b=50, d=50), END],
        [product(count=100, a=60, b=50, d=50), END],
        [product(count=256, factor=Factor.SCALAR, b=255), END],
        [product(count=64, factor=Factor.SCALAR, b=70, d=64, a=128, add=True), END],
        [product(count=192, factor=Factor.SAME, a=32, add=True, wrap=True), END],
        [Step(operation=Operation.DIVIDE, a=4, b=5, d=5), END],
        [END for _ in range(1)],
        [product()] * 511 + [END],
    ],
)
def test_accepted(steps):
    check_program(steps, CONFIG, LAYERS)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "the last step of a program must be END; add one"),
        ([product()], "the last step of a program must be END; add one"),
        ([product()] * 512 + [END], "a program must have at most 512 steps, not 513"),
        ([END, END], "step 0: END must be the last step; remove the steps after it"),
        (
            [Step(operation=Operation.MAXIMUM), END],
            "step 0: MAXIMUM must follow a PRODUCT, whose maximum it takes",
        ),
        ([RESULTS, END], "step 0: from_core takes 7 results more than the core gives"),
        (
            [CODES, RUN, RESULTS, replace(RESULTS, count=1), END],
            "step 3: from_core takes 1 results more than the core gives",
        ),
        ([CODES, RUN, END], "step 2: 7 results of the last RUN must be taken first"),
        ([CODES, RUN, CODES, RUN, END], "step 3: 7 results of the last RUN must be taken first"),
        ([CODES, END], "step 1: 5 codes went to the core, which no RUN uses"),
        ([RUN, END], "step 0: layer 3 needs 5 codes, not 0"),
        ([CODES, replace(RUN, a=2), END], "step 1: layer 2 is not committed; load it first"),
        ([CODES, CODES, RUN, END], "step 2: layer 3 needs 5 codes, not 10"),
        ([replace(END, b=1)], "step 0: b must be 0 in this step, not 1"),
        ([replace(END, bfloat16=True)], "step 0: bfloat16 must be 0 in this step, not 1"),
        ([replace(RUN, d=2), END], "step 0: d must be 0 in this step, not 2"),
        ([replace(RUN, count=2), END], "step 0: count must be 1 in this step, not 2"),
        (
            [Step(operation=Operation.ROOT, relu=True), END],
            "step 0: relu must be 0 in this step, not 1",
        ),
        ([Step(operation=Operation.ROOT, b=9), END], "step 0: b must be 0 in this step, not 9"),
        (
            [product(), Step(operation=Operation.MAXIMUM, a=1), END],
            "step 1: a must be 0 in this step, not 1",
        ),
        (
            [product(), Step(operation=Operation.MAXIMUM, bfloat16=True), END],
            "step 1: bfloat16 must be 0 in this step, not 1",
        ),
        ([replace(RESULTS, a=1), END], "step 0: a must be 0 in this step, not 1"),
        (
            [product(factor=Factor.SAME, b=1), END],
            "step 0: b must be 0 in this step, not 1",
        ),
        ([replace(CODES, d=1), END], "step 0: d must be 0 in this step, not 1"),
        ([product(count=0), END], "step 0: count must be 1 to 256, not 0"),
        ([replace(RESULTS, count=257), END], "step 0: count must be 1 to 256, not 257"),
        (
            [product(bfloat16=True), END],
            "step 0: the unit has no bfloat16; build it with bfloat16 true",
        ),
        (
            [product(add=True), END],
            "step 0: add must not have the factor VECTOR; add in a step of its own",
        ),
        (
            [product(add=True, factor=Factor.SAME, codes=True), END],
            "step 0: add must not be set with codes; add in a step of its own",
        ),
        ([product(wrap=True), END], "step 0: wrap must be set with add only"),
        (
            [product(add=True, factor=Factor.SAME, wrap=True, d=8), END],
            "step 0: d must be a multiple of 32 with wrap, not 8",
        ),
        (
            [product(count=57, a=200), END],
            "step 0: a must lie in the memory's 256 words, not at 200 to 256",
        ),
        (
            [product(count=2, b=255), END],
            "step 0: b must lie in the memory's 256 words, not at 255 to 256",
        ),
        (
            [product(d=256), END],
            "step 0: d must lie in the memory's 256 words, not at 256 to 256",
        ),
        (
            [product(a=-1), END],
            "step 0: a must lie in the memory's 256 words, not at -1 to -1",
        ),
        (
            [Step(operation=Operation.DIVIDE, b=300), END],
            "step 0: b must lie in the memory's 256 words, not at 300 to 300",
        ),
        (
            [product(count=3, a=10, b=100, d=12), END],
            "step 0: d must not overlap a behind its first word: d is at 12, a at 10, count 3",
        ),
        (
            [product(count=3, a=100, b=10, d=11), END],
            "step 0: d must not overlap b behind its first word: d is at 11, b at 10, count 3",
        ),
        (
            [product(count=64, factor=Factor.SAME, a=31, add=True, wrap=True), END],
            "step 0: d must not overlap a behind its first word: d is at 0, a at 31, count 64",
        ),
    ],
)
def test_refused(steps, message):
    with pytest.raises(InputError) as error:
        check_program(steps, CONFIG, LAYERS)
    assert str(error.value) == message


TWO = replace(CONFIG, multipliers=2)


@pytest.mark.parametrize(
    "step",
    [
        product(second=Second.SAME, relu=True),
        product(second=Second.SCALAR, c=255, count=9, a=20, d=20),
        product(factor=Factor.SAME, second=Second.VECTOR, c=20, count=9, a=20, d=20),
        product(factor=Factor.DIVISOR, second=Second.SCALAR, c=4, count=9, d=2, add=True, a=20),
    ],
)
def test_second_product_accepted(step):
    check_program([step, END], TWO, {})
    with pytest.raises(InputError) as error:
        check_program([step, END], CONFIG, {})
    message = "step 0: the unit has no second multiplier; build it with multipliers 2"
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"c": 1}, "c must be 0 in this step, not 1"),
        ({"second": Second.SAME, "c": 1}, "c must be 0 in this step, not 1"),
        ({"operation": Operation.ROOT, "second": Second.SAME}, "second must be 0 in this step"),
        ({"second": Second.VECTOR}, "second must not be VECTOR with add or with the factor VECTOR"),
        (
            {"factor": Factor.SAME, "second": Second.VECTOR, "add": True},
            "second must not be VECTOR with add or with the factor VECTOR; multiply in a step of",
        ),
        (
            {"factor": Factor.SAME, "second": Second.VECTOR, "c": 255, "count": 2},
            "c must lie in the memory's 256 words, not at 255 to 256",
        ),
        (
            {"factor": Factor.SAME, "second": Second.VECTOR, "c": 9, "count": 3, "d": 10, "a": 50},
            "d must not overlap c behind its first word: d is at 10, c at 9, count 3",
        ),
        (
            {"factor": Factor.SAME, "second": Second.SCALAR, "c": 256},
            "c must lie in the memory's 256 words, not at 256 to 256",
        ),
    ],
)
def test_second_product_refused(fields, message):
    with pytest.raises(InputError) as error:
        check_program([Step(**{"operation": Operation.PRODUCT} | fields), END], TWO, {})
    assert message in str(error.value)


def test_bfloat16_unit():
    check_program([product(bfloat16=True), END], replace(CONFIG, bfloat16=True), {})
