"""Streams of weights from outside the chip: formulas, options, and RUNs on the simulated FPGA."""

import json
from dataclasses import replace

import pytest

from tests.support import ROOT, line_store, plugins
from tritloom.gen.cli.main import main
from tritloom.gen.measure import outside
from tritloom.gen.measure.outside import (
    Product,
    first_word_cycles,
    formula,
    measure_outside,
    outside_config,
    products_of_layer,
    record_options,
)
from tritloom.gen.plan.cpu import Cpu
from tritloom.gen.plan.platform import PlannedMemory, Platform, memory_width
from tritloom.gen.plan.prediction import predict
from tritloom.gen.plan.regions import ROTATION_BYTES
from tritloom.gen.workloads import Layer
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError, InputError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import memories
from tritloom.sim.device.simulated import SimulatedDesign

SMALL = {"lanes": 5, "rows": 2, "fill": 5, "packet_bytes": 256, "most": (96, 60)}
LATENCY = plugins.LateMemory.DELAY + 4
GRID = [(96, 60), (2, 5), (10, 60), (11, 31), (96, 5), (30, 17)]


def config_of(memory, products, **options):
    return outside_config(memory, {}, products, **{**SMALL, **options})


def test_geometry():
    """40 lanes, and rows by the width; tables as long as the width. One FPGA serves most shapes."""
    product = [Product(640, 2560)]
    config = outside_config("test-late", {}, product)
    assert (config.lanes, config.rows, config.fill, config.word_bits) == (40, 1, 5, 64)
    assert config == outside_config("test-late", {}, [Product(13824, 2560)])
    assert (config.max_out_features, config.max_in_features) == (13824, 6912)
    assert config.memory_words == LayerShape.of(config, 13824, 6912).words
    larger = outside_config("test-late", {}, [Product(20000, 7000)] * 2)
    assert (larger.max_out_features, larger.max_in_features) == (20000, 7000)
    assert larger.memory_words == 2 * LayerShape.of(larger, 20000, 7000).words
    assert memory_width(config) == 64 and config.link.width == 8


def test_layer():
    products = products_of_layer("bitnet-2b-4t")
    shapes = [(each.out_features, each.in_features) for each in products]
    assert shapes[:4] == [(2560, 2560), (640, 2560), (640, 2560), (2560, 2560)]
    assert shapes[4:] == [(6912, 2560), (6912, 2560), (2560, 6912)]
    assert [each.same_input for each in products] == [False, True, True, False, False, True, False]
    assert sum(out * inputs for out, inputs in shapes) * 30 == 2084044800
    for name in ("experts-30b-a3b", "none"):
        with pytest.raises(InputError, match=f"^--layer must be one of tinylm, .*, not '{name}'$"):
            products_of_layer(name)


def test_record_options():
    assert record_options("test-late", latency=60, width=None) == {}
    with pytest.raises(InputError, match=r"^memory test-late has no width$"):
        record_options("test-late", width=64)


@pytest.mark.parametrize("shape", GRID)
def test_formula(shape):
    """Alone: accepting the command beside RUN; behind: RUN alone, as if its words were there."""
    product = Product(*shape)
    config = config_of("test-late", [product])
    run = config.run_cycles(LayerShape.of(config, *shape))
    assert first_word_cycles(config, {}) == LATENCY
    assert formula(config, product, LATENCY, behind=False) == run + 24
    behind = formula(config, product, LATENCY, behind=True)
    fill = 4 + 1 + 1 + 3  # of a tile of 5 lanes in one go
    assert behind == run - (LATENCY - 1) + fill + 1
    # A memory whose words are never late is not asked ahead.
    near = replace(config, memory=plugins.BlockRam(words=config.memory_words))
    run = near.run_cycles(LayerShape.of(near, *shape))
    assert formula(near, product, 4, behind=True) == 3 + run


def test_refused():
    product = [Product(2, 5)]
    config = config_of("test-late", product)
    with pytest.raises(InputError, match=r"^link must be a packet stream"):
        measure_outside(replace(config, link=Uart(baud=1_000_000)), product)
    with pytest.raises(InputError, match=r"^tokens must be 1 to measure a stream, not 2$"):
        measure_outside(replace(config, tokens=2), product)
    with pytest.raises(ConfigError, match="lanes must be a multiple of 5, not 12"):
        config_of("test-late", product, lanes=12, fill=1)


@pytest.mark.sim
def test_every_cycle_is_the_formulas():
    """Each shape of a grid alone, then large ones queued; with a memory that is late."""
    for shape in GRID:
        product = [Product(*shape)]
        result = measure_outside(config_of("test-late", product), product)
        assert result["exact"] and result["cycles"] == result["cycles_formula"], shape
        weights = shape[0] * shape[1]
        assert result["weight_bits"] == round(weights * 1.6)
        assert result["utilization"] == round(weights * 1.6 / (result["cycles"] * 16), 5)
    queued = [Product(96, 60), Product(96, 60, same_input=True), Product(90, 60), Product(96, 55)]
    config = config_of("test-late", queued)
    result = measure_outside(config, queued)
    assert result["exact"]
    assert [run["cycles"] for run in result["runs"]] == [
        run["cycles_formula"] for run in result["runs"]
    ]
    assert result["cycles"] == result["cycles_formula"]
    shapes = [LayerShape.of(config, each.out_features, each.in_features) for each in queued]
    stored = sum(shape.words for shape in shapes) * 16
    weights = sum(each.out_features * each.in_features for each in queued)
    assert result["bits_per_weight"] == round(stored / weights, 5)


@pytest.mark.sim
def test_a_memory_that_stalls():
    """There is no formula; the results are right all the same. One bank works too."""
    products = [Product(96, 60), Product(31, 60)]
    for banks in (2, 1):
        result = measure_outside(config_of("test-stalling", products, banks=banks), products)
        assert result["exact"] and result["cycles_formula"] is None
        assert sum(run["cycles"] for run in result["runs"]) == result["cycles"]


@pytest.mark.sim
def test_wrong_results_show(monkeypatch):
    products = [Product(10, 60)]
    right = outside.numerics.matmul
    monkeypatch.setattr(outside.numerics, "matmul", lambda *args: right(*args) + 1)
    assert not measure_outside(config_of("test-late", products), products)["exact"]


def axi(width, latency, *products, ports=1):
    options = record_options("axi", width=width, ports=ports, latency=latency)
    return outside_config("axi", options, products)


def test_axi_geometry():
    """A word is a beat of all ports."""
    for width, ports in ((64, 1), (128, 1), (256, 1), (512, 1), (128, 4)):
        config = axi(width, 60, Product(640, 2560), ports=ports)
        assert (config.lanes, config.rows) == (40, width * ports // 64)
        assert memory_width(config) == config.word_bits == width * ports
        assert config.memory.latency_cycles == 60
        assert first_word_cycles(config, {"latency": 60}) == 67
        assert first_word_cycles(config, {"latency": 61}) is None  # beyond the queue
        for options in ({"stalls": 0.25}, {"dram": True}):
            model = {"latency": 60, **options}
            assert first_word_cycles(config, model) is None
            SimulatedDesign(config, model)  # the model of the chip knows the options
        assert config.memory.expected(config) == (67, 1.0)
    narrow = replace(config, rows=1)
    assert first_word_cycles(narrow, {"latency": 60}) is None


def test_offsets_and_clock():
    """Four ports of 128 bits at 250 MHz, which begin evenly spread over the DRAM's banks."""
    options = record_options("axi", width=128, ports=4)
    product = [Product(640, 2560)]
    config = outside_config("axi", options, product, clock_hz=250_000_000, offsets="spread")
    assert config.clock_hz == 250_000_000
    assert [offset // 1024 % 64 for offset in config.memory.offsets] == [0, 16, 32, 48]
    config = outside_config("axi", options, product, offsets=(0, 0, 48, 24))
    assert [offset // 1024 % 64 for offset in config.memory.offsets] == [0, 0, 48, 24]


SHAPES = [(2560, 2560), (3840, 2560), (6912, 2560), (13824, 2560), (2560, 6912)]


@pytest.mark.parametrize("latency", [20, 60, 200])
@pytest.mark.parametrize(("width", "least"), [(64, 0.99), (128, 0.99), (256, 0.985), (512, 0.985)])
def test_goals_by_the_formula(width, least, latency):
    """The shares of the memory's peak that the simulated FPGA must reach."""
    config = axi(width, latency, Product(640, 2560))
    first = first_word_cycles(config, {"latency": latency})

    def share(product, behind=False):
        bits = product.out_features * product.in_features * 1.6
        return bits / (formula(config, product, first, behind=behind) * width)

    assert all(share(Product(*shape)) >= least for shape in SHAPES)
    small = Product(640, 2560)
    assert share(small) >= (0.955 if (width, latency) == (512, 200) else 0.97)
    assert share(small, behind=True) >= 0.99
    layer = products_of_layer("bitnet-2b-4t")
    cycles = [
        formula(config, product, first, behind=number > 0) for number, product in enumerate(layer)
    ]
    bits = sum(product.out_features * product.in_features * 1.6 for product in layer)
    assert bits / (sum(cycles) * width) >= (0.995 if width <= 128 else 0.99)
    stored = sum(
        LayerShape.of(config, product.out_features, product.in_features).words for product in layer
    )
    assert stored * config.word_bits / (bits / 1.6) <= 1.61


def planned(config, products):
    """What a plan of an accelerator says of layers, computed one behind the other."""
    platform = Platform(name="a", config=config, memory_bits=memory_width(config), linked=False)
    layers = [Layer("a", product.in_features, product.out_features) for product in products]
    cpu = Cpu(name="test", tokens=1, macs=1, total_s=1.0)
    return predict(platform, None, layers, layers, measure=lambda *_: cpu)


@pytest.mark.parametrize("width", [64, 128, 256, 512])
def test_a_plan_is_near(width):
    """A plan of the same accelerator is within 10 % of what it takes by the formula."""
    for shape in (*SHAPES, (640, 2560)):
        product = Product(*shape)
        config = axi(width, 60, product)
        (layer,) = planned(config, [product]).layers
        measured = formula(config, product, 67, behind=False)
        assert abs(layer.cycles / measured - 1) < 0.1
        share = shape[0] * shape[1] * 1.6 / (measured * width)
        assert abs(layer.roofline / share - 1) < 0.1


MEASURED = sorted((ROOT / "docs/reference/speed").glob("outside-*.json"))


TOGETHER = 0.74
"""Share that the simulated DRAM leaves four ports that meet in its banks; see its own tests."""


def efficiency(figures):
    """What a plan must be told: the share of the cycles in which the memory brings words.

    It is 1, except where the memory pauses at random or the ports of a DRAM meet in its banks.
    """
    offsets = {offset % ROTATION_BYTES for offset in figures["config"]["memory"].get("offsets", ())}
    together = figures["model"].get("dram", False) and len(offsets) == 1
    return (1 - figures["model"].get("stalls", 0)) * (TOGETHER if together else 1)


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.stem)
def test_a_plan_is_near_what_was_measured(file):
    """The time that a plan states is within 10 % of each committed simulation, and so are parts."""
    figures = json.loads(file.read_text(encoding="utf-8"))
    config = AcceleratorConfig.from_dict(figures["config"])
    if (share := efficiency(figures)) < 1:
        memory = PlannedMemory(
            words=config.memory_words, width_bits=figures["width_bits"], efficiency=share
        )
        config = replace(config, memory=memory)
    products = [Product(run["out_features"], run["in_features"]) for run in figures["runs"]]
    plan = planned(config, products)
    assert abs(plan.times.engine_s * config.clock_hz / figures["cycles"] - 1) < 0.1
    assert abs(plan.roofline / figures["utilization"] - 1) < 0.1
    for layer, run in zip(plan.layers, figures["runs"], strict=True):
        assert abs(layer.cycles / run["cycles"] - 1) < 0.1


def test_what_was_measured():
    """The committed simulations cover both memories, and each one's results were exact."""
    every = [json.loads(file.read_text(encoding="utf-8")) for file in MEASURED]
    assert {figures["config"]["memory"]["kind"] for figures in every} == {"axi", "sdram"}
    assert sum(efficiency(figures) == 1 for figures in every) >= 20
    for figures in every:
        assert figures["exact"]
        if figures["cycles_formula"] is not None:
            assert figures["cycles"] == figures["cycles_formula"]


def test_refused_on_the_command_line(capsys):
    """Options of a memory outside the chip are not for block RAM; several shapes neither."""
    for words, message in (
        (["--shape", "8x5", "--dram"], "--dram goes with a memory outside the chip, not with bram"),
        (["--shape", "8x5", "--width", "64"], "--width goes with a memory outside the chip"),
        (["--shape", "8x5", "--memory-clock-hz", "9"], "--memory-clock-hz goes with a memory"),
        (["--shape", "8x5", "--shape", "8x5"], "bram takes one --shape"),
        (["--layer", "tinylm"], "bram takes one --shape"),
        (["--shape", "8x5", "--clock-hz", "5"], "--clock-hz goes with a memory outside the chip"),
        (["--memory", "axi", "--layer", "x", "--width", "64"], "--layer must be one of tinylm"),
        (["--memory", "axi", "--shape", "8x5", "--part", "y"], "memory axi has no part"),
    ):
        assert main(["measure", "stream", *words]) == 1
        assert message in capsys.readouterr().err


def test_geometry_of_a_narrow_memory():
    """A word of 64 bits takes four cycles; few lanes leave less of the last tile unused."""
    memories.add(line_store.TestLines)
    options = {"line_bits": 128, "beat_bits": 16}
    config = outside_config("test-lines", options, [Product(2560, 6912)])
    assert (config.lanes, config.rows, config.word_bits) == (5, 8, 64)
    assert memory_width(config) == 16
    words = LayerShape.of(config, 2560, 6912).words
    assert words * 64 / (2560 * 6912) < 1.601
    own = {"part": "ulx3s", "clock_hz": 133_333_333}
    config = outside_config("sdram", own, [Product(2560, 6912)], clock_hz=80_000_000)
    assert (config.lanes, config.rows, config.clock_hz) == (5, 8, 80_000_000)
    assert memory_width(config) == 16 * 133_333_333 / 80_000_000
    assert memory_width(replace(config, memory=replace(config.memory, clock_hz=0))) == 16
    given = outside_config("test-lines", options, [Product(2560, 6912)], lanes=40, rows=1)
    assert (given.lanes, given.rows) == (40, 1)
