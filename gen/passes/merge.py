"""Which ECP5 adders share a carry chain.

An adder ends with a slot that gives its carry out, and the next one may begin with that slot if it
kills: it passes no carry on. So two adders in one chain take a slot less than in two chains, and
often one cell less, as a cell has two slots. The price is that the placer must keep both together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from tritloom.gen.passes.netlist import Bit, Netlist
from tritloom.gen.passes.slots import LUT_INPUTS, Adder, Slot, joined, slot_pins

__all__ = ["chain_length", "merged", "neighbours", "spare_slot"]

MERGED_SLOTS = 20
"""Longest chain of several adders, in slots. Timing analysis follows the carry through slots that
kill, so a long chain looks slow even though its adders are short."""
WORTH = 0.5
"""LUTs that a shared chain must save for each of its adders, for the clock that it costs."""
WINDOW = 16
"""How many of the next adders are tried as a partner."""
CLOCKED = ("TRELLIS_FF", "DP16KD")
"""Types of cells that no signal passes within a cycle."""


def neighbours(netlist: Netlist, adders: list[Adder]) -> list[list[Adder]]:
    """The adders by place, with related adders next to each other.

    Adders that feed one root, directly or through registers, are a tree. The placer draws a tree
    together. It also draws together, less strongly, the trees whose roots are in one module of the
    design. Each such module is a place.
    """
    registers: dict[Bit, list[Bit]] = defaultdict(list)
    for cell in netlist.cells.values():
        if cell["type"] == "TRELLIS_FF":
            for bit in cell["connections"].get("DI", ()):
                registers[bit] += cell["connections"]["Q"]
    source: dict[Bit, Adder] = {}
    for adder in adders:
        for slot in adder.slots:
            if slot.s is not None:
                source.update(dict.fromkeys([slot.s, *registers[slot.s]], adder))
    feeds: dict[Adder, list[Adder]] = {}
    fed = set()
    late = _reached_by_sums(netlist, adders)
    for adder in adders:
        nets = dict.fromkeys(net for slot in adder.slots for net in slot.nets if net in source)
        sources = dict.fromkeys(source[net] for net in nets)
        # An adder that adds to its own sum, such as a counter, has one cycle for the whole loop. It
        # is best placed freely.
        adder.alone = adder in sources or any(
            net in late for slot in adder.slots for net in slot.nets
        )
        feeds[adder] = [each for each in sources if each != adder]
        fed.update(feeds[adder])
    seen: set[Adder] = set()

    def tree(root: Adder) -> Iterator[Adder]:
        # Not recursive: adders may feed each other in a loop, or deeper than Python's stack.
        stack = [(root, iter(feeds[root]))]
        seen.add(root)
        while stack:
            adder, rest = stack[-1]
            for each in rest:
                if each not in seen:
                    seen.add(each)
                    stack.append((each, iter(feeds[each])))
                    break
            else:
                stack.pop()
                yield adder

    roots = [adder for adder in adders if adder not in fed] + adders
    places: dict[str, list[Adder]] = defaultdict(list)
    for root in roots:
        if root not in seen:
            for adder in tree(root):
                adder.tree = root.name
                places[root.name.rpartition(".")[0]].append(adder)
    return list(places.values())


def _reached_by_sums(netlist: Netlist, adders: Iterable[Adder]) -> set[Bit]:
    """Nets that depend on a sum within the same cycle.

    An adder that reads such a net could close a loop through a shared chain: in truth a slot that
    kills cuts it, but timing analysis does not see that and refuses loops.
    """
    users = netlist.pins("input")
    left: list[Bit] = [slot.s for adder in adders for slot in adder.slots if slot.s is not None]
    reached = set(left)
    while left:
        for pin in users.get(left.pop(), ()):
            cell = netlist.cells[pin.cell]
            if cell["type"] in CLOCKED:
                continue
            directions = cell["port_directions"]
            for port, bits in cell["connections"].items():
                if directions[port] == "output":
                    left += set(bits) - reached
                    reached.update(bits)
    return reached


def merged(places: Iterable[list[Adder]], most_adders: int) -> Iterator[list[Adder]]:
    """Groups of up to `most_adders` adders of one place, each group to become one chain."""
    for place in places:
        yield from ([adder] for adder in place if adder.alone)
        left = [adder for adder in place if not adder.alone]
        while left:
            group = best = [left.pop(0)]
            saved = WORTH
            while len(group) < most_adders:
                near = [
                    adder
                    for adder in left[:WINDOW]
                    if adder not in group
                    and chain_length([*group, adder]) <= MERGED_SLOTS
                    and all(_related(adder, other) for other in group)
                ]
                if not near:
                    break
                # Of those that save most, the nearest.
                group = max(([*group, adder] for adder in near), key=_saved)
                if _saved(group) > saved:
                    best, saved = group, _saved(group)
            left = [adder for adder in left if adder not in best]
            yield best


def _related(one: Adder, other: Adder) -> bool:
    """Whether the placer puts both near each other without a chain that forces it to."""
    return one.tree == other.tree or len(one.slots) == len(other.slots)


def chain_length(group: Sequence[Adder]) -> int:
    """Slots of a group's chain. The top slot of an adder, where it kills, begins the next adder."""
    shared = sum(adder.slots[-1].kills for adder in group)
    return sum(len(adder.slots) for adder in group) - min(shared, len(group) - 1)


def _luts(group: Sequence[Adder]) -> int:
    """LUTs of a group's chain: an even number of slots, unless a LUT can replace the odd one."""
    length = chain_length(group)
    return length + (length % 2 and not any(spare_slot(adder.slots) for adder in group))


def _saved(group: Sequence[Adder]) -> float:
    """LUTs for each adder that one chain takes less than a chain for each adder."""
    return (sum(_luts([adder]) for adder in group) - _luts(group)) / len(group)


def spare_slot(slots: Sequence[Slot]) -> Slot | None:
    """The first two slots as one, if a LUT can give the second slot's S instead."""
    first, second = slots[:2]
    both = joined(first, second)
    wide = len({*first.nets, *second.nets}) > LUT_INPUTS
    if second.s is None or wide or not slot_pins(both.p, both.g):
        return None
    return both
