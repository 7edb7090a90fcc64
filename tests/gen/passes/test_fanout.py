"""Registers that feed many memories: how many copies, and what each feeds."""

import pytest

from tritloom.boards.families.family import TOP
from tritloom.gen.passes.fanout import EACH, copy_registers
from tritloom.gen.passes.netlist import Netlist


def fed(kind: str, memories: int) -> tuple[Netlist, list[int]]:
    """A flip-flop that feeds memories, after the pass, and which of its copies feeds each."""
    cells = {
        "register": {
            "type": "TRELLIS_FF",
            "port_directions": {"DI": "input", "Q": "output"},
            "connections": {"DI": [2], "Q": [3]},
        },
        **{
            f"memory_{n}": {
                "type": kind,
                "port_directions": {"A": "input"},
                "connections": {"A": [3]},
            }
            for n in range(memories)
        },
    }
    netlist = Netlist({"modules": {TOP: {"ports": {}, "cells": cells}}}, TOP)
    copy_registers(netlist)
    return netlist, [cells[f"memory_{n}"]["connections"]["A"][0] for n in range(memories)]


@pytest.mark.parametrize("kind", EACH)
def test_copies(kind: str) -> None:
    most = EACH[kind]
    for memories in (1, most, most + 1, 2 * most, 3 * most - 1):
        netlist, nets = fed(kind, memories)
        copies = -(-memories // most)
        registers = [cell for cell in netlist.cells.values() if cell["type"] == "TRELLIS_FF"]
        assert len(registers) == copies
        assert [cell["connections"]["Q"][0] for cell in registers] == list(dict.fromkeys(nets))
        assert all(cell["connections"]["DI"] == [2] for cell in registers)
        counts = [nets.count(net) for net in dict.fromkeys(nets)]
        assert nets == sorted(nets)  # neighbours share one
        assert max(counts) <= most and max(counts) == -(-memories // copies)
