"""Registries: names, order, and what a second plug-in of a name gets."""

from dataclasses import dataclass, replace

import pytest

from tritloom.rtl.spec.builtin import BRAM, SELECT, TABLE
from tritloom.rtl.spec.config import ACT_LATENCY, TINY, AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.packing import BASE3X5, DIFF2, SIGN2, SIGN9, SYM3X5, SYM6X10, encodings
from tritloom.rtl.spec.plugins import Registry, engines, load_component, memories


@dataclass(frozen=True)
class Item:
    name: str
    fact: int = 0


def test_registry():
    registry: Registry[Item] = Registry("thing")
    b, a = registry.add(Item("b")), registry.add(Item("a"))
    assert registry["a"] is a and registry["b"] is b
    assert list(registry) == ["a", "b"]


def test_the_same_again_is_no_error():
    registry: Registry[Item] = Registry("thing")
    registry.add(Item("a", 1))
    assert registry.add(Item("a", 1)) == Item("a", 1)
    assert list(registry) == ["a"]


def test_another_of_the_name():
    registry: Registry[Item] = Registry("thing")
    first = registry.add(Item("a", 1))
    with pytest.raises(ConfigError) as raised:
        registry.add(Item("a", 2))
    assert str(raised.value) == "thing 'a' is already registered; choose a new name"
    assert registry["a"] is first


@pytest.mark.parametrize("name", ["c", "", "A", None, 3, [], {}])
def test_unknown(name):
    registry: Registry[Item] = Registry("thing")
    registry.add(Item("b"))
    registry.add(Item("a"))
    with pytest.raises(ConfigError) as raised:
        registry[name]
    assert str(raised.value) == f"thing must be one of a, b, not {name!r}"


def test_what_ships():
    assert engines["select"] is SELECT and engines["table"] is TABLE
    assert memories["bram"] is BRAM
    for encoding in (BASE3X5, DIFF2, SYM6X10, SYM3X5, SIGN2, SIGN9):
        assert encodings[encoding.name] is encoding
    assert SELECT.encodings == (BASE3X5.name, DIFF2.name, SIGN2.name)
    tables = (BASE3X5, SYM6X10, SYM3X5, SIGN9)
    assert TABLE.encodings == tuple(encoding.name for encoding in tables)
    for path in (SELECT.component, TABLE.component, BRAM.component, BASE3X5.decoder):
        assert load_component(path).__name__ == path.partition(":")[2]


def test_an_engine_may_refuse_a_geometry():
    def check(config: AcceleratorConfig) -> None:
        raise ConfigError(f"lanes must be 1, not {config.lanes}")

    engines.add(replace(SELECT, name="test-strict", check=check))
    with pytest.raises(ConfigError) as raised:
        replace(TINY, engine="test-strict")
    assert str(raised.value) == "lanes must be 1, not 5"


@pytest.mark.parametrize("path", ["tritloom.rtl.none:X", "none:X"])
def test_component_that_is_missing(path):
    with pytest.raises(ModuleNotFoundError):
        load_component(path)


@pytest.mark.parametrize(("lanes", "fill"), [(5, 1), (10, 5), (65, 5), (65, 65)])
def test_cycles_of_what_ships(lanes, fill):
    config = replace(TINY, lanes=lanes, fill=fill, max_in_features=130)
    assert SELECT.latency(config) == 3 + 1 + {5: 3, 10: 4, 65: 7}[lanes]
    assert SELECT.fill_cycles(config) == lanes // fill + ACT_LATENCY + 1
    assert SELECT.tile_cycles(config) == 3 + lanes // fill + ACT_LATENCY
    assert BRAM.latency(config) == 4
