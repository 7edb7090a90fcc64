"""What the benches in the simulator read from their environment, set by `tritloom.sim.verify.run`.

The design's manifest is the file that `TRITLOOM_MANIFEST` names. The plug-in modules of
`TRITLOOM_PLUGINS`, separated by commas, are imported before it is read. Each bench that has ended
adds a line to the file `TRITLOOM_PROGRESS`.
"""

from __future__ import annotations

import json
import os
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from tritloom.rtl.links.port_names import PortNames
from tritloom.rtl.spec.config import AcceleratorConfig

MANIFEST = "TRITLOOM_MANIFEST"
PLUGINS = "TRITLOOM_PLUGINS"
PROGRESS = "TRITLOOM_PROGRESS"
WATCHDOG = "TRITLOOM_WATCHDOG_S"


@cache
def manifest() -> dict[str, Any]:
    """The manifest of the design under test, with its plug-ins imported."""
    for module in filter(None, os.environ.get(PLUGINS, "").split(",")):
        import_module(module)
    content: dict[str, Any] = json.loads(Path(os.environ[MANIFEST]).read_text(encoding="utf-8"))
    return content


@cache
def config() -> AcceleratorConfig:
    """The configuration of the design under test."""
    return AcceleratorConfig.from_dict(manifest()["config"])


@cache
def port_names() -> PortNames:
    """The names of its pins."""
    return PortNames.from_dict(manifest()["interface"])


@cache
def held() -> list[str]:
    """The names of the inputs that a plug-in brought; the benches hold them at 0."""
    names: list[str] = manifest()["held"]
    return names


@cache
def watchdog_s() -> float:
    """Seconds of wall clock, from `TRITLOOM_WATCHDOG_S` or five minutes."""
    return float(os.environ.get(WATCHDOG, "300"))


@cache
def budget_cycles() -> int:
    """Clock cycles of one bench that does as much as fits: less for designs that simulate fast."""
    return min(10_000, 1_000 + 200 * config().word_bytes)


def report(line: str) -> None:
    """Add a line to the progress file, if there is one."""
    if path := os.environ.get(PROGRESS):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")
