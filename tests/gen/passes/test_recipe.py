"""Kept builds and measured points are keyed by a version of the netlist passes, not by text."""

import ast
import hashlib

from tests.support import ROOT
from tritloom.gen.passes.synthesis import RECIPE

PASSES = {1: "33712f0634b0ca0d"}
"""The newest version of the passes and the digest of their logic."""
NOT_LOGIC = {"__all__", "RECIPE"}


def is_logic(node):
    """Whether a statement can change a netlist; docstrings and imports cannot."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom():
            return False
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return False
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name not in NOT_LOGIC
    return True


def plain(node):
    """A syntax tree as lists; what is empty is left out, as Python's versions differ there."""
    match node:
        case ast.AST():
            fields = ((name, plain(value)) for name, value in ast.iter_fields(node))
            return [type(node).__name__, *(field for field in fields if field[1] not in ([], None))]
        case list():
            return [plain(item) for item in node if is_logic(item)]
    return repr(node)


def digest(*sources):
    trees = sorted(str(plain(node)) for text in sources for node in plain_body(text))
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()[:16]


def plain_body(source):
    return [node for node in ast.parse(source).body if is_logic(node)]


def test_version_follows_the_passes():
    """A changed line of logic fails here: raise RECIPE, or show that the netlists are the same."""
    sources = [file.read_text() for file in (ROOT / "gen" / "passes").glob("*.py")]
    assert {RECIPE: digest(*sources)} == PASSES


def test_digest_sees_logic_alone():
    source = (
        '"""Doc."""\nimport os\nX = 1\n"""What X is."""\ndef f(a):\n    """Doc."""\n    return a\n'
    )
    moved = "def f(a):\n    return a  # why\n\nX = 1\n"
    assert digest(source) == digest(moved)
    assert digest(source) != digest(source.replace("return a", "return -a"))
    assert digest(source) != digest(source.replace("X = 1", "X = 2"))
