"""Synthesis, and the netlist of a family's cells that comes of it, to read and to change."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritloom.gen.passes.carry import rebuild_chains
from tritloom.gen.passes.fanout import copy_registers
from tritloom.rtl.spec.errors import ToolError
from tritloom.sim.tools import run_yosys

__all__ = [
    "PASSES",
    "RECIPE",
    "SYNTHESIS",
    "TOP",
    "Netlist",
    "Pin",
    "absorb_output_registers",
    "improve",
    "run_synthesis",
    "synthesise",
]

TOP = "top"
LOG = "yosys.log"
_ECP5 = f"synth_ecp5 -nowidelut -top {TOP}"  # LUTs wider than 4 inputs take 2, 4 or 8
SYNTHESIS: dict[str, tuple[str, ...]] = {
    # On some designs yosys 0.70 fails to put back what ABC9 has mapped; ABC takes no more LUTs.
    "ecp5": (_ECP5, f"{_ECP5} -run :map_luts; abc -lut 4; clean; {_ECP5} -run map_cells:"),
    "ice40": (f"synth_ice40 -top {TOP}",),
}
"""By family: yosys's commands; the next ones only where yosys itself broke."""

WIDE_BITS = 36
"""Width at which an ECP5 block uses both ports to read."""
Bit = int | str
"""A net by number, or a constant: ``"0"``, ``"1"``, ``"x"``, ``"z"``."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Bit ``index`` of ``port`` of the cell called ``cell``."""

    cell: str
    port: str
    index: int


class Netlist:
    """The flat top module of a yosys JSON netlist; ``cells`` are as yosys writes them."""

    def __init__(self, document: dict[str, Any], top: str) -> None:
        self.document = document
        self.module: dict[str, Any] = document["modules"][top]
        self.cells: dict[str, dict[str, Any]] = self.module["cells"]
        used = [bit for port in self.module["ports"].values() for bit in port["bits"]]
        for cell in self.cells.values():
            for bits in cell["connections"].values():
                used += bits
        self._next = max((bit for bit in used if isinstance(bit, int)), default=1) + 1

    def new_bit(self) -> int:
        """A net that nothing has yet."""
        self._next += 1
        return self._next - 1

    def pins(self, direction: str) -> dict[Bit, list[Pin]]:
        """Cells' pins of a direction (``input``: users, ``output``: drivers) by net, as now."""
        found: dict[Bit, list[Pin]] = defaultdict(list)
        for name, cell in self.cells.items():
            directions = cell["port_directions"]
            for port, bits in cell["connections"].items():
                if directions[port] == direction:
                    for index, bit in enumerate(bits):
                        found[bit].append(Pin(name, port, index))
        return found

    def outputs(self) -> set[Bit]:
        """Nets that leave the module, which must stay as they are."""
        return {
            bit
            for port in self.module["ports"].values()
            if port["direction"] != "input"
            for bit in port["bits"]
        }


def absorb_output_registers(netlist: Netlist) -> None:
    """Move the registers behind ECP5 block RAMs into the blocks, which have their own.

    Without them data leaves a block 5.8 ns after the clock, with them after 1. All outputs of a
    port share one enable and have no reset, so their flip-flops must be of one such kind, and
    nobody else may see what they take in.
    """
    users, kept = netlist.pins("input"), netlist.outputs()
    for cell in list(netlist.cells.values()):
        if cell["type"] != "DP16KD":
            continue
        # A block of 36 bits reads through both ports' outputs, by the clock of port B.
        wide = int(cell["parameters"]["DATA_WIDTH_B"], 2) == WIDE_BITS
        for ports, clock_port in (("AB", "B"),) if wide else (("A", "A"), ("B", "B")):
            outputs = [
                (name, bits[0])
                for name, bits in cell["connections"].items()
                if name[:2] == "DO" and name[2] in ports and (users[bits[0]] or bits[0] in kept)
            ]
            taken = [pin for _, bit in outputs for pin in users[bit]]
            if (
                not outputs
                or len(taken) != len(outputs)
                or any(bit in kept for _, bit in outputs)
                or any(len(users[bit]) != 1 for _, bit in outputs)
            ):
                continue
            kinds = {_register_kind(netlist.cells[pin.cell], pin.port) for pin in taken}
            clock = (
                cell["parameters"][f"CLK{clock_port}MUX"] == "INV",
                cell["connections"][f"CLK{clock_port}"][0],
            )
            kind = kinds.pop()
            if kinds or kind is None or kind[:2] != clock:
                continue
            for (name, _), pin in zip(outputs, taken, strict=True):
                cell["connections"][name] = netlist.cells.pop(pin.cell)["connections"]["Q"]
            for port in ports:
                cell["parameters"][f"REGMODE_{port}"] = "OUTREG"
                cell["connections"][f"OCE{port}"] = [kind[2]]


def _register_kind(cell: dict[str, Any], port: str) -> tuple[bool, Bit, Bit] | None:
    """Inverted clock?, clock and enable of a flip-flop with no reset that takes in by ``port``."""
    if cell["type"] != "TRELLIS_FF" or port != "DI":
        return None
    wires, modes = cell["connections"], cell["parameters"]
    if wires["LSR"] != ["0"] or modes["LSRMUX"] != "LSR" or modes["REGSET"] != "RESET":
        return None
    enable = modes["CEMUX"].strip()  # yosys writes "1 ", so that it is not taken for a number
    if enable not in ("CE", "1"):
        return None
    return (
        modes["CLKMUX"] == "INV",
        wires["CLK"][0],
        wires["CE"][0] if enable == "CE" else "1",
    )


PASSES: dict[str, tuple[Callable[[Netlist], None], ...]] = {
    "ecp5": (absorb_output_registers, rebuild_chains, copy_registers)
}
"""By family: what to do with a netlist between synthesis and placement, in order."""


def synthesise(
    rtlil: str, family: str, run: Callable[[list[str], Path], object] = run_yosys
) -> str:
    """The netlist that a bitstream is made from, as JSON, of a design with module ``top``.

    ``run`` runs yosys with arguments in a folder.
    """
    if family not in SYNTHESIS:
        raise ToolError(f"family must be one of {', '.join(SYNTHESIS)}, not {family!r}")
    with tempfile.TemporaryDirectory(prefix="tritloom-") as name:
        return improve(run_synthesis(rtlil, SYNTHESIS[family], Path(name), run), family)


def run_synthesis(
    rtlil: str, scripts: Sequence[str], folder: Path, run: Callable[[list[str], Path], object]
) -> str:
    """The JSON netlist of the first script with which yosys does not break."""
    (folder / f"{TOP}.il").write_text(rtlil, encoding="utf-8")
    log = folder / LOG
    for number, script in enumerate(scripts, 1):
        log.unlink(missing_ok=True)
        commands = f"read_rtlil {TOP}.il; {script}; write_json {TOP}.json"
        try:
            run(["-q", "-l", LOG, "-p", commands], folder)
            break
        except ToolError as error:
            # The ABC in YoWASP's yosys closes standard output: only the log has a later error.
            lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
            told = next((line for line in lines if line.startswith("ERROR")), "")
            if "Assert" in (told or str(error)) and number < len(scripts):
                continue
            if not told:
                raise
            raise type(error)(f"{str(error).partition(':')[0]}: {told}") from None
    return (folder / f"{TOP}.json").read_text(encoding="utf-8")


def improve(text: str, family: str) -> str:
    """A JSON netlist with module ``top``, after the family's passes."""
    if family not in PASSES:
        return text
    netlist = Netlist(json.loads(text), TOP)
    for each in PASSES[family]:
        each(netlist)
    return json.dumps(netlist.document)


RECIPE = 1
"""Version of the netlist passes; raised when a pass changes what it makes of a netlist.

It is part of the key of every kept build and measured point. `tests/gen/passes/test_recipe.py`
ties it to the passes' syntax trees: a comment or a moved file changes nothing, a line of logic
makes the test fail until the number is raised or the change is shown to make the same netlists.
"""
