"""Device `sim`: the accelerator's hardware on the simulated FPGA, as a transport of packets."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections import deque
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from tritloom.rtl.memories.line_facts import LineRecord
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.plugins import Memory, Record, engines
from tritloom.rtl.spec.registry import load_component
from tritloom.rtl.top import Accelerator
from tritloom.sim.device.cxxrtl import Simulation, build
from tritloom.sim.device.dram import HEADER
from tritloom.sim.device.opening import DeviceUrl, require_config
from tritloom.sim.models.contract import MemoryModel
from tritloom.sim.models.surrounded import SurroundedAccelerator, surrounded

__all__ = ["SimulatedDevice", "open_device", "recipe"]

HARDWARE = Path(inspect.getfile(Accelerator)).parent
MODELS = Path(inspect.getfile(SurroundedAccelerator)).parent
BUFFER_CYCLES_PER_BYTE = 16
"""Cycles that a device may take for each byte of its buffers before it responds."""


class SimulatedDevice:
    """Transport of packets to simulated hardware. Its time is that of the hardware at `clock_hz`.

    Parameters
    ----------
    config : the hardware's
    stall_seed : if not 0, both directions pause at random
    memory_model : options of the model that stands for the memory's chip, such as a latency; see
        the model's class
    marks : keep what `marks` gives

    Members
    -------
    timeout_s : time within which an idle device responds to a short command
    cycles : clock cycles since power-up

    Raises
    ------
    ConfigError : the memory's model does not fit its pads or does not know an option
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        stall_seed: int = 0,
        *,
        memory_model: Mapping[str, Any] | None = None,
        marks: bool = False,
    ) -> None:
        cycles = BUFFER_CYCLES_PER_BYTE * config.slots * config.packet_bytes
        self.timeout_s = cycles / config.clock_hz
        self._clock_hz = config.clock_hz
        design = SimulatedDesign(config, memory_model)
        macros = [*design.macros, "MARKS=1"] if marks else design.macros
        library = build(design.rtlil, design.recipe, macros=macros, headers=design.headers)
        self._model = design.model
        self._config = config
        self._received: deque[bytes] = deque()  # before anybody asked
        self._simulation = Simulation(library, stall_seed, design.rules, design.dram)

    @property
    def cycles(self) -> int:
        """Clock cycles since power-up."""
        return self._simulation.cycles

    def marks(self) -> tuple[list[int], list[int], list[int]]:
        """Cycles since power-up: of sound packets, of layers the first ones, and the last ones."""
        return self._simulation.marks()

    def send(self, packet: bytes) -> None:
        """Queue a packet for the device."""
        self._simulation.send(packet)

    def receive(self, timeout_s: float) -> bytes | None:
        """The next packet, or `None` if none is complete after that much simulated time.

        Raises
        ------
        DeviceError : the memory has broken a rule of its chip
        """
        if self._received:
            return self._received.popleft()
        return self._simulation.receive(max(0, round(timeout_s * self._clock_hz)))

    def read_memory(self, start: int, size: int, store: int = 0) -> bytes:
        """Bytes that the memory's model holds.

        Raises
        ------
        InputError : the memory has no model, or the bytes do not lie in its store
        """
        return self._simulation.read_store(store, start, size)

    def write_memory(self, start: int, data: bytes, store: int = 0) -> None:
        """Put bytes into the memory's model, as if they had been loaded. It takes no cycle.

        Raises
        ------
        InputError : the memory has no model, or the bytes do not lie in its store
        """
        self._simulation.write_store(store, start, data)

    @property
    def holds_lines(self) -> bool:
        """Whether `write_words` can put weight words into the memory's model."""
        return self._model is not None and isinstance(self._model.config.memory, LineRecord)

    def write_words(self, base: int, image: bytes) -> None:
        """Put weight words into the memory's model, as if they had been written.

        It takes no cycle, once the memory has started: until then the memory may write by itself.

        Parameters
        ----------
        base : first word, which begins a block
        image : words of `word_bytes` bytes each, as `pack_weights` makes them

        Raises
        ------
        InputError : the memory has no model, moves no lines, or does not hold the words
        """
        if self._model is None:
            raise InputError("the memory has no model that holds words; load them")
        start = self._config.memory.start_cycles(self._config)
        while (left := start - self.cycles) > 0:
            packet = self._simulation.receive(left)
            if packet is not None:
                self._received.append(packet)
        owners = [number for number, store in enumerate(self._model.stores) if store.of is None]
        for number, (start, data) in zip(owners, self._model.contents(base, image), strict=True):
            self._simulation.write_store(number, start, data)

    def close(self) -> None:
        """Free the simulation."""
        self._simulation.close()


def open_device(url: DeviceUrl, config: AcceleratorConfig | None) -> SimulatedDevice:
    """Opens a URL of the scheme `sim`: simulated hardware of a configuration."""
    return SimulatedDevice(require_config(url, config))


class SimulatedDesign:
    """The accelerator with the models around it, as the simulated FPGA needs it.

    Parameters
    ----------
    config : the hardware's
    options : options of the memory's model

    Members
    -------
    recipe : see `recipe`
    macros : macros of the driver in C++
    headers : what the driver includes with these macros
    dram : numbers of the DRAM behind the memory's ports; None if there is none
    model : of the memory's chip; None if there is none
    rules : what the memory must keep; None if it has no model

    Raises
    ------
    ConfigError : see `surrounded`
    """

    def __init__(self, config: AcceleratorConfig, options: Mapping[str, Any] | None = None) -> None:
        self._design = surrounded(config, options)
        self.recipe = recipe(config, options)
        self.macros: list[str] = []
        if own_hz := config.memory.own_clock_hz(config):
            self.macros += [f"MEMORY_HZ={own_hz}u", f"CLOCK_HZ={config.clock_hz}u"]
        self.model: MemoryModel | None = None
        self.rules: Mapping[int, str] | None = None
        self.dram: Mapping[str, int] | None = None
        self.headers: list[Path] = []
        if isinstance(self._design, SurroundedAccelerator):
            self.model = model = self._design.model
            self.rules = model.RULES
            stores = (
                f"STORE({number}, {number if store.of is None else store.of}, {store.words}u)"
                for number, store in enumerate(model.stores)
            )
            self.macros.append(f"STORES={' '.join(stores)}")
            self.dram = model.dram_numbers
            if self.dram is not None:
                ports = " ".join(f"DRAM_PORT({number})" for number in range(model.dram_ports))
                self.macros += [f"DRAM={ports}", f"DRAM_PORTS={model.dram_ports}"]
                self.headers.append(HEADER)

    def rtlil(self) -> str:
        """The design's RTLIL, with the module `top`; it can be made once."""
        text: str = rtlil.convert(self._design, name="top", emit_src=False)
        return text


def recipe(config: AcceleratorConfig, options: Mapping[str, Any] | None = None) -> str | None:
    """Digest of everything that the design of a configuration is made from.

    It is known in milliseconds, the design itself only after seconds. It covers the configuration,
    Amaranth, Python, all source files of the hardware, and those of each plug-in: its whole
    package, or the files beside it if it is a single file. The memory's model is covered likewise,
    with the options that it gets.

    Returns
    -------
    str | None
        The digest; `None` if a plug-in has no file, as in a notebook.
    """
    plugins = (engines[config.engine], encodings[config.encoding], config.memory, config.link)
    sources = set(HARDWARE.rglob("*.py"))
    for part in [fact for plugin in plugins for fact in _facts(plugin)]:
        files = _sources(part.__module__)
        if files is None:
            return None
        sources |= files
    facts = [config.to_json(), version("amaranth"), sys.version]
    if config.memory.model:
        sources |= set(MODELS.glob("*.py"))
        facts.append(repr(sorted((options or {}).items())))
    facts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(sources)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _sources(module: str) -> set[Path] | None:
    """Source files of a plug-in outside the hardware's folder; `None` if the module has no file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return None
    folder = Path(file).parent
    if folder.is_relative_to(HARDWARE) or folder == MODELS:
        return set()
    package = sys.modules.get(module.partition(".")[0])
    # A single file may lie in a folder with every other package, so its subfolders do not count.
    if package is None or not hasattr(package, "__path__"):
        return set(folder.glob("*.py"))
    return {source for path in package.__path__ for source in Path(path).rglob("*.py")}


def _facts(plugin: Any) -> list[Any]:
    """The functions and classes that a plug-in's record names."""
    if isinstance(plugin, Record):  # its fields are values of a configuration
        facts: list[Any] = [type(plugin), plugin.component]
        if isinstance(plugin, Memory):
            facts.append(plugin.model)
    else:
        facts = [getattr(plugin, name) for name in plugin.__dataclass_fields__]
    components = [load_component(fact) for fact in facts if isinstance(fact, str) and ":" in fact]
    return components + [fact for fact in facts if callable(fact)]
