"""Sums of many terms: a pipelined tree of one LUT a bit, where a carry chain has spare inputs.

*Offset binary.* Numbers inside are held as n + 2^(bits-1). The sum of two is then an unsigned sum,
and its carry is the top bit. The bitwise complement of n is −n − 1, so a difference is the sum with
a complement, with a carry in.

*Deferred signs.* A node adds or subtracts its right operand, as one bit says; it never negates its
left operand. What remains at the end is one sign for the whole sum, which the user applies. The bit
of the node whose right operand begins at term i is s(i) ^ s(i & (i − 1)), where s(i) is 1 if term i
is negative; bit 0 is s(0), the sign of the whole. Weights are packed in this form.
"""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Signal, Value


def delay(m: Module, signal: Value, cycles: int, *, reset_less: bool = False) -> Value:
    """A signal's value of some cycles ago.

    Parameters
    ----------
    m : module that the registers are added to
    signal : any value
    cycles : number of registers; with 0 the result is `signal` itself
    reset_less : whether the registers keep their content at reset; else they become 0

    Returns
    -------
    The delayed value, of the shape of `signal`.
    """
    for _ in range(cycles):
        late = Signal(signal.shape(), name="late", reset_less=reset_less)
        m.d.sync += late.eq(signal)
        signal = late
    return signal


def offset_binary(value: Value) -> Value:
    """Two's complement to offset binary or back: both invert the top bit."""
    return Cat(value[:-1], ~value[-1])


def add_under(left: Value, right: Value, negative: Value | None) -> Value:
    """`left` + `right`, or `left` − `right` where `negative` is set.

    Parameters
    ----------
    left, right : bit patterns of one width
    negative : one bit; `None` where the result is always the sum

    Returns
    -------
    The result modulo 2^width. `negative` is added to itself one bit below the sum: that makes the
    carry in of the subtraction in the same carry chain.
    """
    if negative is None:
        return (left.as_unsigned() + right.as_unsigned())[: len(left)]
    under = right ^ negative.replicate(len(right))
    return (Cat(negative, left) + Cat(negative, under))[1 : len(left) + 1]


def tree_levels(terms: int) -> int:
    """Levels of an `adder_tree` of `terms` terms; each level takes one cycle."""
    return (terms - 1).bit_length()


def adder_tree(
    m: Module, terms: Sequence[Value], negatives: Sequence[Value] | None = None
) -> tuple[Value, Value | None]:
    """The sum of `terms` after `tree_levels(len(terms))` cycles; new terms may come every cycle.

    Parameters
    ----------
    m : module that the tree is added to
    terms : numbers in offset binary, all of one width
    negatives : one bit a term, in the form of the module's docstring, in the same cycle as the
        terms; `None` where no term is negative

    Returns
    -------
    The sum in offset binary, and the bit that says whether to negate it (`None` without
    `negatives`). Each level adds one bit: the sum of two numbers is one bit wider than either, so
    nothing overflows.
    """
    values = list(terms)
    bits = None if negatives is None else list(negatives)
    while len(values) > 1:
        sums: list[Value] = []
        for n in range(0, len(values) - 1, 2):
            left, right = (Cat(value, 0) for value in values[n : n + 2])
            total = Signal(len(left), name="total", reset_less=True)
            if bits is None:
                m.d.sync += total.eq(left + right)
            else:
                under = values[n + 1] ^ bits[n + 1].replicate(len(values[n + 1]))
                m.d.sync += total.eq((Cat(bits[n + 1], values[n]) + Cat(bits[n + 1], under)) >> 1)
            sums.append(total)
        if len(values) % 2:
            odd = values[-1]
            wider = Cat(odd[:-1], ~odd[-1], odd[-1])
            sums.append(delay(m, wider, 1, reset_less=True))
        values = sums
        if bits is not None:
            bits = [delay(m, bit, 1, reset_less=True) for bit in bits[::2]]
    return values[0], None if bits is None else bits[0]
