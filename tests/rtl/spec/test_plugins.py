"""What the plug-ins that ship say of themselves, and what a record must be."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest

from tritloom.rtl.engines.select_facts import SELECT
from tritloom.rtl.engines.table_facts import TABLE
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.encodings import BASE3X5, DIFF2, SIGN2, SIGN9, SYM3X5, SYM6X10, encodings
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import ACT_LATENCY, LAYOUT, Config, Link, Memory, engines, memories
from tritloom.rtl.spec.registry import load_component


def test_what_ships():
    assert engines["select"] is SELECT and engines["table"] is TABLE
    assert memories["bram"] is BlockRam
    for encoding in (BASE3X5, DIFF2, SYM6X10, SYM3X5, SIGN2, SIGN9):
        assert encodings[encoding.name] is encoding
    assert SELECT.encodings == (BASE3X5.name, DIFF2.name, SIGN2.name)
    tables = (BASE3X5, SYM6X10, SYM3X5, SIGN9)
    assert TABLE.encodings == tuple(encoding.name for encoding in tables)
    for path in (SELECT.component, TABLE.component, BlockRam.component, BASE3X5.decoder):
        assert load_component(path).__name__ == path.partition(":")[2]


def test_an_engine_may_refuse_a_geometry():
    def check(config: AcceleratorConfig) -> None:
        raise ConfigError(f"lanes must be 1, not {config.lanes}")

    engines.add(replace(SELECT, name="test-strict", check=check))
    with pytest.raises(ConfigError) as raised:
        replace(TINY, engine="test-strict")
    assert str(raised.value) == "lanes must be 1, not 5"


def test_records_that_break_the_contract():
    class Plain(Memory):
        name = "test-plain"
        component = "nothing:Nothing"

    for record, fault in (
        (3, "it is 3, not a class made from Memory"),
        (type("Nameless", (Memory,), {"component": "nothing:Nothing"}), "it has no name"),
        (type("Bare", (Memory,), {"name": "test-bare"}), "it has no component"),
    ):
        with pytest.raises(ConfigError) as raised:
            memories.add(record)  # type: ignore[arg-type]
        assert str(raised.value).endswith(f": {fault}")
    assert memories.add(Plain) is Plain, "a subclass without fields of its own is frozen too"


def test_layout_is_of_marked_fields():
    @dataclass(frozen=True, kw_only=True)
    class Deep(Memory):
        name: ClassVar[str] = "test-deep"
        component: ClassVar[str] = "nothing:Nothing"
        banks: int = field(default=4, metadata=LAYOUT)
        speed: int = 100

    memories.add(Deep)
    config = replace(TINY, memory=Deep(words=64))
    assert config.memory.to_dict() == {"kind": "test-deep", "words": 64, "banks": 4, "speed": 100}
    assert config.memory.layout_dict() == {"kind": "test-deep", "words": 64, "banks": 4}
    faster, other = (
        replace(config, memory=Deep(words=64, **x)) for x in ({"speed": 9}, {"banks": 2})
    )
    assert faster.layout_digest == config.layout_digest != other.layout_digest
    assert faster.build_digest != config.build_digest
    assert AcceleratorConfig.from_json(other.to_json()) == other


def test_bound_of_a_memory_that_stalls():
    @dataclass(frozen=True, kw_only=True)
    class Bounded(Memory):
        name: ClassVar[str] = "test-bounded"
        component: ClassVar[str] = "nothing:Nothing"

        def most_cycles(self, config: Config, words: int) -> int:
            return 10 + 3 * words

    config = replace(TINY, memory=Bounded(words=64))
    shape = LayerShape(3, 4)
    assert config.run_cycles(shape) is None
    first = 10 + 3 * 12 + SELECT.fill_cycles(config)
    last = first + 2 * config.tile_cycles(4) + 3
    assert config.most_run_cycles(shape) == last + config.engine_latency + 2
    assert TINY.most_run_cycles(shape) == TINY.run_cycles(shape)


def test_a_link_may_carry_shorter_packets():
    @dataclass(frozen=True, kw_only=True)
    class Short(Link):
        name: ClassVar[str] = "test-short"
        component: ClassVar[str] = "nothing:Nothing"

        def most_packet_bytes(self, config: Config) -> int:
            return 100

    assert replace(TINY, link=Short()).max_payload == 80
    assert TINY.max_payload == 128 - 20


@pytest.mark.parametrize(("lanes", "fill"), [(5, 1), (10, 5), (65, 5), (65, 65)])
def test_cycles_of_what_ships(lanes, fill):
    config = replace(TINY, lanes=lanes, fill=fill, max_in_features=130)
    assert SELECT.latency(config) == 3 + 1 + {5: 3, 10: 4, 65: 7}[lanes]
    assert SELECT.fill_cycles(config) == lanes // fill + ACT_LATENCY + 1
    assert SELECT.tile_cycles(config) == 3 + lanes // fill + ACT_LATENCY
    assert BlockRam(words=1).latency(config) == 4
