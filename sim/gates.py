"""Gate level: a design as the cells of an FPGA, which run in place of its RTL.

Synthesis is that of a bitstream. The netlist is read back with a model of each cell: yosys brings
most, those that it leaves empty are in ``<family>_cells.v``. What comes out is RTLIL again, for
``tritloom.sim.cxxrtl``, with the same ports.
"""

import tempfile
from pathlib import Path

from tritloom.rtl.errors import ToolError
from tritloom.sim.tools import run_yosys

__all__ = ["FAMILIES", "simulatable", "synthesise"]

FAMILIES = ("ecp5", "ice40")


def synthesise(rtlil: str, family: str) -> str:
    """The netlist of a design with module ``top``, both as RTLIL."""
    _require(family)
    return _run(
        f"read_rtlil in.il; synth_{family} -top top; select top; write_rtlil -selected out.il",
        {"in.il": rtlil},
    )


def simulatable(netlist: str, family: str) -> str:
    """A netlist with its cells replaced by their models, as RTLIL.

    Raises `ToolError` for a cell, or a mode of one, that has no model.
    """
    _require(family)
    own = Path(__file__).with_name(f"{family}_cells.v")
    files = {"in.il": netlist, "own.v": own.read_text() if own.exists() else ""}
    return _run(
        # Deferred: some of the cells that are not used here take a minute.
        f"read_rtlil in.il; read_verilog -defer -DNO_INCLUDES +/{family}/cells_sim.v; "
        "read_verilog -defer -overwrite own.v; "
        "hierarchy -check -top top; proc; flatten; opt; memory_share; memory_collect; "
        "opt_clean -purge; select -assert-none t:* t:$* %d; select -clear; write_rtlil out.il",
        files,
    )


def _require(family: str) -> None:
    if family not in FAMILIES:
        raise ToolError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")


def _run(script: str, files: dict[str, str]) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        run_yosys(["-q", "-p", script], cwd=folder)
        return (folder / "out.il").read_text(encoding="utf-8")
