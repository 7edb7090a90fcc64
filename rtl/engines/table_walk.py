"""The path along which the ``table`` engine writes a table: its hardware follows it, its formula of
cycles counts it.
"""

from functools import cache
from itertools import product

Path = list[tuple[int, ...]]


def walk(group: int, signed: bool, alphabet: str = "ternary") -> Path:
    """Trits of the entries in the order of writing, zeros first; steps are ±1 of one trit.

    With ``signed`` the entries of one of each two that differ in all signs: of ternary ones the
    zeros and all with a positive leading trit, each once; of binary ones those that begin with +1.
    Without it all, of ternary ones after some extra steps to a corner. A binary path meets zeros on
    its way to a corner, and between two of them.
    """
    zeros = (0,) * group
    path = [zeros]
    if alphabet == "binary":
        path += [(1,) * n + zeros[n:] for n in range(1, group + 1)]
        for number in range(1, 1 << (group - signed)):
            place = signed + (number & -number).bit_length() - 1  # the Gray code's
            before, sign, after = path[-1][:place], path[-1][place], path[-1][place + 1 :]
            path += [(*before, trit, *after) for trit in (0, -sign)]
        return path
    if signed:
        # Blocks of rising leading trit, each from the corner at which the one below it ended.
        for leading in range(group):
            inside = _reflected(path[-1][:leading])
            path += [(*trits, 1, *zeros[leading + 1 :]) for trits in inside]
        return path
    path += [(-1,) * n + zeros[n:] for n in range(1, group)]
    return path + _reflected((-1,) * group)


@cache
def walk_steps(group: int, signed: bool, alphabet: str) -> int:
    """How many steps ``walk`` has."""
    return len(walk(group, signed, alphabet))


def _reflected(corner: tuple[int, ...]) -> Path:
    """All trits of that length from a corner to the opposite one: the reflected Gray code."""
    path: Path = []
    for digits in product((0, 1, 2), repeat=len(corner)):
        trits: list[int] = []
        turned = 0
        for digit in digits:  # the leading one first; an odd sum above it turns its direction
            trits.append(1 - digit if turned % 2 else digit - 1)
            turned += digit
        path.append(tuple(-t * c for t, c in zip(reversed(trits), corner, strict=True)))
    return path
