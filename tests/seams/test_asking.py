"""The project asks a plug-in for its facts; it does not compare its name."""

import ast

import pytest

from tests.support import ROOT
from tritloom.boards.board import board_names
from tritloom.boards.families.family import family_names
from tritloom.rtl.spec.plugins import engines, links, memories

NAMES = {*engines, *memories, *links, *family_names(), *board_names()}
FOLDERS = ("rtl", "gen", "sim", "host", "boards")


def compared(source: str) -> list[str]:
    """The names of plug-ins that a source file compares a value with."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare | ast.MatchValue):
            constants = [each for each in ast.walk(node) if isinstance(each, ast.Constant)]
            lines += [str(each.value) for each in constants if each.value in NAMES]
    return lines


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_name_is_compared(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert {str(file): names for file in files if (names := compared(file.read_text()))} == {}


def test_a_comparison_is_seen() -> None:
    assert compared("x = 1 if config.engine == 'table' else 2") == ["table"]
    assert compared("match kind:\n    case 'bram':\n        pass") == ["bram"]
    assert compared("x in ('ecp5', 'other')") == ["ecp5"]
    assert compared("GRIDS = {'table': 1}; x = 'tables' == y") == []
