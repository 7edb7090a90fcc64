"""The accelerator as one file of Verilog, for any vendor's tools."""

import tempfile
from pathlib import Path

from amaranth.back import rtlil

from tritloom.rtl.config import AcceleratorConfig
from tritloom.rtl.top import Accelerator
from tritloom.sim.tools import run_yosys

__all__ = ["TOP", "emit"]

TOP = "tritloom"
"""Name of the top module; all others begin with it."""

# Memories stay arrays, for the tools to put into block RAM; small tables become logic. Without
# proc there would be `always @*` blocks, which need not run at time 0 in a simulation.
SCRIPT = (
    f"read_rtlil top.il; hierarchy -check -top {TOP}; proc -norom; opt_clean; check -assert; "
    "write_verilog -noattr top.v"
)


def emit(config: AcceleratorConfig) -> str:
    """Verilog of `Accelerator(config)`: the same text for equal configurations, with no path in it.

    Its ports are `clk`, `rst` (synchronous) and the streams `i` and `o`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        design = rtlil.convert(Accelerator(config), name=TOP, emit_src=False)
        (folder / "top.il").write_text(design, encoding="utf-8")
        run_yosys(["-q", "-p", SCRIPT], cwd=folder)
        text = (folder / "top.v").read_text(encoding="utf-8")
    _, _, modules = text.partition("\n")  # the first line tells the build of yosys
    return f"// Tritloom accelerator {config.to_json()}\n{modules}"
