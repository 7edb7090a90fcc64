"""The simulated FPGA: packets through small designs, the cache, and the accelerator itself."""

import importlib
import random
import re
import shlex
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tests.support.packets import assert_responses
from tritloom.rtl.lib.streams import packet_layout
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.spec.commands import Opcode, Request
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.errors import ConfigError, DeviceError, ToolError
from tritloom.rtl.spec.remedies import package_remedy
from tritloom.sim.device import cxxrtl
from tritloom.sim.device.cxxrtl import Simulation, build
from tritloom.sim.device.simulated import SimulatedDevice, open_device, recipe
from tritloom.sim.tools import run_yosys
from tritloom.sim.verify.traffic import Traffic

pytestmark = pytest.mark.sim

PACKET = stream.Signature(data.StructLayout({"data": 8, "last": 1}))
BROKEN = 0xEE


class Design(wiring.Component):
    """A design with the two streams.

    A source that does not hold its payload until the transfer spoils all that follows.
    """

    def __init__(self) -> None:
        super().__init__({"i": In(PACKET), "o": Out(PACKET)})

    def broken(self, m: Module) -> Signal:
        waiting, broken = Signal(), Signal()
        before = Signal.like(self.i.payload.as_value())
        now = self.i.payload.as_value()
        m.d.sync += [waiting.eq(self.i.valid & ~self.i.ready), before.eq(now)]
        with m.If(waiting & (~self.i.valid | (before != now))):
            m.d.sync += broken.eq(1)
        return broken


class Wire(Design):
    """Not one register between the streams."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += [
            self.o.payload.eq(self.i.payload),
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready),
        ]
        with m.If(self.broken(m)):
            m.d.comb += self.o.payload.data.eq(BROKEN)
        return m


class Queue(Design):
    """A FIFO. With `deltas`, its valid goes through a false loop, which takes delta cycles."""

    def __init__(self, deltas: bool = False) -> None:
        self.deltas = deltas
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = SyncFIFO(width=9, depth=4)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready & self.o.valid),
        ]
        with m.If(self.broken(m)):
            m.d.comb += self.o.payload.data.eq(BROKEN)
        if self.deltas:
            mask, loop, result = Signal(3, init=7), Signal(3), Signal(3)
            m.d.sync += mask.eq(Cat(mask[1:], mask[0]))
            m.d.comb += [
                loop.eq(Cat(fifo.r_rdy, result[:2])),
                result.eq(loop & mask),
                self.o.valid.eq(result[2]),
            ]
        return m


class Register(Design):
    """A register whose outputs are the ports themselves; takes a byte in every other cycle."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.i.ready.eq(~self.o.valid)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [self.o.payload.eq(self.i.payload), self.o.valid.eq(1)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m


class Sum(Design):
    """Responds to each byte with the sum of all bytes so far."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = Signal(8)
        m.d.comb += [
            self.o.payload.data.eq(total + self.i.payload.data),
            self.o.payload.last.eq(self.i.payload.last),
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += total.eq(self.o.payload.data)
        return m


class Short(wiring.Component):
    """A design without the streams."""

    def __init__(self) -> None:
        super().__init__({"o": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.o.eq(~self.o)
        return m


def build_design(design: wiring.Component) -> Path:
    return build(lambda: rtlil.convert(design, emit_src=False))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("TRITLOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sim"


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "make",
    [Wire, Register, Queue, lambda: Queue(deltas=True)],
    ids=["wire", "register", "queue", "deltas"],
)
def test_packets_come_out_as_they_went_in(make: Callable[[], Design], seed: int) -> None:
    simulation = Simulation(build_design(make()), stall_seed=seed)
    rng = random.Random(seed)
    packets = [rng.randbytes(rng.choice([1, 2, 5, 300])) for _ in range(200)]
    waiting: list[bytes] = []
    for packet in packets:
        simulation.send(packet)
        waiting.append(packet)
        while waiting and rng.random() < 0.5:
            assert simulation.receive(10_000) == waiting.pop(0)
    for packet in waiting:
        assert simulation.receive(10_000) == packet
    assert simulation.receive(1000) is None


def test_cycles_are_counted_exactly() -> None:
    wire, queue = Simulation(build_design(Wire())), Simulation(build_design(Queue()))
    assert (wire.cycles, queue.cycles) == (0, 0)
    for simulation in (wire, queue):
        simulation.send(b"12345")
        assert simulation.receive(100) == b"12345"
    # The FIFO shows a byte in the cycle after it took it.
    assert (wire.cycles, queue.cycles) == (5, 6)
    register = Simulation(build_design(Register()))
    register.send(b"12345")
    assert register.receive(100) == b"12345"
    assert register.cycles == 10
    assert queue.receive(0) is None
    assert queue.cycles == 6
    assert queue.receive(3) is None
    assert queue.cycles == 9
    assert queue.receive(cxxrtl.CHUNK_CYCLES + 5) is None
    assert queue.cycles == 14 + cxxrtl.CHUNK_CYCLES


def test_stalls_take_time_and_repeat() -> None:
    library = build_design(Wire())
    cycles = []
    for seed in (5, 5, 6):
        simulation = Simulation(library, stall_seed=seed)
        simulation.send(bytes(3000))
        assert simulation.receive(100_000) == bytes(3000)
        cycles.append(simulation.cycles)
    assert cycles[0] == cycles[1] != cycles[2]
    # A byte is offered after 4/3 cycles on average, and taken 1/3 of a cycle later.
    assert 4500 < min(cycles) < max(cycles) < 5500


def test_a_packet_continues_after_a_timeout() -> None:
    simulation = Simulation(build_design(Queue()))
    simulation.send(b"abcdef")
    assert simulation.receive(4) is None
    assert simulation.receive(2) is None
    simulation.send(b"ghi")
    assert simulation.receive(1) == b"abcdef"
    assert simulation.receive(3) == b"ghi"


def test_an_empty_packet_is_nothing() -> None:
    simulation = Simulation(build_design(Queue()))
    simulation.send(b"")
    simulation.send(b"a")
    simulation.send(b"")
    assert simulation.receive(100) == b"a"
    assert simulation.receive(100) is None


def test_devices_are_independent() -> None:
    library = build_design(Sum())
    devices = [Simulation(library), Simulation(library), Simulation(build_design(Queue()))]
    for device in devices:
        device.send(b"\1\2\3")
    assert devices[0].receive(100) == b"\1\3\6"
    devices[0].send(b"\1")
    assert devices[0].receive(100) == b"\7"
    assert [device.receive(100) for device in devices[1:]] == [b"\1\3\6", b"\1\2\3"]
    devices[0].close()
    devices[1].send(b"\1")
    assert devices[1].receive(100) == b"\7"


def test_only_zeros_of_a_memory_are_left_out() -> None:
    """Every other cell of the design stays, the content of a table too."""
    designs = []
    for first in (0, 5):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=4, init=[first])
        port = memory.read_port()
        o = Signal(8)
        m.d.comb += o.eq(port.data)
        designs.append(rtlil.convert(m, ports=[o]))
    zeros, table = designs
    without = cxxrtl.ZEROS.sub("", zeros)
    assert "$meminit_v2" in zeros and "$meminit_v2" not in without
    assert without.count("\n  cell ") == zeros.count("\n  cell ") - 1
    assert cxxrtl.ZEROS.sub("", table) == table


def test_closed() -> None:
    simulation = Simulation(build_design(Wire()))
    simulation.close()
    simulation.close()
    message = r"^the simulated device is closed; connect again$"
    with pytest.raises(DeviceError, match=message):
        simulation.send(b"a")
    with pytest.raises(DeviceError, match=message):
        simulation.receive(1)
    with pytest.raises(DeviceError, match=message):
        _ = simulation.cycles


def test_a_design_is_built_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = rtlil.convert(Wire(), emit_src=False)
    first = build(lambda: text, "recipe")
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"building the simulated FPGA, once for each configuration … \d+ s\n", err)
    assert sorted(path.suffix for path in cache.iterdir()) == [".design", ".lock", ".sha256", ".so"]

    monkeypatch.setattr(cxxrtl, "run_yosys", None)
    assert build(lambda: text) == first
    assert build(lambda: "never read", "recipe") == first
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """A cache of its own, and what was built in it: copies of a library that was built before."""
    good = build_design(Wire())
    monkeypatch.setenv("TRITLOOM_CACHE", str(tmp_path / "cache"))
    built: list[Path] = []

    def copy(rtlil: str, compiler: list[str], library: Path, driver: Path) -> None:
        built.append(library)
        library.write_bytes(good.read_bytes())
        library.with_suffix(".sha256").write_text(good.with_suffix(".sha256").read_text())

    monkeypatch.setattr(cxxrtl, "_build", copy)
    return built


def test_what_shapes_a_library_is_in_its_name(
    builds: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver = tmp_path / "driver.cc"
    driver.write_text("another")
    build(lambda: "design")
    build(lambda: "design")
    build(lambda: "another design")
    for name, value in (
        ("FLAGS", (*cxxrtl.FLAGS, "-g0")),
        ("SCRIPT", "another"),
        ("DRIVER", driver),
        ("_cpu", lambda: "another"),
        ("version", lambda package: "0.1"),
        ("find_cxx", lambda: ["sh", "-c", "echo 2.0"]),
        ("find_cxx", lambda: ["sh", "-c", "echo 2.1"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(cxxrtl, name, value)
            build(lambda: "design")
    build(lambda: "design", driver=driver)
    assert len(builds) == len(set(builds)) == 9  # the last one was built as ("DRIVER", driver)


@pytest.mark.parametrize("damage", ["cut", "changed", "no digest", "no file"])
def test_a_broken_entry_is_built_again(builds: list[Path], damage: str) -> None:
    library = build(lambda: "design", "recipe")
    assert build(lambda: "never read", "recipe") == library
    assert builds == [library]
    good = library.read_bytes()
    if damage == "cut":
        library.write_bytes(good[: len(good) // 2])
    elif damage == "changed":
        library.write_bytes(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:])
    elif damage == "no digest":
        library.with_suffix(".sha256").unlink()
    else:
        library.unlink()
    assert build(lambda: "design", "recipe") == library
    assert builds == [library, library]
    simulation = Simulation(library)
    simulation.send(b"ok")
    assert simulation.receive(100) == b"ok"


def test_two_builds_at_once_are_one(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = []
    run_yosys = cxxrtl.run_yosys

    def counted(arguments: list[str], cwd: Path) -> str:
        runs.append(cwd)
        return run_yosys(arguments, cwd)

    monkeypatch.setattr(cxxrtl, "run_yosys", counted)
    text = rtlil.convert(Wire(), emit_src=False)
    with ThreadPoolExecutor(3) as pool:
        libraries = set(pool.map(lambda _: build(lambda: text, "recipe"), range(3)))
    assert len(libraries) == len(runs) == 1
    assert (
        "waiting for another process that builds the simulated FPGA …\n" in capfd.readouterr().err
    )


def test_wrong_designs_and_tools(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ToolError, match=r"^yosys failed: .*ERROR"):
        build(lambda: "no design")
    assert capfd.readouterr().err.endswith("… failed\n")
    with pytest.raises(ToolError) as caught:
        build_design(Short())
    message = str(caught.value)
    assert message.startswith("C++ compiler ")
    assert "error: " in message
    assert message.endswith(f"; set CXX to another compiler or {package_remedy('ziglang', 'sim')}")
    assert "\n" not in message
    # Nothing of it stays but the locks.
    assert {path.suffix for path in cache.iterdir()} == {".lock"}

    monkeypatch.setenv("CXX", "sh -c 'exit 3'")
    with pytest.raises(ToolError, match=r"^C\+\+ compiler sh -c exit 3 failed: exit 3; set CXX "):
        build(lambda: "never read")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRITLOOM_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        ToolError,
        match=r"^cannot use the cache .*: Not a directory; set TRITLOOM_CACHE to a folder that you "
        r"can write to$",
    ):
        build(lambda: "never read")


def test_a_full_disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """yosys writes a part and ends well, the compiler says it; neither is the compiler's fault."""

    def cut(arguments: list[str], cwd: Path) -> str:
        output = run_yosys(arguments, cwd)
        text = (cwd / "top.cc").read_bytes()
        (cwd / "top.cc").write_bytes(text[: len(text) // 2])
        return output

    with monkeypatch.context() as patch:
        patch.setattr(cxxrtl, "run_yosys", cut)
        with pytest.raises(ToolError, match=r"^top\.cc was written only in part; is the disk of "):
            build_design(Queue())
    full = "echo 'fatal error: error writing to x.s: No space left on device' >&2; exit 1"
    monkeypatch.setenv("CXX", f"sh -c {shlex.quote(full)}")
    with pytest.raises(ToolError) as caught:
        build(lambda: "never read")
    message = str(caught.value)
    assert "No space left on device; free some space, or set TRITLOOM_CACHE" in message
    assert "CXX" not in message


def test_a_note_that_is_no_text(cache: Path) -> None:
    """The design is made again."""
    text = rtlil.convert(Wire(), emit_src=False)
    library = build(lambda: text, "recipe")
    (note,) = cache.glob("*.design")
    right = note.read_bytes()
    note.write_bytes(b"\xff\xfe")
    assert build(lambda: text, "recipe") == library and note.read_bytes() == right


@pytest.mark.slow
def test_ziglang_is_a_compiler_that_will_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", f"{sys.executable} -m ziglang c++")
    simulation = Simulation(build_design(Queue()))
    simulation.send(bytes(range(256)))
    assert simulation.receive(1000) == bytes(range(256))


class WideQueue(wiring.Component):
    """A FIFO of beats."""

    def __init__(self, beat_bytes: int) -> None:
        self._bits = 8 * beat_bytes + 1
        packets = stream.Signature(packet_layout(beat_bytes))
        super().__init__({"i": In(packets), "o": Out(packets)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = SyncFIFO(width=self._bits, depth=4)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready & self.o.valid),
        ]
        return m


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("beat_bytes", [2, 4, 8])
def test_wide_packets_come_out_as_they_went_in(beat_bytes: int, seed: int) -> None:
    """Their length decides where they end in the last beat."""
    simulation = Simulation(build_design(WideQueue(beat_bytes)), stall_seed=seed)
    rng = random.Random(seed)
    sizes = [*range(2, 2 * beat_bytes + 3), 300, 65535]
    packets = [size.to_bytes(2, "little") + rng.randbytes(size - 2) for size in sizes]
    for packet in packets:
        simulation.send(packet)
    for packet in packets:
        assert simulation.receive(200_000) == packet
    assert simulation.receive(1000) is None


def test_a_wide_stream_moves_a_beat_in_each_cycle() -> None:
    simulation = Simulation(build_design(WideQueue(8)))
    packet = (801).to_bytes(2, "little") + bytes(799)
    simulation.send(packet)
    assert simulation.receive(1000) == packet
    assert simulation.cycles == 102, "101 beats, and one cycle in the queue"


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_accelerator_responses_as_the_reference(seed: int, width: int) -> None:
    config = replace(TINY, link=PacketStream(width=width))
    device = SimulatedDevice(config, stall_seed=seed)
    traffic = Traffic(config, seed)
    traffic.random(3000)
    responses = []
    for packet, expected in traffic.packets:
        device.send(packet)
        if expected is not None:
            response = device.receive(1.0)
            assert response is not None
            responses.append(response)
    assert_responses(config, traffic.packets, responses)
    assert device.receive(device.timeout_s) is None


def test_time_is_that_of_the_hardware() -> None:
    device = SimulatedDevice(TINY)
    assert device.receive(1e-4) is None
    assert device.cycles == 1e-4 * TINY.clock_hz
    assert device.receive(-1.0) is None
    for seq in range(1, TINY.window + 1):
        device.send(Request(Opcode.IDENTIFY, seq, count=TINY.max_payload).pack())
    for _ in range(TINY.window):
        assert device.receive(device.timeout_s) is not None
    device.close()
    with pytest.raises(DeviceError):
        device.receive(1.0)


def test_a_known_configuration_opens_without_its_design(monkeypatch: pytest.MonkeyPatch) -> None:
    url = SimpleNamespace(scheme="sim", path="", query={})
    open_device(url, TINY).close()
    monkeypatch.setattr("tritloom.sim.device.simulated.rtlil", None)
    open_device(url, TINY).close()
    with pytest.raises(
        ConfigError, match=r"^sim needs a configuration; name a board or pass config=$"
    ):
        open_device(url, None)


PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar
from tritloom.rtl.memories.bram import BlockRamMemory
from tritloom.rtl.spec.plugins import Memory, memories

class {name}Memory(BlockRamMemory):
    pass

@memories.add
@dataclass(frozen=True, kw_only=True)
class Facts(Memory):
    name: ClassVar[str] = "{name}"
    component: ClassVar[str] = "{name}:{name}Memory"
"""


def test_a_recipe_holds_all_that_a_design_is_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = recipe(TINY)
    assert known == recipe(TINY) is not None
    assert recipe(replace(TINY, clock_hz=1)) != known

    name = "recipe_test_plugin"
    source = tmp_path / f"{name}.py"
    source.write_text(PLUGIN.format(name=name))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(name)
    config = replace(TINY, memory=module.Facts(words=64))
    first = recipe(config)
    assert first is not None
    source.write_text(source.read_text() + "\n# changed\n")
    second = recipe(config)
    (tmp_path / "beside.py").write_text("")
    assert len({first, second, recipe(config), known}) == 4
    monkeypatch.setattr(module, "__file__", None)
    assert recipe(config) is None


def test_a_recipe_covers_the_package_of_a_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole package, not what lies beside it."""
    package, name = tmp_path / "recipe_test_package", "packaged"
    (package / "parts").mkdir(parents=True)
    for folder in (package, package / "parts"):
        (folder / "__init__.py").write_text("")
    plugin = PLUGIN.replace('"{name}:', '"recipe_test_package.memory:').format(name=name)
    (package / "memory.py").write_text(plugin)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("recipe_test_package.memory")
    config = replace(TINY, memory=module.Facts(words=64))
    first = recipe(config)
    (tmp_path / "beside.py").write_text("")
    assert recipe(config) == first
    (package / "parts" / "adder.py").write_text("")
    assert recipe(config) not in (first, None)


def test_a_single_file_does_not_read_every_package_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "recipe_test_single"
    (tmp_path / f"{name}.py").write_text(PLUGIN.format(name=name))
    monkeypatch.syspath_prepend(tmp_path)
    config = replace(TINY, memory=importlib.import_module(name).Facts(words=64))
    first = recipe(config)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "module.py").write_text("")
    assert recipe(config) == first
