"""Synthesis finds each family's multipliers in the float blocks, and none in the serial one."""

import re

import pytest
from amaranth.back import rtlil

from tritloom.rtl.lib.float_divide import FloatDivide, FloatRescale
from tritloom.rtl.lib.float_multiply import FloatMultiply, SerialFloatMultiply
from tritloom.rtl.lib.float_scale import FloatScale
from tritloom.sim.tools import run_yosys

pytestmark = pytest.mark.sim

FAMILIES = {
    "ecp5": ("synth_ecp5", "MULT18X18D"),
    "ice40": ("synth_ice40 -dsp", "SB_MAC16"),
    "xc7": ("synth_xilinx -family xc7", "DSP48E1"),
}


@pytest.mark.parametrize(
    ("family", "make", "multipliers"),
    [
        ("ecp5", FloatMultiply, 4),
        ("ecp5", lambda: FloatRescale(18), 3),
        ("ecp5", FloatScale, 6),
        ("ecp5", SerialFloatMultiply, 0),
        ("ecp5", FloatDivide, 0),
        ("ice40", lambda: FloatMultiply(a_bits=16, b_bits=16), 4),
        ("xc7", lambda: FloatMultiply(a_bits=24, b_bits=17), 2),
    ],
    ids=["multiply", "rescale", "scale", "serial", "divide", "multiply, ice40", "multiply, xc7"],
)
def test_multipliers(tmp_path, family, make, multipliers):
    synthesis, cell = FAMILIES[family]
    (tmp_path / "top.il").write_text(rtlil.convert(make(), name="top", emit_src=False))
    text = run_yosys(["-p", f"read_rtlil top.il; {synthesis} -top top; stat"], tmp_path)
    statistics = text.rpartition("Number of cells")[2] or text.rpartition("=== top ===")[2]
    found = re.findall(rf"^\s*(?:(\d+)\s+\S*\s*{cell}|{cell}\s+(\d+))\s*$", statistics, re.M)
    assert sum(int(first or second) for first, second in found) == multipliers
