"""`tritloom measure`: the group of the measurements.

Each measurement is one module of `tritloom.gen.cli.measures` with a function `add`; a new one needs
no change here.
"""

import importlib
import pkgutil
from typing import Any

from tritloom.gen.cli import measures
from tritloom.gen.cli.options import Help, add_group

__all__ = ["add"]

HELP = Help(
    summary="measure size and speed, and make the page of the measurements",
    text="""\
Measures what designs take and how fast they are, and makes the page of the measurements from the
results. Each measurement is a command of its own; `tritloom measure COMMAND --help` explains it.
""",
    examples="""
  tritloom measure engine --family ecp5 --engine table
  tritloom measure table --family ecp5
  tritloom measure report docs/reference/engines
""",
    prints="",
)


def add(commands: Any) -> None:
    """Declares the group and the measurements in it, by name."""
    group = add_group(commands, "measure", HELP)
    for module in sorted(pkgutil.iter_modules(measures.__path__), key=lambda each: each.name):
        importlib.import_module(f"{measures.__name__}.{module.name}").add(group)
