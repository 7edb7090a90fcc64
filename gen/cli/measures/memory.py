"""`tritloom measure memory`: size and speed of a weight memory's logic."""

import argparse
from typing import Any

from tritloom.boards.families.family import family_names
from tritloom.gen.cli.options import Help, add_command, existing_folder, path, whole
from tritloom.gen.cli.text import progress_line, tell_size

__all__ = ["add"]

COMPONENTS = ("memory", "store", "reader", "writer")
HELP = Help(
    summary="measure the size and the speed of a weight memory's logic",
    text="""\
Measures the logic of a weight memory outside the chip, or a part of it, without the buffers of its
pads. It is synthesised, placed and routed in the same harness as the engines, which is not counted.
Nothing is measured twice.

Components: memory (all of it, with what turns lines into weight words), store (what moves lines:
the ports of AXI, the controller of an SDRAM), reader and writer (one AXI port's). The memory holds
a layer of 13824 × 6912, so addresses have as many bits as that needs.

There is no open router for xc7: its clocks are null.
""",
    examples="""
  tritloom measure memory --memory axi --width 128 --component reader --family ecp5
  tritloom measure memory --memory axi --width 512 --component writer --family xc7
  tritloom measure memory --memory sdram --component store --family ecp5 \\
      --clock-hz 133333333
""",
    prints="""
The resources and the clock of each placement.

--json prints an object: luts, ffs, block_rams, dsps, fmax_mhz_median and what they belong to.
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "memory", HELP, _memory, extra="measure")
    parser.add_argument("--memory", metavar="NAME", required=True, help="weight memory")
    parser.add_argument(
        *("--component",), choices=COMPONENTS, default="memory", help="what of it (memory)"
    )
    for name, type_, value, text in (
        ("width", whole(1), "BITS", "bits a cycle of each port of the memory"),
        ("ports", whole(1), "N", "ports of the memory"),
        ("part", str, "NAME", "the memory's chip"),
        ("latency", whole(1), "CYCLES", "that the memory's queues are made for"),
        ("clock-hz", whole(1), "HZ", "the clock that an SDRAM's times are counted in"),
    ):
        parser.add_argument(f"--{name}", metavar=value, type=type_, help=text)
    parser.add_argument("--family", choices=family_names(), required=True, help="of FPGAs")
    parser.add_argument("--part-number", metavar="NAME", help="a part of the family (its first)")
    parser.add_argument(
        *("--seeds",), metavar="N", type=whole(1), default=3, help="placements, from seed 1 on (3)"
    )
    parser.add_argument("--output", metavar="FILE", type=path, help="write the JSON object there")


def _memory(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.memory import measure_memory

    if options.output is not None:
        existing_folder(options.output, "--output")
    result = measure_memory(
        options.memory,
        options.component,
        options.family,
        part=options.part_number,
        seeds=options.seeds,
        clock_hz=options.clock_hz,
        progress=progress_line,
        options={name: getattr(options, name) for name in ("width", "ports", "part", "latency")},
    )
    return tell_size(options, result)
