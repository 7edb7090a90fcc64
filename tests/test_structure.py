"""The shape of the product: no circles of imports, no long functions, no long files."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.support import ROOT

FOLDERS = ["tritloom", "rtl", "gen", "sim", "boards", "host"]
LONGEST_FUNCTION = 150
LONGEST_FILE = 500
DATA_TABLES: dict[str, str] = {}
"""Files that may be longer, and why: each is a table of data."""

PATHS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@cache
def syntax_trees() -> dict[Path, ast.Module]:
    """The syntax tree of each file."""
    return {path: ast.parse(path.read_text()) for path in PATHS}


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return name if name.split(".")[0] == "tritloom" else f"tritloom.{name}"


def imported_at_once(tree: ast.AST) -> set[str]:
    """Names that a module imports outside its functions, those for type checkers too."""
    names = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            names |= imported_at_once(node)
    return names


def import_graph(trees: dict[str, ast.AST]) -> dict[str, set[str]]:
    """The modules that each module imports; an imported name counts as the module it is of."""
    return {
        module: {
            target
            for name in imported_at_once(tree)
            for target in (name, name.rpartition(".")[0])
            if target in trees and target != module
        }
        for module, tree in trees.items()
    }


def circles(graph: dict[str, set[str]]) -> set[str]:
    """The modules that remain after every module that imports none of the rest is removed."""
    rest = set(graph)
    while free := {module for module in rest if not graph[module] & rest}:
        rest -= free
    # Those that import a circle, but that none of the rest imports, are not part of it.
    while free := rest - set().union(*(graph[module] for module in rest)):
        rest -= free
    return rest


def long_functions(tree: ast.AST) -> list[tuple[str, int]]:
    """Name and lines, decorators counted, of each function that is too long."""
    functions = [
        (node.name, node.end_lineno - min([node.lineno, *(d.lineno for d in node.decorator_list)]))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return [(name, lines + 1) for name, lines in functions if lines + 1 > LONGEST_FUNCTION]


def missing_names(trees: dict[str, ast.AST]) -> list[str]:
    """Names that a module imports from another of these modules, which does not define them."""
    defined = {
        module: imported_at_once(tree)
        | {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for module, tree in trees.items()
    }
    own_names = {
        module: {name.rpartition(".")[2] for name in names} for module, names in defined.items()
    }
    return [
        f"{module}: {node.module}.{alias.name}"
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in own_names
        for alias in node.names
        if alias.name not in own_names[node.module] and f"{node.module}.{alias.name}" not in trees
    ]


def test_no_import_circles():
    trees = {module_name(path): tree for path, tree in syntax_trees().items()}
    assert not circles(import_graph(trees))


def test_tests_import_what_is_there():
    """Some files of tests are read only where torch is; a name that they lack is noticed here."""
    paths = (ROOT / "tests").rglob("*.py")
    trees = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text()
        )
        for path in paths
    }
    assert len(trees) > 100
    assert not missing_names(trees)


def test_no_long_functions():
    long = {module_name(path): long_functions(tree) for path, tree in syntax_trees().items()}
    assert not {module: functions for module, functions in long.items() if functions}


def test_no_long_files():
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in PATHS
    }
    long = {name for name, count in lines.items() if count > LONGEST_FILE}
    assert long == set(DATA_TABLES), "a file in DATA_TABLES is there only as long as it is long"


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"t.a": "from t.b import x", "t.b": "import t.a"}, {"t.a", "t.b"}),
        ({"t.a": "import t.b", "t.b": "def f():\n import t.a"}, set()),
        ({"t.a": "from t import b", "t.b": "if TYPE_CHECKING:\n import t.a"}, {"t.a", "t.b"}),
        ({"t.a": "try:\n import t.b\nexcept E: ...", "t.b": "import t.a"}, {"t.a", "t.b"}),
        ({"t.a": "import t.b", "t.b": "import t.c", "t.c": "from t.b import x"}, {"t.b", "t.c"}),
        ({"t.a": "import t.b", "t.b": "import t.c", "t.c": "import os"}, set()),
    ],
)
def test_circles_are_noticed(sources, expected):
    trees = {module: ast.parse(source) for module, source in sources.items()}
    assert circles(import_graph(trees)) == expected


def test_missing_names_are_noticed():
    sources = {
        "t.a": "x = 1\ndef f(): ...",
        "t.b": "from t.a import x, f, g",
        "t.c": "from t import a",
    }
    trees = {module: ast.parse(source) for module, source in sources.items()}
    assert missing_names(trees) == ["t.b: t.a.g"]


def test_long_functions_are_noticed():
    """Methods, inner and asynchronous functions too; decorators count."""
    head = "class C:\n @d\n def g(self):\n  async def h():\n"
    tree = ast.parse(head + "   pass\n" * (LONGEST_FUNCTION - 3))
    assert not long_functions(tree)
    tree = ast.parse(head + "   pass\n" * LONGEST_FUNCTION)
    assert long_functions(tree) == [("g", LONGEST_FUNCTION + 3), ("h", LONGEST_FUNCTION + 1)]
