"""Programs of the vector unit: their steps, how steps are encoded, and what a program may do.

The unit has a memory of float32 words. A *vector* is a range of words, a *scalar* is one word. Most
steps are products, element by element:

    d[i] = RN(RN(a[i] · b[i]) + d[i])

A unit with two multipliers can multiply by a further factor before it adds. RMSNorm, the scale of a
token, its codes, the rescaling of a layer's sums, relu² · up, residuals and rotary embeddings are
made of such products, of single quotients and roots, and of the greatest magnitude of the last
product. `vector_operations` makes steps of each of these operations, and `vector_interpreter`
computes what a program must give.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.vector_facts import (
    FIELD_BITS,
    LAYER_BITS,
    WRAP_WORDS,
    VectorConfig,
)

__all__ = [
    "FIELDS",
    "STEP_BYTES",
    "Factor",
    "Layers",
    "Operation",
    "Second",
    "Step",
    "check_program",
    "decode_program",
    "encode_program",
    "is_wrong",
    "kept_fields",
    "kept_mask",
]

Layers = Mapping[int, tuple[int, int]]
"""`out_features` and `in_features` of each committed layer, by its index in the layer table."""


class Operation(IntEnum):
    """What a step does."""

    END = 0
    """The program ends."""
    PRODUCT = 1
    """d[i] = RN(RN(a[i] · b[i]) + d[i]), for each i below `count`; other fields vary it."""
    DIVIDE = 2
    """d = RN(a / b), scalars."""
    ROOT = 3
    """d = RN(√a), scalars."""
    MAXIMUM = 4
    """d = max(m, 1e-5), a scalar; m is the greatest magnitude of the last PRODUCT's results. 1e-5
    is rounded to bfloat16 if they are."""
    RUN = 5
    """The core computes layer `a` with the codes that it got since the last RUN."""


class Factor(IntEnum):
    """What the second factor of a PRODUCT is."""

    VECTOR = 0
    """b[i]."""
    SCALAR = 1
    """b[0], as it was before the step."""
    SAME = 2
    """a[i] itself: the result is a square."""
    DIVISOR = 3
    """The result is RN(a[i] / b[0]), by the long reciprocal of b[0]."""


class Second(IntEnum):
    """What a PRODUCT is multiplied by once more, after its rounding, by a unit that can."""

    NONE = 0
    VECTOR = 1
    """c[i]."""
    SCALAR = 2
    """c[0], as it was before the step."""
    SAME = 3
    """Itself: the result is a square."""


FIELDS = {
    "operation": 6,
    "second": 2,
    "factor": 2,
    "from_core": 1,
    "relu": 1,
    "add": 1,
    "wrap": 1,
    "bfloat16": 1,
    "codes": 1,
    "last": FIELD_BITS,
    "a": FIELD_BITS,
    "b": FIELD_BITS,
    "d": FIELD_BITS,
    "c": FIELD_BITS,
}
"""Width of each field of an encoded step, from the lowest bit. `last` is `count` − 1."""

STEP_BYTES = sum(FIELDS.values()) // 8

FLAGS = ("from_core", "relu", "add", "wrap", "codes")
"""Fields that only a PRODUCT can have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One instruction of a program. A field that the operation does not use is zero.

    Members
    -------
    operation : what the step does
    factor : what the second factor of a PRODUCT is
    second : what its product is multiplied by once more
    from_core : a[i] are the core's next results, as floats, in the order of the layer's rows
    relu : max(a[i], 0) takes the place of a[i]; with `second` SAME, max(p, 0) that of the first
        product p
    add : d[i] is added; else the product is the result
    wrap : d[i mod 32] takes the place of d[i], so that 32 interleaved sums are made; needs `add`
    bfloat16 : the core's results, each product and the sum are rounded to bfloat16 too; of DIVIDE
        and ROOT the result
    codes : the results become int8 codes, which go to the core; nothing is written
    count : elements of a PRODUCT; 1 for every other operation
    a, b, c, d : addresses of the first words; of RUN, `a` is the layer
    """

    operation: Operation
    factor: Factor = Factor.VECTOR
    second: Second = Second.NONE
    from_core: bool = False
    relu: bool = False
    add: bool = False
    wrap: bool = False
    bfloat16: bool = False
    codes: bool = False
    count: int = 1
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0

    def reads(self) -> list[tuple[str, int, int]]:
        """Name, first address and number of words of each operand in the memory but d."""
        operands: list[tuple[str, int, int]] = []
        product = self.operation == Operation.PRODUCT
        if (product and not self.from_core) or self.operation in (Operation.DIVIDE, Operation.ROOT):
            operands.append(("a", self.a, self.count))
        if self.operation == Operation.DIVIDE or (product and self.factor != Factor.SAME):
            operands.append(("b", self.b, self.count if self.factor == Factor.VECTOR else 1))
        if self.second in (Second.VECTOR, Second.SCALAR):
            operands.append(("c", self.c, self.count if self.second == Second.VECTOR else 1))
        return operands

    def writes(self) -> int:
        """Number of words that are written from d on."""
        if self.operation in (Operation.END, Operation.RUN) or self.codes:
            return 0
        return min(self.count, WRAP_WORDS) if self.wrap else self.count


def encode_program(steps: Iterable[Step]) -> bytes:
    """The bytes of a program, `STEP_BYTES` a step, the lowest first.

    Raises
    ------
    InputError : a field does not fit
    """
    encoded = bytearray()
    for number, step in enumerate(steps):
        value = offset = 0
        for name, bits in FIELDS.items():
            field = _field(step, name)
            if not 0 <= field < 1 << bits:
                shown = ("count", field + 1, 1) if name == "last" else (name, field, 0)
                raise InputError(
                    f"step {number}: {shown[0]} must be {shown[2]} to "
                    f"{(1 << bits) - 1 + shown[2]}, not {shown[1]}"
                )
            value |= field << offset
            offset += bits
        encoded += value.to_bytes(STEP_BYTES, "little")
    return bytes(encoded)


def _field(step: Step, name: str) -> int:
    return step.count - 1 if name == "last" else int(getattr(step, name))


def kept_fields(config: VectorConfig) -> dict[str, int]:
    """Width of each field that a device stores; the bits above are 0 there, whatever is sent."""
    address, two = config.address_bits, config.multipliers == 2
    narrow = {
        "operation": max(Operation).bit_length(),
        "bfloat16": int(config.bfloat16),
        "last": address,
        "a": max(address, LAYER_BITS),
        "b": address,
        "d": address,
        "c": address * two,
        "second": FIELDS["second"] * two,
    }
    return {name: narrow.get(name, bits) for name, bits in FIELDS.items()}


def kept_mask(config: VectorConfig) -> bytes:
    """The bits of an encoded step that a device stores, `STEP_BYTES` bytes."""
    mask = offset = 0
    for name, bits in kept_fields(config).items():
        mask |= (1 << bits) - 1 << offset
        offset += FIELDS[name]
    return mask.to_bytes(STEP_BYTES, "little")


def is_wrong(encoded: bytes, config: VectorConfig) -> bool:
    """Whether a device refuses an encoded step: its operation is unknown, or it leaves the memory.

    Parameters
    ----------
    encoded : `STEP_BYTES` bytes, of which the device stores all bits that are set
    """
    values = _fields_of(encoded)
    if values["operation"] not in list(Operation):
        return True
    if values["operation"] == Operation.RUN:
        return False
    last = values["last"]
    # With `wrap` the results stay in a block of `WRAP_WORDS`, and the memory holds whole blocks.
    ends = (
        values["a"] + last,
        values["b"] + last * (values["factor"] == Factor.VECTOR),
        values["d"] + last * (not values["wrap"]),
        values["c"] + last * (values["second"] == Second.VECTOR),
    )
    return max(ends) >= config.words


def _fields_of(encoded: bytes) -> dict[str, int]:
    """The fields of an encoded step."""
    value = int.from_bytes(encoded, "little")
    values = {}
    for name, bits in FIELDS.items():
        values[name] = value & ((1 << bits) - 1)
        value >>= bits
    return values


def decode_program(encoded: bytes) -> list[Step]:
    """The steps of `encode_program`'s bytes.

    Raises
    ------
    InputError : the bytes are no whole steps, or an operation is unknown
    """
    if len(encoded) % STEP_BYTES:
        raise InputError(
            f"a program must have {STEP_BYTES} bytes a step, not {len(encoded)} bytes in all"
        )
    steps = []
    for number in range(len(encoded) // STEP_BYTES):
        start = number * STEP_BYTES
        values = _fields_of(encoded[start : start + STEP_BYTES])
        if values["operation"] not in list(Operation):
            raise InputError(
                f"step {number}: operation must be 0 to {max(Operation)}, not {values['operation']}"
            )
        flags = {name: bool(values[name]) for name in (*FLAGS, "bfloat16")}
        steps.append(
            Step(
                operation=Operation(values["operation"]),
                factor=Factor(values["factor"]),
                second=Second(values["second"]),
                count=values["last"] + 1,
                a=values["a"],
                b=values["b"],
                c=values["c"],
                d=values["d"],
                **flags,
            )
        )
    return steps


def check_program(steps: Sequence[Step], config: VectorConfig, layers: Layers) -> None:
    """Refuse a program that the unit cannot run.

    Parameters
    ----------
    steps : the whole program
    config : of the unit
    layers : the committed layers

    Raises
    ------
    InputError : the number of the first step that is wrong, and why; or the program is empty, does
        not end, or is too long
    """
    if not steps or steps[-1].operation != Operation.END:
        raise InputError("the last step of a program must be END; add one")
    if len(steps) > config.steps:
        raise InputError(f"a program must have at most {config.steps} steps, not {len(steps)}")
    measured = False
    codes = results = 0
    for number, step in enumerate(steps):
        where = f"step {number}: "
        _check_fields(step, config, where)
        _check_addresses(step, config, where)
        if step.operation == Operation.END and number < len(steps) - 1:
            raise InputError(f"{where}END must be the last step; remove the steps after it")
        if step.operation == Operation.PRODUCT:
            measured = True
            codes += step.count * step.codes
            results -= step.count * step.from_core
        elif step.operation == Operation.MAXIMUM and not measured:
            raise InputError(f"{where}MAXIMUM must follow a PRODUCT, whose maximum it takes")
        if results < 0:
            raise InputError(f"{where}from_core takes {-results} results more than the core gives")
        if step.operation in (Operation.RUN, Operation.END) and results:
            raise InputError(f"{where}{results} results of the last RUN must be taken first")
        if step.operation == Operation.END and codes:
            raise InputError(f"{where}{codes} codes went to the core, which no RUN uses")
        if step.operation == Operation.RUN:
            if step.a not in layers:
                raise InputError(f"{where}layer {step.a} is not committed; load it first")
            results, in_features = layers[step.a]
            if codes != in_features:
                raise InputError(f"{where}layer {step.a} needs {in_features} codes, not {codes}")
            codes = 0


def _check_fields(step: Step, config: VectorConfig, where: str) -> None:
    """Fields that do not go together."""
    operation = step.operation
    if operation != Operation.PRODUCT:
        unused = {"factor": int(step.factor), "count": step.count - 1}
        unused |= {"second": int(step.second), "c": step.c}
        unused |= {name: int(getattr(step, name)) for name in FLAGS}
        if operation not in (Operation.DIVIDE, Operation.ROOT, Operation.RUN):
            unused["a"] = step.a
        if operation != Operation.DIVIDE:
            unused["b"] = step.b
        if operation in (Operation.END, Operation.RUN):
            unused["d"] = step.d
        if operation not in (Operation.DIVIDE, Operation.ROOT):
            unused["bfloat16"] = int(step.bfloat16)
    else:
        unused = {"a": step.a * step.from_core, "b": step.b * (step.factor == Factor.SAME)}
        unused["d"] = step.d * step.codes
        unused["c"] = step.c * (step.second in (Second.NONE, Second.SAME))
    for name, value in unused.items():
        if value:
            zero = 1 if name == "count" else 0
            raise InputError(f"{where}{name} must be {zero} in this step, not {value + zero}")
    if not 1 <= step.count <= config.words:
        raise InputError(f"{where}count must be 1 to {config.words}, not {step.count}")
    if step.bfloat16 and not config.bfloat16:
        raise InputError(f"{where}the unit has no bfloat16; build it with bfloat16 true")
    if step.second and config.multipliers == 1:
        raise InputError(f"{where}the unit has no second multiplier; build it with multipliers 2")
    if step.add and step.factor == Factor.VECTOR:
        # The memory is read twice a cycle: a, and one of b, c and d.
        raise InputError(f"{where}add must not have the factor VECTOR; add in a step of its own")
    if step.second == Second.VECTOR and (step.add or step.factor == Factor.VECTOR):
        raise InputError(
            f"{where}second must not be VECTOR with add or with the factor VECTOR; "
            "multiply in a step of its own"
        )
    if step.add and step.codes:
        raise InputError(f"{where}add must not be set with codes; add in a step of its own")
    if step.wrap and not step.add:
        raise InputError(f"{where}wrap must be set with add only")
    if step.wrap and step.d % WRAP_WORDS:
        raise InputError(f"{where}d must be a multiple of {WRAP_WORDS} with wrap, not {step.d}")


def _check_addresses(step: Step, config: VectorConfig, where: str) -> None:
    """Words beyond the memory, and results that would be read before they are written."""
    written = step.writes()
    for name, first, count in [*step.reads(), ("d", step.d, written)]:
        if first < 0 or first + count > config.words:
            raise InputError(
                f"{where}{name} must lie in the memory's {config.words} words, "
                f"not at {first} to {first + count - 1}"
            )
    for name, first, count in step.reads():
        overlaps = first < step.d + written and step.d < first + count
        # A scalar is read before the step. A vector may be replaced in place, or lie ahead of d.
        scalar = (name == "b" and step.factor != Factor.VECTOR) or (
            name == "c" and step.second != Second.VECTOR
        )
        safe = scalar or (first >= step.d and not step.wrap)
        if overlaps and not safe:
            raise InputError(
                f"{where}d must not overlap {name} behind its first word: "
                f"d is at {step.d}, {name} at {first}, count {step.count}"
            )
