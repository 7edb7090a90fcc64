"""`tritloom measure stream`: how well a device keeps its bottleneck busy, token after token."""

import argparse
import json
import re
from typing import Any

from tritloom.boards.families.family import family_names
from tritloom.gen.cli.options import Help, add_command, existing_folder, path, whole
from tritloom.gen.cli.text import pairs, print_json, progress_line
from tritloom.rtl.spec.errors import ToolError
from tritloom.rtl.spec.files import write_whole

__all__ = ["add"]

HELP = Help(
    summary="measure how busy a stream of tokens keeps the device",
    text="""\
Computes one layer for many tokens, each in a RUN of its own, on the simulated FPGA, and counts the
clock cycles. The link is always ready: it offers a byte whenever the device takes one, and takes
one whenever the device offers it.

Engine, bytes in and bytes out each need their time. Whichever needs most is the bottleneck. The
share says how much of all cycles it was busy; what is missing to 1 is time in which it waited for
something else. The overhead of packets counts as bytes.

Where no geometry is given, it is the best known one of the engine on the family. With --lanes, the
encoding is base3x5 and the fill at most 5, as on the boards, if nothing else is given. Banks and
clock are those of the ULX3S 25F, and its packet buffers are divided into 16 packets of 512 bytes.
The accelerator takes layers of up to 2560 × 2560, or the layer if that is larger. The simulated
FPGA is built once for each geometry and width, in about a minute.
Every result is compared with the golden model.
""",
    examples="""
  tritloom measure stream --shape 1024x256
  tritloom measure stream --shape 2560x2560 --lanes 55 --rows 4 --json
  tritloom measure stream --shape 256x512 --engine table --tokens 16
""",
    prints="""
The cycles, the share, and what the engine and each direction of the link need alone. A result that
differs from the golden model is an error.

--json prints an object, which --output also writes: cycles, run_cycles, bytes_in, bytes_out,
busy_share_of_bottleneck (max(run_cycles, bytes_in / W, bytes_out / W) / cycles, where W is the
bytes that the link moves in a cycle), bottleneck, exact, out_features, in_features, tokens,
mac_per_cycle (end to end), mac_per_cycle_peak, config, command.
""",
)
GEOMETRY = ("encoding", "lanes", "rows", "fill")
"""Keys of the configuration that options set."""


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "stream", HELP, _stream, extra="sim")
    parser.add_argument(
        *("--shape",), metavar="OUTxIN", type=_shape, required=True, help="outputs × inputs"
    )
    parser.add_argument("--tokens", metavar="N", type=whole(1), default=64, help="RUNs (64)")
    parser.add_argument("--memory", metavar="NAME", default="bram", help="weight memory (bram)")
    parser.add_argument(
        *("--link-bytes",), metavar="W", type=whole(1), default=1, help="bytes a cycle (1)"
    )
    parser.add_argument(
        *("--family",), choices=family_names(), default="ecp5", help="of the geometry (ecp5)"
    )
    parser.add_argument("--engine", metavar="NAME", default="select", help="dot engine (select)")
    parser.add_argument("--encoding", metavar="NAME", help="encoding of the weights")
    for name, what in (
        ("lanes", "inputs a cycle"),
        ("rows", "outputs a cycle"),
        ("fill", "activations that the engine is filled with a cycle"),
        ("banks", "banks of activations and of results, 1 or 2 (2)"),
        ("packet-bytes", "bytes of the longest packet (512)"),
        ("slots", "packets that are buffered in each direction (16)"),
    ):
        parser.add_argument(f"--{name}", metavar="N", type=whole(1), help=what)
    parser.add_argument("--output", metavar="FILE", type=path, help="write the JSON object there")


def _shape(text: str) -> tuple[int, int]:
    """The type of `--shape`: out_features and in_features."""
    parts = re.fullmatch(r"([1-9][0-9]{0,5})[x×]([1-9][0-9]{0,5})", text)
    if parts is None:
        raise argparse.ArgumentTypeError(f"must be OUTxIN, such as 1024x256, not {text!r}")
    return int(parts[1]), int(parts[2])


def _stream(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.stream import measure_stream, stream_config

    config = stream_config(
        options.family,
        options.engine,
        *options.shape,
        memory=options.memory,
        link_bytes=options.link_bytes,
        banks=options.banks,
        packet_bytes=options.packet_bytes,
        slots=options.slots,
        **{name: getattr(options, name) for name in GEOMETRY},
    )
    if options.output is not None:
        existing_folder(options.output, "--output")
    shape = options.shape
    result = measure_stream(config, shape[0], shape[1], options.tokens, progress=progress_line)
    if options.output is not None:
        write_whole(options.output, json.dumps(result, indent=2) + "\n")
    if options.json:
        print_json(result)
    else:
        print("\n".join(_lines(result)))
    if not result["exact"]:
        raise ToolError("a result differs from the golden model; run tritloom verify")
    return 0


def _lines(result: dict[str, Any]) -> list[str]:
    """The figures for a person."""
    facts = [
        ("end to end", f"{result['mac_per_cycle']:g} of {result['mac_per_cycle_peak']} MAC/cycle"),
        ("cycles", f"{result['cycles']:,} for {result['tokens']} tokens"),
        ("of these in RUN", f"{result['run_cycles']:,}"),
        ("bytes in, out", f"{result['bytes_in']:,}, {result['bytes_out']:,}"),
        ("bottleneck", f"{result['bottleneck']}, busy {result['busy_share_of_bottleneck']:.1%}"),
    ]
    return pairs(facts)
