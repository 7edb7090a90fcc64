"""What yosys and nextpnr leave on the table in the carry chains of the Lattice ECP5.

Half a CCU2C, a slot here, adds one bit: S = P ^ CIN and COUT = P ? CIN : G, where P is any function
of A, B, C and D, and G one of A and B. Yosys puts the operands on A and B and whatever else a
design does to them (a sign, a mask) into a LUT before each bit; nextpnr spends a CCU2C on each
carry that enters a chain from the fabric, constants too, and one on each that leaves it. Here such
LUTs go into the slots' free inputs; a carry enters by a slot that kills (P = 0, so that COUT = G
whatever comes in) and leaves as the S of one; and related adders share a chain, one's killing top
slot being the next one's start.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tritloom.gen.passes.netlist import Bit, Netlist

__all__ = ["rebuild_chains"]

MERGED_ADDERS = 2
"""At most so many share a chain: more save less, and pull more logic into one place."""
MERGED_SLOTS = 20
"""Timing analysis sees paths through slots that kill, so a chain stays short all the same."""
WORTH = 0.5
"""LUTs an adder that a merged chain must save more than, for the clock that it costs."""
WINDOW = 16
"""How far to look for an adder's partner, in adders."""
CLOCKED = ("TRELLIS_FF", "DP16KD")
"""Cells that nothing passes within a cycle."""

Table = tuple[bool, ...]
"""A function of a list of nets: the first net is bit 0 of the index."""


@dataclass(slots=True)
class _Slot:
    """S = p ^ CIN, COUT = p & CIN | g, where p and g are never both true; no ``s``: not used."""

    nets: tuple[int, ...]
    p: Table
    g: Table
    s: Bit | None = None

    @property
    def kills(self) -> bool:
        return not any(self.p)


@dataclass(slots=True, eq=False)
class _Adder:
    """Begins with a slot that kills and whose S is not used.

    ``name``: of its first cell; ``tree``: that of the adder which it feeds in the end; ``alone``:
    it shares no chain.
    """

    name: str
    slots: list[_Slot] = field(default_factory=list)
    tree: str = ""
    alone: bool = False


def rebuild_chains(netlist: Netlist, merged_adders: int = MERGED_ADDERS) -> None:
    """Fewer LUTs and CCU2C that compute the same."""
    adders = _read(netlist)
    logic = _Logic(netlist, adders)
    logic.trim()
    logic.fold()
    logic.shorten()
    logic.fold()
    for chain in _merge(_order(netlist, logic.adders), merged_adders):
        _write(netlist, chain)


def _read(netlist: Netlist) -> list[_Adder]:
    """Take all the chains out of the netlist."""
    users = netlist.pins("input")
    outputs = netlist.outputs()
    cells = {
        name: cell
        for name, cell in netlist.cells.items()
        if cell["type"] == "CCU2C"
        and cell["parameters"]["INJECT1_0"] == cell["parameters"]["INJECT1_1"] == "NO"
    }
    carries = {cell["connections"]["COUT"][0] for cell in cells.values()}

    def linked(bit: Bit) -> bool:
        """Whether the carry goes to the next cell and nowhere else."""
        uses = users.get(bit, [])
        return (
            bit in carries
            and bit not in outputs
            and len(uses) == 1
            and uses[0].port == "CIN"
            and uses[0].cell in cells
        )

    adders = []
    for name, cell in cells.items():
        start = cell["connections"]["CIN"][0]
        if linked(start):
            continue
        adder = _Adder(name, [_carry_in(start)])
        while True:
            adder.slots += [_half(cell, 0), _half(cell, 1)]
            carry = cell["connections"]["COUT"][0]
            if not linked(carry):
                break
            cell = cells[users[carry][0].cell]
        adder.slots.append(_Slot((), (False,), (False,), carry))
        adders.append(adder)
    for name in cells:
        del netlist.cells[name]
    return adders


def _carry_in(bit: Bit) -> _Slot:
    if isinstance(bit, int):
        return _Slot((bit,), (False, False), (False, True))
    return _Slot((), (False,), (bit == "1",))


def _half(cell: dict[str, Any], half: int) -> _Slot:
    pins = [cell["connections"][f"{pin}{half}"][0] for pin in "ABCD"]
    init = _init(cell, f"INIT{half}")
    carry = init[:4] * 4
    p = _function(pins, lambda index: init[index])
    g = _function(pins, lambda index: carry[index] and not init[index])
    nets = tuple(dict.fromkeys(pin for pin in pins if isinstance(pin, int)))
    return _reduced(_Slot(nets, p, g, cell["connections"][f"S{half}"][0]))


def _init(cell: dict[str, Any], name: str) -> Table:
    return tuple(bit == "1" for bit in reversed(cell["parameters"][name]))


def _function(pins: Sequence[Bit], table: Callable[[int], bool]) -> Table:
    """A table of pins as one of the nets on them; a pin without a net is 1 but where tied to 0."""
    nets = list(dict.fromkeys(pin for pin in pins if isinstance(pin, int)))
    return _tabulate(
        nets,
        lambda values: table(
            sum(values.get(pin, pin != "0") << index for index, pin in enumerate(pins))
        ),
    )


def _tabulate(nets: Sequence[int], function: Callable[[dict[Bit, bool]], bool]) -> Table:
    return tuple(
        bool(function(dict(zip(nets, reversed(values), strict=True))))
        for values in product((False, True), repeat=len(nets))
    )


def _at(nets: Sequence[int], table: Table, values: dict[Bit, bool]) -> bool:
    return table[sum(values[net] << index for index, net in enumerate(nets))]


def _reduced(slot: _Slot) -> _Slot:
    """Without the nets that change nothing."""
    for index, net in enumerate(slot.nets):
        step = 1 << index
        if all(
            table[at] == table[at ^ step] for table in (slot.p, slot.g) for at in range(len(table))
        ):
            nets = tuple(other for other in slot.nets if other != net)
            kept = [at for at in range(len(slot.p)) if not at & step]
            p, g = (tuple(table[at] for at in kept) for table in (slot.p, slot.g))
            return _reduced(_Slot(nets, p, g, slot.s))
    return slot


@cache
def _pins(p: Table, g: Table) -> tuple[tuple[int | None, ...], int] | None:
    """The nets, by index, that go on A, B, C, D, and the INIT; None if the slot cannot do it.

    A pin without a net is tied to 1, which costs no wire. The first four bits of INIT are the table
    of G, which matters where p is not. They are that of p too where C = D = 0.
    """
    count = (len(p) - 1).bit_length()
    if count > 4:
        return None
    nets = [*range(count), *[None] * (4 - count)]
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


class _Logic:
    """Adders and the LUTs before them, with the count of the uses of each net."""

    def __init__(self, netlist: Netlist, adders: list[_Adder]) -> None:
        self.adders = adders
        self._cells = netlist.cells
        self._luts: dict[Bit, str] = {
            cell["connections"]["Z"][0]: name
            for name, cell in netlist.cells.items()
            if cell["type"] == "LUT4" and "keep" not in cell["attributes"]
        }
        self._uses = Counter({bit: len(pins) for bit, pins in netlist.pins("input").items()})
        self._uses.update(netlist.outputs())

    def _slots(self) -> dict[Bit, list[_Slot]]:
        """Those that each net goes to."""
        found: dict[Bit, list[_Slot]] = defaultdict(list)
        for adder in self.adders:
            for slot in adder.slots:
                for net in slot.nets:
                    found[net].append(slot)
        return found

    def trim(self) -> None:
        """Drop what nobody looks at, until there is no more of it."""
        size = -1
        while size != (size := sum(len(adder.slots) for adder in self.adders) + len(self._luts)):
            to_slots = self._slots()
            for adder in self.adders:
                for slot in adder.slots:
                    if slot.s is not None and not self._uses[slot.s] and slot.s not in to_slots:
                        slot.s = None
                while adder.slots and adder.slots[-1].s is None:
                    adder.slots.pop()
            self.adders = [adder for adder in self.adders if adder.slots]
            to_slots = self._slots()
            for bit in list(self._luts):
                if not self._uses[bit] and bit not in to_slots:
                    self._drop(bit)

    def _drop(self, bit: Bit) -> None:
        connections = self._cells.pop(self._luts.pop(bit))["connections"]
        self._uses.subtract(connections[pin][0] for pin in "ABCD")

    def fold(self) -> None:
        """Put LUTs that go to slots only into all of them, where each of these can take it."""
        to_slots = self._slots()
        before = -1
        while before != (before := len(self._luts)):
            for bit, name in list(self._luts.items()):
                if self._uses[bit] or not to_slots[bit]:
                    continue
                folded = [_substituted(slot, bit, self._cells[name]) for slot in to_slots[bit]]
                if any(_pins(slot.p, slot.g) is None for slot in folded):
                    continue
                self._drop(bit)
                for slot, new in zip(to_slots.pop(bit), folded, strict=True):
                    for net in slot.nets:
                        to_slots[net] = [other for other in to_slots[net] if other is not slot]
                    slot.nets, slot.p, slot.g = new.nets, new.p, new.g
                    for net in slot.nets:
                        to_slots[net].append(slot)

    def shorten(self) -> None:
        """Make one slot of two where nobody looks at the sum of the second."""
        for adder in self.adders:
            index = 0
            while index + 1 < len(adder.slots):
                low, high = adder.slots[index : index + 2]
                both = _joined(low, high)
                # The sum of a slot is as before only if its p is.
                if (
                    high.s is None
                    and (low.s is None or low.kills)
                    and _pins(both.p, both.g) is not None
                ):
                    adder.slots[index : index + 2] = [both]
                    index = max(0, index - 1)
                else:
                    index += 1


def _substituted(slot: _Slot, bit: Bit, lut: dict[str, Any]) -> _Slot:
    """A slot with a LUT in place of the net that it drives."""
    pins = [lut["connections"][pin][0] for pin in "ABCD"]
    inputs = list(dict.fromkeys(pin for pin in pins if isinstance(pin, int)))
    init = _init(lut, "INIT")
    table = _function(pins, lambda index: init[index])
    nets = tuple(dict.fromkeys([*(net for net in slot.nets if net != bit), *inputs]))

    def inside(outer: Table) -> Table:
        return _tabulate(
            nets,
            lambda values: _at(slot.nets, outer, {**values, bit: _at(inputs, table, values)}),
        )

    return _reduced(_Slot(nets, inside(slot.p), inside(slot.g), slot.s))


def _joined(low: _Slot, high: _Slot) -> _Slot:
    """Two slots as one, but for the sum of the second."""
    nets = tuple(dict.fromkeys([*low.nets, *high.nets]))

    def generates(values: dict[Bit, bool]) -> bool:
        passed = _at(low.nets, low.g, values) and _at(high.nets, high.p, values)
        return passed or _at(high.nets, high.g, values)

    p = _tabulate(
        nets, lambda values: _at(low.nets, low.p, values) and _at(high.nets, high.p, values)
    )
    return _reduced(_Slot(nets, p, _tabulate(nets, generates), low.s))


def _order(netlist: Netlist, adders: list[_Adder]) -> list[list[_Adder]]:
    """Adders of one place each, relatives next to each other.

    A tree of adders that feed, directly or by a register, its root is what a placer draws together
    anyway. So are, less so, the trees whose roots are in one module of the design.
    """
    registers: dict[Bit, list[Bit]] = defaultdict(list)
    for cell in netlist.cells.values():
        if cell["type"] == "TRELLIS_FF":
            for bit in cell["connections"].get("DI", ()):
                registers[bit] += cell["connections"]["Q"]
    source: dict[Bit, _Adder] = {}
    for adder in adders:
        for slot in adder.slots:
            if slot.s is not None:
                source.update(dict.fromkeys([slot.s, *registers[slot.s]], adder))
    feeds: dict[_Adder, list[_Adder]] = {}
    fed = set()
    late = _behind(netlist, adders)
    for adder in adders:
        nets = dict.fromkeys(net for slot in adder.slots for net in slot.nets if net in source)
        sources = dict.fromkeys(source[net] for net in nets)
        # One that adds to its own sum, a counter for instance, has a cycle for all its way, and
        # what it would be merged with often lies elsewhere.
        adder.alone = adder in sources or any(
            net in late for slot in adder.slots for net in slot.nets
        )
        feeds[adder] = [each for each in sources if each != adder]
        fed.update(feeds[adder])
    seen: set[_Adder] = set()

    def walk(root: _Adder) -> Iterator[_Adder]:
        # Adders may feed each other in a circle, and deeper than Python's stack.
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
    places: dict[str, list[_Adder]] = defaultdict(list)
    for root in roots:
        if root not in seen:
            for adder in walk(root):
                adder.tree = root.name
                places[root.name.rpartition(".")[0]].append(adder)
    return list(places.values())


def _behind(netlist: Netlist, adders: Iterable[_Adder]) -> set[Bit]:
    """Nets that sums reach within a cycle.

    An adder that one of these goes to could be part of a loop, of carries that slots stop; and
    timing analysis refuses loops.
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


def _merge(places: Iterable[list[_Adder]], merged_adders: int) -> Iterator[list[_Adder]]:
    """Groups of adders of a place, each to become a chain, that take less than each alone."""
    for place in places:
        yield from ([adder] for adder in place if adder.alone)
        left = [adder for adder in place if not adder.alone]
        while left:
            group = best = [left.pop(0)]
            saved = WORTH
            while len(group) < merged_adders:
                near = [
                    adder
                    for adder in left[:WINDOW]
                    if adder not in group
                    and _length([*group, adder]) <= MERGED_SLOTS
                    and all(_related(adder, other) for other in group)
                ]
                if not near:
                    break
                # The nearest of those that save most.
                group = max(([*group, adder] for adder in near), key=_saved)
                if _saved(group) > saved:
                    best, saved = group, _saved(group)
            left = [adder for adder in left if adder not in best]
            yield best


def _related(one: _Adder, other: _Adder) -> bool:
    """Whether the placer draws them together: a chain of others pulls each out of its place."""
    return one.tree == other.tree or len(one.slots) == len(other.slots)


def _length(group: Sequence[_Adder]) -> int:
    """Slots of a chain: but for the last adder's, a top slot that kills is the next one's start."""
    shared = sum(adder.slots[-1].kills for adder in group)
    return sum(len(adder.slots) for adder in group) - min(shared, len(group) - 1)


def _luts(group: Sequence[_Adder]) -> int:
    """What a chain takes: pairs of slots, unless a LUT can do the work of an odd one."""
    length = _length(group)
    return length + (length % 2 and not any(_spare(adder.slots) for adder in group))


def _saved(group: Sequence[_Adder]) -> float:
    """LUTs that a chain of a group takes less than chains of its own, for each adder."""
    return (sum(_luts([adder]) for adder in group) - _luts(group)) / len(group)


def _spare(slots: Sequence[_Slot]) -> _Slot | None:
    """The two first slots as one, if a LUT can give the sum of the second in its place."""
    first, second = slots[:2]
    both = _joined(first, second)
    if second.s is None or len({*first.nets, *second.nets}) > 4 or not _pins(both.p, both.g):
        return None
    return both


def _write(netlist: Netlist, group: list[_Adder]) -> None:
    """Make one chain of the adders of a group."""
    name = group[0].name
    slots: list[_Slot] = []
    odd = _length(group) % 2 == 1
    for adder in sorted(group, key=lambda adder: not adder.slots[-1].kills):
        first, second, *rest = adder.slots
        both = _spare(adder.slots) if odd else None
        if both is not None:
            odd = False
            _write_lut(netlist, f"{name}_CHAIN_LUT", first, second)
            starts = [both]
        else:
            starts = [first, second]
        if slots and slots[-1].kills:
            starts[0] = replace(starts[0], s=slots.pop().s)
        slots += [*starts, *rest]
    if odd:
        slots.append(_Slot((), (False,), (False,)))
    carry: Bit = "x"  # not connected, or nextpnr takes a cell to bring in a constant
    for at in range(0, len(slots), 2):
        last = at + 2 == len(slots)
        cell: dict[str, Any] = {
            "hide_name": 0,
            "type": "CCU2C",
            "parameters": {"INJECT1_0": "NO", "INJECT1_1": "NO"},
            "attributes": {},
            "port_directions": {"CIN": "input", "COUT": "output"},
            "connections": {"CIN": [carry]},
        }
        carry = "x" if last else netlist.new_bit()
        cell["connections"]["COUT"] = [carry]
        for half, slot in enumerate(slots[at : at + 2]):
            found = _pins(slot.p, slot.g)
            assert found is not None
            pins, init = found
            cell["parameters"][f"INIT{half}"] = f"{init:016b}"
            for pin, net in zip("ABCD", pins, strict=True):
                cell["port_directions"][f"{pin}{half}"] = "input"
                cell["connections"][f"{pin}{half}"] = ["1" if net is None else slot.nets[net]]
            cell["port_directions"][f"S{half}"] = "output"
            s = netlist.new_bit() if slot.s is None else slot.s
            cell["connections"][f"S{half}"] = [s]
        netlist.cells[f"{name}_CHAIN_{at // 2}"] = cell


def _write_lut(netlist: Netlist, name: str, first: _Slot, second: _Slot) -> None:
    """Make a LUT that gives the sum of a slot that follows one that kills."""
    nets = list(dict.fromkeys([*first.nets, *second.nets]))
    table = _tabulate(
        nets,
        lambda values: _at(first.nets, first.g, values) != _at(second.nets, second.p, values),
    )
    repeated = table * (16 // len(table))
    pins: list[Bit] = [*nets, *["0"] * (4 - len(nets))]
    netlist.cells[name] = {
        "hide_name": 0,
        "type": "LUT4",
        "parameters": {"INIT": "".join("01"[bit] for bit in reversed(repeated))},
        "attributes": {},
        "port_directions": {**dict.fromkeys("ABCD", "input"), "Z": "output"},
        "connections": {
            **{pin: [net] for pin, net in zip("ABCD", pins, strict=True)},
            "Z": [second.s],
        },
    }
