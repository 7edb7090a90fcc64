"""`tritloom measure link`: how much a link carries, and its size and clock."""

import argparse
import json
import re
import shlex
from typing import TYPE_CHECKING, Any

from tritloom.gen.cli.options import (
    Help,
    add_command,
    board_of,
    existing_folder,
    path,
    read_config,
    whole,
)
from tritloom.gen.cli.text import pairs, print_json, progress_line
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.files import write_whole

if TYPE_CHECKING:
    from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["add"]

HELP = Help(
    summary="measure how much a link carries, and its size and clock",
    text="""\
Sends packets through a link, in both directions at once, on the simulated FPGA, and counts the time
of its clocks. The host takes no time. Wall time is nowhere in these figures.

Alone, the link sends every packet back: 1,024 bytes each, at 80 MHz. It is also placed and routed,
in the harness of the engines, for an LFE5U-25F of the slowest grade; with --seeds 0 it is not.

With --config or --board the device is behind its link, at its clock: LOADs go in and RESULTS come
out at once, each as long as a packet may be. With --shape a layer is computed for some tokens, in a
RUN each, and every result is compared with the golden model.
""",
    examples="""
  tritloom measure link --kind udp
  tritloom measure link --kind udp --board colorlight-5a75b-v7 --json
  tritloom measure link --kind uart --board ulx3s-25f --seeds 0
  tritloom measure link --kind udp --config mine.json --shape 2560x2560
""",
    prints="""
What the link carries and what its wire would, the busiest part, and the size of the link.

--json prints an object: payload_bytes_per_second_in and payload_bytes_per_second_out (alone, of
whole packets; with a device, of the payloads of LOADs and RESULTS), bound_bytes_per_second (of the
wire, with packets of that length), luts, ffs, block_rams, fmax_mhz and fmax_mhz_median (of the
clock at the link's pads, or else of the device's), device_fmax_mhz; with a device
busy_share_of_bottleneck and bottleneck; for a network host_cpu_us_per_packet and crc32_us_per_kb,
of this computer.
""",
)
KINDS = ("udp", "uart", "stream")


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "link", HELP, _link, extra="measure")
    parser.add_argument("--kind", choices=KINDS, required=True, help="of the link")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--config", metavar="FILE", type=path, help="a device behind the link")
    source.add_argument("--board", metavar="NAME", help="a board's device behind the link")
    parser.add_argument("--preset", metavar="NAME", help="another accelerator of the board")
    parser.add_argument("--shape", metavar="OUTxIN", type=_shape, help="a layer to compute")
    parser.add_argument("--tokens", metavar="N", type=whole(1), default=64, help="RUNs (64)")
    parser.add_argument(
        *("--seeds",), metavar="N", type=whole(0), default=3, help="placements of the link (3)"
    )
    parser.add_argument("--output", metavar="FILE", type=path, help="write the JSON object there")


def _shape(text: str) -> tuple[int, int]:
    """The type of `--shape`: out_features and in_features."""
    parts = re.fullmatch(r"([1-9][0-9]{0,5})[x×]([1-9][0-9]{0,5})", text)
    if parts is None:
        raise argparse.ArgumentTypeError(f"must be OUTxIN, such as 1024x256, not {text!r}")
    return int(parts[1]), int(parts[2])


def _link(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.link import link_config, measure_alone, measure_with_device
    from tritloom.gen.measure.link_size import measure_size

    if options.output is not None:
        existing_folder(options.output, "--output")
    config = _config(options)
    if config is None:
        if options.shape is not None:
            raise InputError("--shape goes with --config or --board")
        result = measure_alone(link_config(options.kind))
    else:
        tokens = options.tokens if options.shape is not None else 0
        result = measure_with_device(config, options.shape, tokens, progress_line)
    link = config or link_config(options.kind)
    result |= {"kind": options.kind, "clock_hz": link.clock_hz, "command": _command(options)}
    if options.seeds:
        result |= measure_size(link_config(options.kind), options.seeds, progress_line)
    if link.link.peer_bits(link):
        from tritloom.gen.measure.host_link import measure_host_link

        result |= measure_host_link()
    if options.output is not None:
        write_whole(options.output, json.dumps(result, indent=2) + "\n")
    if options.json:
        print_json(result)
    else:
        print("\n".join(_lines(result)))
    return 0


def _config(options: argparse.Namespace) -> "AcceleratorConfig | None":
    """The device behind the link; None for the link alone."""
    if options.config is not None:
        config = read_config(options.config)
    elif options.board is not None:
        config = board_of(options).build_config
    else:
        if options.preset is not None:
            raise InputError("--preset goes with --board; name the board")
        return None
    if config.link.name != options.kind:
        raise InputError(f"the configuration has the link {config.link.name}, not {options.kind}")
    return config


def _command(options: argparse.Namespace) -> str:
    """The command that gives these figures."""
    words = ["tritloom", "measure", "link", "--kind", options.kind]
    for name in ("config", "board", "preset"):
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name}", str(value)]
    if options.shape is not None:
        out_features, in_features = options.shape
        words += ["--shape", f"{out_features}x{in_features}", "--tokens", str(options.tokens)]
    return shlex.join([*words, "--seeds", str(options.seeds), "--json"])


def _lines(result: dict[str, Any]) -> list[str]:
    """The figures for a person."""
    rates = [result[f"payload_bytes_per_second_{way}"] / 1e6 for way in ("in", "out")]
    facts = [
        ("payload in, out", f"{rates[0]:.2f}, {rates[1]:.2f} MB/s"),
        ("the wire carries", f"{result['bound_bytes_per_second'] / 1e6:.2f} MB/s"),
    ]
    if "bottleneck" in result:
        share = result["busy_share_of_bottleneck"]
        facts.append(("bottleneck", f"{result['bottleneck']}, busy {share:.1%}"))
    if "luts" in result:
        clocks = ", ".join(f"{clock:.1f}" for clock in result["fmax_mhz"])
        facts += [
            ("LUTs", f"{result['luts']:,}"),
            ("flip-flops, block RAMs", f"{result['ffs']:,}, {result['block_rams']}"),
            ("clock", f"{clocks} MHz on an {result['part']}"),
        ]
    return pairs(facts)
