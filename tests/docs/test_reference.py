"""Pages that are made from the source are as the source makes them; the glossary has its terms."""

import re
import subprocess
import sys

import pytest

from tests.support import ROOT

GLOSSARY = (ROOT / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")
TERMS = re.findall(r"^\| ([^|]+?) \|", GLOSSARY, re.MULTILINE)


def test_pages_are_as_made():
    ran = subprocess.run(
        [sys.executable, "docs/make_reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, (
        f"run python docs/make_reference.py and commit what it writes:\n{ran.stdout}{ran.stderr}"
    )


@pytest.mark.parametrize(
    "term",
    [
        *("trit", "code", "lane", "row", "row group", "tile", "fill", "weight word", "slot"),
        *("window", "bank", "vector word", "step", "layout digest", "activation word", "entry"),
        *("piece", "fill step", "netlist pass", "measure", "bench", "property"),
    ],
)
def test_glossary_has(term):
    assert term in {name.strip() for entry in TERMS for name in entry.split(",")}


def test_glossary_says_each_once():
    assert len(TERMS) == len(set(TERMS)) + 4  # one table head a section after the first


def test_readme_links_glossary():
    assert "docs/reference/glossary.md" in (ROOT / "README.md").read_text(encoding="utf-8")
