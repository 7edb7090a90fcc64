"""Registries: names, order, entry points of packages, and packages that are broken."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.registry import Registry, load_component

GROUP = "tritloom.test-things"


@dataclass(frozen=True)
class Item:
    name: str
    fact: int = 0


def fault(item):
    return "" if isinstance(getattr(item, "fact", None), int) else "it has no fact"


def registry_of(group="tritloom.none"):
    return Registry("thing", group, fault)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package with one module and entry points; gives the function that does it."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, source, **entries):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{key} = {value}" for key, value in entries.items()]
        (folder / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
        (tmp_path / f"{name}.py").write_text(source)

    return install


ITEM = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Item:
    name: str
    fact: int = 0
"""


def test_registry():
    registry = registry_of()
    b, a = registry.add(Item("b")), registry.add(Item("a"))
    assert registry["a"] is a and registry["b"] is b
    assert list(registry) == ["a", "b"]
    assert registry.package("a") == ""


def test_the_same_again_is_no_error():
    registry = registry_of()
    registry.add(Item("a", 1))
    assert registry.add(Item("a", 1)) == Item("a", 1)
    assert list(registry) == ["a"]


def test_another_of_the_name():
    registry = registry_of()
    first = registry.add(Item("a", 1))
    with pytest.raises(ConfigError) as raised:
        registry.add(Item("a", 2))
    assert str(raised.value) == "thing 'a' is already registered; choose a new name"
    assert registry["a"] is first


def test_added_item_that_breaks_the_contract():
    with pytest.raises(ConfigError, match=r"^thing 'a': it has no fact$"):
        registry_of().add(Item("a", "no"))


@pytest.mark.parametrize("name", ["c", "", "A", None, 3, [], {}])
def test_unknown(name):
    registry = registry_of()
    registry.add(Item("b"))
    registry.add(Item("a"))
    with pytest.raises(ConfigError) as raised:
        registry[name]
    assert str(raised.value) == f"thing must be one of a, b, not {name!r}"


def test_packages(package):
    package("first_things", ITEM + "A = Item('a', 1)", a="first_things:A")
    package("second_things", ITEM + "B = Item('b', 2)", b="second_things:B")
    registry = registry_of(GROUP)
    assert list(registry) == ["a", "b"]
    assert "first_things" not in sys.modules, "nothing is imported before it is asked for"
    assert (registry["a"].fact, registry["b"].fact) == (1, 2)
    assert registry.package("b") == "second_things"
    with pytest.raises(ConfigError, match=r"^thing 'a' is already registered; choose a new name$"):
        registry.add(Item("a"))


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        (
            "raising_things",
            "raise RuntimeError('no\\nluck')",
            "does not import (RuntimeError: no luck)",
        ),
        (
            "cut_things",
            "def",
            "does not import (SyntaxError: invalid syntax (cut_things.py, line 1))",
        ),
        ("exiting_things", "raise SystemExit(3)", "does not import (SystemExit: 3)"),
        (
            "empty_things",
            "",
            "does not import (AttributeError: module 'empty_things' has no attribute 'A')",
        ),
    ],
)
def test_package_that_does_not_import(package, name, source, message):
    package(name, source, a=f"{name}:A")
    package(f"good_{name}", ITEM + "B = Item('b')", b=f"good_{name}:B")
    registry = registry_of(GROUP)
    with pytest.raises(ConfigError) as raised:
        registry["a"]
    text = f"thing 'a' of the package {name} {message}; repair or uninstall {name}"
    assert str(raised.value) == text
    assert registry["b"].name == "b" and list(registry) == ["a", "b"]


def test_package_that_breaks_the_contract(package):
    package("wrong_things", "A = 3", a="wrong_things:A")
    package("renamed_things", ITEM + "C = Item('b')", c="renamed_things:C")
    registry = registry_of(GROUP)
    for name, package_name, what in (
        ("a", "wrong_things", "it has no fact"),
        ("c", "renamed_things", "its name is 'b', its entry point's 'c'"),
    ):
        with pytest.raises(ConfigError) as raised:
            registry[name]
        assert str(raised.value) == (
            f"thing {name!r} of the package {package_name}: {what}; "
            f"repair or uninstall {package_name}"
        )


def test_two_packages_of_one_name(package):
    package("one_thing", ITEM + "A = Item('a', 1)", a="one_thing:A")
    package(
        "other_thing",
        ITEM + "A = Item('a', 2)\nB = Item('b')",
        a="other_thing:A",
        b="other_thing:B",
    )
    registry = registry_of(GROUP)
    with pytest.raises(ConfigError) as raised:
        registry["a"]
    assert str(raised.value) == (
        "thing 'a' is in two packages, one_thing and other_thing; uninstall one"
    )
    assert registry["b"].name == "b"


@pytest.mark.parametrize("path", ["tritloom.rtl.none:X", "none:X", "tritloom.rtl.top:None"])
def test_component_that_is_missing(path):
    with pytest.raises(ConfigError) as raised:
        load_component(path)
    assert str(raised.value).startswith(f"{path} does not import (")


def test_component_that_needs_an_extra(monkeypatch):
    """The command line knows which extra brings it."""
    monkeypatch.setitem(sys.modules, "amaranth_boards", None)
    monkeypatch.delitem(sys.modules, "amaranth_boards.icebreaker", raising=False)
    with pytest.raises(ModuleNotFoundError):
        load_component("amaranth_boards.icebreaker:ICEBreakerPlatform")


def test_facts_come_without_amaranth():
    program = """
import sys
sys.modules["amaranth"] = None
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.plugins import engines, links, memories
for registry in (engines, encodings, links, memories):
    for name in registry:
        registry[name]
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
