"""The C++ of a simulated FPGA in pieces that a compiler gets through sooner."""

import re

__all__ = ["in_pieces"]

PIECE_LINES = 400
"""A piece ends with the first statement that reaches them."""
HEAD = "bool p_top::eval(performer *performer) {"
DECLARATION = re.compile(r"\tvalue<\d+> (\w+);")
CLOCK_EDGE = re.compile(r"\tbool \w+ = this->\w+\(\);")
NAME = re.compile(r"\b[ip]_\w+")


def in_pieces(source: str) -> str:
    """Divide `eval` of CXXRTL's `p_top` into functions, called one after the other.

    CXXRTL writes all logic of a design as one function, of 18,000 lines for a core with a vector
    unit. A compiler's time grows faster than the length of a function. The local variables move
    into a structure that all pieces share, so the pieces compute what the function did; a variable
    out of its place would not compile.

    Parameters
    ----------
    source : what yosys' `write_cxxrtl` wrote, of a flattened design with the name `top`

    Returns
    -------
    The same with `eval` in pieces; unchanged where it is short, or where yosys writes it otherwise
    """
    lines = source.split("\n")
    if HEAD not in lines:
        return source
    start = lines.index(HEAD)
    end = lines.index("}", start)
    body = lines[start + 2 : end - 1]
    edges = [line for line in body if CLOCK_EDGE.fullmatch(line)]
    declarations = [line for line in body if DECLARATION.fullmatch(line)]
    apart = {*edges, *declarations}
    pieces: list[list[str]] = [[]]
    for line in body:
        if line.startswith("\t// cell") and len(pieces[-1]) >= PIECE_LINES:
            pieces.append([])
        if line not in apart:
            pieces[-1].append(line)
    if len(pieces) == 1:
        return source
    shared = {line.split()[1].rstrip(";") for line in declarations}

    def in_frame(name: re.Match[str]) -> str:
        return f"frame.{name[0]}" if name[0] in shared else name[0]

    converged, converges = lines[start + 1], lines[end - 1]
    functions = []
    for number, piece in enumerate(pieces):
        functions += [f"bool p_top::piece_{number}(Frame &frame, performer *performer) {{"]
        functions += [converged, *edges]
        functions += [
            line if line.lstrip().startswith("//") else NAME.sub(in_frame, line) for line in piece
        ]
        functions += [converges, "}", ""]
    calls = [f"\tconverged &= piece_{number}(frame, performer);" for number in range(len(pieces))]
    heads = [
        f"\t__attribute__((noinline)) bool piece_{number}(Frame &frame, performer *performer);"
        for number in range(len(pieces))
    ]
    whole = [lines[start], "\tFrame frame;", converged, *calls, converges]
    declared = next(at for at, line in enumerate(lines) if line.startswith("\tbool eval(performer"))
    return "\n".join(
        [
            *lines[:declared],
            *("\tstruct Frame {", *declarations, "\t};", *heads),
            *lines[declared:start],
            *functions,
            *whole,
            *lines[end:],
        ]
    )
