"""`tritloom auto`: the best engine, encoding and geometry for a part and a model."""

import argparse
import json
from typing import Any

from tritloom.gen.cli.figures import rate, seconds, times_lines, verdict
from tritloom.gen.cli.options import Help, add_command, existing_folder, path, whole
from tritloom.gen.cli.text import Column, columns, fill, paint, print_json, table
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.files import write_whole
from tritloom.rtl.spec.scale_facts import DEFAULT_KIND, KINDS

__all__ = ["add"]

HELP = Help(
    summary="choose engine, encoding and geometry for a part and a model",
    text="""\
Chooses the accelerator whose RUN does the most useful MAC/s on the layers of a model, of all that
fit a part, and says what a token then takes end to end: loading, link, front end, engine, host.
Beside it stands what this computer's CPU takes for the same layers. Nothing is built, so it takes
seconds.

The cycles are exact. What a geometry takes of the part is predicted from the measured table that
`tritloom measure table` makes. The clock is the board's, or that of the nearest measured geometry.
docs/howto/choose.md explains how it decides and what is counted.
""",
    examples="""
  tritloom auto --board ulx3s-85f --model tinylm
  tritloom auto --board ulx3s-85f --model tinylm -o mine.json
  tritloom build --board ulx3s-85f --config mine.json -o build/mine
  tritloom auto --family ecp5 --model tinylm --tokens 8 --json
  tritloom auto --family xc7 --part XC7A100T --model bitnet-2b-4t \\
      --weight-bits 128
  tritloom auto --board ulx3s-85f --model models/tinygroup.gguf --scale float
""",
    prints="""
The choice; its time for a token, end to end, with the limit that binds; this computer's CPU. Then a
table with the best geometry of each engine and encoding, the choice first: tokens/s end to end, and
of RUN alone MAC/cycle, the peak (`of`), the share of it that the model's layers reach (`used`),
GMAC/s and what keeps the geometry from more (`bound by`).

--json prints an object: family, part, budget, notes, link, candidates (a list in the order of the
table; its end_to_end counts everything, run_cycles and keys that end in _run count RUN alone), cpu
and config (what -o writes).
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "auto", HELP, _auto)
    chip = parser.add_mutually_exclusive_group(required=True)
    chip.add_argument("--board", metavar="NAME", help="a board: its part, clock and packet sizes")
    chip.add_argument("--family", metavar="NAME", help="a family: ecp5, ice40, gowin or xc7")
    parser.add_argument("--part", metavar="NAME", help="a part of the family (its first)")
    parser.add_argument(
        *("--model",),
        metavar="MODEL",
        required=True,
        help="folder with a model's config.json, a .gguf file, or tinylm, or bitnet-2b-4t",
    )
    parser.add_argument(
        *("--group",),
        metavar="INPUTS",
        type=whole(0),
        help="inputs that have a sum of their own, such as 64; 0: the whole row (what a .gguf "
        "file's scales need, else 0)",
    )
    parser.add_argument(
        *("--scale",),
        nargs="?",
        const=DEFAULT_KIND,
        choices=tuple(KINDS),
        help="scale the sums of groups on the device: exactly (fixed, also without a kind), or as "
        "llama.cpp does, with scales of the activations (float)",
    )
    parser.add_argument(
        *("--weight-bits",),
        metavar="N",
        type=whole(1),
        help="weights come from outside the chip, N bits a cycle",
    )
    parser.add_argument(
        *("--memory-words",), metavar="N", type=whole(1), help="words of weight memory in the chip"
    )
    parser.add_argument(
        *("--tokens",), metavar="N", type=whole(1), default=1, help="tokens computed together (1)"
    )
    parser.add_argument(
        *("--share",),
        metavar="PERCENT",
        type=whole(1),
        help="how much of the part's LUTs and flip-flops may be filled (80; 95 on ice40)",
    )
    parser.add_argument(
        *("-o", "--output"), metavar="FILE", type=path, help="write the configuration there"
    )


def _auto(options: argparse.Namespace) -> int:
    from tritloom.boards.board import load_board
    from tritloom.gen.plan.auto import choose
    from tritloom.gen.plan.cpu import measure_cpu
    from tritloom.gen.workloads import model_layers

    if options.board is not None and options.part is not None:
        raise InputError("--part goes with --family; a board has its own part")
    if options.output is not None:
        existing_folder(options.output, "--output")
    layers = model_layers(options.model, options.group, scale=options.scale)
    plan = choose(
        options.family or "",
        layers,
        part=options.part,
        board=None if options.board is None else load_board(options.board),
        weight_bits=options.weight_bits,
        memory_words=options.memory_words,
        tokens=options.tokens,
        share=options.share,
        scale=options.scale,
    )
    if options.output is not None:
        write_whole(options.output, json.dumps(plan.config.to_dict(), indent=2) + "\n")
    cpu = measure_cpu(layers, options.tokens)
    if options.json:
        print_json(plan.to_dict() | {"cpu": cpu.to_dict()})
    else:
        print("\n".join(_lines(plan, cpu, options.board is not None)))
    return 0


def _lines(plan: Any, cpu: Any, board: bool) -> list[str]:
    """A `Plan` for people: the choice, its time and the CPU's, all candidates, notes."""
    config = plan.config
    tokens = f" × {config.tokens} tokens" if config.tokens > 1 else ""
    chosen = (
        f"{plan.part}: {config.engine} {config.encoding}, {config.lanes} lanes × "
        f"{config.rows} rows{tokens}, fill {config.fill}, words of {config.word_bits} bits"
    )
    link = plan.link.title() + ("" if board else ", assumed")
    heads = [
        *(Column("engine"), Column("encoding"), Column("geometry", right=True)),
        *(Column("tokens/s", right=True), Column("RUN: MAC/cycle", right=True)),
        *(Column("of", right=True), Column("used", right=True)),
        *(Column("GMAC/s", right=True), Column("MHz", right=True), Column("LUTs", right=True)),
        *(Column("FFs", right=True), Column("block RAM", right=True)),
        Column("bound by", wraps=True),
    ]
    rows = [_row(candidate) for candidate in plan.ranked]
    budget = plan.budget
    limits = [f"{budget.luts:,.0f}", f"{budget.ffs:,.0f}", str(budget.block_rams)]
    rows.append(["", "", "may take", "", "", "", "", "", "", *limits, ""])
    notes = [paint(fill(f"note: {note}", columns()), "yellow") for note in plan.notes]
    return [
        *(fill(chosen, columns()), "", *_time_lines(plan, cpu, link), ""),
        *(*table(heads, rows), *([""] if notes else []), *notes),
    ]


def _time_lines(plan: Any, cpu: Any, link: str) -> list[str]:
    """What a token takes, end to end, and on this computer's CPU."""
    times = plan.best.times
    beside = fill(verdict(times, cpu), columns())
    if times is None:
        return [fill("End to end: unknown, because no clock is known.", columns()), beside]
    first = (
        f"End to end: {rate(times.tokens_per_s)} tokens/s, "
        f"{seconds(times.total_s / times.tokens)} a token; {times.bound} binds"
    )
    return [fill(first, columns()), "", *times_lines(times, link), "", beside]


def _row(candidate: Any) -> list[str]:
    config = candidate.config
    tokens = f"×{config.tokens}" if config.tokens > 1 else ""
    return [
        config.engine,
        config.encoding,
        f"{config.lanes}×{config.rows}{tokens}",
        "" if candidate.times is None else rate(candidate.times.tokens_per_s),
        f"{candidate.mac_per_cycle:,.1f}",
        f"{config.macs_per_cycle:,}",
        f"{candidate.utilization:.0%}",
        "" if candidate.gmac_per_s is None else rate(candidate.gmac_per_s),
        "" if candidate.mhz is None else f"{candidate.mhz:.0f}",
        f"{candidate.cost.luts:,.0f}",
        f"{candidate.cost.ffs:,.0f}",
        str(candidate.cost.block_rams),
        candidate.bound,
    ]
