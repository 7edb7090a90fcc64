"""The cost model against the measured table, and its memories against the hardware's."""

import json
from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Shape

from tests.support import ROOT, quick_first
from tritloom.gen.measure.engine import engine_config
from tritloom.gen.measure.table import Point, read_table
from tritloom.gen.plan import cost as cost_module
from tritloom.gen.plan.cost import (
    CostModel,
    around_memories,
    core_features,
    core_memories,
    mapped,
    nonnegative,
    weight_memories,
)
from tritloom.rtl.control import layer_table, responder
from tritloom.rtl.control import packets as framing
from tritloom.rtl.core import activation_scales, core, partial_sums, scaled_sums
from tritloom.rtl.core.core import Core
from tritloom.rtl.engines import table
from tritloom.rtl.engines.select_facts import SELECT
from tritloom.rtl.engines.table_facts import TABLE
from tritloom.rtl.lib import group_scale
from tritloom.rtl.links import cobs
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.memories import bram as memory
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import Storage, adder_tree_bits
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.rtl.top import Accelerator

POINTS = read_table()
FAMILIES = sorted({point.family for point in POINTS})
CORES = [point for point in POINTS if not point.memory_words]
WHOLE = [point for point in POINTS if point.memory_words]
BOUND, LEFT_OUT, WHOLE_BOUND = 0.10, 0.15, 0.10
"""Relative errors: of a point that was fitted, of one that was not, of a whole accelerator."""


def named(point):
    tokens = f"x{point.tokens}" if point.tokens > 1 else ""
    return (
        f"{point.family}-{point.engine}-{point.encoding}-{point.lanes}x{point.rows}{tokens}"
        f"-{point.in_features}{'-whole' if point.memory_words else ''}"
    )


@pytest.fixture(scope="module")
def models():
    return {family: CostModel(family, POINTS) for family in FAMILIES}


def errors(cost, point):
    return [abs(predicted / measured - 1) for predicted, measured in luts_and_ffs(cost, point)]


def luts_and_ffs(cost, point):
    return (cost.luts, point.luts), (cost.ffs, point.ffs)


@pytest.mark.parametrize("point", CORES, ids=named)
def test_measured_core(models, point):
    predicted = models[point.family].core(point.config)
    assert max(errors(predicted, point)) <= BOUND
    assert predicted.block_rams == point.block_rams


@pytest.mark.parametrize("point", WHOLE, ids=named)
def test_measured_accelerator(models, point):
    model = models[point.family]
    predicted = model.core(point.config) + model.around(point.config)
    assert max(errors(predicted, point)) <= WHOLE_BOUND
    assert predicted.block_rams == point.block_rams


BANKED = [
    ("ecp5", "select", "base3x5", 20, 2, 4, (1137, 1738, 4), (1241, 1789, 8)),
    ("ecp5", "table", "sym3x5", 24, 1, 4, (400, 700, 4), (460, 758, 8)),
    ("ecp5", "select", "diff2", 20, 4, 4, (640, 1708, 3), (774, 1732, 5)),
    ("ice40", "select", "base3x5", 20, 2, 4, (2745, 1813, 11), (2952, 1875, 24)),
    ("ice40", "select", "base3x5", 10, 1, 1, (991, 723, 4), (1049, 761, 8)),
]
"""Cores of the measured table as they were synthesised with one bank and with two: LUTs, flip-flops
and block RAMs, the harness not counted."""
SECOND_BANK = 0.25
"""Relative error of the LUTs that the second bank takes."""
SECOND_BANK_FFS = 40
"""Error of its flip-flops."""


@pytest.mark.parametrize(
    ("family", "engine", "encoding", "lanes", "rows", "fill", "one", "two"), BANKED
)
def test_second_bank(models, family, engine, encoding, lanes, rows, fill, one, two):
    geometry = (family, engine, encoding, lanes, rows, fill)
    (point,) = [
        p
        for p in CORES
        if (p.family, p.engine, p.encoding, p.lanes, p.rows, p.fill) == geometry
        and (p.luts, p.ffs, p.block_rams) == one
    ]
    with_one = models[family].core(point.config)
    with_two = models[family].core(replace(point.config, banks=2))
    assert (with_one.block_rams, with_two.block_rams) == (one[2], two[2])
    assert abs((with_two.luts - with_one.luts) / (two[0] - one[0]) - 1) <= SECOND_BANK
    assert abs((with_two.ffs - with_one.ffs) - (two[1] - one[1])) <= SECOND_BANK_FFS
    assert abs(with_two.luts / two[0] - 1) <= BOUND and abs(with_two.ffs / two[1] - 1) <= BOUND


SCALED = [
    (65, 4, 64, "fixed", (1621, 7198, 87)),
    (65, 4, 64, "float", (4695, 9963, 72)),
    (130, 2, 128, "fixed", (1303, 6146, 72)),
]
"""Cores of `table` `base3x5` with scales, for a layer of 2048 × 2048, as they were packed."""
OF_UNITS = 0.15
"""Relative error of a core with scales: its units share the delays that are counted for each."""


@pytest.mark.parametrize(("lanes", "rows", "group", "kind", "measured"), SCALED)
def test_scales(models, lanes, rows, group, kind, measured):
    geometry = {"encoding": "base3x5", "lanes": lanes, "rows": rows, "fill": 13}
    scale = {"scale": group, "scale_kind": kind}
    config = engine_config("ecp5", "table", 2048, 2048, **geometry, **scale)
    predicted = models["ecp5"].core(config)
    assert abs(predicted.luts / measured[0] - 1) <= OF_UNITS
    assert abs(predicted.ffs / measured[1] - 1) <= OF_UNITS
    assert predicted.block_rams == measured[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_point_left_out(family):
    """The model foretells each point from the others of its family."""
    whole = {replace(p, memory_words=0, max_layers=0, packet_bytes=0, slots=0).key for p in WHOLE}
    mine = [point for point in CORES if point.family == family]
    worst = []
    for point in mine:
        if point.key not in whole:  # what is around a core is known only with the core
            model = CostModel(family, [each for each in mine if each is not point])
            worst.append((max(errors(model.core(point.config), point)), named(point)))
    assert max(worst)[0] <= LEFT_OUT, sorted(worst)[-3:]


GEOMETRIES = [
    {"lanes": 20, "rows": 1, "fill": 1, "encoding": "base3x5", "engine": "select"},
    {"lanes": 12, "rows": 3, "fill": 4, "encoding": "diff2", "engine": "select", "tokens": 2},
    {"lanes": 40, "rows": 2, "fill": 4, "encoding": "base3x5", "engine": "table", "act_bits": 4},
    {"lanes": 36, "rows": 1, "fill": 3, "encoding": "sym6x10", "engine": "table", "tokens": 2},
    {"lanes": 12, "rows": 2, "fill": 2, "encoding": "sym3x5", "engine": "table"},
    {"lanes": 18, "rows": 1, "encoding": "sign9", "engine": "table", "alphabet": "binary"},
    {"lanes": 20, "rows": 3, "fill": 4, "scale": ScaleConfig(group=60)},
    {"lanes": 20, "rows": 2, "tokens": 2, "scale": ScaleConfig(kind="float", group=20)},
]


@pytest.fixture
def built(monkeypatch):
    """The memories of a component: (width, words, whether a ROM), in no order."""

    def build(component):
        memories = []

        def block_ram(shape, depth, init=()):
            memories.append((Shape.cast(shape).width, depth, bool(len(init))))
            return real(shape, depth, init)

        real = core.block_ram
        with monkeypatch.context() as patch:
            for module in (
                activation_scales,
                cobs,
                core,
                framing,
                layer_table,
                memory,
                partial_sums,
                responder,
                group_scale,
                scaled_sums,
                table,
            ):
                patch.setattr(module, "block_ram", block_ram)
            rtlil.convert(component, emit_src=False)
        return sorted(memories)

    return build


def listed(memories):
    return sorted(
        (each.width, each.words, each.rom) for each in memories for _ in range(each.number)
    )


@quick_first("geometry", GEOMETRIES)
@quick_first("banks", [2, 1])
def test_memories_are_the_hardware_s(built, geometry, banks):
    """What block RAM is counted from is what the component has."""
    config = AcceleratorConfig(
        **geometry,
        banks=banks,
        memory=BlockRam(words=2500),
        max_in_features=700,
        max_out_features=300,
        packet_bytes=512,
    )
    assert built(Core(config)) == listed(core_memories(config))


@pytest.mark.sim
@pytest.mark.parametrize("geometry", GEOMETRIES[1:3], ids=lambda each: each["encoding"])
def test_memories_of_the_accelerator(built, geometry):
    config = AcceleratorConfig(
        **geometry,
        memory=BlockRam(words=2500),
        max_in_features=700,
        max_out_features=300,
        packet_bytes=512,
    )
    config = replace(config, link=Uart(baud=1_000_000))
    of_all = core_memories(config) + weight_memories(config) + around_memories(config)
    assert built(Accelerator(config)) == listed(of_all)


class TestMapped:
    """Each as yosys 0.70 maps it."""

    @pytest.mark.parametrize(
        ("family", "memory", "blocks"),
        [
            ("ecp5", Storage(18, 1024), 1),
            ("ecp5", Storage(19, 1024), 2),
            ("ecp5", Storage(36, 512), 1),
            ("ecp5", Storage(36, 513), 2),
            ("ecp5", Storage(20, 2560), 4),
            ("ecp5", Storage(8, 16), 0),
            ("ecp5", Storage(13, 256, rom=True), 1),
            ("ecp5", Storage(8, 16, rom=True), 0),
            ("ice40", Storage(16, 256), 1),
            ("ice40", Storage(11, 512), 2),
            ("ice40", Storage(2, 2048), 1),
            ("gowin", Storage(18, 1024), 1),
            ("gowin", Storage(8, 160), 0),
            ("gowin", Storage(8, 176), 1),
            ("xc7", Storage(18, 1024), 1),
            ("xc7", Storage(13, 256, rom=True), 0),
            ("xc7", Storage(13, 1024, rom=True), 1),
            ("xc7", Storage(72, 512), 2),
        ],
    )
    def test_blocks(self, family, memory, blocks):
        assert mapped(family, memory).blocks == blocks

    def test_lut_ram(self):
        assert mapped("ecp5", Storage(8, 32)).cells == 4
        assert mapped("ecp5", Storage(8, 32)).muxed == 8
        assert mapped("ice40", Storage(8, 16)).cells == 0


def test_adders():
    """44 codes of 11 bits; each sum is one bit wider than its addends."""
    assert adder_tree_bits(44, 11) == (555, 22 * 12 + 11 * 13 + 6 * 14 + 3 * 15 + 2 * 16 + 17)
    assert adder_tree_bits(1, 9) == (0, 0)


class TestNonnegative:
    def test_exact(self):
        rng = np.random.default_rng(0)
        a, x = rng.random((12, 5)), np.array([0.0, 2.0, 0.0, 1.0, 3.0])
        assert np.allclose(nonnegative(a, a @ x), x)

    def test_never_negative(self):
        """Of all that are not negative it is the nearest: no step to any side is better."""
        rng = np.random.default_rng(1)
        for _ in range(20):
            a, b = rng.standard_normal((15, 6)), rng.standard_normal(15)
            x = nonnegative(a, b)
            slope = a.T @ (b - a @ x)
            assert (x >= 0).all()
            assert np.allclose(slope[x > 0], 0, atol=1e-8) and (slope[x == 0] <= 1e-8).all()


class TestModel:
    def test_nothing_measured(self):
        message = "nothing is measured for gowin; run tritloom measure table --family gowin"
        with pytest.raises(ConfigError, match=message):
            CostModel("gowin", [point for point in POINTS if point.family == "ecp5"])

    def test_no_accelerator_measured(self):
        model = CostModel("ecp5", CORES)
        with pytest.raises(ConfigError, match="no accelerator is measured for ecp5; run tritloom"):
            model.around(CORES[0].config)

    def test_clock_of_the_nearest(self):
        def point(lanes, rows, mhz, encoding="base3x5", tokens=1):
            shape = {
                "tokens": tokens,
                "fill": 1,
                "act_bits": 8,
                "in_features": 64,
                "out_features": 64,
            }
            known = {"family": "ecp5", "engine": "select", "luts": 100, "ffs": 100}
            return Point(**known, **shape, encoding=encoding, lanes=lanes, rows=rows, mhz=mhz)

        routed = [point(10, 1, 200.0), point(40, 1, 150.0), point(10, 8, 120.0)]
        routed.append(point(10, 1, 90.0, tokens=16))
        model = CostModel("ecp5", [*routed, point(30, 1, None), point(20, 1, 99.0, "diff2")])

        def mhz(lanes, rows, tokens=1, encoding="base3x5"):
            config = replace(routed[0].config, lanes=lanes, rows=rows, tokens=tokens)
            return model.mhz(replace(config, encoding=encoding))

        # The size decides; of two of a size, the lanes.
        assert (mhz(15, 1), mhz(30, 1), mhz(100, 1)) == (200, 150, 120)
        assert (mhz(10, 2), mhz(10, 4), mhz(10, 6), mhz(10, 2, 4)) == (200, 150, 120, 120)
        assert (mhz(20, 2), mhz(10, 3, 2), mhz(50, 1), mhz(10, 16)) == (150, 120, 150, 90)
        assert mhz(10, 1, encoding="diff2") == 99
        assert CostModel("ecp5", [point(30, 1, None)]).mhz(routed[0].config) is None


def test_features_of_the_accelerator_s_parts():
    """A wider word, more banks, longer packets cost more, or nothing."""
    model = CostModel("ecp5", POINTS)
    config = next(point.config for point in WHOLE if point.family == "ecp5")
    least = model.around(config)
    for change in (
        {"rows": 2 * config.rows},
        {"memory": BlockRam(words=8 * config.memory_words)},
        {"slots": 4 * config.slots},
    ):
        more = model.around(replace(config, packet_bytes=1024, **change))
        assert more.luts >= least.luts and more.ffs >= least.ffs
        assert more.block_rams >= least.block_rams
    without = model.around(config.with_words(8192), weights=False)
    assert without.block_rams == least.block_rams - cost_module.weight_blocks(
        "ecp5", config.memory, config
    )


def test_engine_that_says_nothing_of_itself(monkeypatch):
    """It gets no features, and no memories, of another engine."""
    silent = replace(TABLE, storage=lambda config: (), cost_features=lambda config: {})
    monkeypatch.setattr(cost_module, "engines", {"table": silent})
    config = next(point.config for point in CORES if point.engine == "table")
    features = core_features(config, "ecp5")
    assert not features.keys() & SELECT.cost_features(config).keys()
    assert len(core_memories(config)) == 2


def test_memory_and_link_are_asked(monkeypatch):
    config = next(point.config for point in WHOLE if point.family == "ecp5")
    link_less = around_memories(replace(config, link=PacketStream()))
    assert len(around_memories(config)) == len(link_less) + len(config.link.storage(config)) == 4
    assert weight_memories(config) == list(config.memory.storage(config))


def test_full_sizes_of_block_ram():
    sizes = BlockRam(words=1).full_sizes(CORES[0].config, 5000)
    assert list(sizes) == [512, 1024, 2048, 4096]


def test_names_of_features_do_not_depend_on_the_geometry():
    for engine in (TABLE, SELECT):
        configs = [point.config for point in CORES if point.engine == engine.name]
        assert len({tuple(engine.cost_features(config)) for config in configs}) == 1


@pytest.mark.parametrize("kind", cost_module.UNITS)
def test_scaling_units_are_as_measured(kind):
    file = ROOT / "docs" / "reference" / "speed" / f"scale-{kind}-ecp5.json"
    measured = json.loads(file.read_text(encoding="utf-8"))
    keys = ("luts", "ffs", "dsps", "fmax_mhz_median")
    assert cost_module.UNITS[kind] == tuple(measured[key] for key in keys)
