"""Netlist pass for ECP5: the carry chains are built again, in fewer LUTs.

yosys puts an adder's operands on the inputs A and B of each slot (`tritloom.gen.passes.slots`),
and whatever else the design does to them, such as a sign or a mask, into a LUT before each bit.
nextpnr spends a CCU2C on each carry that enters a chain from the fabric, even a constant one, and
one on each carry that leaves it. This pass

* puts such LUTs into the free inputs of the slots;
* lets a carry enter through a slot that kills, and leave as the S of a slot;
* lets related adders share a chain (`tritloom.gen.passes.merge`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

from tritloom.gen.passes.merge import chain_length, merged, neighbours, spare_slot
from tritloom.gen.passes.netlist import Bit, Netlist
from tritloom.gen.passes.slots import (
    LUT_INPUTS,
    Adder,
    Slot,
    half_slot,
    joined,
    slot_pins,
    substituted,
    tabulate,
    value_at,
)

__all__ = ["rebuild_chains"]

MERGED_ADDERS = 2
"""How many adders share a chain at most. More adders save less and force more cells together."""
INIT_BITS = 16


def rebuild_chains(netlist: Netlist, merged_adders: int = MERGED_ADDERS) -> None:
    """Compute the same with fewer LUTs and CCU2C."""
    adders = _take_chains(netlist)
    logic = _Logic(netlist, adders)
    logic.trim()
    logic.fold()
    logic.shorten()
    logic.fold()
    for group in merged(neighbours(netlist, logic.adders), merged_adders):
        _write_chain(netlist, group)


def _take_chains(netlist: Netlist) -> list[Adder]:
    """Take all carry chains out of the netlist, as adders."""
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
        """Whether a carry goes to the next cell of a chain and nowhere else."""
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
        adder = Adder(name, [_carry_in(start)])
        while True:
            adder.slots += [half_slot(cell, 0), half_slot(cell, 1)]
            carry = cell["connections"]["COUT"][0]
            if not linked(carry):
                break
            cell = cells[users[carry][0].cell]
        adder.slots.append(Slot((), (False,), (False,), carry))
        adders.append(adder)
    for name in cells:
        del netlist.cells[name]
    return adders


def _carry_in(bit: Bit) -> Slot:
    """A slot whose carry out is `bit`."""
    if isinstance(bit, int):
        return Slot((bit,), (False, False), (False, True))
    return Slot((), (False,), (bit == "1",))


class _Logic:
    """The adders and the LUTs before them.

    `_uses` counts for each net the pins that read it. Slots are not among them, as their cells are
    not in the netlist.
    """

    def __init__(self, netlist: Netlist, adders: list[Adder]) -> None:
        self.adders = adders
        self._cells = netlist.cells
        self._luts: dict[Bit, str] = {
            cell["connections"]["Z"][0]: name
            for name, cell in netlist.cells.items()
            if cell["type"] == "LUT4" and "keep" not in cell["attributes"]
        }
        self._uses = Counter({bit: len(pins) for bit, pins in netlist.pins("input").items()})
        self._uses.update(netlist.outputs())

    def _readers(self) -> dict[Bit, list[Slot]]:
        """The slots that read each net."""
        readers: dict[Bit, list[Slot]] = defaultdict(list)
        for adder in self.adders:
            for slot in adder.slots:
                for net in slot.nets:
                    readers[net].append(slot)
        return readers

    def trim(self) -> None:
        """Drop sums, slots, adders and LUTs that nothing reads, until all that is left is read."""
        size = -1
        while size != (size := sum(len(adder.slots) for adder in self.adders) + len(self._luts)):
            readers = self._readers()
            for adder in self.adders:
                for slot in adder.slots:
                    if slot.s is not None and not self._uses[slot.s] and slot.s not in readers:
                        slot.s = None
                while adder.slots and adder.slots[-1].s is None:
                    adder.slots.pop()
            self.adders = [adder for adder in self.adders if adder.slots]
            readers = self._readers()
            for bit in list(self._luts):
                if not self._uses[bit] and bit not in readers:
                    self._drop(bit)

    def _drop(self, bit: Bit) -> None:
        connections = self._cells.pop(self._luts.pop(bit))["connections"]
        self._uses.subtract(connections[pin][0] for pin in "ABCD")

    def fold(self) -> None:
        """Move each LUT that only slots read into all of them, if every one of them can take it."""
        readers = self._readers()
        before = -1
        while before != (before := len(self._luts)):
            for bit, name in list(self._luts.items()):
                if self._uses[bit] or not readers[bit]:
                    continue
                folded = [substituted(slot, bit, self._cells[name]) for slot in readers[bit]]
                if any(slot_pins(slot.p, slot.g) is None for slot in folded):
                    continue
                self._drop(bit)
                for slot, new in zip(readers.pop(bit), folded, strict=True):
                    for net in slot.nets:
                        readers[net] = [other for other in readers[net] if other is not slot]
                    slot.nets, slot.p, slot.g = new.nets, new.p, new.g
                    for net in slot.nets:
                        readers[net].append(slot)

    def shorten(self) -> None:
        """Make one slot of two neighbours where nothing reads the S of the second."""
        for adder in self.adders:
            index = 0
            while index + 1 < len(adder.slots):
                low, high = adder.slots[index : index + 2]
                both = joined(low, high)
                # The first slot keeps its S only if its p is unchanged.
                if (
                    high.s is None
                    and (low.s is None or low.kills)
                    and slot_pins(both.p, both.g) is not None
                ):
                    adder.slots[index : index + 2] = [both]
                    index = max(0, index - 1)
                else:
                    index += 1


def _write_chain(netlist: Netlist, group: list[Adder]) -> None:
    """Put the adders of a group into the netlist as one chain."""
    name = group[0].name
    slots: list[Slot] = []
    odd = chain_length(group) % 2 == 1
    for adder in sorted(group, key=lambda adder: not adder.slots[-1].kills):
        first, second, *rest = adder.slots
        both = spare_slot(adder.slots) if odd else None
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
        slots.append(Slot((), (False,), (False,)))
    carry: Bit = "x"  # not connected: for a constant, nextpnr would add a cell
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
            setting = slot_pins(slot.p, slot.g)
            assert setting is not None
            pins, init = setting
            cell["parameters"][f"INIT{half}"] = f"{init:0{INIT_BITS}b}"
            for pin, net in zip("ABCD", pins, strict=True):
                cell["port_directions"][f"{pin}{half}"] = "input"
                cell["connections"][f"{pin}{half}"] = ["1" if net is None else slot.nets[net]]
            cell["port_directions"][f"S{half}"] = "output"
            s = netlist.new_bit() if slot.s is None else slot.s
            cell["connections"][f"S{half}"] = [s]
        netlist.cells[f"{name}_CHAIN_{at // 2}"] = cell


def _write_lut(netlist: Netlist, name: str, first: Slot, second: Slot) -> None:
    """Put a LUT into the netlist that gives the S of `second`; `first` kills."""
    nets = list(dict.fromkeys([*first.nets, *second.nets]))
    table = tabulate(
        nets,
        lambda values: (
            value_at(first.nets, first.g, values) != value_at(second.nets, second.p, values)
        ),
    )
    repeated = table * (INIT_BITS // len(table))
    pins: list[Bit] = [*nets, *["0"] * (LUT_INPUTS - len(nets))]
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
