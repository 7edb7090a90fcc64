"""Synthesis: from RTLIL to the netlist that is placed, netlist passes included."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tritloom.boards.families.family import TOP, Family, bitstream_families, load_family
from tritloom.gen.passes.netlist import Netlist
from tritloom.rtl.spec.errors import ToolError
from tritloom.rtl.spec.registry import load_component
from tritloom.sim.tools import read_output, run_yosys

__all__ = ["RECIPE", "improve", "run_synthesis", "synthesise"]

LOG = "yosys.log"


def synthesise(
    rtlil: str, family: str, run: Callable[[list[str], Path], object] = run_yosys
) -> str:
    """The netlist that a bitstream is made from.

    Parameters
    ----------
    rtlil : the design, with a module `top`
    family : name of a family that has a flow to a bitstream
    run : gets yosys's arguments and a folder, and runs it there

    Returns
    -------
    A JSON netlist, as yosys writes it

    Raises
    ------
    ToolError : the family has no such flow, or yosys failed
    """
    if family not in bitstream_families():
        raise ToolError(f"family must be one of {', '.join(bitstream_families())}, not {family!r}")
    facts = load_family(family)
    with tempfile.TemporaryDirectory(prefix="tritloom-") as name:
        return improve(run_synthesis(rtlil, facts.synthesis, Path(name), run), facts)


def run_synthesis(
    rtlil: str, scripts: Sequence[str], folder: Path, run: Callable[[list[str], Path], object]
) -> str:
    """The JSON netlist of the first script with which yosys does not break.

    Parameters
    ----------
    rtlil : the design, with a module `top`
    scripts : yosys's commands; the next script is tried only where yosys itself broke
    folder : where the files go
    run : gets yosys's arguments and a folder, and runs it there

    Raises
    ------
    ToolError : yosys refused the design, or broke with every script
    """
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
            message = next((line for line in lines if line.startswith("ERROR")), "")
            # A failed assertion is a fault of yosys, not of the design.
            if "Assert" in (message or str(error)) and number < len(scripts):
                continue
            if not message:
                raise
            raise type(error)(f"{str(error).partition(':')[0]}: {message}") from None
    return read_output(folder / f"{TOP}.json", "}")


def improve(text: str, family: Family) -> str:
    """A JSON netlist with a module `top`, after the family's netlist passes."""
    if not family.passes:
        return text
    netlist = Netlist(json.loads(text), TOP)
    for path in family.passes:
        load_component(path)(netlist)
    return json.dumps(netlist.document)


RECIPE = 1
"""Version of the netlist passes; raised when a pass changes what it makes of a netlist.

It is part of the key of every cached build and measured point; a cached build's key also has the
list of the family's passes. `tests/gen/passes/test_recipe.py` ties the version to the passes'
syntax trees: a comment or a moved file changes nothing. A changed line of logic makes the test
fail, until the number is raised or the netlists are shown to be the same.
"""
