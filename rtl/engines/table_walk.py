"""Order in which the table engine fills a table.

Each entry differs from the previous entry in one trit by one, so one addition makes it. The
hardware follows this order, and the engine's formula for its cycles counts it.
"""

from functools import cache
from itertools import product

Path = list[tuple[int, ...]]
"""Trits of one entry after the other."""


def walk(group: int, signed: bool, alphabet: str = "ternary") -> Path:
    """The entries of a table in the order of writing.

    Parameters
    ----------
    group : trits of a code
    signed : whether one entry serves a code and its negative
    alphabet : `ternary` (−1, 0, 1) or `binary` (−1, 1)

    Returns
    -------
    The trits of each entry. The first entry is all zeros; each later one differs from the entry
    before in one trit by one.

    * Ternary and signed: the zeros, and every entry whose leading trit is positive, each once.
    * Ternary and not signed: every entry, after some extra steps from the zeros to a corner.
    * Binary: every entry (where signed, every entry that begins with +1), with zeros on the way to
      the first corner and one zero between two corners.
    """
    zeros = (0,) * group
    path = [zeros]
    if alphabet == "binary":
        path += [(1,) * n + zeros[n:] for n in range(1, group + 1)]
        for number in range(1, 1 << (group - signed)):
            # The trit that changes in the binary reflected Gray code: the number's lowest set bit.
            place = signed + (number & -number).bit_length() - 1
            before, sign, after = path[-1][:place], path[-1][place], path[-1][place + 1 :]
            path += [(*before, trit, *after) for trit in (0, -sign)]
        return path
    if signed:
        # One block for each leading trit, low to high. A block starts at the corner at which the
        # block below it ended, with a 1 above that corner.
        for leading in range(group):
            inside = _reflected(path[-1][:leading])
            path += [(*trits, 1, *zeros[leading + 1 :]) for trits in inside]
        return path
    path += [(-1,) * n + zeros[n:] for n in range(1, group)]
    return path + _reflected((-1,) * group)


@cache
def walk_steps(group: int, signed: bool, alphabet: str) -> int:
    """Number of entries that `walk` visits, one a cycle."""
    return len(walk(group, signed, alphabet))


def _reflected(corner: tuple[int, ...]) -> Path:
    """The ternary reflected Gray code from a corner to the opposite one.

    Parameters
    ----------
    corner : the first entry, each trit 1 or −1

    Returns
    -------
    All combinations of as many trits as `corner` has.
    """
    path: Path = []
    for digits in product((0, 1, 2), repeat=len(corner)):
        trits: list[int] = []
        sum_above = 0
        for digit in digits:  # highest digit first; an odd sum above a digit reverses its direction
            trits.append(1 - digit if sum_above % 2 else digit - 1)
            sum_above += digit
        path.append(tuple(-t * c for t, c in zip(reversed(trits), corner, strict=True)))
    return path
