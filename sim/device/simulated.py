"""Device `sim`: the accelerator's hardware on the simulated FPGA, as a transport of packets."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.plugins import Record, engines
from tritloom.rtl.spec.registry import load_component
from tritloom.rtl.top import Accelerator
from tritloom.sim.device.cxxrtl import Simulation, build
from tritloom.sim.device.reference import DeviceUrl, require_config

__all__ = ["SimulatedDevice", "open_device", "recipe"]

HARDWARE = Path(inspect.getfile(Accelerator)).parent
BUFFER_CYCLES_PER_BYTE = 16
"""Cycles that a device may take for each byte of its buffers before it responds."""


class SimulatedDevice:
    """Transport of packets to simulated hardware. Its time is that of the hardware at `clock_hz`.

    Parameters
    ----------
    config : the hardware's
    stall_seed : if not 0, both directions pause at random

    Members
    -------
    timeout_s : time within which an idle device responds to a short command
    cycles : clock cycles since power-up
    """

    def __init__(self, config: AcceleratorConfig, stall_seed: int = 0) -> None:
        cycles = BUFFER_CYCLES_PER_BYTE * config.slots * config.packet_bytes
        self.timeout_s = cycles / config.clock_hz
        self._clock_hz = config.clock_hz
        library = build(lambda: rtlil.convert(Accelerator(config), emit_src=False), recipe(config))
        self._simulation = Simulation(library, stall_seed)

    @property
    def cycles(self) -> int:
        """Clock cycles since power-up."""
        return self._simulation.cycles

    def send(self, packet: bytes) -> None:
        """Queue a packet for the device."""
        self._simulation.send(packet)

    def receive(self, timeout_s: float) -> bytes | None:
        """The next packet, or `None` if none is complete after that much simulated time."""
        return self._simulation.receive(max(0, round(timeout_s * self._clock_hz)))

    def close(self) -> None:
        """Free the simulation."""
        self._simulation.close()


def open_device(url: DeviceUrl, config: AcceleratorConfig | None) -> SimulatedDevice:
    """Opens a URL of the scheme `sim`: simulated hardware of a configuration."""
    return SimulatedDevice(require_config(url, config))


def recipe(config: AcceleratorConfig) -> str | None:
    """Digest of everything that the design of a configuration is made from.

    It is known in milliseconds, the design itself only after seconds. It covers the configuration,
    Amaranth, Python, all source files of the hardware, and those of each plug-in: its whole
    package, or the files beside it if it is a single file.

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
    facts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(sources)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _sources(module: str) -> set[Path] | None:
    """Source files of a plug-in outside the hardware's folder; `None` if the module has no file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return None
    folder = Path(file).parent
    if folder.is_relative_to(HARDWARE):
        return set()
    package = sys.modules.get(module.partition(".")[0])
    # A single file may lie in a folder with every other package, so its subfolders do not count.
    if package is None or not hasattr(package, "__path__"):
        return set(folder.glob("*.py"))
    return {source for path in package.__path__ for source in Path(path).rglob("*.py")}


def _facts(plugin: Any) -> list[Any]:
    """The functions and classes that a plug-in's record names."""
    facts = [getattr(plugin, name) for name in plugin.__dataclass_fields__]
    if isinstance(plugin, Record):
        facts += [type(plugin), plugin.component]
    components = [load_component(fact) for fact in facts if isinstance(fact, str) and ":" in fact]
    return components + [fact for fact in facts if callable(fact)]
