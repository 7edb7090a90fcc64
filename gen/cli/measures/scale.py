"""`tritloom measure scale`: size and speed of the scaling units of group sums."""

import argparse
from typing import Any

from tritloom.boards.families.family import family_names
from tritloom.gen.cli.options import Help, add_command, existing_folder, path, whole
from tritloom.gen.cli.text import progress_line, tell_size

__all__ = ["add"]

HELP = Help(
    summary="measure the size and the speed of a scaling unit of group sums",
    text="""\
Measures a unit that adds the scaled sums of groups, with its memory of totals. It is
synthesised, placed and routed in the same harness as the engines, which is not counted. Nothing is
measured twice.

There is no open router for xc7: its clocks are null.
docs/explanation/groups.md explains the units.
""",
    examples="""
  tritloom measure scale --family ecp5 --unit fixed
  tritloom measure scale --family ecp5 --unit float --seeds 1 --json
""",
    prints="""
The resources and the clock of each placement.

--json prints an object: luts, ffs, block_rams, dsps, fmax_mhz_median and what they belong to.
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "scale", HELP, _scale, extra="measure")
    parser.add_argument("--family", choices=family_names(), required=True, help="of FPGAs")
    parser.add_argument("--part", metavar="NAME", help="a part of the family (its first)")
    parser.add_argument(
        *("--unit",),
        metavar="UNIT",
        required=True,
        help="fixed, float, or convert: a total of fixed to float32",
    )
    for name, default, meaning in (
        ("--sum-bits", 17, "bits of a group's sum"),
        ("--rows", 4096, "totals that are kept"),
        ("--groups", 256, "most sums of a total"),
    ):
        parser.add_argument(
            name, metavar="N", type=whole(1), default=default, help=f"{meaning} ({default})"
        )
    parser.add_argument(
        *("--seeds",), metavar="N", type=whole(1), default=3, help="placements, from seed 1 on (3)"
    )
    parser.add_argument("--output", metavar="FILE", type=path, help="write the JSON object there")


def _scale(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.scale import measure_scale

    if options.output is not None:
        existing_folder(options.output, "--output")
    result = measure_scale(
        options.family,
        options.unit,
        sum_bits=options.sum_bits,
        rows=options.rows,
        groups=options.groups,
        part=options.part,
        seeds=options.seeds,
        progress=progress_line,
    )
    return tell_size(options, result)
