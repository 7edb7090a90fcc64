"""Measures a weight memory outside the chip, or a part of it: size and speed of its logic."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from tritloom.gen.flow.tools import Progress
from tritloom.gen.measure.component import measure_component
from tritloom.gen.measure.outside import Product, outside_config, record_options
from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.memories.axi_reader import AxiReader
from tritloom.rtl.memories.axi_writer import AxiWriter
from tritloom.rtl.memories.contract import create_memory
from tritloom.rtl.memories.lines import LineMemory
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import InputError

__all__ = ["COMPONENTS", "measure_memory"]

LAYER = Product(2560, 2560)
"""The memory holds this layer and the largest of `tritloom measure stream`: its addresses' bits."""


def _store(config: AcceleratorConfig) -> Any:
    memory = create_memory(config)
    if not isinstance(memory, LineMemory):
        raise InputError(f"memory {config.memory.name} moves no lines; choose the component memory")
    return memory.create_store()


def _port(part: str) -> Callable[[AcceleratorConfig], Any]:
    def create(config: AcceleratorConfig) -> Any:
        record = config.memory
        if not isinstance(record, Axi):
            raise InputError(f"memory {record.name} has no {part}; choose memory or store")
        if part == "writer":
            return AxiWriter(record)
        return AxiReader(record, record.line_format(config).lines)

    return create


COMPONENTS: Mapping[str, Callable[[AcceleratorConfig], Any]] = {
    "memory": create_memory,
    "store": _store,
    "reader": _port("reader"),
    "writer": _port("writer"),
}
"""What can be measured: the whole memory, what moves its lines, and what one port of it has."""


def measure_memory(
    memory: str,
    component: str,
    family: str,
    *,
    part: str | None = None,
    seeds: int = 3,
    clock_hz: int | None = None,
    progress: Progress = lambda line: None,
    options: Mapping[str, int | str | None],
) -> dict[str, Any]:
    """Resources and clock of a memory's logic, without its pads' buffers.

    Parameters
    ----------
    memory : its name
    component : a name of `COMPONENTS`
    family : of FPGAs
    part : of the family; its first by default
    seeds : placements, from seed 1 on
    clock_hz : decides the cycles of an SDRAM's times; by default that of `measure stream`
    options : fields of the memory's record: its width, ports, chip and latency

    Returns
    -------
    What `measure_component` returns, what was measured, and the command.

    Raises
    ------
    InputError : the memory has no such component or field
    BuildError : it does not fit the part, or a tool failed
    """
    record = record_options(memory, **options)
    config = outside_config(memory, record, [LAYER], clock_hz=clock_hz)
    figures = measure_component(
        lambda: COMPONENTS[component](config),
        family,
        part=part,
        seeds=seeds,
        progress=progress,
    )
    tools = figures.pop("tools")
    words = ["tritloom", "measure", "memory", "--memory", memory, "--component", component]
    for name, value in {**options, "clock-hz": clock_hz}.items():
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    words += ["--family", family, "--part-number", figures["part"]]
    words += ["--seeds", str(len(figures["seeds"]))] if figures["seeds"] else []
    return {
        **figures,
        "component": component,
        "memory": config.memory.to_dict(),
        "word_bits": config.word_bits,
        "tools": tools,
        "command": shlex.join([*words, "--json"]),
    }
