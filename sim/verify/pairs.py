"""Pairs of commands that a device may execute at the same time, such as LOAD, RUN and RESULTS.

One of the two follows the other directly. What the device may do then depends on whether both use
the same bank, so that is part of the pair.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from tritloom.rtl.spec.checks import ALL_CHECKS, Quantity
from tritloom.rtl.spec.commands import Opcode, Request
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["OVERLAPPING", "Pair", "all_pairs", "banks_read", "overlapping", "pair_of"]

OVERLAPPING = (Opcode.LOAD, Opcode.RUN, Opcode.RESULTS)
"""The commands that every device may execute at the same time."""
OF_SCALES = (Opcode.SCALES,)
"""What a device with scales of activations may execute at the same time as these."""
OF_UNIT = (Opcode.PUT, Opcode.GET, Opcode.EXECUTE)
"""The commands that a device with a vector unit may execute at the same time as these."""
BANK_FIELDS = {
    Quantity.ACTIVATION_BANK: "activation_bank",
    Quantity.RESULT_BANK: "result_bank",
}


_OVERLAPPING = {*OVERLAPPING, *OF_SCALES, *OF_UNIT}


class Pair(NamedTuple):
    """Two commands of `overlapping`, one directly behind the other.

    Members
    -------
    first, second : the opcodes
    same_activations, same_results : whether both use the same bank; `None` if one of them uses none
    """

    first: Opcode
    second: Opcode
    same_activations: bool | None
    same_results: bool | None

    def __str__(self) -> str:
        facts = {"activation": self.same_activations, "result": self.same_results}
        words = {True: "same", False: "other"}
        banks = [f"{words[same]} {kind} bank" for kind, same in facts.items() if same is not None]
        return f"{self.first.name} → {self.second.name}" + (f" ({', '.join(banks)})" * bool(banks))


def banks_read(opcode: int) -> set[str]:
    """The fields of a request that name a bank and that a command reads; it ignores the others."""
    if opcode not in ALL_CHECKS:
        return set()
    quantities = {check.quantity for check in ALL_CHECKS[Opcode(opcode)]}
    return {name for quantity, name in BANK_FIELDS.items() if quantity in quantities}


def overlapping(config: AcceleratorConfig) -> tuple[Opcode, ...]:
    """The commands that a device may execute at the same time."""
    of_scales = OF_SCALES if config.scales_activations else ()
    return OVERLAPPING + of_scales + (OF_UNIT if config.vector is not None else ())


def pair_of(first: Request, second: Request) -> Pair | None:
    """The pair that two successive commands are, or `None` if one of them never overlaps."""
    if not {first.opcode, second.opcode} <= _OVERLAPPING:
        return None
    both = banks_read(first.opcode) & banks_read(second.opcode)
    same = {name: getattr(first, name) == getattr(second, name) for name in both}
    return Pair(
        Opcode(first.opcode),
        Opcode(second.opcode),
        same.get("activation_bank"),
        same.get("result_bank"),
    )


def all_pairs(config: AcceleratorConfig) -> set[Pair]:
    """All pairs that a device of a configuration can be sent."""
    banks = range(config.banks)
    requests = [
        Request(opcode, activation_bank=activations, result_bank=results)
        for opcode, activations, results in product(overlapping(config), banks, banks)
    ]
    pairs = {pair_of(first, second) for first, second in product(requests, repeat=2)}
    return {pair for pair in pairs if pair is not None}
