"""Sums of many terms: a pipelined tree of one LUT a bit, where a carry chain has spare inputs.

Numbers inside are in offset binary, n + 2^(bits-1): a sum of two is then an unsigned one, its carry
the top bit; and the bitwise complement is −n − 1, so a difference is a sum of complements with a
carry in. Signs are deferred: a node adds or subtracts its right operand under one bit, and what is
left at the end is one sign for the whole. The bit of the node whose right operand begins at term i
is s(i) ^ s(i & (i − 1)), where s are the terms' signs; bit 0 is s(0). Packed weights hold these.
"""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Signal, Value


def delay(m: Module, signal: Value, cycles: int, *, reset_less: bool = False) -> Value:
    """``signal`` as it was ``cycles`` ago; 0 at reset unless ``reset_less``."""
    for _ in range(cycles):
        late = Signal(signal.shape(), name="late", reset_less=reset_less)
        m.d.sync += late.eq(signal)
        signal = late
    return signal


def offset_binary(value: Value) -> Value:
    """Two's complement to offset binary, or back: the top bit is the other."""
    return Cat(value[:-1], ~value[-1])


def add_under(left: Value, right: Value, negative: Value | None) -> Value:
    """``left`` + ``right``, or ``left`` − ``right`` where ``negative``: as wide as ``left``.

    Both are bit patterns of one width. Adding the bit to itself below the sum makes the carry in.
    """
    if negative is None:
        return (left.as_unsigned() + right.as_unsigned())[: len(left)]
    under = right ^ negative.replicate(len(right))
    return (Cat(negative, left) + Cat(negative, under))[1 : len(left) + 1]


def tree_levels(terms: int) -> int:
    """Cycles of ``adder_tree``."""
    return (terms - 1).bit_length()


def adder_tree(
    m: Module, terms: Sequence[Value], negatives: Sequence[Value] | None = None
) -> tuple[Value, Value | None]:
    """The sum of ``terms``, ``tree_levels(len(terms))`` cycles later, and whether to negate it.

    ``terms`` and the sum are in offset binary, of one width and of one bit more a level: that of
    two is one bit wider than either, so nothing overflows. ``negatives``, one bit a term in the
    form above, come with them; without them nothing is negated.
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
