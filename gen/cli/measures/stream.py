"""`tritloom measure stream`: how well a device keeps its bottleneck busy, token after token."""

import argparse
import json
import re
import shlex
from typing import Any

from tritloom.boards.families.family import family_names
from tritloom.gen.cli.options import Help, add_command, existing_folder, path, whole
from tritloom.gen.cli.text import pairs, print_json, progress_line
from tritloom.gen.plan.regions import EQUAL, SPREAD
from tritloom.rtl.spec.errors import InputError, ToolError
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

With a memory outside the chip, such as axi or sdram, the weights are the bottleneck, and the
command measures how well they stream: each shape is computed for one token, all RUNs queued one
behind the other. Give --shape several times, or --layer for a whole block of a known model. The
geometry is then 40 lanes, and as many rows as the memory's width has 64 bits, for every shape; with
a narrower memory 5 lanes and 8 rows; with --engine table one row, and as many lanes as fill the
width. The model of the chip takes --latency
(cycles from an address to its first beat), --stalls (it pauses at random) and --dram (banks, rows
and refresh, shared by all --ports). --offsets says where each port's region begins: spread over the
banks, equal (all ports need the same bank), or KiB behind multiples of 64 KiB, such as 0,16,32,48.
An SDRAM may have a clock of its own, --memory-clock-hz; width_bits are then those of a cycle of the
accelerator.
""",
    examples="""
  tritloom measure stream --shape 1024x256
  tritloom measure stream --shape 2560x2560 --lanes 55 --rows 4 --json
  tritloom measure stream --shape 256x512 --engine table --tokens 16
  tritloom measure stream --memory axi --width 128 --latency 60 \\
      --shape 2560x2560
  tritloom measure stream --memory axi --width 512 --shape 640x2560 \\
      --shape 640x2560
  tritloom measure stream --memory sdram --layer bitnet-2b-4t
  tritloom measure stream --memory axi --width 128 --ports 4 --dram \\
      --offsets spread --clock-hz 250000000 --shape 2560x2560
""",
    prints="""
The cycles, the share, and what the engine and each direction of the link need alone. A result that
differs from the golden model is an error.

--json prints an object, which --output also writes: cycles, run_cycles, bytes_in, bytes_out,
busy_share_of_bottleneck (max(run_cycles, bytes_in / W, bytes_out / W) / cycles, where W is the
bytes that the link moves in a cycle), bottleneck, exact, out_features, in_features, tokens,
mac_per_cycle (end to end), mac_per_cycle_peak, config, command.

With a memory outside the chip the object has: cycles, from the cycle after the check of the first
RUN's packet to the last result; cycles_formula, or null if the memory may stall; weight_bits, of
the weights without padding; utilization, these / (cycles × width_bits); bits_per_weight, as stored;
exact; width_bits; runs, the same of each RUN, counted from its own check or from the end of the RUN
before it; mac_per_cycle, mac_per_cycle_peak, model (its options), config, command.
""",
)
BLOCK_RAM = "bram"
STALLS = 0.25
"""Probability with which the model of a memory's chip pauses in a cycle, with --stalls."""
OUTSIDE = ("width", "ports", "part", "latency", "offsets", "clock_hz", "memory_clock_hz")
"""Options of a memory outside the chip."""
GEOMETRY = ("encoding", "lanes", "rows", "fill")
"""Keys of the configuration that options set."""


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "stream", HELP, _stream, extra="sim")
    shapes = parser.add_mutually_exclusive_group(required=True)
    shapes.add_argument(
        *("--shape",), metavar="OUTxIN", type=_shape, action="append", help="outputs × inputs"
    )
    shapes.add_argument(
        *("--layer",), metavar="MODEL", help="all layers of a block of a model of `tritloom plan`"
    )
    parser.add_argument("--tokens", metavar="N", type=whole(1), default=64, help="RUNs (64)")
    parser.add_argument("--memory", metavar="NAME", default="bram", help="weight memory (bram)")
    for name, type_, value, text in (
        ("width", whole(1), "BITS", "bits a cycle of each port of the memory"),
        ("ports", whole(1), "N", "ports of the memory"),
        ("part", str, "NAME", "the memory's chip"),
        ("latency", whole(1), "CYCLES", "of the model of the memory's chip"),
        ("memory-clock-hz", whole(1), "HZ", "the memory's clock, if it has one of its own"),
    ):
        parser.add_argument(f"--{name}", metavar=value, type=type_, help=text)
    parser.add_argument(
        *("--offsets",), metavar="KIB", type=_offsets, help="of the ports: spread, equal, or KiB"
    )
    parser.add_argument(
        *("--clock-hz",), metavar="HZ", type=whole(1), help="of the accelerator (100 MHz)"
    )
    parser.add_argument("--stalls", action="store_true", help="the model pauses at random")
    parser.add_argument(
        *("--dram",), action="store_true", help="the model is a DRAM that all ports share"
    )
    parser.add_argument(
        *("--link-bytes",), metavar="W", type=whole(1), help="bytes a cycle (1; outside memories 8)"
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


def _offsets(text: str) -> str | tuple[int, ...]:
    """The type of `--offsets`: a word, or a number for each port."""
    if text in (EQUAL, SPREAD):
        return text
    if re.fullmatch(r"[0-9]{1,6}(,[0-9]{1,6})*", text) is None:
        raise argparse.ArgumentTypeError(
            f"must be {SPREAD}, {EQUAL} or KiB such as 0,16,32,48, not {text!r}"
        )
    return tuple(map(int, text.split(",")))


def _stream(options: argparse.Namespace) -> int:
    if options.output is not None:
        existing_folder(options.output, "--output")
    outside = options.memory != BLOCK_RAM
    result = _measure_outside(options) if outside else _measure(options)
    if options.output is not None:
        write_whole(options.output, json.dumps(result, indent=2) + "\n")
    if options.json:
        print_json(result)
    else:
        print("\n".join(_outside_lines(result) if outside else _lines(result)))
    if not result["exact"]:
        raise ToolError("a result differs from the golden model; run tritloom verify")
    return 0


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    """A stream of tokens with the weights in block RAM."""
    from tritloom.gen.measure.stream import measure_stream, stream_config

    if options.shape is None or len(options.shape) > 1:
        raise InputError("bram takes one --shape; several, and --layer, go with a memory outside")
    for name in (*OUTSIDE, "stalls", "dram"):
        if getattr(options, name):
            name = name.replace("_", "-")
            raise InputError(f"--{name} goes with a memory outside the chip, not with bram")
    (shape,) = options.shape
    config = stream_config(
        options.family,
        options.engine,
        *shape,
        memory=options.memory,
        link_bytes=options.link_bytes or 1,
        banks=options.banks,
        packet_bytes=options.packet_bytes,
        slots=options.slots,
        **{name: getattr(options, name) for name in GEOMETRY},
    )
    return measure_stream(config, shape[0], shape[1], options.tokens, progress=progress_line)


def _measure_outside(options: argparse.Namespace) -> dict[str, Any]:
    """RUNs whose weights come from outside the chip."""
    from tritloom.gen.measure import outside

    products = (
        outside.products_of_layer(options.layer)
        if options.layer
        else [outside.Product(*shape) for shape in options.shape]
    )
    record = outside.record_options(
        options.memory,
        width=options.width,
        ports=options.ports,
        part=options.part,
        latency=options.latency,
        clock_hz=options.memory_clock_hz,
    )
    config = outside.outside_config(
        options.memory,
        record,
        products,
        engine=options.engine,
        link_bytes=options.link_bytes,
        banks=options.banks,
        packet_bytes=options.packet_bytes,
        slots=options.slots,
        clock_hz=options.clock_hz,
        offsets=options.offsets,
        **{name: getattr(options, name) for name in GEOMETRY},
    )
    model: dict[str, Any] = {}
    if options.latency is not None:
        model["latency"] = options.latency
    if options.stalls:
        model["stalls"] = STALLS
    if options.dram:
        model["dram"] = True
    result = outside.measure_outside(config, products, model=model, progress=progress_line)
    return result | {"command": _outside_command(options)}


def _outside_command(options: argparse.Namespace) -> str:
    """The command that gives the same figures."""
    words = ["tritloom", "measure", "stream"]
    names = ("memory", "width", "ports", "part", "latency", "memory_clock_hz", "layer", "engine")
    for name in (*names, *GEOMETRY, "link_bytes", "banks", "packet_bytes", "slots", "clock_hz"):
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    if options.offsets is not None:
        chosen = options.offsets
        words += ["--offsets", chosen if isinstance(chosen, str) else ",".join(map(str, chosen))]
    for shape in options.shape or ():
        words += ["--shape", f"{shape[0]}x{shape[1]}"]
    flags = [f"--{name}" for name in ("stalls", "dram") if getattr(options, name)]
    return shlex.join([*words, *flags, "--json"])


def _outside_lines(result: dict[str, Any]) -> list[str]:
    """The figures of a memory outside the chip for a person."""
    formula = result["cycles_formula"]
    facts = [
        (
            "memory busy with weights",
            f"{result['utilization']:.2%} of {result['width_bits']:g} bits",
        ),
        ("cycles", f"{result['cycles']:,}" + (f", formula {formula:,}" if formula else "")),
        ("bits a weight", f"{result['bits_per_weight']:.4f}, as stored"),
    ]
    for run in result["runs"] if len(result["runs"]) > 1 else ():
        shape = f"{run['out_features']} × {run['in_features']}"
        facts.append((shape, f"{run['utilization']:.2%}, {run['cycles']:,} cycles"))
    return pairs(facts)


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
