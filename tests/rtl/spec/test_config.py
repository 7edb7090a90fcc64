"""The configuration: what it refuses, its JSON and digests, its widths and its cycle formula."""

import copy
import dataclasses
import json
import pickle

import pytest

from tests.support import plugins
from tests.support.packets import assert_responses, run_packets
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import (
    PARTIAL_SUM_CYCLES,
    PARTIAL_SUM_READ_CYCLES,
    TINY,
    AcceleratorConfig,
)
from tritloom.rtl.spec.errors import ConfigError, TritloomError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import ACT_LATENCY, engines, links, memories
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.top import Accelerator
from tritloom.sim.verify.traffic import Traffic

plugins.register()

LEAST: dict = {
    "lanes": 10,
    "rows": 2,
    "memory": {"kind": "bram", "words": 64},
    "max_in_features": 40,
    "max_out_features": 16,
}
OTHER: dict = {
    "lanes": 15,
    "rows": 4,
    "memory": {"kind": "test-stalling", "words": 65},
    "max_in_features": 60,
    "max_out_features": 24,
    "tokens": 2,
    "fill": 5,
    "act_bits": 4,
    "max_layers": 7,
    "banks": 1,
    "packet_bytes": 512,
    "slots": 8,
    "link": {"kind": "uart", "baud": 1_000_000},
    "clock_hz": 25_000_000,
}
OF_THE_LINK = {"link", "clock_hz"}

HOLDS = (
    "packet_bytes must be at least {} to hold a weight word or the results of a row group, not {}"
)

REFUSED = [
    *(
        ({name: low - 1}, f"{name} must be {low} to {high}, not {low - 1}")
        for name, low, high in (
            ("lanes", 1, 1024),
            ("rows", 1, 256),
            ("tokens", 1, 16),
            ("fill", 1, 1024),
            ("max_in_features", 1, 16384),
            ("max_out_features", 1, 262144),
            ("max_layers", 1, 256),
            ("packet_bytes", 128, 4096),
            ("slots", 2, 64),
            ("clock_hz", 1, 1_000_000_000),
        )
    ),
    *(
        ({name: high + 1}, f"{name} must be {low} to {high}, not {high + 1}")
        for name, low, high in (
            ("lanes", 1, 1024),
            ("rows", 1, 256),
            ("tokens", 1, 16),
            ("fill", 1, 1024),
            ("max_in_features", 1, 16384),
            ("max_out_features", 1, 262144),
            ("max_layers", 1, 256),
            ("packet_bytes", 128, 4096),
            ("slots", 2, 64),
            ("clock_hz", 1, 1_000_000_000),
        )
    ),
    ({"lanes": "10"}, "lanes must be an integer, not '10'"),
    ({"rows": 2.0}, "rows must be an integer, not 2.0"),
    ({"tokens": True}, "tokens must be an integer, not True"),
    ({"slots": None}, "slots must be an integer, not None"),
    ({"lanes": 12}, "lanes must be a multiple of 5, not 12"),
    ({"fill": 4}, "fill must divide lanes = 10, not 4"),
    ({"fill": 20}, "fill must divide lanes = 10, not 20"),
    ({"packet_bytes": 1000}, "packet_bytes must be a power of two, not 1000"),
    ({"slots": 3}, "slots must be a power of two, not 3"),
    ({"act_bits": 5}, "act_bits must be 4 or 8, not 5"),
    ({"act_bits": 8.0}, "act_bits must be 4 or 8, not 8.0"),
    ({"alphabet": "binary"}, "alphabet of the base3x5 encoding must be ternary, not 'binary'"),
    ({"encoding": "sign2"}, "alphabet of the sign2 encoding must be binary, not 'ternary'"),
    (
        {"encoding": "test-signed"},
        "encoding of the select engine must be one of base3x5, diff2, sign2, not 'test-signed'",
    ),
    *(
        ({"memory": {"kind": "bram", "words": words}}, f"memory: words must be {what}")
        for words, what in (
            (0, "1 to 268435456, not 0"),
            ((1 << 28) + 1, "1 to 268435456, not 268435457"),
            ("64", "an integer, not '64'"),
            (True, "an integer, not True"),
        )
    ),
    *(
        ({"link": {"kind": "uart", "baud": baud}}, f"link: baud must be {what}")
        for baud, what in (
            ("9600", "an integer, not '9600'"),
            (1199, "1200 to 3000000, not 1199"),
        )
    ),
    *(
        ({key: value}, f"{key} has a new form; write {form}")
        for key, value, form in (
            ("memory_words", 64, '"memory": {"kind": "bram", "words": 1024}'),
            ("baud", 9600, '"link": {"kind": "uart", "baud": 3000000}'),
        )
    ),
    *(
        ({key: value}, f"{key} must be an object with kind, such as {form}, not {text}")
        for key, value, form, text in (
            ("link", "uart", '"link": {"kind": "uart", "baud": 3000000}', '"uart"'),
            ("memory", "bram", '"memory": {"kind": "bram", "words": 1024}', '"bram"'),
            ("memory", {"words": 3}, '"memory": {"kind": "bram", "words": 1024}', '{"words": 3}'),
        )
    ),
    ({"memory": {"kind": "bram"}}, "words of memory is missing; give it a value"),
    (
        {"memory": {"kind": "bram", "words": 3, "baud": 9600}},
        "unknown key 'baud' of memory; bram has words",
    ),
    ({"link": {"kind": "stream", "baud": 1}}, "unknown key 'baud' of link; stream has width"),
    (
        {"lanes": 320, "rows": 4, "packet_bytes": 256},
        HOLDS.format(276, 256),
    ),
    (
        {"lanes": 5, "rows": 64, "max_in_features": 16384, "packet_bytes": 128},
        HOLDS.format(212, 128),
    ),
    (
        {"lanes": 120, "fill": 120, "packet_bytes": 128, "rows": 1},
        HOLDS.format(140, 128),
    ),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_refused(values, message):
    with pytest.raises(ConfigError) as raised:
        AcceleratorConfig.from_dict(LEAST | values)
    assert str(raised.value) == message
    assert isinstance(raised.value, TritloomError) and isinstance(raised.value, ValueError)


@pytest.mark.parametrize(
    ("kind", "registry"), [("engine", engines), ("memory", memories), ("link", links)]
)
def test_unknown_plugin(kind, registry):
    value = "none" if kind == "engine" else {"kind": "none"}
    with pytest.raises(ConfigError) as raised:
        AcceleratorConfig.from_dict({**LEAST, kind: value})
    assert str(raised.value) == f"{kind} must be one of {', '.join(registry)}, not 'none'"


def test_unknown_encoding():
    with pytest.raises(
        ConfigError, match=r"^encoding must be one of base3x5, diff2, .*, not 'none'$"
    ):
        AcceleratorConfig.from_dict({**LEAST, "encoding": "none"})


@pytest.mark.parametrize(
    ("key", "value", "example"),
    [("memory", "bram", "BlockRam(words=1024)"), ("link", {}, "Uart(baud=3_000_000)")],
)
def test_record_that_is_none(key, value, example):
    with pytest.raises(ConfigError) as raised:
        dataclasses.replace(TINY, **{key: value})
    assert str(raised.value) == f"{key} must be a record such as {example}, not {value!r}"


def test_baud_that_the_clock_cannot_make():
    values = {"link": {"kind": "uart", "baud": 2_300_000}, "clock_hz": 10_000_000}
    with pytest.raises(ConfigError, match=r"^link: baud must be within 2% of clock_hz / n: the n"):
        AcceleratorConfig.from_dict(LEAST | values)


@pytest.mark.parametrize(
    "values", [LEAST, OTHER, TINY.to_dict(), {**LEAST, "vector": {"words": 96}}]
)
def test_json_round_trip(values):
    config = AcceleratorConfig.from_dict(values)
    text = config.to_json()
    assert AcceleratorConfig.from_json(text) == config
    assert AcceleratorConfig.from_json(text.encode()) == config
    assert AcceleratorConfig.from_dict(config.to_dict()) == config
    assert json.loads(text) == config.to_dict()
    assert text == json.dumps(config.to_dict(), sort_keys=True, separators=(",", ":"))
    assert AcceleratorConfig.from_json(json.dumps(values, indent=3)).to_json() == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "configuration is not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("{", None),
        (b"\xff\xfe\xfd", None),
        ("[]", "configuration must be a JSON object"),
        ("3", "configuration must be a JSON object"),
        ("{}", "lanes is missing; give it an integer"),
        ('{"lanes":5}', "rows is missing; give it an integer"),
    ],
)
def test_json_refused(text, message):
    with pytest.raises(ConfigError) as raised:
        AcceleratorConfig.from_json(text)
    if message is None:
        assert str(raised.value).startswith("configuration is not JSON: ")
    else:
        assert str(raised.value) == message


def test_unknown_key():
    names = ", ".join(field.name for field in dataclasses.fields(AcceleratorConfig))
    with pytest.raises(ConfigError) as raised:
        AcceleratorConfig.from_dict({**LEAST, "lane": 3})
    assert str(raised.value) == f"unknown key 'lane'; known are {names}"


@pytest.mark.parametrize("name", ["engine", "encoding", "memory", "link", "alphabet", "act_bits"])
@pytest.mark.parametrize("value", [["select"], {}, None, 5, 8.0, True])
def test_json_of_a_wrong_type(name, value):
    text = json.dumps({**LEAST, name: value})
    with pytest.raises(ConfigError):
        AcceleratorConfig.from_json(text)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.lanes = 10
    assert hash(TINY) == hash(AcceleratorConfig.from_json(TINY.to_json()))


def test_hash():
    """Equal configurations have equal hashes, and every field counts."""
    assert len({TINY, dataclasses.replace(TINY)}) == 1
    assert len({hash(dataclasses.replace(TINY, slots=slots)) for slots in (2, 4, 8, 16)}) == 4


def test_what_follows_is_computed_once():
    config = dataclasses.replace(TINY)
    assert config.layout_digest is config.layout_digest
    assert config.build_digest is config.build_digest


@pytest.mark.parametrize("duplicate", [copy.copy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_has_the_fields_alone(duplicate):
    """The hash of a text differs from process to process, so a pickle must not have it."""
    config = dataclasses.replace(TINY)
    assert hash(config) and config.build_digest and config.acc_bits
    copied = duplicate(config)
    assert vars(copied) == {f.name: getattr(TINY, f.name) for f in dataclasses.fields(TINY)}
    assert (copied, hash(copied)) == (config, hash(config))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(AcceleratorConfig)])
def test_digests(name):
    """Each field changes the build digest; all but those of the link, the layout's too."""
    config = AcceleratorConfig.from_dict(LEAST)
    change = {name: OTHER.get(name)}
    if name == "lanes":
        change = {name: 20}
    if name == "alphabet":
        change = {"alphabet": "binary", "encoding": "sign2"}
    if name == "max_group_sums":
        change = {name: LEAST["max_out_features"]}
    if name == "scale":
        change = {"scale": {"group": 128}}
    if name == "vector":
        change = {"vector": {"words": 96}}
    if name == "link":
        change = {"link": {"kind": "uart", "baud": 115_200}}
    if name in ("engine", "encoding"):
        values = {"lanes": 30, "engine": "test-signed", "encoding": "test-signed"}
        config, change = AcceleratorConfig.from_dict({**LEAST, "lanes": 30}), values
    other = AcceleratorConfig.from_dict(config.to_dict() | change)
    assert len(other.layout_digest) == len(other.build_digest) == 8
    assert other.build_digest != config.build_digest
    assert (other.layout_digest == config.layout_digest) == (name in OF_THE_LINK)
    again = AcceleratorConfig.from_json(other.to_json())
    assert (again.layout_digest, again.build_digest) == (other.layout_digest, other.build_digest)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (LEAST, (32, 4, 12, 14, 2, 4, 8, 40, 20, 1004, 3)),
        ({**LEAST, "max_in_features": 41}, (32, 4, 12, 14, 2, 5, 8, 50, 20, 1004, 3)),
        ({**LEAST, "fill": 5, "tokens": 3}, (32, 4, 12, 14, 2, 4, 8, 8, 60, 1004, 3)),
        (
            {**LEAST, "max_in_features": 16384, "max_out_features": 16383, "slots": 8},
            (32, 4, 12, 23, 3, 1639, 8192, 16390, 20, 1004, 7),
        ),
        (
            {**LEAST, "lanes": 6, "rows": 1, "engine": "test-signed", "encoding": "test-signed"},
            (10, 2, 11, 14, 2, 7, 16, 42, 6, 1004, 3),
        ),
    ],
)
def test_widths(values, expected):
    config = AcceleratorConfig.from_dict(values)
    names = ("word_bits", "word_bytes", "sum_bits", "acc_bits", "acc_bytes", "max_tiles")
    names += ("max_row_groups", "activation_words", "macs_per_cycle", "max_payload", "window")
    assert tuple(getattr(config, name) for name in names) == expected
    for features, bits in (
        (config.lanes, config.sum_bits),
        (config.max_tiles * config.lanes, config.acc_bits),
    ):
        assert 128 * features <= (1 << bits - 1) - 1, "all of -128 × -1 fit"
        assert 128 * features > (1 << bits - 2) - 1, "with no bit to spare"


def test_cycles_of_the_core():
    assert (ACT_LATENCY, PARTIAL_SUM_READ_CYCLES, PARTIAL_SUM_CYCLES) == (3, 5, 5)


def test_run_cycles_of_a_memory_that_stalls():
    config = AcceleratorConfig.from_dict(
        {**LEAST, "memory": {"kind": "test-stalling", "words": 64}}
    )
    assert config.run_cycles(LayerShape(1, 1)) is None


CYCLES = {
    "tiny": TINY,
    "fill 5": dataclasses.replace(TINY, fill=5),
    "wide": AcceleratorConfig(
        lanes=20,
        rows=1,
        tokens=3,
        fill=4,
        memory=BlockRam(words=64),
        max_in_features=60,
        max_out_features=20,
        packet_bytes=256,
        slots=4,
    ),
    "few": AcceleratorConfig(
        lanes=10,
        rows=2,
        tokens=2,
        fill=10,
        memory=BlockRam(words=64),
        max_in_features=30,
        max_out_features=34,
        packet_bytes=256,
    ),
    "late memory": dataclasses.replace(TINY, memory=plugins.Late(words=64)),
    "late memory, slow fill": AcceleratorConfig(
        lanes=50,
        rows=1,
        memory=plugins.Late(words=64),
        max_in_features=100,
        max_out_features=8,
        packet_bytes=128,
    ),
    "other engine": AcceleratorConfig(
        lanes=12,
        rows=1,
        fill=2,
        engine="test-signed",
        encoding="test-signed",
        memory=BlockRam(words=64),
        max_in_features=36,
        max_out_features=18,
        packet_bytes=128,
    ),
    "two lanes": AcceleratorConfig(
        lanes=2,
        rows=2,
        encoding="diff2",
        memory=BlockRam(words=64),
        max_in_features=8,
        max_out_features=40,
        packet_bytes=128,
    ),
    "tables": AcceleratorConfig(
        lanes=12,
        rows=2,
        engine="table",
        encoding="sym6x10",
        memory=BlockRam(words=64),
        max_in_features=24,
        max_out_features=40,
        packet_bytes=128,
    ),
    "other engine, fill 6": AcceleratorConfig(
        lanes=6,
        rows=2,
        fill=6,
        tokens=2,
        engine="test-signed",
        encoding="test-signed",
        memory=BlockRam(words=64),
        max_in_features=24,
        max_out_features=16,
        packet_bytes=128,
    ),
}


@pytest.mark.sim
@pytest.mark.parametrize("name", CYCLES)
def test_run_cycles(name):
    """Exactly what RUN reports: one group to more than twice the latency, one tile and more."""
    config = CYCLES[name]
    tiles = sorted({1, 2, config.max_tiles})
    groups = sorted({1, 2, 3, 4, 5, 7, config.engine_latency, config.max_row_groups})
    shapes = [LayerShape(t, g) for t in tiles for g in groups if g <= config.max_row_groups]
    traffic = Traffic(config, 19)
    traffic.reset(1)
    for shape in shapes:
        if shape.words <= config.memory_words:
            cycles = traffic.empty_product(0, 0, shape.tiles, shape.row_groups)
            assert cycles == config.run_cycles(shape)
    responses = run_packets(Accelerator(config), config, traffic.packets)
    assert_responses(config, traffic.packets, responses)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"banks": 1}, "banks must be 2 beside a vector unit, not 1"),
        ({"fill": 1}, "vector lanes must be at most fill = 1, not 2: the core takes fill codes"),
        (
            {"rows": 1, "fill": 5},
            "vector lanes must be at most rows = 1, not 2: the core gives rows results in a cycle",
        ),
    ],
)
def test_beside_a_vector_unit(changes, message):
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(TINY, vector=VectorConfig(words=64, lanes=2), **changes)
    assert str(error.value).startswith(message)
