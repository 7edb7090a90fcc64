"""The AXI memory against somebody else's: `AxiRam` of cocotbext-axi, in Icarus Verilog."""

import os
from xml.etree import ElementTree as ET

import pytest
from amaranth.back import rtlil

from tests.rtl.memories.test_axi import NoCredits, OneMore, config_of
from tests.support import ROOT
from tritloom.rtl.memories import axi
from tritloom.rtl.memories.contract import create_memory
from tritloom.sim.tools import find_simulator, run_yosys

pytestmark = pytest.mark.sim

CONFIGS = {
    "64 bits": config_of(96),
    "256 bits, words of two thirds": config_of(96, lanes=120, width=256, burst=16),
    "words of two beats": config_of(48, lanes=80, burst=16),
    "512 bits, bursts of 4 KiB": config_of(200, lanes=320, width=512, burst=256),
}


def run(config, folder, monkeypatch):
    """Names of the benches that failed."""
    from cocotb_tools.runner import get_runner

    design = rtlil.convert(create_memory(config), name="memory", emit_src=False)
    (folder / "memory.il").write_text(design)
    script = "read_rtlil memory.il; proc; flatten; opt_clean; write_verilog -noattr memory.v"
    run_yosys(["-q", "-p", script], cwd=folder)
    simulator = find_simulator()
    runner = get_runner("icarus")
    runner.build(
        sources=[folder / "memory.v"],
        hdl_toplevel="memory",
        build_dir=folder / "build",
        build_args=list(simulator.build_args) if simulator.name == "icarus" else [],
        timescale=("1ns", "1ps"),
    )
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    results = runner.test(
        hdl_toplevel="memory",
        test_module="tests.support.axi_bench",
        test_dir=folder,
        build_dir=folder / "build",
        results_xml=str(folder / "results.xml"),
        extra_env={
            "AXI_CONFIG": config.to_json(),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        },
    )
    cases = list(ET.parse(results).iter("testcase"))
    assert cases
    return [case.get("name") for case in cases if case.find("failure") is not None]


@pytest.mark.parametrize("name", CONFIGS)
def test_words_come_back(name, tmp_path, monkeypatch):
    assert run(CONFIGS[name], tmp_path, monkeypatch) == []


@pytest.mark.parametrize("reader", [NoCredits, OneMore])
def test_broken_readers_fail(reader, tmp_path, monkeypatch):
    monkeypatch.setattr(axi, "AxiReader", reader)
    config = config_of(96, burst=8, latency_cycles=4)
    assert run(config, tmp_path, monkeypatch) == ["words_come_back"]
