import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tritloom.boards.families.ecp5 import ECP5
from tritloom.boards.families.family import family_names, load_family
from tritloom.boards.families.xc7 import XC7
from tritloom.gen.cli import main as cli
from tritloom.gen.flow.build import BuildError
from tritloom.gen.measure import engine as engine_module
from tritloom.gen.measure.engine import engine_config, figures, measure_engine, vectors
from tritloom.gen.measure.harness import Harness, harness_cost
from tritloom.gen.measure.report import BEGIN, END, PUBLIC, summary, write_report
from tritloom.gen.passes.netlist import Netlist
from tritloom.gen.workloads import MIXES, mix_figures
from tritloom.rtl.core.core import Core
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError, InputError, ToolError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import engines
from tritloom.rtl.spec.scale_facts import KINDS, ScaleConfig
from tritloom.sim.device.core import CoreSimulation

BYTES = {"encoding": "base3x5", "lanes": 80, "rows": 1, "fill": 4}
SMALL = {"encoding": "base3x5", "lanes": 10, "rows": 1, "fill": 2}
RUN = {
    "luts": 460,
    "ffs": 1100,
    "block_rams": 28,
    "dsps": 0,
    "harness_luts": 60,
    "harness_ffs": 100,
}
PART = ECP5.parts["LFE5U-25F-6"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITLOOM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def command(capsys):
    def run(*arguments):
        status = cli.main(["measure", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def measured(**changes):
    """A result as `measure_engine` gives it."""
    config = engine_config("ecp5", "table", **BYTES)
    shares = figures(config, RUN, PART, [200.0, 210.0, 190.0], 400_000)
    facts = {"engine": "table", "encoding": "base3x5"}
    facts |= {"family": "ecp5", "part": "LFE5U-25F-6"}
    layer = {"in_features": 6912, "out_features": 4096, "exact_vectors": 24576}
    said = {"config": config.to_dict(), "command": "tritloom measure engine --json"}
    return {**facts, **layer, **shares, "seeds": [1, 2, 3], **said, **changes}


@pytest.mark.parametrize("family", family_names())
def test_one_bank(family):
    """Published figures are those of an engine's core, without a second bank for the front end."""
    names = {engine for engine, _ in load_family(family).measure.geometries}
    assert names and {engine_config(family, name).banks for name in names} == {1}


class TestFigures:
    CONFIG = engine_config("ecp5", "table", **BYTES)

    def test_all(self):
        measured = figures(self.CONFIG, RUN, PART, [200.0, 210.0, 190.0], 400_000)
        assert (measured["luts"], measured["ffs"]) == (400, 1000)
        assert measured["part_share"] == {
            "luts": 1.65,
            "ffs": 4.12,
            "block_rams": 50.0,
            "dsps": 0.0,
        }
        assert measured["scarcest"] == "block_rams"
        assert (measured["mac_per_cycle"], measured["lut_per_mac"], measured["ff_per_mac"]) == (
            80,
            5,
            12.5,
        )
        assert [measured[f"fmax_mhz_{name}"] for name in ("min", "median", "max")] == [
            190,
            200,
            210,
        ]
        assert measured["gmac_per_s_per_percent"] == round(80 * 0.2 / 50, 3)
        assert measured["utilization"] == round(6912 * 4096 / (400_000 * 80), 4)
        assert measured["gmac_per_s_per_klut_peak"] == 40
        assert measured["gmac_per_s_per_klut_sustained"] == round(40 * 6912 * 4096 / 32e6, 2)
        # 87 tiles of 80 for 6912 inputs
        assert measured["bits_per_weight"] == round(1.6 * 87 * 80 / 6912, 4)
        assert (measured["harness_luts"], measured["harness_ffs"]) == (60, 100)

    def test_clock_limit(self):
        measured = figures(self.CONFIG, RUN, PART, [250.0, 300.0, 290.0], 400_000)
        assert [measured[f"fmax_mhz_{name}"] for name in ("min", "median", "max")] == [
            250,
            257,
            257,
        ]
        assert measured["gmac_per_s_per_klut_peak"] == round(80 * 257 / 400, 2)

    def test_no_router(self):
        part = XC7.parts["XC7A35T"]
        measured = figures(self.CONFIG, RUN, part, [], 400_000)
        nulls = {name for name, value in measured.items() if value is None}
        assert nulls == {
            *("fmax_mhz_median", "fmax_mhz_min", "fmax_mhz_max", "gmac_per_s_per_percent"),
            *("gmac_per_s_per_klut_peak", "gmac_per_s_per_klut_sustained"),
        }

    def test_tokens(self):
        config = engine_config("ecp5", "table", tokens=2, **BYTES)
        measured = figures(config, RUN, PART, [200.0], 400_000)
        assert (measured["mac_per_cycle"], measured["lut_per_mac"]) == (160, 2.5)
        assert measured["utilization"] == round(6912 * 4096 / (400_000 * 80), 4)


class TestConfig:
    def test_best_known(self):
        config = engine_config("ecp5", "table", **BYTES)
        assert (config.lanes, config.rows, config.fill, config.encoding) == (80, 1, 4, "base3x5")
        assert (config.max_in_features, config.max_out_features) == (6912, 4096)

    def test_given(self):
        config = engine_config(
            "ecp5", "table", 500, 600, encoding="base3x5", lanes=40, rows=2, fill=4, tokens=None
        )
        assert (config.lanes, config.rows, config.fill, config.tokens) == (40, 2, 4, 1)
        assert (config.max_in_features, config.max_out_features) == (500, 600)

    def test_every_known_geometry_is_one(self):
        for family in family_names():
            for engine, encoding in load_family(family).measure.geometries:
                engine_config(family, engine, encoding=encoding)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["ecp5", "tabel"], "engine must be one of {engines}, not 'tabel'"),
            (["ecp5", "table", 8, 8, 13], "lanes must be a multiple of 6, not 13"),
        ],
    )
    def test_errors(self, arguments, message):
        *arguments, lanes = arguments if len(arguments) == 5 else (*arguments, None)
        with pytest.raises(ConfigError) as caught:
            engine_config(*arguments, lanes=lanes)
        assert str(caught.value) == message.format(engines=", ".join(engines))

    def test_nothing_known(self, monkeypatch):
        measure = replace(ECP5.measure, geometries={})
        unmeasured = replace(ECP5, measure=measure)
        monkeypatch.setattr(engine_module, "load_family", lambda name: unmeasured)
        message = "no geometry of table with base3x5 is known for ecp5; give --lanes and --rows"
        with pytest.raises(ConfigError, match=message):
            engine_config("ecp5", "table", encoding="base3x5", lanes=5)
        assert engine_config("ecp5", "table", **SMALL).lanes == 10


class TestMix:
    def test_figures(self):
        config = engine_config("ecp5", "table", **BYTES)
        mix = mix_figures("bitnet-2b-4t", config, 200.0)
        assert sum(layer["count"] for layer in mix["layers"]) == 7 * 30
        # All ternary weights of the model: 30 × (2 · 2560² + 2 · 2560 · 640 + 3 · 2560 · 6912).
        assert mix["macs"] == 2_084_044_800
        for layer in mix["layers"]:
            outputs = layer["out_features"]
            parts = [outputs] if outputs <= 4096 else [4096, outputs - 4096]
            shapes = [LayerShape.of(config, part, layer["in_features"]) for part in parts]
            assert layer["cycles"] == sum(config.run_cycles(shape) for shape in shapes)
        assert mix["cycles"] == sum(layer["count"] * layer["cycles"] for layer in mix["layers"])
        expected = round(mix["macs"] / mix["cycles"] * 0.2, 2)
        assert mix["gmac_per_s_sustained"] == expected
        assert mix_figures("bitnet-2b-4t", config, None)["gmac_per_s_sustained"] is None

    def test_model(self):
        assert MIXES["bitnet-2b-4t"][0] == "microsoft/BitNet-b1.58-2B-4T"


class TestVectors:
    @pytest.mark.parametrize("alphabet", ["ternary", "binary"])
    @pytest.mark.parametrize(("act_bits", "least", "greatest"), [(8, -128, 127), (4, -8, 7)])
    def test_extremes(self, alphabet, act_bits, least, greatest):
        config = SimpleNamespace(
            max_in_features=40, max_out_features=9, act_bits=act_bits, alphabet=alphabet, tokens=4
        )
        trits, tokens = vectors(config)
        assert trits.dtype == tokens.dtype == np.int8
        assert (trits[0] == -1).all() and (trits[1] == 1).all() and (trits[2] == -trits[3]).all()
        assert set(trits[4:].flat) == ({-1, 1} if alphabet == "binary" else {-1, 0, 1})
        assert tokens.shape == (8, 40)  # whole runs of four
        assert (tokens[0] == least).all() and (tokens[1] == greatest).all()
        assert numerics.matmul(trits, tokens)[2, 2] == 20 * (greatest - least)
        assert tokens.min() == least and tokens.max() == greatest

    def test_few_rows(self):
        config = engine_config("ecp5", "table", 40, 2, **SMALL)
        assert vectors(config)[0].shape == (2, 40)


class TestExactness:
    CONFIG = engine_config("ecp5", "table", 40, 30, **SMALL)

    def fake(self, monkeypatch, cycles=0, error=0):
        formula = self.CONFIG.run_cycles(LayerShape.of(self.CONFIG, 30, 40))

        class Fake:
            def __init__(self, config):
                pass

            def layer(self, trits, tokens):
                for token in tokens:
                    result = numerics.matmul(trits, token[None]).astype(np.int64)
                    result[0, -1] += error
                    yield result, formula + cycles

        monkeypatch.setattr(engine_module, "CoreSimulation", Fake)
        return formula

    def test_exact(self, monkeypatch):
        formula = self.fake(monkeypatch)
        measured = engine_module._compare(self.CONFIG, lambda line: None)
        assert measured == (formula, 6 * 30)

    def test_wrong_result(self, monkeypatch):
        self.fake(monkeypatch, error=1)
        with pytest.raises(ToolError, match="a result of tokens 0 to 0 is not exact"):
            engine_module._compare(self.CONFIG, lambda line: None)

    def test_wrong_cycles(self, monkeypatch):
        formula = self.fake(monkeypatch, cycles=1)
        message = f"the layer took {formula + 1} cycles, not {formula} as the formula has it"
        with pytest.raises(ToolError, match=message):
            engine_module._compare(self.CONFIG, lambda line: None)


@pytest.mark.sim
@pytest.mark.parametrize("scale", [None, *(ScaleConfig(kind=kind, group=20) for kind in KINDS)])
@pytest.mark.parametrize("engine", ["select", "table"])
def test_simulated_core(engine, scale):
    config = AcceleratorConfig(
        lanes=10,
        rows=3,
        tokens=2,
        fill=2,
        engine=engine,
        memory=BlockRam(words=1),
        max_in_features=47,
        max_out_features=50,
        scale=scale,
    )
    rng = np.random.default_rng(1)
    trits = rng.integers(-1, 2, (47, 44)).astype(np.int8)
    tokens = rng.integers(-128, 128, (5, 44)).astype(np.int8)
    results, cycles = zip(*CoreSimulation(config).layer(trits, tokens), strict=True)
    assert (np.concatenate(results) == numerics.matmul(trits, tokens)).all()
    assert set(cycles) == {config.run_cycles(LayerShape.of(config, 47, 44))}
    assert [len(result) for result in results] == [2, 2, 1]


class Empty(wiring.Component):
    """Nothing but wires: outputs are inputs."""

    i: Signal
    o: Signal

    def __init__(self):
        super().__init__({"i": In(299), "o": Out(70)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += Signal().eq(0)  # has the clock domain
        m.d.comb += self.o.eq(self.i[100:])
        return m


@pytest.mark.sim
@pytest.mark.parametrize("family", family_names())
def test_harness_cost(family, tmp_path):
    """What is counted is what there is, and what it must be: nothing is shared with the core."""
    design = rtlil.convert(Harness(Empty()), name="top", emit_src=False)
    engine_module._synthesize(design, family, tmp_path, lambda line: None)
    netlist = Netlist(json.loads((tmp_path / "top.json").read_text()), "top")
    cells = [cell["type"] for cell in netlist.cells.values()]
    # 300 inputs with the reset, 70 outputs, a tree of 18 + 5 + 2 + 1 (two of them have one input);
    # two chunks begin with an XOR.
    ffs, luts = 300 + 70 + 26, 26 - 1 + 2
    assert harness_cost(netlist) == {"luts": luts, "ffs": ffs, "cells": ffs}
    assert sum(cell.removeprefix("SB_").startswith("LUT") for cell in cells) == luts
    assert sum("FF" in cell or cell.startswith("FD") for cell in cells) == ffs


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("scripts", [slice(None), slice(1, None)], ids=["first", "second"])
def test_large_array(tmp_path, monkeypatch, scripts):
    """By the commands for where ABC9 breaks too: nothing is left of the hierarchy."""
    family = replace(ECP5, synthesis=ECP5.synthesis[scripts])
    monkeypatch.setattr(engine_module, "load_family", lambda name: family)
    design = rtlil.convert(
        Harness(Core(engine_config("ecp5", "select", lanes=64, rows=8))), name="top", emit_src=False
    )
    engine_module._synthesize(design, "ecp5", tmp_path, lambda line: None)
    modules = json.loads((tmp_path / "top.json").read_text())["modules"]
    cells = Counter(cell["type"] for cell in modules["top"]["cells"].values())
    assert not [kind for kind in cells if kind.startswith("top.")]
    assert cells["LUT4"] + 2 * cells["CCU2C"] < 12 * 64 * 8


def test_harness_cell_shared_with_the_core():
    """A register at an output takes no cell of its own behind a LUT that drives nothing else."""

    def cell(kind, **ports):
        directions = {port: "output" if port in "QO" else "input" for port in ports}
        connections = {port: [bit] for port, bit in ports.items()}
        return {"type": kind, "port_directions": directions, "connections": connections}

    cells = {
        "a": cell("SB_LUT4", I0=10, O=11),
        "b": cell("SB_LUT4", I0=10, O=12),
        "other": cell("SB_LUT4", I0=12, O=13),
        "out_0": cell("SB_DFF", D=11, Q=20),
        "out_1": cell("SB_DFF", D=12, Q=21),
        "out_2": cell("SB_DFF", D=10, Q=22),
        "core": cell("SB_DFF", D=13, Q=30),
        "ram": cell("DP16KD", A=10, O=23),  # has taken a register of the harness in as its own
    }
    netnames = {"harness_out.register_0": {"bits": [20, 21, 22, 23]}, "register": {"bits": [30]}}
    module = {"ports": {}, "cells": cells, "netnames": netnames}
    netlist = Netlist({"modules": {"top": module}}, "top")
    assert harness_cost(netlist) == {"luts": 0, "ffs": 3, "cells": 2}


class TestCommand:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--engine", "tabel"], "engine must be one of {engines}, not 'tabel'"),
            (
                ["--engine", "table", "--part", "LFE5U-12F"],
                "part of ecp5 must be one of {parts}, not 'LFE5U-12F'",
            ),
            (
                ["--engine", "table", "--in-features", "100", "--mix", "bitnet-2b-4t"],
                "--mix bitnet-2b-4t needs --in-features of at least 6912",
            ),
            (
                ["--engine", "table", "--output", "no/such/file.json"],
                "--output: there is no folder no/such",
            ),
            (
                ["--engine", "table", "--scale-kind", "float"],
                "--scale-kind needs --scale, the inputs of a group",
            ),
        ],
    )
    def test_errors(self, command, arguments, message):
        measured = command("engine", "--family", "ecp5", *arguments)
        # Those of other tests among them.
        known = message.format(engines=", ".join(engines), parts=", ".join(ECP5.parts))
        assert measured == (1, "", f"tritloom: error: {known}\n")

    @pytest.mark.parametrize(
        "scale", [{}, {"scale": 80}, {"scale": 80, "scale_kind": "float"}], ids=len
    )
    def test_command_gives_the_same(self, scale):
        config = engine_config(
            "ecp5", "table", 100, 200, encoding="base3x5", lanes=40, rows=2, fill=4, **scale
        )
        assert (config.scale is None) == (not scale)
        text = engine_module._command("ecp5", config, "LFE5U-25F-6", 2, "bitnet-2b-4t")
        words = text.split()
        assert words[:3] == ["tritloom", "measure", "engine"] and words[-1] == "--json"
        options = cli._parser().parse_args(words[1:])
        names = ("encoding", "alphabet", "lanes", "rows", "tokens", "fill", "act_bits")
        names += ("scale", "scale_kind")
        again = engine_config(
            *(options.family, options.engine, options.in_features, options.out_features),
            **{name: getattr(options, name) for name in names},
        )
        assert again == config
        assert (options.part, options.seeds, options.mix) == ("LFE5U-25F-6", 2, "bitnet-2b-4t")

    @pytest.mark.parametrize("family", [*family_names(), "max10"])
    def test_families(self, command, family):
        arguments = ("engine", "--family", family, "--engine", "none")
        if family in family_names():
            assert command(*arguments)[0] == 1
        else:
            with pytest.raises(SystemExit):
                command(*arguments)


class TestTooLarge:
    ADVICE = "take fewer lanes or rows, or another --part"

    def test_counted(self, tmp_path):
        """Without a router."""
        cell = {"type": "RAMB36E1", "port_directions": {}, "connections": {}}
        module = {"ports": {}, "netnames": {}, "cells": {str(n): cell for n in range(51)}}
        (tmp_path / "top.json").write_text(json.dumps({"modules": {"top": module}}))
        with pytest.raises(BuildError) as caught:
            engine_module._route("xc7", "XC7A35T", 1, tmp_path, lambda line: None)
        assert str(caught.value) == (
            f"does not fit the XC7A35T: 102 of 100 block_rams; {self.ADVICE}"
        )

    @pytest.mark.parametrize("over", [True, False])
    def test_routed(self, tmp_path, monkeypatch, over):
        def run(tool, package, options, folder, watch):
            assert options[-6:] == ["--freq", "250", "--seed", "3", "--write", "placed.json"]
            watch.line(f"Info:    DP16KD:    {70 if over else 7}/   56   125%")
            watch.line("Info:    TRELLIS_COMB:    700/   24288   2%")
            watch.line("ERROR: no place")
            raise BuildError("nextpnr failed: no place")

        monkeypatch.setattr(engine_module, "run_tool", run)
        with pytest.raises(BuildError) as caught:
            engine_module._nextpnr(ECP5, "LFE5U-25F-6", 3, tmp_path, lambda line: None)
        assert str(caught.value) == (
            f"does not fit the LFE5U-25F-6: 70 of 56 DP16KD; {self.ADVICE}"
            if over
            else "nextpnr failed: no place"
        )


@pytest.mark.parametrize(("before", "expected_mhz"), [(200, 240), (250, 250)])
def test_routed_again(tmp_path, monkeypatch, before, expected_mhz):
    """Where the clock that is tried for is missed, and there alone."""
    calls = []

    def run(tool, package, options, folder, watch):
        calls.append([option for option in options if option in ("--no-pack", "--tmg-ripup")])
        fmax = {"clk": {"achieved": 240 if calls[1:] else before, "constraint": 250}}
        (folder / "timing.json").write_text(json.dumps({"fmax": fmax}))
        cells = {"settings": {}, "cells": {}, "netnames": {}}
        (folder / "placed.json").write_text(json.dumps({"modules": {"top": cells}}))

    monkeypatch.setattr(engine_module, "run_tool", run)
    messages: list[str] = []
    timing = engine_module._nextpnr(ECP5, "LFE5U-25F-6", 3, tmp_path, messages.append)
    assert timing["fmax"]["clk"]["achieved"] == expected_mhz
    again = expected_mhz > before
    assert calls == [[], ["--no-pack", "--tmg-ripup"]][: 1 + again]
    assert ("seed 3: shorter paths: 200 MHz, then 240" in messages) == again


def test_cached(cache):
    messages: list[str] = []
    seeds: list[int] = []

    def make():
        seeds.append(1)
        return {"a": 1}

    for _ in range(2):
        assert engine_module._cached(("x", 1), make, messages.append, "seed 1") == {"a": 1}
    assert seeds == [1]
    assert messages == ["seed 1: measured before, taken from the cache"]
    engine_module._cached(("x", 2), make, messages.append, "seed 1")
    assert seeds == [1, 1]


class TestReport:
    @pytest.fixture
    def page(self, tmp_path):
        page = tmp_path / "engines.md"
        page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
        (tmp_path / "engines").mkdir()
        return page

    @pytest.mark.sim
    def test_page(self, page, command):
        folder = page.with_suffix("")
        slow = measured(
            family="xc7", part="XC7A35T", command="tritloom second", fmax_mhz_median=None
        )
        for number, result in enumerate((slow, measured(command="tritloom first"))):
            nulls = dict.fromkeys(
                (
                    "gmac_per_s_per_percent",
                    "gmac_per_s_per_klut_peak",
                    "gmac_per_s_per_klut_sustained",
                )
            )
            result |= {} if number else nulls
            (folder / f"{number}.json").write_text(json.dumps(result))
        status, out, err = command("report", folder, "--json")
        assert (status, err) == (0, "")
        names = ["lut_per_mac.svg", "klut_peak.svg", "per_percent.svg"]
        assert json.loads(out) == {"files": [str(page), *(str(folder / name) for name in names)]}
        text = page.read_text()
        assert text.startswith(f"before\n{BEGIN}\n\n| engine |")
        assert text.endswith(f"```\n\n{END}\nafter\n")
        ours = [line for line in text.splitlines() if "**" in line]
        assert ours[0] == (
            "| **table base3x5 80×1** | LFE5U-25F-6 | 80 | 5.00 | 12.50 | 28 | 200 | 40.0 | 35.4 | "
            "0.32 | 88.5% |"
        )
        assert ours[1].startswith(
            "| **table base3x5 80×1** | XC7A35T | 80 | 5.00 | 12.50 | 28 |  |"
        )
        assert "tritloom first\ntritloom second\n" in text
        assert all(row.name in text for row in PUBLIC)
        before = {file: file.read_bytes() for file in (page, *map(folder.joinpath, names))}
        write_report(folder)
        assert {file: file.read_bytes() for file in before} == before
        plots = [before[folder / name].decode() for name in names]
        assert not any("<dc:date>" in plot for plot in plots)
        # One panel a family, and a legend where others are shown.
        for family, shown in (("ecp5", (1, 1, 1)), ("xc7", (1, 0, 0)), ("ice40", (0, 0, 0))):
            assert tuple(plot.count(f">{family}</text>") for plot in plots) == shown
        assert [">other engines, measured" in plot for plot in plots] == [True, True, False]

    @pytest.mark.sim
    def test_scales_are_named(self, page):
        """A core with scaling units is not the core without them."""
        folder = page.with_suffix("")
        config = engine_config("ecp5", "table", 2048, 64, scale=64, **BYTES)
        (folder / "a.json").write_text(json.dumps(measured(config=config.to_dict())))
        (folder / "b.json").write_text(json.dumps(measured()))
        config = replace(config, scale=ScaleConfig(kind="float", group=64))
        (folder / "c.json").write_text(json.dumps(measured(config=config.to_dict())))
        write_report(folder)
        text = page.read_text()
        assert "**table base3x5 80×1 with scales for 64**" in text
        assert "**table base3x5 80×1 with float scales for 64**" in text
        assert "**table base3x5 80×1**" in text

    def test_errors(self, page):
        folder = page.with_suffix("")
        with pytest.raises(InputError, match="engines has no JSON files"):
            write_report(folder)
        (folder / "a.json").write_text("{}")
        with pytest.raises(InputError, match=r"a\.json is not a measurement of measure engine"):
            write_report(folder)
        (folder / "a.json").write_text(json.dumps(measured()))
        page.write_text(f"{END} {BEGIN}")
        with pytest.raises(InputError, match=r"engines\.md must have one line <!-- measure report"):
            write_report(folder)

    def test_summary(self):
        text = summary(measured())
        assert "80 MAC/cycle, RUN of the core alone" in text and "200 MHz, 190 to 210" in text
        assert "5.00 LUT/MAC" in text and "24,576 results exact" in text


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("family", family_names())
def test_measurement(family, cache):
    config = engine_config(family, "table", 40, 260, **SMALL)
    messages: list[str] = []
    measured = measure_engine(family, config, seeds=2, progress=messages.append)
    assert measured["exact_vectors"] == 6 * 260
    assert measured["cycles"] == config.run_cycles(LayerShape.of(config, 260, 40))
    assert (
        0 < measured["luts"] < 2000
        and 0 < measured["ffs"] < 2000
        and 0 < measured["block_rams"] < 20
    )
    assert measured["dsps"] == 0
    assert measured["harness_luts"] > 0 and measured["harness_ffs"] > 50
    assert (
        len(measured["fmax_mhz"])
        == len(measured["seeds"])
        == (2 if load_family(family).measure.place else 0)
    )
    assert list(measured["part_share"]) == ["luts", "ffs", "block_rams", "dsps"]
    assert json.loads(json.dumps(measured)) == measured
    again = measure_engine(family, config, seeds=2, progress=messages.append)
    assert again == measured
    assert "taken from the cache" in messages[-1]
