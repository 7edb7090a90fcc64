"""`tritloom run`: a language model whose ternary layers run on a device."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from tritloom.gen.cli.options import Help, add_command, whole
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

if TYPE_CHECKING:
    from tritloom.host.models.result import RunResult
    from tritloom.host.placement import Placement

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
of it fits the device, and in the end a table of what each layer took.

--json prints an object: model, device, prompt, prompt_ids, ids, text, placement (what runs where),
layers (name, shape, where, device_weights, tokens, runs, cycles, bytes, mac_per_cycle) and timing.
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

        result = run_offloaded(*arguments, **settings)
    else:
        result = run_model(*arguments, **settings, loading=loading_bar("loading layer"))
    write("\n")
    if options.json:
        print_json(result.to_dict())
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


def _lines(result: "RunResult") -> list[str]:
    """What each layer took, and all of them."""
    heads = [
        Column("layer", wraps=True),
        *(Column("shape", right=True), Column("runs", right=True), Column("cycles", right=True)),
        *(Column("MAC/cycle", right=True), Column("bytes", right=True)),
    ]
    rows = [
        (
            layer.name.removeprefix("model."),
            " × ".join(map(str, layer.shape)),
            f"{layer.runs:,}",
            f"{layer.cycles:,}",
            f"{layer.mac_per_cycle:.1f}",
            f"{layer.bytes:,}",
        )
        for layer in result.layers
        if layer.where != "host"
    ]
    timing = result.timing
    total = (
        f"{count(len(result.ids), 'token')} in {timing.generate_s:.1f} s on "
        f"{result.device}; its {timing.device_cycles:,} cycles are "
        f"{1e3 * timing.device_s:.1f} ms at {timing.clock_hz / 1e6:g} MHz, "
        f"{timing.mac_per_cycle:.1f} of {timing.mac_per_cycle_possible} MAC/cycle"
    )
    return [*table(heads, rows, sys.stderr), fill(total, columns(sys.stderr))]
