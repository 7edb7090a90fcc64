"""The accelerator as one file of Verilog, for any vendor's tools."""

import tempfile
from pathlib import Path

from amaranth.back import rtlil

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.top import Accelerator
from tritloom.sim.tools import run_yosys

__all__ = ["TOP", "emit"]

TOP = "tritloom"
"""Name of the top module; all others begin with it."""

# Memories stay arrays, for the tools to put into block RAM; small tables become logic. Without
# proc there would be `always @*` blocks, which need not run at time 0 in a simulation.
SCRIPT = (
    f"read_rtlil top.il; hierarchy -check -top {TOP}; proc -norom; techmap -map widen.v; "
    "opt_clean; check -assert; write_verilog -noattr top.v"
)

# Operators of operands as wide as each other and, for sums, as the result: lints warn of others.
PAIR = """
module \\$OPERATOR (A, B, Y);
    parameter A_SIGNED = 0, B_SIGNED = 0, A_WIDTH = 1, B_WIDTH = 1, Y_WIDTH = 1, SUM = IS_SUM;
    localparam PAIR = A_WIDTH > B_WIDTH ? A_WIDTH : B_WIDTH;
    localparam WIDTH = SUM && Y_WIDTH > PAIR ? Y_WIDTH : PAIR;
    localparam RESULT = SUM ? WIDTH : 1;
    input [A_WIDTH-1:0] A;
    input [B_WIDTH-1:0] B;
    output [Y_WIDTH-1:0] Y;
    wire _TECHMAP_FAIL_ = A_WIDTH == WIDTH && B_WIDTH == WIDTH && Y_WIDTH == RESULT;
    wire [WIDTH-1:0] a = {{WIDTH{A_SIGNED ? A[A_WIDTH-1] : 1'b0}}, A};
    wire [WIDTH-1:0] b = {{WIDTH{B_SIGNED ? B[B_WIDTH-1] : 1'b0}}, B};
    wire [RESULT-1:0] y;
    \\$OPERATOR #(
        .A_SIGNED(A_SIGNED), .B_SIGNED(B_SIGNED),
        .A_WIDTH(WIDTH), .B_WIDTH(WIDTH), .Y_WIDTH(RESULT)
    ) _TECHMAP_REPLACE_ (.A(a), .B(b), .Y(y));
    assign Y = y;
endmodule
"""
SHIFT = """
module \\$OPERATOR (A, B, Y);
    parameter A_SIGNED = 0, B_SIGNED = 0, A_WIDTH = 1, B_WIDTH = 1, Y_WIDTH = 1;
    localparam WIDTH = A_WIDTH > Y_WIDTH ? A_WIDTH : Y_WIDTH;
    input [A_WIDTH-1:0] A;
    input [B_WIDTH-1:0] B;
    output [Y_WIDTH-1:0] Y;
    wire _TECHMAP_FAIL_ = A_WIDTH == Y_WIDTH;
    wire [WIDTH-1:0] a = {{WIDTH{A_SIGNED ? A[A_WIDTH-1] : 1'b0}}, A};
    wire [WIDTH-1:0] y;
    \\$OPERATOR #(
        .A_SIGNED(A_SIGNED), .B_SIGNED(B_SIGNED),
        .A_WIDTH(WIDTH), .B_WIDTH(B_WIDTH), .Y_WIDTH(WIDTH)
    ) _TECHMAP_REPLACE_ (.A(a), .B(B), .Y(y));
    assign Y = y;
endmodule
"""
NOT = """
module \\$logic_not (A, Y);
    parameter A_SIGNED = 0, A_WIDTH = 1, Y_WIDTH = 1;
    input [A_WIDTH-1:0] A;
    output [Y_WIDTH-1:0] Y;
    wire _TECHMAP_FAIL_ = A_WIDTH == 1;
    assign Y = ~(|A);
endmodule
"""
WIDEN = NOT + "".join(
    template.replace("OPERATOR", operator).replace("IS_SUM", str(int(operator in ("add", "sub"))))
    for template, operators in (
        (PAIR, ("eq", "ne", "lt", "le", "gt", "ge", "add", "sub")),
        (SHIFT, ("shl", "shr", "shift", "shiftx")),
    )
    for operator in operators
)


def emit(config: AcceleratorConfig) -> str:
    """Verilog of `Accelerator(config)`: the same text for equal configurations, with no path in it.

    Its ports are `clk`, `rst` (synchronous) and the streams `i` and `o`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        design = rtlil.convert(Accelerator(config), name=TOP, emit_src=False)
        (folder / "top.il").write_text(design, encoding="utf-8")
        (folder / "widen.v").write_text(WIDEN, encoding="utf-8")
        run_yosys(["-q", "-p", SCRIPT], cwd=folder)
        text = (folder / "top.v").read_text(encoding="utf-8")
    _, _, modules = text.partition("\n")  # the first line tells the build of yosys
    return f"// Tritloom accelerator {config.to_json()}\n{modules}"
