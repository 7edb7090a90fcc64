import subprocess
import sys
from dataclasses import fields

import pytest

from tests.support import ROOT
from tritloom.boards.board import board_names, load_board
from tritloom.boards.families.family import (
    RESOURCES,
    Family,
    FamilyPart,
    Part,
    Ram,
    bitstream_families,
    family_names,
    load_family,
    more_parts,
)
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.registry import load_component

FAMILIES = [load_family(name) for name in family_names()]


def test_names():
    assert family_names() == ["ecp5", "gowin", "ice40", "xc7"]
    assert bitstream_families() == ["ecp5", "ice40"]


def test_unknown():
    with pytest.raises(ConfigError) as caught:
        load_family("max10")
    assert str(caught.value) == "family must be one of ecp5, gowin, ice40, xc7, not 'max10'"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
class TestFamily:
    def test_record(self, family):
        assert isinstance(family, Family)
        assert load_family(family.name) is family
        assert tuple(family.cells) == RESOURCES
        assert all(min(part.available) > 0 for part in family.parts.values())

    def test_names_of_functions(self, family):
        """Each function that a family names exists."""
        named = [*family.passes, *family.measure.count.values(), family.measure.shorten_paths]
        named += [family.bitstream.shorten_paths] if family.bitstream else []
        assert all(callable(load_component(path)) for path in named if path)

    def test_gate_models(self, family):
        own = [name for name in family.gate_models if not name.startswith("+/")]
        assert all((ROOT / "sim" / "gates" / name).is_file() for name in own)
        assert bool(family.gate_models) == (family.bitstream is not None)

    def test_part(self, family):
        first = next(iter(family.parts))
        assert family.part() == family.part(first) == (first, family.parts[first])
        assert family.part_of(f"{first}XYZ") == (first, family.parts[first])
        assert family.part_of("EP4CE6") is None
        with pytest.raises(ConfigError) as caught:
            family.part("EP4CE6")
        known = ", ".join(family.parts)
        assert str(caught.value) == f"part of {family.name} must be one of {known}, not 'EP4CE6'"


@pytest.mark.parametrize("name", board_names())
def test_board_has_a_known_part(name):
    board = load_board(name)
    assert load_family(board.family).part_of(board.part) is not None


def test_variants_count_as_one_cell():
    ice40 = load_family("ice40")
    assert [ice40.cell_type(cell) for cell in ("SB_DFFESR", "SB_DFF", "SB_LUT4")] == [
        *("SB_DFF", "SB_DFF", "SB_LUT4")
    ]
    assert load_family("ecp5").cell_type("SB_DFFE") == "SB_DFFE"


def test_ram_words():
    """Parity bits make a word wider, not the memory shallower."""
    ram = Ram(widths=(9, 18, 36), bits=16384, cost=1, blocks=1)
    assert [ram.words(width) for width in ram.widths] == [2048, 1024, 512]
    assert [load_family(name).block_bits for name in family_names()] == [18432, 18432, 4096, 18432]


def test_defaults_are_those_of_no_family_in_particular():
    assert Part(available=(1, 1, 1, 1)).grid == (1, 1)
    assert "options" in {field.name for field in fields(Part)}


def test_no_amaranth():
    """A driver and a planner read a family where Amaranth is not installed."""
    program = """
import sys
sys.modules["amaranth"] = sys.modules["amaranth_boards"] = None
from tritloom.boards.families.family import family_names, load_family
print([name for name in family_names() if load_family(name).parts])
print(load_family("ecp5").pll(25_000_000, 80_000_000).os_divider)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == (f"{family_names()}\n5\n", "")


def test_part_of_another_package(monkeypatch):
    part = FamilyPart(name="LFE5U-99F", family="ecp5", part=Part(available=(1, 2, 3, 4)))
    monkeypatch.setattr(more_parts, "_loaded", {part.name: part})
    ecp5 = load_family("ecp5")
    assert ecp5.part("LFE5U-99F") == ("LFE5U-99F", part.part)
    assert ecp5.part_of("LFE5U-99F-6BG256C") == ("LFE5U-99F", part.part)
    with pytest.raises(ConfigError, match=r"^part of ice40 must be one of .*, not 'LFE5U-99F'$"):
        load_family("ice40").part("LFE5U-99F")
