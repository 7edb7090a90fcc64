"""`tritloom run`: a language model whose ternary layers run on a device."""

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from tritloom.gen.cli.figures import rate, seconds
from tritloom.gen.cli.options import Help, add_command, path, whole
from tritloom.gen.cli.text import (
    Column,
    columns,
    count,
    fill,
    is_terminal,
    loading_bar,
    print_json,
    say,
    table,
)
from tritloom.rtl.spec.errors import ConfigError, InputError

if TYPE_CHECKING:
    from tritloom.gen.plan.timing import Times
    from tritloom.host.models.result import LayerUse, RunResult
    from tritloom.host.placement import Placement
    from tritloom.rtl.spec.plugins import Link

__all__ = ["add"]

HELP = Help(
    summary="write text with a language model on a device",
    text="""\
Continues a text with a language model. The ternary layers run on the device, NumPy or transformers
computes the rest. MODEL is a folder as transformers writes it; a bare name is looked up in models/.
Layers that do not fit the device's weight memory stay on the host, unless you give --fit all.
""",
    examples="""
  tritloom run models/tinylm --prompt "Emma was" --max-tokens 40
  tritloom run tinylm --device "sim?board=icebreaker" --prompt "It was a"
  tritloom run tinylm --prompt "Mr. Darcy" --temperature 0.8 --seed 7
  tritloom run tinylm --prompt "Mr. Darcy" --json
""",
    prints="""
The text on standard output, as it comes. On standard error a table of what runs where, if not all
of it fits the device. In the end the tokens a second of the whole run, what the device's layers
take for a token by the time model, and what each layer took. Cycles and MAC/cycle count RUN alone.
Of a device with a vector unit also which floats it computed, and what each routine took.

--json prints an object: model, device, prompt, prompt_ids, ids, text, placement (what runs where),
layers (name, shape, where, device_weights, tokens, runs, run_cycles, bytes, mac_per_cycle_run),
blocks (what the vector unit computed, why not more, and its routines), timing, link and end_to_end
(the time model's seconds for one token, part by part, those of a program's routines too; null with
transformers and a vector unit). Keys with run count RUN alone.
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "run", HELP, _run, extra="models")
    parser.add_argument("model", metavar="MODEL", help="folder of a model, such as models/tinylm")
    parser.add_argument("--device", metavar="URL", default="sim", help="the device (sim)")
    parser.add_argument("--prompt", metavar="TEXT", required=True, help="the text to continue")
    parser.add_argument(
        *("--max-tokens",), metavar="N", type=whole(1), default=40, help="tokens to write (40)"
    )
    parser.add_argument(
        *("--temperature",),
        metavar="T",
        type=float,
        default=0.0,
        help="0 takes the likeliest token, above 0 tokens are drawn at random (0)",
    )
    parser.add_argument(
        *("--seed",), metavar="S", type=whole(0), default=0, help="seed of the drawing (0)"
    )
    parser.add_argument(
        *("--fit",),
        choices=("layers", "all"),
        default="layers",
        help="layers leaves on the host what does not fit the device, all refuses it (layers)",
    )
    parser.add_argument(
        *("--packed",),
        metavar="FILE",
        type=path,
        help="keep the packed weights there, and use them the next time",
    )
    parser.add_argument(
        *("--runtime",),
        choices=("numpy", "transformers"),
        default="numpy",
        help="what computes the rest of the model (numpy)",
    )


def _run(options: argparse.Namespace) -> int:
    from tritloom.host.models.run import find_model, run_model

    # A program reads standard output; a person may watch either stream.
    stream = sys.stderr if options.json else sys.stdout
    watched = not options.json or is_terminal(sys.stderr)

    def write(text: str) -> None:
        if watched:
            stream.write(text)
            stream.flush()

    arguments = find_model(options.model), options.device, options.prompt, options.max_tokens

    def placed(placement: "Placement") -> None:
        if placement.fit != "all" and not options.json:
            say("\n".join([*_placement_lines(placement), ""]))

    settings: dict[str, Any] = {
        "fit": options.fit,
        "placed": placed,
        "temperature": options.temperature,
        "seed": options.seed,
        "write": write,
    }
    if options.runtime == "transformers":
        from tritloom.host.models.offload import run_offloaded

        if options.packed is not None:
            raise InputError("--packed goes with the runtime numpy, not with transformers")
        result = run_offloaded(*arguments, **settings)
    else:
        result = run_model(
            *arguments,
            **settings,
            loading=loading_bar("loading layer"),
            packed=options.packed,
            packing=loading_bar("packing weight"),
        )
    write("\n")
    if options.json:
        link, times = _end_to_end(result)
        end_to_end = None if times is None else times.to_dict()
        print_json(result.to_dict() | {"link": link.to_dict(), "end_to_end": end_to_end})
    else:
        sys.stdout.flush()
        say("\n".join(["", *_lines(result), ""]))
    return 0


def _placement_lines(placement: "Placement") -> list[str]:
    """What runs where."""
    heads = [
        Column("layer", wraps=True),
        *(Column("shape", right=True), Column("on the device", right=True)),
        Column("words", right=True),
    ]
    rows = [
        (
            layer.name.removeprefix("model."),
            f"{layer.out_features} × {layer.in_features}",
            f"{100 * layer.device_weights / layer.weights:.0f} %",
            f"{layer.words:,}",
        )
        for layer in placement.layers
    ]
    return [
        *table(heads, rows, sys.stderr),
        fill(placement.summary, columns(sys.stderr)),
    ]


def _end_to_end(result: "RunResult") -> "tuple[Link, Times | None]":
    """The link that counts, and what the device's part of the layers takes for one token.

    A simulated device has the link of its board. The layers of a program count with all floats that
    the program computes. None if the memory gives no bound on a run, or if the runtime has programs
    of its own.
    """
    from tritloom.boards.board import load_board
    from tritloom.gen.plan.programs import plan_times
    from tritloom.gen.plan.timing import Times, layer_times
    from tritloom.host.links.contract import DEFAULT_BOARD, SIMULATED, DeviceUrl

    config, url = result.config, DeviceUrl.parse(result.device)
    if url.scheme in SIMULATED:
        board = load_board(url.query.get("board", DEFAULT_BOARD))
        config = dataclasses.replace(config, link=board.link)
    times = Times()
    in_program: tuple[str, ...] = ()
    try:
        if result.blocks.routines:
            if result.plan is None:
                return config.link, None
            in_program = result.plan.layers
            times += plan_times(config, result.plan)
        for layer in result.placement.layers:
            if layer.name in in_program:
                continue
            for part in layer.on_device:
                times += layer_times(config, part.rows, part.columns)
    except ConfigError:
        return config.link, None
    return config.link, dataclasses.replace(times, tokens=1) if times.calls else None


def _counted(layer: "LayerUse") -> tuple[str, str, str, str]:
    """What a layer took; a layer of a program has no bytes and cycles of its own."""
    runs = f"{layer.runs:,}"
    if layer.runs and not layer.bytes:
        return "-", runs, "-", "-"
    return f"{layer.bytes:,}", runs, f"{layer.run_cycles:,}", f"{layer.mac_per_cycle_run:.1f}"


def _routine_lines(result: "RunResult") -> list[str]:
    """What runs on the vector unit, and what each routine took; nothing without such a unit."""
    if result.config.vector is None:
        return []
    width = columns(sys.stderr)
    heads = [Column("routine", wraps=True)]
    heads += [Column(name, right=True) for name in ("bytes", "executions", "cycles")]
    rows = [
        (routine.name, f"{routine.bytes:,}", f"{routine.executions:,}", f"{routine.cycles:,}")
        for routine in result.blocks.routines
    ]
    return [
        "",
        *(fill(line, width) for line in (result.blocks.summary, *_token_lines(result))),
        *(table(heads, rows, sys.stderr) if rows else []),
    ]


def _token_lines(result: "RunResult") -> list[str]:
    """What a token took whose hidden vector stayed on the device, and what the host did instead."""
    use = result.blocks
    lines = []
    if use.left_to_host:
        lines.append(
            f"The host computed {count(use.left_to_host, 'token')} again: a number was not finite "
            "or 2^126 or more."
        )
    if use.token_cycles:
        link, _ = _end_to_end(result)
        config = dataclasses.replace(result.config, link=link)
        cycles = use.token_bytes * link.cycles_per_byte(config) + use.token_cycles
        title = link.title()
        where = f" with {title}" if title else ""
        lines.append(
            f"A token takes {use.token_bytes:,} bytes and {use.token_cycles:,} cycles, one after "
            f"the other {seconds(cycles / config.clock_hz)}{where}, beside the host."
        )
    return lines


def _lines(result: "RunResult") -> list[str]:
    """What each layer took, the whole run, and the time model's figures."""
    heads = [
        Column("layer", wraps=True),
        *(Column("shape", right=True), Column("bytes", right=True), Column("runs", right=True)),
        *(Column("RUN: cycles", right=True), Column("MAC/cycle", right=True)),
    ]
    rows = [
        (
            layer.name.removeprefix("model."),
            " × ".join(map(str, layer.shape)),
            *_counted(layer),
        )
        for layer in result.layers
        if layer.where != "host"
    ]
    timing = result.timing
    total = (
        f"End to end: {count(len(result.ids), 'token')} in {timing.generate_s:.1f} s on "
        f"{result.device}, {rate(timing.tokens_per_s)} tokens/s."
    )
    link, times = _end_to_end(result)
    model = ""
    if times is not None:
        title = link.title()
        where = f"With {title} the" if title else "The"
        model = (
            f"{where} device's layers take {seconds(times.total_s)} a token by the time model, "
            f"end to end; {times.bound} binds."
        )
    alone = (
        f"RUN alone: {timing.run_cycles:,} cycles, {seconds(timing.run_s)} at "
        f"{timing.clock_hz / 1e6:g} MHz, {timing.mac_per_cycle_run:.1f} of "
        f"{timing.mac_per_cycle_peak} MAC/cycle"
    )
    width = columns(sys.stderr)
    return [
        *(fill(line, width) for line in (total, model) if line),
        *("", *table(heads, rows, sys.stderr)),
        fill(alone, width),
        *_routine_lines(result),
    ]
