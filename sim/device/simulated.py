"""Device `sim`: the accelerator's hardware on the simulated FPGA, as a transport of packets."""

from __future__ import annotations

import hashlib
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


class SimulatedDevice:
    """Transport of packets to simulated hardware; its time is the hardware's, at `clock_hz`.

    With a `stall_seed` that is not 0, both directions are idle at random.

    Members
    -------
    timeout_s : time in which an idle device has answered a short command
    cycles : clock cycles since power-up
    """

    def __init__(self, config: AcceleratorConfig, stall_seed: int = 0) -> None:
        # Some cycles for each byte of all buffers.
        self.timeout_s = 16 * config.slots * config.packet_bytes / config.clock_hz
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
        """The next packet, or `None` if none is whole when the simulated time has passed."""
        return self._simulation.receive(max(0, round(timeout_s * self._clock_hz)))

    def close(self) -> None:
        """Free the simulation."""
        self._simulation.close()


def open_device(url: DeviceUrl, config: AcceleratorConfig | None) -> SimulatedDevice:
    """Opens `sim`: simulated hardware of a configuration."""
    return SimulatedDevice(require_config(url, config))


def recipe(config: AcceleratorConfig) -> str | None:
    """Digest of all that the design is made from, which is sooner known than the design.

    That is the configuration, Amaranth, Python, and all source files in and below the folders of
    the hardware and of its plug-ins. `None` if a plug-in has no file.
    """
    plugins = (engines[config.engine], encodings[config.encoding], config.memory, config.link)
    parts = [Accelerator, *(fact for plugin in plugins for fact in _facts(plugin))]
    folders: set[Path] = set()
    for part in parts:
        file = getattr(sys.modules.get(part.__module__), "__file__", None)
        if file is None:
            return None
        folders.add(Path(file).parent)
    sources = sorted(path for folder in folders for path in folder.rglob("*.py"))
    facts = [config.to_json(), version("amaranth"), sys.version]
    facts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _facts(plugin: Any) -> list[Any]:
    """The functions and classes that a plug-in names."""
    facts = [getattr(plugin, name) for name in plugin.__dataclass_fields__]
    if isinstance(plugin, Record):
        facts += [type(plugin), plugin.component]
    components = [load_component(fact) for fact in facts if isinstance(fact, str) and ":" in fact]
    return components + [fact for fact in facts if callable(fact)]
