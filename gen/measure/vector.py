"""Measures the vector unit alone: placed and routed in the harness of the engines."""

from __future__ import annotations

import shlex
from typing import Any

from tritloom.gen.flow.tools import Progress
from tritloom.gen.measure.component import measure_component
from tritloom.rtl.core.vector_unit import VectorUnit
from tritloom.rtl.spec.vector_facts import VectorConfig

__all__ = ["SUM_BITS", "measure_vector"]

SUM_BITS = 20
"""Width of the core's results, as those of up to 2,080 features have."""


def measure_vector(
    family: str,
    config: VectorConfig,
    *,
    part: str | None = None,
    seeds: int = 3,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Resources and clock of the unit without commands.

    Parameters
    ----------
    family : of FPGAs
    config : of the unit
    part : of the family; its first by default
    seeds : placements, from seed 1 on

    Returns
    -------
    What `measure_component` returns, the configuration, and the command.

    Raises
    ------
    BuildError : it does not fit the part, or a tool failed
    """
    figures = measure_component(
        lambda: VectorUnit(config, SUM_BITS), family, part=part, seeds=seeds, progress=progress
    )
    tools = figures.pop("tools")
    return {
        **figures,
        "sum_bits": SUM_BITS,
        "vector": config.to_dict(),
        "tools": tools,
        "command": _command(family, config, figures["part"], len(figures["seeds"])),
    }


def _command(family: str, config: VectorConfig, part: str, seeds: int) -> str:
    """The command that gives these figures, every choice said."""
    words = ["tritloom", "measure", "vector", "--family", family, "--part", part]
    words += ["--words", str(config.words), "--multipliers", str(config.multipliers)]
    words += ["--lanes", str(config.lanes)] if config.lanes > 1 else []
    words += ["--bfloat16"] * config.bfloat16
    words += ["--seeds", str(seeds)] if seeds else []
    return shlex.join([*words, "--json"])
