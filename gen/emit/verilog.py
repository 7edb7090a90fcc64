"""The accelerator as one file of Verilog, for any vendor's tools."""

import re
import tempfile
from pathlib import Path

from amaranth.back import rtlil

from tritloom.gen.emit.names import check_name
from tritloom.gen.emit.top import EmittedTop
from tritloom.rtl.links.port_names import DEFAULT_TOP, PLAIN, PortNames
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.sim.tools import read_output, run_yosys

__all__ = ["emit"]

# Memories stay arrays, so that the user's tools put them into block RAM; `-norom` keeps small case
# tables logic. `proc` removes `always @*` blocks, which a simulator need not run at time 0.
SCRIPT = (
    "read_rtlil top.il; hierarchy -check -top {name}; proc -norom; techmap -map rewrite.v; "
    "opt_clean; check -assert; write_verilog -noattr top.v"
)

# Lints warn about operands of different widths. These modules replace such operators by ones whose
# operands have one width; the result of a sum has that width, too. An operand of no bits is 0.
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
    wire [WIDTH-1:0] a = A_WIDTH == 0 ? 0 : {{WIDTH{A_SIGNED ? A[A_WIDTH-1] : 1'b0}}, A};
    wire [WIDTH-1:0] b = B_WIDTH == 0 ? 0 : {{WIDTH{B_SIGNED ? B[B_WIDTH-1] : 1'b0}}, B};
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
REWRITE = NOT + "".join(
    template.replace("OPERATOR", name).replace("IS_SUM", str(int(name in ("add", "sub"))))
    for template, names in (
        (PAIR, ("eq", "ne", "lt", "le", "gt", "ge", "add", "sub")),
        (SHIFT, ("shl", "shr", "shift", "shiftx")),
    )
    for name in names
)


CASE = "case (1'b1) // synopsys parallel_case"


def emit(config: AcceleratorConfig, name: str = DEFAULT_TOP, port_names: PortNames = PLAIN) -> str:
    """Verilog of an accelerator: the same text for equal arguments, with no path in it.

    Parameters
    ----------
    config : the accelerator
    name : of the top module; the names of all other modules begin with it and a dot, so that
        designs of different names share a project
    port_names : of clock, reset and packet streams

    Raises
    ------
    InputError
        If the name or the port names do not fit.
    ToolError
        If yosys is missing or fails.
    """
    check_name(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        design = rtlil.convert(EmittedTop(config, port_names), name=name, emit_src=False)
        (folder / "top.il").write_text(design, encoding="utf-8")
        (folder / "rewrite.v").write_text(REWRITE, encoding="utf-8")
        run_yosys(["-q", "-p", SCRIPT.format(name=name)], cwd=folder)
        text = read_output(folder / "top.v", "endmodule")
    _, _, modules = text.partition("\n")  # yosys writes its version into the first line
    return f"// Tritloom accelerator {config.to_json()}\n{_one_hot_cases(modules)}"


def _one_hot_cases(verilog: str) -> str:
    """Write the choice by one-hot bits as `case (1'b1)` with one bit an item.

    yosys writes `casez (s)` with patterns such as `4'b?1??`. Such patterns overlap, and lints warn
    about that, although at most one bit is ever set. Items that are not constant cause no warning.
    """
    text = verilog.replace("casez (s) // synopsys parallel_case", CASE)
    return re.sub(
        r"^( +)\d+'b(\?*)1(\?*):$", lambda match: f"{match[1]}s[{len(match[3])}]:", text, flags=re.M
    )
