"""`eval` in pieces: the same statements in the same order, and locals that every piece sees."""

import re

from tritloom.sim.device.pieces import PIECE_LINES, in_pieces

CALL = re.compile(r"\tconverged &= piece_(\d+)\(frame, performer\);")


def written(statements):
    """What yosys writes for a design with so many statements, each of three lines and a comment."""
    body = [
        line
        for number in range(statements)
        for line in (
            f"\t// cells i_{number} and p_rst",
            f"\ti_{number} = not_u<8>(i_{max(0, number - 1)});",
            "\tif (posedge_p_clk) {",
            f"\t\tp_{number}.next = i_{number};",
            "\t}",
        )
    ]
    return "\n".join(
        [
            *(
                "struct p_top : public module {",
                "\tbool eval(performer *performer = nullptr);",
                "};",
            ),
            *("bool p_top::eval(performer *performer) {", "\tbool converged = true;"),
            "\tbool posedge_p_clk = this->posedge_p_clk();",
            *(f"\tvalue<8> i_{number};" for number in range(statements)),
            *(*body, "\treturn converged;", "}", "", "} // namespace cxxrtl_design", ""),
        ]
    )


def test_a_short_one_is_left():
    source = written(PIECE_LINES // 5)
    assert in_pieces(source) == source


def test_another_form_is_left():
    source = written(PIECE_LINES).replace("p_top::eval", "p_top::step")
    assert in_pieces(source) == source


def test_statements_keep_their_order():
    statements = PIECE_LINES  # of five lines each
    source = written(statements)
    divided = in_pieces(source)
    assert [int(number) for number in CALL.findall(divided)] == list(range(5))
    pieces = re.findall(
        r"^bool p_top::piece_(\d+)\(Frame &frame, performer \*performer\) \{\n"
        r"\tbool converged = true;\n\tbool posedge_p_clk = this->posedge_p_clk\(\);\n"
        r"(.*?)\n\treturn converged;\n\}$",
        divided,
        re.MULTILINE | re.DOTALL,
    )
    assert [int(number) for number, _ in pieces] == list(range(5))
    text = "\n".join(piece for _, piece in pieces)
    assert "// cells i_3 and p_rst" in text
    assert "p_3.next = frame.i_3;" in text
    body = source[source.index("\t// cells i_0") : source.index("\n\treturn converged;")]
    assert text.replace("frame.", "") == body
    assert max(len(piece.split("\n")) for _, piece in pieces) < PIECE_LINES + 5
    assert divided.endswith(source[source.index("\n\treturn converged;") :])


def test_what_is_declared():
    divided = in_pieces(written(PIECE_LINES))
    frame = divided[divided.index("\tstruct Frame {") : divided.index("\n\t};")]
    assert frame.split("\n")[1:] == [f"\tvalue<8> i_{number};" for number in range(PIECE_LINES)]
    heads = re.findall(r"noinline\)\) bool piece_(\d+)\(Frame &frame, performer", divided)
    assert [int(number) for number in heads] == list(range(5))
    assert divided.index("bool eval(performer") > divided.index("noinline")
