"""Multiplication by a constant without a multiplier."""

from amaranth.hdl import Value

__all__ = ["constant_product"]


def constant_product(value: Value, factor: int) -> Value:
    """`value × factor` as a sum of shifted values, one for each 1 of the factor.

    Synthesis would take a multiplier block for a constant too; the factors here have few ones.

    Parameters
    ----------
    value : unsigned
    factor : at least 1
    """
    terms = [value << shift for shift in range(factor.bit_length()) if factor >> shift & 1]
    while len(terms) > 1:  # a balanced tree: its depth is the logarithm of the terms
        terms = [sum(terms[n : n + 2][1:], terms[n]) for n in range(0, len(terms), 2)]
    return terms[0]
