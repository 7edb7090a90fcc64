"""Gate level: runs the cells of an FPGA in place of the RTL.

A bitstream is made of the same netlist (`tritloom.gen.passes.netlist`). A model replaces each of
its cells. yosys has models of most cells; `FAMILY_cells.v` beside this file has those that yosys
leaves empty. The result is RTLIL with the same ports, for `tritloom.sim.device.cxxrtl`.
"""

import json
import tempfile
from pathlib import Path

from tritloom.rtl.spec.errors import ToolError
from tritloom.sim.tools import run_yosys

__all__ = ["FAMILIES", "simulatable"]

FAMILIES = ("ecp5", "ice40")


def simulatable(netlist: str, family: str) -> str:
    """The RTLIL of a netlist whose cells are replaced by their models.

    Parameters
    ----------
    netlist : in the JSON format of yosys, with the top module `top`
    family : one of `FAMILIES`

    Raises
    ------
    ToolError
        If the family is unknown, or a cell or a mode of a cell has no model.
    """
    if family not in FAMILIES:
        raise ToolError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
    own = Path(__file__).with_name(f"{family}_cells.v")
    script = (
        "read_json in.json; delete =A:blackbox =A:whitebox; "
        # Some models take yosys a minute, so `-defer` elaborates only those that the netlist uses.
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
    """The netlist without the connections of unused outputs.

    nextpnr wants an unused output to be connected to a constant. yosys would take that for a second
    driver of the constant.
    """
    document = json.loads(netlist)
    for module in document["modules"].values():
        for cell in module["cells"].values():
            directions, wires = cell.get("port_directions", {}), cell["connections"]
            for port in [name for name in wires if directions.get(name) == "output"]:
                if wires[port] == ["x"]:
                    del wires[port]
    return json.dumps(document)
