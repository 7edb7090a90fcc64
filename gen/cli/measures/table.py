"""`tritloom measure table`: the measured table by which `auto` chooses."""

import argparse
from typing import Any

from tritloom.boards.families.family import family_names
from tritloom.gen.cli.options import Help, add_command
from tritloom.gen.cli.text import count, print_json, progress_line

__all__ = ["add"]

HELP = Help(
    summary="bring the table up to date by which auto chooses",
    text="""\
Measures a fixed grid of geometries of each engine and encoding: all are synthesised, a few are
routed. `tritloom auto` predicts from these points. A point whose design and tools have not changed
stays as it is, so the command can be stopped and started again. A family takes from ten minutes to
an hour.
""",
    examples="""
  tritloom measure table --family ecp5
  tritloom measure table --family ice40 --engine select
""",
    prints="""
How many points were measured, and the file that has them: measured.json, beside the module that
reads it.

--json prints an object: file, measured (how many were measured now), points (how many there are).
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "table", HELP, _table, extra="measure")
    parser.add_argument("--family", choices=family_names(), required=True, help="of FPGAs")
    parser.add_argument("--engine", metavar="NAME", help="measure only this engine")


def _table(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.table import TABLE, measure

    measured, points = measure(options.family, options.engine, progress=progress_line)
    if options.json:
        print_json({"file": str(TABLE), "measured": measured, "points": points})
    else:
        print(f"{measured} of {count(points, 'point')} measured, the others are unchanged:")
        print(TABLE)
    return 0
