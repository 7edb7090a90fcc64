"""The link `udp` against somebody else's GMII: cocotbext-eth, in Icarus Verilog."""

import os
from xml.etree import ElementTree as ET

import pytest
from amaranth.back import rtlil

from tests.support import ROOT
from tests.support.broken import broken
from tests.support.ethernet import CONFIG
from tritloom.gen.measure.link_loop import LinkLoop
from tritloom.rtl.links import gmii, udp
from tritloom.sim.tools import find_simulator, run_yosys

pytestmark = pytest.mark.sim


def run(folder, monkeypatch):
    """Names of the benches that failed."""
    from cocotb_tools.runner import get_runner

    (folder / "loop.il").write_text(rtlil.convert(LinkLoop(CONFIG), name="loop", emit_src=False))
    script = "read_rtlil loop.il; proc; flatten; opt_clean; write_verilog -noattr loop.v"
    run_yosys(["-q", "-p", script], cwd=folder)
    simulator = find_simulator()
    runner = get_runner("icarus")
    runner.build(
        sources=[folder / "loop.v"],
        hdl_toplevel="loop",
        build_dir=folder / "build",
        build_args=list(simulator.build_args) if simulator.name == "icarus" else [],
        timescale=("1ns", "1ps"),
    )
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    results = runner.test(
        hdl_toplevel="loop",
        test_module="tests.support.ethernet_bench",
        test_dir=folder,
        build_dir=folder / "build",
        results_xml=str(folder / "results.xml"),
        extra_env={"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )
    cases = list(ET.parse(results).iter("testcase"))
    assert cases
    return [case.get("name") for case in cases if case.find("failure") is not None]


def test_a_dozen_frames(tmp_path, monkeypatch):
    assert run(tmp_path, monkeypatch) == []


@pytest.mark.slow
def test_a_broken_transmitter_fails(tmp_path, monkeypatch):
    """A frame with a byte too few: its FCS comes early."""
    wrong = broken(gmii, "left.eq(self.word - 1)", "left.eq(self.word - 2)")
    monkeypatch.setattr(udp, "GmiiTransmitter", wrong.GmiiTransmitter)
    assert run(tmp_path, monkeypatch) == ["a_dozen_frames"]
