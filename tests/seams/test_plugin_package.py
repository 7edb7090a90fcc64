"""The package of plug-ins in examples/plugin: installed, then used by every part of the project."""

import importlib
import json
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator

from tests.support import ROOT
from tritloom.boards.board import boards, load_board
from tritloom.boards.families.family import load_family, more_parts
from tritloom.boards.top import BoardTop
from tritloom.gen.passes.synthesis import synthesise
from tritloom.host import TernaryLayer, connect
from tritloom.host.links import contract as host_links
from tritloom.rtl.spec.commands import Opcode, Request, Response, Status
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import engines, links, memories
from tritloom.rtl.top import Accelerator
from tritloom.sim.conformance.engine import check_engine
from tritloom.sim.conformance.memory import check_memory

pytestmark = pytest.mark.sim

REGISTRIES = (
    *(engines, encodings, memories, links, boards, more_parts),
    *(host_links.devices, host_links._boards),
)


def look_again():
    """Make every registry search the installed packages at its next look-up."""
    importlib.invalidate_caches()
    for registry in REGISTRIES:
        registry._entries = None


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """Installs the package from a copy, beside the environment, for this module's tests alone."""
    folder = tmp_path_factory.mktemp("plugin")
    source, target = folder / "source", folder / "target"
    package = ROOT / "examples" / "plugin"
    for path in ("pyproject.toml", *(f"tritloom_example/{n.name}" for n in files(package))):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes((package / path).read_bytes())
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"),
            *("--no-deps", "--no-build-isolation", "--target", target, source),
        ],
        check=True,
        timeout=120,
    )
    sys.path.append(str(target))
    look_again()
    yield target
    sys.path.remove(str(target))
    loaded = {"plain", "guarded", "bus8", "example", "LFE5UM-25F-6"}
    for registry in REGISTRIES:
        for name in loaded:
            registry._loaded.pop(name, None)
    for name in [name for name in sys.modules if name.startswith("tritloom_example")]:
        del sys.modules[name]
    look_again()


def files(package):
    return sorted((package / "tritloom_example").glob("*.py"))


@pytest.fixture
def board():
    return load_board("example")


def test_one_file_and_one_entry_point_each():
    kinds = {
        "engine": (engines, "plain"),
        "memory": (memories, "guarded"),
        "link": (links, "bus8"),
        "board": (boards, "example"),
        "part": (more_parts, "LFE5UM-25F-6"),
    }
    modules = {path.stem for path in files(ROOT / "examples" / "plugin")}
    assert modules == {"__init__", *kinds}
    for registry, name in kinds.values():
        assert registry.package(name) == "tritloom-example"
        assert registry[name].name == name


def test_configuration(board):
    text = board.build_config.to_json()
    assert '"memory":{"kind":"guarded","words":512}' in text
    assert '"link":{"depth":8,"kind":"bus8"}' in text
    assert AcceleratorConfig.from_json(text) == board.build_config
    with pytest.raises(
        ConfigError, match=r"^lanes of the plain engine must be at most 20, not 25$"
    ):
        replace(board.config, lanes=25, max_in_features=150)
    with pytest.raises(ConfigError, match=r"^link: depth must be 4 to 64, not 3$"):
        AcceleratorConfig.from_dict(board.config.to_dict() | {"link": {"kind": "bus8", "depth": 3}})


@pytest.mark.parametrize(("idle", "tokens", "fill"), [(0.0, 1, 5), (0.3, 2, 10), (0.0, 1, 20)])
def test_engine_keeps_the_contract(board, idle, tokens, fill):
    config = replace(board.config, tokens=tokens, fill=fill)
    check_engine(config, row_groups=9, idle=idle, seed=tokens)


@pytest.mark.parametrize(("idle", "pause"), [(0.0, 0.0), (0.4, 0.3)])
def test_memory_keeps_the_contract(board, idle, pause):
    check_memory(board.config.with_words(40), idle=idle, pause=pause, seed=3)


def test_boards_lists_it(run):
    status, out, _ = run("boards", "--json")
    (example,) = [each for each in json.loads(out) if each["name"] == "example"]
    assert status == 0 and example["part"] == "LFE5UM-25F-6BG381C"


def test_auto_knows_the_part(run):
    status, out, _ = run("auto", "--family", "ecp5", "--part", "LFE5UM-25F-6", "--model", "tinylm")
    assert status == 0 and out.startswith("LFE5UM-25F-6: ")


def test_generated_design_names_the_pads(run, tmp_path):
    config = tmp_path / "bus.json"
    config.write_text(load_board("example").build_config.to_json())
    status, _, error = run("generate", "--config", config, "-o", tmp_path / "out")
    assert status == 0, error
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    ports = {port["name"]: port for port in manifest["ports"]}
    assert ports["protect"]["meaning"].startswith("while high, weight words are not written")
    assert ports["bus_clk"] == {
        "name": "bus_clk",
        "direction": "input",
        "bits": 1,
        "meaning": "clock of the bus, rising edge",
    }
    assert ports["rx_data"]["bits"] == 8


@pytest.mark.slow
def test_verify(run, tmp_path):
    status, _, error = run("generate", "--board", "example", "-o", tmp_path)
    assert status == 0, error
    status, out, error = run("verify", tmp_path, "--json")
    assert status == 0, out + error
    assert json.loads(out)["failed"] == 0


@pytest.mark.parametrize("device", ["golden", "sim"])
def test_driver(board, device):
    rng = np.random.default_rng(7)
    trits = rng.integers(-1, 2, (100, 150)).astype(np.int8)
    codes = rng.integers(-128, 128, (2, 150)).astype(np.int8)
    trits[0], codes[0] = 1, -128
    with connect(f"{device}?board=example") as opened:
        assert opened.info.config == replace(board.config, link=host_links.SIMULATED_LINK)
        handle = opened.load(TernaryLayer.from_trits(trits, 1.0))
        assert np.array_equal(opened.matmul(handle, codes), codes.astype(np.int32) @ trits.T)
        cycles = board.config.run_cycles(LayerShape.of(board.config, 100, 150))
        assert opened.counters().run_cycles == 2 * cycles
        assert opened.selftest().ok


def test_packets_cross_the_clock_of_the_bus(board):
    """The bus runs at another clock than the accelerator; requests and responses come whole."""
    config = replace(TINY, link=links["bus8"](depth=4))
    dut = Accelerator(config)
    requests = [
        Request(Opcode.RESET, session=9),
        Request(Opcode.IDENTIFY, seq=1, session=9, count=30),
        Request(Opcode.COUNTERS, seq=2, session=9),
    ]
    responses: list[Response] = []

    async def send(ctx):
        for request in requests:
            packet = request.pack()
            for place, byte in enumerate(packet):
                ctx.set(dut.rx_data, byte)
                ctx.set(dut.rx_last, int(place == len(packet) - 1))
                ctx.set(dut.rx_valid, 1)
                while not (await ctx.tick("bus_test").sample(dut.rx_ready))[2]:
                    pass
            ctx.set(dut.rx_valid, 0)

    async def receive(ctx):
        packet = bytearray()
        ctx.set(dut.tx_ready, 1)
        while len(responses) < len(requests):
            _, _, valid, byte, last = await ctx.tick("bus_test").sample(
                dut.tx_valid, dut.tx_data, dut.tx_last
            )
            if valid:
                packet.append(byte)
            if valid and last:
                response = Response.parse(bytes(packet))
                assert response is not None
                responses.append(response)
                packet.clear()

    simulator = Simulator(with_bus_clock(dut))
    simulator.add_clock(20e-9, domain="sync")
    simulator.add_clock(13e-9, domain="bus_test")
    simulator.add_testbench(send)
    simulator.add_testbench(receive)
    simulator.run_until(200e-6)
    assert [response.status for response in responses] == [Status.OK] * 3
    assert responses[1].payload[:4] == b"TRIT"
    assert struct.unpack("<6Q", responses[2].payload)[3] == 3, "three sound packets"


def with_bus_clock(dut):
    """The accelerator, its bus clocked by the domain `bus_test` of the simulation."""
    from amaranth.hdl import ClockDomain, ClockSignal, Module

    m = Module()
    m.domains.bus_test = ClockDomain(reset_less=True)
    m.submodules.dut = dut
    m.d.comb += dut.bus_clk.eq(ClockSignal("bus_test"))
    return m


def test_board_synthesises(board):
    """As far as the netlist that is placed: the part is known, the pads are tied to pins."""
    assert load_family("ecp5").part_of(board.part)[1].available[0] == 24288
    platform = board.create_platform()
    small = replace(board.build_config, lanes=5, max_in_features=20, max_out_features=8)
    top = BoardTop(board, small.with_words(16))
    plan = platform.prepare(top, "top")
    constraints = plan.files["top.lpf"]
    for pin in ("bus_0__bus_clk__io", "guard_0__protect__io", "bus_0__tx_data__io[7]"):
        assert pin in (constraints if isinstance(constraints, str) else constraints.decode()), pin
    netlist = json.loads(synthesise(plan.files["top.il"], "ecp5"))
    kinds = {cell["type"] for cell in netlist["modules"]["top"]["cells"].values()}
    assert {"DP16KD", "TRELLIS_FF", "LUT4", "EHXPLLL", "TRELLIS_IO"} <= kinds


def test_accelerator_has_the_pads(board):
    text = rtlil.convert(Accelerator(replace(TINY, link=board.link)), name="top", emit_src=False)
    assert "wire width 8 input" in text and "\\tx_ready" in text
