from collections.abc import Callable

from tritloom.gen.passes.slots import slot_pins


def test_slots_that_are_possible() -> None:
    # acc + ((x & nz) ^ neg): acc or x, not both, is what the carry is where it is not passed on.
    def table(function: Callable[[int, int, int, int], int]) -> tuple[bool, ...]:
        return tuple(bool(function(*(at >> net & 1 for net in range(4)))) for at in range(16))

    def add(acc: int, x: int, neg: int, nz: int) -> int:
        return acc + ((x & nz) ^ neg)

    pins = slot_pins(table(lambda *v: add(*v) & 1), table(lambda *v: add(*v) >> 1))
    assert pins is not None and pins[0][2:] != (None, None)
    # Here the carry depends on three.
    assert slot_pins(table(lambda a, b, c, d: 0), table(lambda a, b, c, d: a & b & c)) is None
    # A and B are the only inputs of G, which is 1 where P is 0 at C = D = 0.
    assert slot_pins(table(lambda a, b, c, d: c ^ d), table(lambda a, b, c, d: 1 - (c ^ d))) is None
