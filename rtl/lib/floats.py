"""What the float blocks share: layout of a number, shifters, products in pieces, rounding.

`tritloom.rtl.spec.float_units` states what each block computes. Pipelines take new operands in each
cycle and give the result `latency` cycles later. They have no handshake: a user delays its own
marks by `latency`. Their registers have no reset, because they hold data only.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data

from tritloom.rtl.spec.float_units import FloatFormat

__all__ = [
    "PACK_CYCLES",
    "PRODUCT_CYCLES",
    "ROUND_PRODUCT_CYCLES",
    "exponent_shape",
    "float_layout",
    "is_finite",
    "normalize",
    "pack",
    "product",
    "register",
    "round_product",
    "shift_right_sticky",
    "shift_steps",
    "significand",
]

PRODUCT_CYCLES = 2
"""Latency of `product`."""
PACK_CYCLES = 1
"""Latency of `pack`."""
ROUND_PRODUCT_CYCLES = 1 + PACK_CYCLES
"""Latency of `round_product`."""


def float_layout(form: FloatFormat) -> data.StructLayout:
    """A number as its bit pattern."""
    return data.StructLayout(
        {"fraction": form.fraction_bits, "exponent": form.exponent_bits, "sign": 1}
    )


def exponent_shape(form: FloatFormat) -> Shape:
    """Holds the exponent of any product or quotient: twice the range of a field, and a sign."""
    return signed(form.exponent_bits + 3)


def significand(x: Any) -> Value:
    """The bits of a number with the leading one; 0 for zero and subnormal numbers."""
    normal = x.exponent.any()
    # A choice of zero, not a mask: a register behind it is then reset, which takes no LUTs.
    return Cat(Mux(normal, x.fraction, 0), normal)


def is_finite(x: Any) -> Value:
    """Whether a number is neither infinity nor NaN."""
    return ~x.exponent.all()


def register(m: Module, value: Value, shape: Any = None, name: str = "stage") -> Signal:
    """`value` one cycle later, cut or extended to `shape`."""
    stage = Signal(value.shape() if shape is None else shape, reset_less=True, name=name)
    m.d.sync += stage.eq(value)
    return stage


def normalize(m: Module, value: Value, steps: Sequence[int], name: str) -> tuple[Value, Value]:
    """Shift left while the top bits are zero.

    Parameters
    ----------
    m : module that the logic is added to
    value : any bits
    steps : distances of the shifts, falling powers of two that end with any power; all of them
        together bring each number but zero to the top
    name : beginning of signals' names

    Returns
    -------
    The shifted value, and which of the steps were made, the last step lowest. With steps down to 1
    that is the distance as a number.
    """
    width = len(value)
    made: list[Value] = []
    for step in steps:
        empty = Signal(name=f"{name}_empty_{step}")
        shifted = Signal(width, name=f"{name}_shift_{step}")
        m.d.comb += [
            empty.eq(~value[width - step :].any()),
            shifted.eq(Mux(empty, Cat(Const(0, step), value[: width - step]), value)),
        ]
        value = shifted
        made.insert(0, empty)
    return value, Cat(made)


def shift_steps(width: int) -> list[int]:
    """The steps with which `normalize` brings any number of `width` bits to the top."""
    return [1 << power for power in reversed(range((width - 1).bit_length()))]


def shift_right_sticky(m: Module, value: Value, amount: Value, name: str) -> Value:
    """`value` shifted right; its lowest bit is set too if any bit was lost."""
    width = len(value)
    for power in range(len(amount)):
        step = 1 << power
        kept = Cat(value[step + 1 :], Const(0, min(step, width - 1)))[: width - 1]
        lost = value[: step + 1].any()
        shifted = Signal(width, name=f"{name}_shift_{step}")
        m.d.comb += shifted.eq(Mux(amount[power], Cat(lost, kept), value))
        value = shifted
    return value


def product(m: Module, a: Value, b: Value, a_bits: int, b_bits: int) -> Signal:
    """The exact product of unsigned numbers, `PRODUCT_CYCLES` later.

    It is the sum of products of pieces, with registers before and after the sum. Synthesis maps a
    product of pieces to one multiplier of the family, if they are not wider than that; so no
    family's cell is named here.

    Parameters
    ----------
    m : module that the logic is added to
    a, b : the factors
    a_bits, b_bits : widths of their pieces, the lowest first
    """
    # Products that do not overlap are joined to one word, which saves an adder.
    words: list[list[tuple[int, Signal]]] = []
    starts = [(i, j) for i in range(0, len(a), a_bits) for j in range(0, len(b), b_bits)]
    for i, j in sorted(starts, key=sum):
        part = register(m, a[i : i + a_bits] * b[j : j + b_bits], name=f"part_{i}_{j}")
        for word in words:
            low, last = word[-1]
            if low + len(last) <= i + j:
                word.append((i + j, part))
                break
        else:
            words.append([(i + j, part)])
    terms: list[Value] = []
    for word in words:
        bits: list[Value] = []
        for low, part in word:
            bits += [Const(0, low - sum(map(len, bits))), part]
        terms.append(Cat(bits))
    total = reduce(add, terms)
    return register(m, total, len(a) + len(b), "product")


def round_product(
    m: Module, form: FloatFormat, value: Value, exponent: Value, sign: Value, finite: Value
) -> Value:
    """A product of two significands, rounded, `ROUND_PRODUCT_CYCLES` later.

    Parameters
    ----------
    m : module that the logic is added to
    form : of the result
    value : the product, whose top bit, or the bit below it, is set unless it is zero
    exponent : the field of the result if the bit below the top bit is the leading one
    sign : of the result
    finite : whether both factors are

    Returns
    -------
    The pattern of the result.
    """
    p, width = form.precision, len(value)
    top = value[-1]
    kept = Mux(top, value[-p:], value[-p - 1 : -1])
    half = Mux(top, value[-p - 1], value[-p - 2])
    rest = value[: width - p - 2].any() | (top & value[-p - 2])
    return pack(
        m,
        form,
        register(m, kept),
        up=register(m, half & (rest | kept[0])),
        exponent=register(m, exponent + top, exponent_shape(form)),
        sign=register(m, sign),
        zero=register(m, ~(top | value[-2])),
        finite=register(m, finite),
    )


def pack(
    m: Module,
    form: FloatFormat,
    kept: Value,
    *,
    up: Value,
    exponent: Value,
    sign: Value,
    zero: Value,
    finite: Value,
) -> Value:
    """A number of its parts, `PACK_CYCLES` later.

    Parameters
    ----------
    m : module that the logic is added to
    form : of the number
    kept : its significand, the leading one included
    up : whether to add one in the last place
    exponent : signed; the field of the number, if it is in range; not too large if `zero` is set
    sign : of the number
    zero : the number is zero, whatever `kept` is
    finite : if not, the number is infinity, even if `zero` is set

    Returns
    -------
    The pattern: infinity if the exponent is too large, zero if it is too small.
    """
    p = form.precision
    field = exponent.as_signed()
    # The leading one is left out, so a carry of the fraction adds one to the exponent, as it must:
    # the fraction is 0 then. A carry beyond the largest exponent makes the pattern of infinity.
    rounded = Signal(p - 1 + form.exponent_bits)
    m.d.comb += rounded.eq(Cat(kept[: p - 1], field[: form.exponent_bits]) + up)
    pattern = Signal(float_layout(form), reset_less=True, name="packed")
    m.d.sync += [pattern.sign.eq(sign), Cat(pattern.fraction, pattern.exponent).eq(rounded)]
    large, small = ~finite | (field >= form.not_finite), zero | (field < 0)
    with m.If(large):
        m.d.sync += pattern.exponent.eq(form.not_finite)
    with m.Elif(small):
        m.d.sync += pattern.exponent.eq(0)
    # With the field 0 only the power of two that a carry makes is a normal number.
    with m.If(large | small | (field == 0)):
        m.d.sync += pattern.fraction.eq(0)
    return pattern.as_value()
