"""Two generated designs of different names and configurations in one Verilog project."""

import re
import subprocess
from dataclasses import replace

import pytest

from tests.support import ROOT
from tritloom.gen.emit.generate import generate
from tritloom.rtl.links.port_names import AXI, PLAIN
from tritloom.rtl.spec.commands import (
    IDENTITY,
    PROTOCOL_VERSION,
    Opcode,
    Response,
    Status,
    identity,
)
from tritloom.rtl.spec.config import TINY
from tritloom.sim.tools import find_simulator, run_yosys

EXAMPLE = ROOT / "examples" / "verilog"
OTHER = replace(TINY, lanes=10, rows=1, tokens=2, packet_bytes=256)
CORES = {"core_a": (TINY, PLAIN), "core_b": (OTHER, AXI)}
TOP, TEST = "two_cores.v", "two_cores_test.v"
SESSION = 0x12345678


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The example's files and both designs in one folder."""
    folder = tmp_path_factory.mktemp("project")
    for name, (config, port_names) in CORES.items():
        generate(config, folder / name, name, port_names)
        (folder / name / f"{name}.v").rename(folder / f"{name}.v")
    for name in (TOP, TEST):
        (folder / name).write_text((EXAMPLE / name).read_text())
    return folder


def simulate(folder):
    """What the test prints under the simulator that is there."""
    files = [*(f"{name}.v" for name in CORES), TOP, TEST]
    simulator = find_simulator()
    with simulator.active():
        if simulator.name == "icarus":
            commands = [["iverilog", "-g2005", "-Wall", "-o", "test", *files], ["vvp", "test"]]
        else:
            # Delays in Verilog become coroutines of C++20.
            flags = ["--binary", "--timing", "-Wno-fatal", "-CFLAGS", "-std=gnu++20", "-o", "test"]
            commands = [["verilator", *flags, "--top-module", TEST[:-2], *files]]
            commands.append(["obj_dir/test"])
        for command in commands:
            result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.sim
def test_modules_differ(project):
    modules = [
        re.findall(r"^module (\S+?) ?\(", (project / f"{name}.v").read_text(), re.MULTILINE)
        for name in CORES
    ]
    assert all(modules) and not set(modules[0]) & set(modules[1])


@pytest.mark.sim
def test_yosys_reads_both(project):
    files = " ".join([TOP, *(f"{name}.v" for name in CORES)])
    script = f"read_verilog {files}; hierarchy -check -top two_cores; proc; check -assert"
    run_yosys(["-q", "-p", script], cwd=project)


@pytest.mark.sim
@pytest.mark.slow
def test_both_respond(project):
    lines = [line for line in simulate(project).splitlines() if line.startswith("core_")]
    expected = []
    for name, (config, _) in CORES.items():
        reset = Response(Opcode.RESET, 0, SESSION, Status.OK, 1, PROTOCOL_VERSION)
        head = identity(config)[: IDENTITY.size]
        about = Response(Opcode.IDENTIFY, 1, SESSION, Status.OK, 2, 0, head)
        expected += [f"{name}: {response.pack().hex()}" for response in (reset, about)]
    assert lines == expected
