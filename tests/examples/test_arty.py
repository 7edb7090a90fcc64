# amaranth: UnusedElaboratable=no
"""The example for the Arty Z7-20: its configuration, block design, and drivers in Python and C."""

import importlib.util
import json
import re
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from tests.gen.emit.test_driver_code import compiled
from tests.support import ROOT
from tritloom.gen.emit.header import c_header
from tritloom.gen.emit.manifest import describe
from tritloom.gen.emit.pack import pack
from tritloom.gen.emit.top import EmittedTop
from tritloom.host.device import Device
from tritloom.host.layer import TernaryLayer
from tritloom.host.links.contract import DeviceUrl
from tritloom.rtl.links.port_names import AXI
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError
from tritloom.sim.device.reference import open_device as golden
from tritloom.sim.device.simulated import SimulatedDevice

FOLDER = ROOT / "examples" / "arty-z7-20"
CONFIG = AcceleratorConfig.from_json((FOLDER / "config.json").read_text())
SMALL = replace(
    CONFIG,
    memory=replace(CONFIG.memory, words=1 << 10, latency_cycles=20),
    max_in_features=160,
    max_out_features=64,
    max_layers=4,
)
DDR_BYTES, LINUX_BYTES = 512 << 20, 256 << 20
"""What the board has, and what its boot arguments leave to Linux."""


def example(name):
    """A module of the example."""
    spec = importlib.util.spec_from_file_location(f"arty_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


driver = example("driver")


class Fifo:
    """The registers of AMD's AXI4-Stream FIFO before a device, by its product guide."""

    def __init__(self, device, depth=512):
        self.device = device
        self.depth = depth
        self.command: list[int] = []
        self.words: deque[int] = deque()  # of the response that is read
        self.lengths: deque[int] = deque()
        self.responses: deque[list[int]] = deque()
        self.resets = []

    def read(self, offset):
        if offset == driver.TDFV:
            return self.depth - len(self.command)
        if offset == driver.RDFO:
            if not self.responses and (packet := self.device.receive(1e-3)) is not None:
                padded = packet + bytes(-len(packet) % 4)
                self.responses.append(list(struct.unpack(f"<{len(padded) // 4}I", padded)))
                self.lengths.append(len(packet))
            return sum(map(len, self.responses)) + len(self.words)
        if offset == driver.RLR:
            assert not self.words, "the packet before is read to its end"
            self.words.extend(self.responses.popleft())
            return self.lengths.popleft()
        assert offset == driver.RDFD, f"register {offset:#x} is not read"
        return self.words.popleft()

    def write(self, offset, value):
        if offset == driver.TDFD:
            assert len(self.command) < self.depth, "the queue has no room"
            self.command.append(value)
        elif offset == driver.TLR:
            assert len(self.command) == -(-value // 4), "TLR says how many bytes were written"
            packet = struct.pack(f"<{len(self.command)}I", *self.command)[:value]
            self.command.clear()
            self.device.send(packet)
        elif offset in (driver.TDFR, driver.RDFR):
            assert value == driver.RESET
            self.resets.append(offset)
        else:
            assert offset == driver.ISR and value == 0xFFFFFFFF

    def close(self):
        self.device.close()


def device_of(kind):
    if kind == "golden":
        return golden(DeviceUrl.parse("golden"), SMALL)
    return SimulatedDevice(SMALL, memory_model={"latency": 30, "stalls": 0.1})


KINDS = ["golden", pytest.param("sim", marks=pytest.mark.sim)]


def test_configuration():
    """The weights lie behind Linux's memory and end with the DDR; a word is a beat of the port."""
    memory = CONFIG.memory
    assert memory.base == LINUX_BYTES
    assert memory.base + memory.region_bytes(CONFIG) * memory.ports == DDR_BYTES
    assert CONFIG.word_bits == memory.width == 64
    assert CONFIG.link.beat_bytes == 4
    script = (FOLDER / "design.tcl").read_text()
    assert f"set CLOCK_MHZ {CONFIG.clock_hz // 10**6}\n" in script
    # A queue holds every packet that can be unanswered.
    words = int(re.search(r"set FIFO_WORDS (\d+)", script)[1])
    assert words * 4 >= CONFIG.window * CONFIG.packet_bytes


@pytest.mark.parametrize("kind", KINDS)
def test_python(kind):
    """Layers and products through the registers, with packets of every length modulo 4."""
    rng = np.random.default_rng(3)
    fifo = Fifo(device_of(kind))
    with Device(driver.FifoTransport(fifo), url="fifo") as device:
        assert device.info.config == SMALL
        assert fifo.resets == [driver.TDFR, driver.RDFR]
        for shape in ((5, 7), (64, 160), (1, 33)):
            trits = rng.integers(-1, 2, shape).astype(np.int8)
            handle = device.load(TernaryLayer.from_trits(trits, 1.0))
            codes = rng.integers(-128, 128, (3, shape[1])).astype(np.int8)
            assert np.array_equal(device.matmul(handle, codes), numerics.matmul(trits, codes))


def test_python_drops_what_no_device_sends():
    fifo = Fifo(device_of("golden"))
    transport = driver.FifoTransport(fifo)
    fifo.responses.append([1])
    fifo.lengths.append(0)
    assert transport.receive(0) is None
    assert fifo.resets[2:] == [driver.RDFR]


def registers_file(folder, **values):
    """A file that stands in for the registers; the values by their names."""
    content = bytearray(2 * driver.SPAN)
    for name, value in values.items():
        struct.pack_into("<I", content, driver.SPAN + getattr(driver, name), value)
    file = folder / "registers"
    file.write_bytes(content)
    return file


def words_of(file):
    content = file.read_bytes()[driver.SPAN :]
    return {name: struct.unpack_from("<I", content, getattr(driver, name))[0] for name in NAMES}


NAMES = ("ISR", "TDFR", "TDFV", "TDFD", "TLR", "RDFR", "RDFO", "RLR")


def test_python_on_a_file(tmp_path):
    """Each access reaches its word of the file, behind the address in the path."""
    file = registers_file(tmp_path, TDFV=100, RDFO=3, RLR=9, RDFD=0x64636261)
    transport = driver.FifoTransport(driver.MappedRegisters(f"{file}@{driver.SPAN:#x}"))
    transport.send(b"abcdefg")
    assert transport.receive(0) == b"abcdabcda"  # the same word again and again
    transport.close()
    transport.close()
    written = words_of(file)
    assert (written["TDFR"], written["RDFR"], written["ISR"]) == (0xA5, 0xA5, 0xFFFFFFFF)
    assert (written["TDFD"], written["TLR"]) == (int.from_bytes(b"efg", "little"), 7)
    assert file.read_bytes()[: driver.SPAN] == bytes(driver.SPAN)


def test_python_without_a_device(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "SEND_S", 0.01)
    file = registers_file(tmp_path)
    transport = driver.FifoTransport(driver.MappedRegisters(f"{file}@0x1000"))
    with pytest.raises(DeviceError, match=r"^the FIFO takes no words; is the bitstream loaded, "):
        transport.send(b"abc")
    for path, message in (
        (f"{tmp_path}/none", r"^cannot map the registers in .*none: .*No such file"),
        (f"{file}@0x12345", r"^cannot map the registers in "),
        (f"{file}@top", r"^the address must be a number such as 0x43C00000, not 'top'$"),
    ):
        with pytest.raises(DeviceError, match=message):
            driver.MappedRegisters(path)


def test_python_program(tmp_path):
    """As a program: one line for an error, and no traceback."""
    ran = subprocess.run(
        [sys.executable, FOLDER / "driver.py", tmp_path / "none"], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.fullmatch(r"driver: cannot map the registers in .*\n", ran.stderr)


def program(folder, config, *macros):
    """`matmul.c` with the port of the FIFO, and a layer and activations for it."""
    rng = np.random.default_rng(8)
    trits = rng.integers(-1, 2, (64, 155)).astype(np.int8)
    codes = rng.integers(-128, 128, (2, 155)).astype(np.int8)
    (folder / "tritloom.h").write_text(c_header(describe(config)))
    pack(config, trits, folder, "layer")
    (folder / "activations.bin").write_bytes(codes.tobytes())
    lines = [f"#define {name} {value}" for name, value in macros]
    source = folder / "main.c"
    includes = f'#include "{ROOT / "examples/c/matmul.c"}"'
    source.write_text("\n".join([*lines, includes, ""]))
    made = compiled(folder, source, "matmul")
    return made, [folder / "layer.bin", folder / "activations.bin"], numerics.matmul(trits, codes)


PORT = ("TRITLOOM_PORT", f'"{FOLDER / "fifo_port.h"}"')


def serve(fifo, end):
    """Answer the accesses of a C program until it ends."""
    with end, end.makefile("rb") as stream:
        while message := stream.read(6):
            letter, offset, value = struct.unpack("<cBI", message)
            if letter == b"w":
                fifo.write(offset, value)
            else:
                end.sendall(struct.pack("<I", fifo.read(offset)))


@pytest.mark.sim
@pytest.mark.parametrize("kind", ["golden", "sim"])
def test_c(tmp_path, kind):
    """The program's sums are those of the golden model; each register access comes here."""
    pipe = ("FIFO_REGISTERS", f'"{ROOT / "tests/support/fifo_pipe.h"}"')
    made, files, right = program(tmp_path, SMALL, PORT, pipe)
    here, there = socket.socketpair()
    fifo = Fifo(device_of(kind))
    server = threading.Thread(target=serve, args=(fifo, here))
    server.start()
    ran = subprocess.run(
        [made, str(there.fileno()), *files],
        pass_fds=[there.fileno()],
        capture_output=True,
        text=True,
        timeout=300,
    )
    there.close()
    server.join()
    fifo.close()
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [int(line) for line in ran.stdout.split()] == right.ravel().tolist()


@pytest.mark.sim
def test_c_on_a_file(tmp_path):
    """Without a device: the RESET reaches the file, and an error comes after the tries."""
    made, files, _ = program(tmp_path, SMALL, PORT, ("TIMEOUT_MS", 20))
    file = registers_file(tmp_path, TDFV=100)
    ran = subprocess.run([made, f"{file}@0x1000", *files], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "matmul: no response; check the port and its settings\n"
    written = words_of(file)
    assert (written["TLR"], written["TDFR"], written["RDFR"]) == (20, 0xA5, 0xA5)
    file = registers_file(tmp_path)
    ran = subprocess.run([made, f"{file}@0x1000", *files], capture_output=True, text=True)
    assert ran.stderr.startswith("matmul: the FIFO takes no words; is the bitstream loaded")


STUBS = r"""
set log {}
set cells {}
proc record {args} { global log; lappend log $args }
foreach name {create_project add_files update_compile_order create_bd_design apply_bd_automation
    validate_bd_design save_bd_design make_wrapper launch_runs wait_on_run write_hw_platform
    set_property connect_bd_intf_net connect_bd_net assign_bd_address} {
    proc $name {args} "record $name {*}\$args"
}
proc create_bd_cell {args} { global cells; lappend cells [lindex $args end]; record cell {*}$args }
foreach name {get_bd_cells get_bd_pins get_bd_intf_pins get_bd_addr_spaces get_bd_addr_segs
    current_project current_fileset get_files get_timing_paths} {
    proc $name {args} {return [lindex $args end]}
}
proc get_board_parts {args} {global boards; return $boards}
proc get_property {args} {return 0.1}
rename file real_file
proc file {what args} {
    if {$what eq "exists"} {return 1}
    return [real_file $what {*}$args]
}
"""


def run_script(boards):
    """Run the script with commands that only write down how they were called."""
    tkinter = pytest.importorskip("tkinter")
    tcl = tkinter.Tcl()
    tcl.eval(STUBS)
    tcl.setvar("boards", boards)
    tcl.eval((FOLDER / "design.tcl").read_text())
    calls = [tcl.splitlist(call) for call in tcl.splitlist(tcl.getvar("log"))]
    return calls, tcl.splitlist(tcl.getvar("cells"))


def test_block_design():
    """Each cell's clock, reset and streams are joined, and the core has every pin that is named."""
    calls, cells = run_script("digilentinc.com:arty-z7-20:part0:1.1")
    top = EmittedTop(CONFIG, AXI)
    ports = {port.name for port in top.port_list}
    joined = [call[1:] for call in calls if call[0] == "connect_bd_net"]
    streams = [call[1:] for call in calls if call[0] == "connect_bd_intf_net"]
    assert set(cells) == {"ps", "reset", "core", "fifo", "registers", "weights"}
    for pair in (*joined, *streams):
        assert {end.partition("/")[0] for end in pair} <= set(cells)
    ends = [end for pair in joined for end in pair]
    assert {end for end in ends if end.startswith("core/")} == {"core/aclk", "core/aresetn"}
    assert {"aclk", "aresetn"} <= ports
    for cell in ("core", "registers", "weights"):
        assert f"{cell}/aclk" in ends and f"{cell}/aresetn" in ends
    interfaces = sorted(end.split("/")[1] for pair in streams for end in pair if "core/" in end)
    assert interfaces == ["m_axi", "m_axis", "s_axis"]
    # Every other input of the core belongs to one of these three.
    others = {name for name in ports if name not in ("aclk", "aresetn")}
    lights = {"running", "good", "bad"}
    assert others - lights == {name for name in others if name.startswith(tuple(interfaces))}
    # Each end of a stream is joined once.
    assert len({end for pair in streams for end in pair}) == 2 * len(streams)
    addresses = [call for call in calls if call[0] == "assign_bd_address"]
    assert [call[2] for call in addresses] == ["0x43C00000", "0x00000000"]


def test_block_design_needs_board_files():
    tkinter = pytest.importorskip("tkinter")
    with pytest.raises(tkinter.TclError, match=r"^no board files of the Arty Z7-20; install Digi"):
        run_script("")


def test_configuration_file_is_whole():
    """Every key is one of a configuration; the file says nothing that is the default already."""
    values = json.loads((FOLDER / "config.json").read_text())
    assert AcceleratorConfig.from_dict(values) == CONFIG
