"""Gate level: runs the cells of an FPGA in place of the RTL.

A bitstream is made of the same netlist (`tritloom.gen.passes.synthesis`). A model replaces each of
its cells. yosys has models of most cells; those that yosys leaves empty have one in a file beside
this. The result is RTLIL with the same ports, for `tritloom.sim.device.cxxrtl`.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tritloom.rtl.spec.errors import ToolError
from tritloom.sim.tools import run_yosys

__all__ = ["simulatable"]

OF_YOSYS = "+/"
"""How the path of a model begins that comes with yosys."""


def simulatable(netlist: str, models: Sequence[str]) -> str:
    """The RTLIL of a netlist whose cells are replaced by their models.

    Parameters
    ----------
    netlist : in the JSON format of yosys, with the top module `top`
    models : Verilog files of the cells, `gate_models` of a family: `+/...` is that of yosys, other
        names are files in this folder. A later model replaces an earlier one of its name.

    Raises
    ------
    ToolError
        If there are no models, or a cell or a mode of a cell has none.
    """
    if not models:
        raise ToolError("the family has no models of its cells; choose one that has gate_models")
    # Some models take yosys a minute, so `-defer` elaborates only those that the netlist uses.
    read = "".join(f"read_verilog -defer -overwrite -DNO_INCLUDES {name}; " for name in models)
    script = (
        "read_json in.json; delete =A:blackbox =A:whitebox; "
        f"{read}hierarchy -check -top top; proc; flatten; opt; memory_share; memory_collect; "
        "opt_clean -purge; select -assert-none t:* t:$* %d; select -clear; write_rtlil out.il"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in.json").write_text(_without_constants(netlist), encoding="utf-8")
        for model in models:
            if not model.startswith(OF_YOSYS):
                (folder / model).write_bytes(Path(__file__).with_name(model).read_bytes())
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
