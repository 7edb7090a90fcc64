"""One bit of an ECP5 carry chain, as two truth tables, and what can be done with it.

Half of a CCU2C adds one bit. It computes S = P ^ CIN and COUT = P ? CIN : G. P is any function of
its inputs A, B, C and D; G is any function of A and B. This module calls such a half a slot. A slot
whose P is constant 0 *kills*: its COUT is G, whatever comes in on CIN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import permutations, product
from typing import Any

from tritloom.gen.passes.netlist import Bit

__all__ = [
    "LUT_INPUTS",
    "Adder",
    "Slot",
    "Table",
    "half_slot",
    "joined",
    "reduced",
    "slot_pins",
    "substituted",
    "tabulate",
    "value_at",
]

LUT_INPUTS = 4
Table = tuple[bool, ...]
"""A function of a list of nets. The first net is bit 0 of the index."""


@dataclass(slots=True)
class Slot:
    """S = p ^ CIN, COUT = (p & CIN) | g.

    Members
    -------
    nets : the nets that `p` and `g` depend on
    p, g : tables of `nets`, never both true
    s : the net that S drives; `None` if nothing reads S
    """

    nets: tuple[int, ...]
    p: Table
    g: Table
    s: Bit | None = None

    @property
    def kills(self) -> bool:
        """Whether the carry out does not depend on the carry in."""
        return not any(self.p)


@dataclass(slots=True, eq=False)
class Adder:
    """The slots of one adder, least significant first.

    The first slot kills and its S is not read: it brings in the carry.

    Members
    -------
    name : name of the adder's first cell
    slots : its slots
    tree : name of the last adder that this one feeds, through other adders and registers
    alone : whether it must not share a chain
    """

    name: str
    slots: list[Slot] = field(default_factory=list)
    tree: str = ""
    alone: bool = False


def half_slot(cell: dict[str, Any], half: int) -> Slot:
    """Half 0 or 1 of a CCU2C."""
    pins = [cell["connections"][f"{pin}{half}"][0] for pin in "ABCD"]
    init = _init(cell, f"INIT{half}")
    carry = init[:4] * 4  # G depends on A and B alone
    p = _function(pins, lambda index: init[index])
    g = _function(pins, lambda index: carry[index] and not init[index])
    nets = tuple(dict.fromkeys(pin for pin in pins if isinstance(pin, int)))
    return reduced(Slot(nets, p, g, cell["connections"][f"S{half}"][0]))


def _init(cell: dict[str, Any], name: str) -> Table:
    return tuple(bit == "1" for bit in reversed(cell["parameters"][name]))


def _function(pins: Sequence[Bit], table: Callable[[int], bool]) -> Table:
    """A function of a cell's pins as a table of the nets on these pins.

    A pin that is not connected reads 1, as nextpnr ties it.
    """
    nets = list(dict.fromkeys(pin for pin in pins if isinstance(pin, int)))
    return tabulate(
        nets,
        lambda values: table(
            sum(values.get(pin, pin != "0") << index for index, pin in enumerate(pins))
        ),
    )


def tabulate(nets: Sequence[int], function: Callable[[dict[Bit, bool]], bool]) -> Table:
    """The table of a function that gets the nets' values."""
    return tuple(
        bool(function(dict(zip(nets, reversed(values), strict=True))))
        for values in product((False, True), repeat=len(nets))
    )


def value_at(nets: Sequence[int], table: Table, values: dict[Bit, bool]) -> bool:
    """A table's value where its nets have these values."""
    return table[sum(values[net] << index for index, net in enumerate(nets))]


def reduced(slot: Slot) -> Slot:
    """The slot without the nets that neither `p` nor `g` depends on."""
    for index, net in enumerate(slot.nets):
        step = 1 << index
        if all(
            table[at] == table[at ^ step] for table in (slot.p, slot.g) for at in range(len(table))
        ):
            nets = tuple(other for other in slot.nets if other != net)
            kept = [at for at in range(len(slot.p)) if not at & step]
            p, g = (tuple(table[at] for at in kept) for table in (slot.p, slot.g))
            return reduced(Slot(nets, p, g, slot.s))
    return slot


@cache
def slot_pins(p: Table, g: Table) -> tuple[tuple[int | None, ...], int] | None:
    """How half a CCU2C computes `p` and `g`.

    Returns
    -------
    For A, B, C and D the index of the net on that pin, and the INIT. `None` on a pin ties it to 1,
    which costs no wire. The whole result is `None` if the half cannot compute them.
    """
    # The first four bits of INIT are the table of G, which matters only where p is 0. They are also
    # the table of p where C = D = 0. So an order of the pins is legal if no bit must be both.
    count = (len(p) - 1).bit_length()
    if count > LUT_INPUTS:
        return None
    nets = [*range(count), *[None] * (LUT_INPUTS - count)]
    for pins in dict.fromkeys(permutations(nets)):
        init: dict[int, bool] = {}
        legal = True
        for at in range(len(p)):
            index = sum((net is None or at >> net & 1) << pin for pin, net in enumerate(pins))
            for place, value in [(index, p[at])] + [(index & 3, g[at])] * (not p[at]):
                legal = legal and init.setdefault(place, value) == value
        if legal:
            return pins, sum(value << place for place, value in init.items())
    return None


def substituted(slot: Slot, bit: Bit, lut: dict[str, Any]) -> Slot:
    """The slot with the function of a LUT in place of `bit`, the net that the LUT drives."""
    pins = [lut["connections"][pin][0] for pin in "ABCD"]
    inputs = list(dict.fromkeys(pin for pin in pins if isinstance(pin, int)))
    init = _init(lut, "INIT")
    table = _function(pins, lambda index: init[index])
    nets = tuple(dict.fromkeys([*(net for net in slot.nets if net != bit), *inputs]))

    def inside(outer: Table) -> Table:
        return tabulate(
            nets,
            lambda values: value_at(
                slot.nets, outer, {**values, bit: value_at(inputs, table, values)}
            ),
        )

    return reduced(Slot(nets, inside(slot.p), inside(slot.g), slot.s))


def joined(low: Slot, high: Slot) -> Slot:
    """One slot with the carry out of both and the S of `low`; the S of `high` is lost."""
    nets = tuple(dict.fromkeys([*low.nets, *high.nets]))

    def generates(values: dict[Bit, bool]) -> bool:
        passed = value_at(low.nets, low.g, values) and value_at(high.nets, high.p, values)
        return passed or value_at(high.nets, high.g, values)

    p = tabulate(
        nets,
        lambda values: value_at(low.nets, low.p, values) and value_at(high.nets, high.p, values),
    )
    return reduced(Slot(nets, p, tabulate(nets, generates), low.s))
