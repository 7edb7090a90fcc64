"""Gate level: a design as the cells of an FPGA, which run in place of its RTL.

A netlist is that of a bitstream (`tritloom.gen.passes.synthesis`). It is read with a model of each
cell: yosys brings most, those that it leaves empty are in ``<family>_cells.v``. What comes out is
RTLIL, for ``tritloom.sim.device.cxxrtl``, with the same ports.
"""

import json
import tempfile
from pathlib import Path

from tritloom.rtl.spec.errors import ToolError
from tritloom.sim.tools import run_yosys

__all__ = ["FAMILIES", "simulatable"]

FAMILIES = ("ecp5", "ice40")


def simulatable(netlist: str, family: str) -> str:
    """A netlist in yosys's JSON, with its cells replaced by their models, as RTLIL.

    Raises `ToolError` for a cell, or a mode of one, that has no model.
    """
    if family not in FAMILIES:
        raise ToolError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
    own = Path(__file__).with_name(f"{family}_cells.v")
    script = (
        "read_json in.json; delete =A:blackbox =A:whitebox; "
        # Deferred: some of the cells that are not used here take a minute.
        f"read_verilog -defer -DNO_INCLUDES +/{family}/cells_sim.v; "
        "read_verilog -defer -overwrite own.v; "
        "hierarchy -check -top top; proc; flatten; opt; memory_share; memory_collect; "
        "opt_clean -purge; select -assert-none t:* t:$* %d; select -clear; write_rtlil out.il"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in.json").write_text(_without_constants(netlist), encoding="utf-8")
        (folder / "own.v").write_text(own.read_text() if own.exists() else "")
        run_yosys(["-q", "-p", script], cwd=folder)
        return (folder / "out.il").read_text(encoding="utf-8")


def _without_constants(netlist: str) -> str:
    """nextpnr wants an output that nothing uses to be a constant, yosys to be left out."""
    document = json.loads(netlist)
    for module in document["modules"].values():
        for cell in module["cells"].values():
            directions, wires = cell.get("port_directions", {}), cell["connections"]
            for port in [name for name in wires if directions.get(name) == "output"]:
                if wires[port] == ["x"]:
                    del wires[port]
    return json.dumps(document)
