"""The name of a generated design, which its modules, files and C macros begin with."""

import re

from tritloom.rtl.spec.errors import InputError

__all__ = ["check_name"]

MAX_NAME = 64
"""Longest name; tools append to it."""
RESERVED_WORDS = """
abs access after alias all always and architecture array assert assign attribute auto automatic
begin bit block body break buf buffer bufif0 bufif1 bus byte case casex casez cell char class
clocking cmos component config configuration const constant context continue cover deassign
default defparam design disable disconnect do double downto edge else elsif end endcase
endclass endconfig endfunction endgenerate endmodule endprimitive endspecify endtable endtask
entity enum event exit export extends extern file final float for force forever fork function
generate generic genvar goto group guarded highz0 highz1 if ifnone import impure in include
incdir inertial initial inline inout input inside instance int integer interface is join label
large liblist library linkage literal localparam logic long loop macromodule map medium mod
modport module nand negedge new next nmos nor noshowcancelled not notif0 notif1 null of on open
or others out output package parameter pmos port posedge postponed primitive priority private
procedure process program property protected pull0 pull1 pulldown pullup pulsestyle
pure rand range rcmos real realtime record ref reg register reject release rem repeat report
restrict return rnmos rol ror rpmos rtran rtranif0 rtranif1 scalared select sequence severity
shared short signal signed sizeof sla sll small specify specparam sra srl static string strong0
strong1 struct subtype super supply0 supply1 switch table task then this time to tran tranif0
tranif1 transport tri tri0 tri1 triand trior trireg type typedef unaffected union units
unsigned until use var variable vector virtual void volatile wait wand weak0 weak1 when while
wire with wor xnor xor
"""
"""Words of Verilog, SystemVerilog, VHDL and C that cannot name a module, entity or macro's stem."""


def check_name(name: str) -> str:
    """The name itself, if every language that the design meets takes it.

    Parameters
    ----------
    name : of the top module; a plain identifier of Verilog, VHDL and C

    Raises
    ------
    InputError
        If a language refuses it.
    """
    if not re.fullmatch(r"[A-Za-z](_?[A-Za-z0-9])*", name) or len(name) > MAX_NAME:
        raise InputError(
            f"name must be a letter, then letters, digits and single underscores between them, at "
            f"most {MAX_NAME}, not {name!r}"
        )
    if name.lower() in RESERVED_WORDS.split():
        raise InputError(
            f"name must not be {name!r}, a reserved word of Verilog, VHDL or C; choose another"
        )
    return name
