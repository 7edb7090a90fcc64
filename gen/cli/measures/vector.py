"""`tritloom measure vector`: size and speed of the vector unit."""

import argparse
from typing import Any

from tritloom.boards.families.family import family_names
from tritloom.gen.cli.options import Help, add_command, existing_folder, path, whole
from tritloom.gen.cli.text import progress_line, tell_size
from tritloom.rtl.spec.vector_facts import VectorConfig

__all__ = ["add"]

HELP = Help(
    summary="measure the size and the speed of the vector unit",
    text="""\
Measures the vector unit alone, without the commands that reach it. It is synthesised, placed and
routed in the same harness as the engines, which is not counted. Nothing is measured twice.

There is no open router for xc7: its clocks are null.
docs/explanation/vector-unit.md explains the unit.
""",
    examples="""
  tritloom measure vector --family ecp5
  tritloom measure vector --family ecp5 --part LFE5U-85F-6 --multipliers 2 --bfloat16 --json
  tritloom measure vector --family ecp5 --part LFE5U-85F-6 --multipliers 2 --lanes 2
""",
    prints="""
The resources and the clock of each placement.

--json prints an object: luts, ffs, block_rams, dsps, fmax_mhz_median and what they belong to.
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "vector", HELP, _vector, extra="measure")
    parser.add_argument("--family", choices=family_names(), required=True, help="of FPGAs")
    parser.add_argument("--part", metavar="NAME", help="a part of the family (its first)")
    parser.add_argument(
        *("--words",), metavar="N", type=whole(1), default=4096, help="vector words (4096)"
    )
    parser.add_argument(
        *("--multipliers",),
        metavar="N",
        type=whole(1),
        default=1,
        help="products in a row of a step, 1 or 2 (1)",
    )
    parser.add_argument(
        *("--lanes",),
        metavar="N",
        type=whole(1),
        default=1,
        help="elements in a cycle, 1, 2 or 4 (1)",
    )
    parser.add_argument("--bfloat16", action="store_true", help="steps can round to bfloat16")
    parser.add_argument(
        *("--seeds",), metavar="N", type=whole(1), default=3, help="placements, from seed 1 on (3)"
    )
    parser.add_argument("--output", metavar="FILE", type=path, help="write the JSON object there")


def _vector(options: argparse.Namespace) -> int:
    config = VectorConfig(
        words=options.words,
        lanes=options.lanes,
        multipliers=options.multipliers,
        bfloat16=options.bfloat16,
    )
    from tritloom.gen.measure.vector import measure_vector

    if options.output is not None:
        existing_folder(options.output, "--output")
    result = measure_vector(
        options.family, config, part=options.part, seeds=options.seeds, progress=progress_line
    )
    return tell_size(options, result)
