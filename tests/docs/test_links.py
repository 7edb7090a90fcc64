"""Links of every page resolve, to files and to headings; files that the code names exist."""

import re
import unicodedata

import pytest

from tests.support import ROOT
from tests.test_packaging import project_texts

PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "models/README.md"] + [
    path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def text_of(path):
    return FENCED.sub("", path.read_text(encoding="utf-8"))


def anchor(heading):
    """The name that GitHub gives a heading."""
    plain = re.sub(r"\]\([^)]*\)", "]", heading).lower()
    characters = [c for c in plain if c in " -_" or unicodedata.category(c)[0] in "LN"]
    return "".join(characters).replace(" ", "-")


def anchors(path):
    return {anchor(h) for h in re.findall(r"^#+ (.*)$", text_of(path), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    path = ROOT / page
    for link in LINK.findall(text_of(path)):
        if link.startswith(("https://", "http://")):
            continue
        file, _, heading = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{page}: {link}"
        assert not heading or heading in anchors(target), f"{page}: {link}"


def test_every_page_is_reached():
    """From README, link by link."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        for link in LINK.findall(text_of(path)):
            target = (path.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists():
                waiting.append(target)
    assert {ROOT / page for page in PAGES if page.startswith("docs/")} <= reached


def test_named_files_exist():
    """Help texts, comments and messages name pages that exist."""
    named = [
        (name, page)
        for name, text in project_texts()
        if name.endswith((".py", "Makefile")) and not name.startswith("tests/")
        for page in re.findall(r"\bdocs/[\w/-]+\.(?:md|py)\b", text)
    ]
    missing = [(name, page) for name, page in named if not (ROOT / page).exists()]
    assert not missing


def test_nothing_installs_from_an_index():
    """The project is not on PyPI: no text may tell to install it from there by its name."""
    command = re.compile(r"pip install\s+(?:-\S+\s+)*[\"']?trit" + "loom")
    assert not [name for name, text in project_texts() if command.search(text)]
