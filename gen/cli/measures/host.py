"""`tritloom measure host`: CPU time of the driver on this computer."""

import argparse
import json
from typing import Any

from tritloom.gen.cli.options import Help, add_command, existing_folder, path
from tritloom.gen.cli.text import pairs, print_json
from tritloom.rtl.spec.files import write_whole

__all__ = ["add"]

HELP = Help(
    summary="measure the CPU time that the driver takes on this computer",
    text="""\
Measures what the driver costs this computer, in CPU time, with no device: the link responds at
once, and its own time is taken off. A call is a product with a layer of 64 × 64, one token, three
commands. A command is one of thousands that keep the window full; the wider the window, the more
commands have no response yet.

The least of many rounds counts, because other work on the computer only adds. The time of a CRC-32
of 1024 bytes tells how fast the computer is. It takes about five seconds.
""",
    examples="""
  tritloom measure host
  tritloom measure host --json
""",
    prints="""
The microseconds of a call, of a command by slots, and of the checksum.

--json prints an object, which --output also writes: cpu_us_per_call, cpu_us_per_command (by slots:
8, 16, 32, 64; the window is one less), crc32_us_per_kb, transport_us_per_call and
transport_us_per_command (what was taken off), python, command.
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "host", HELP, _host)
    parser.add_argument("--output", metavar="FILE", type=path, help="write the JSON object there")


def _host(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.host import measure_host

    if options.output is not None:
        existing_folder(options.output, "--output")
    result = measure_host()
    if options.output is not None:
        write_whole(options.output, json.dumps(result, indent=2) + "\n")
    if options.json:
        print_json(result)
        return 0
    facts = [("a call", result["cpu_us_per_call"])]
    facts += [
        (f"a command, {slots} slots", value)
        for slots, value in result["cpu_us_per_command"].items()
    ]
    facts.append(("CRC-32 of 1024 bytes", result["crc32_us_per_kb"]))
    print("CPU time of the driver, without the link:")
    print("\n".join(pairs((name, f"{value:.2f} µs") for name, value in facts)))
    return 0
