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

With --udp it measures packets over UDP instead, from the session down to the system's calls and
back. The peer is another process of this computer; only the driver's process counts.

With --load it measures how fast a layer of 2560 × 2560 is packed and loaded, in packets of 1 kB.

With --serve it measures products through `tritloom serve` with a golden device, whose time counts
too: the CPU time of the server, that of the client in Python, and the time from a call to its
result. Each product has one token; products of the same inputs also share a message, as those of
llama.cpp do. This needs Linux.

The least of many rounds counts, because other work on the computer only adds. The time of a CRC-32
of 1024 bytes tells how fast the computer is. It takes about five seconds.
""",
    examples="""
  tritloom measure host
  tritloom measure host --json
  tritloom measure host --udp
  tritloom measure host --load
  tritloom measure host --serve
""",
    prints="""
The microseconds of a call, of a command by slots, and of the checksum. With --udp, those of a
packet and its response by slots and by the bytes of both. With --load, megabytes of packed weights
a second. With --serve, microseconds of a product by the outputs and inputs of a message's layers.

--json prints an object, which --output also writes: cpu_us_per_call, cpu_us_per_command (by slots:
8, 16, 32, 64; the window is one less), crc32_us_per_kb, transport_us_per_call and
transport_us_per_command (what was taken off), python, command. With --udp: host_cpu_us_per_packet
(by slots, then by bytes), crc32_us_per_kb, python, command. With --load: packed_mb_per_second
(packing; packets: of a packed layer, checksums included; before_link: both; driver: all of a load
but the transport), packet_bytes, packets, packed_bytes, transport_us_per_packet, crc32_us_per_kb,
python, command. With --serve: serve_us_per_product (by layers, then server_cpu, client_cpu and
whole), crc32_us_per_kb, python, command.
""",
)

LOAD_NAMES = {
    "packing": "packing",
    "packets": "packets and checksums",
    "before_link": "both",
    "driver": "the driver as a whole",
}


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "host", HELP, _host)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--udp", action="store_true", help="measure packets over UDP instead")
    instead.add_argument("--load", action="store_true", help="measure loading a layer instead")
    instead.add_argument(
        "--serve", action="store_true", help="measure products through tritloom serve instead"
    )
    parser.add_argument("--output", metavar="FILE", type=path, help="write the JSON object there")


def _host(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.host import measure_host
    from tritloom.gen.measure.host_link import measure_host_link
    from tritloom.gen.measure.host_load import measure_host_load
    from tritloom.gen.measure.host_serve import measure_host_serve

    if options.output is not None:
        existing_folder(options.output, "--output")
    if options.udp:
        result = measure_host_link()
    elif options.load:
        result = measure_host_load()
    elif options.serve:
        result = measure_host_serve()
    else:
        result = measure_host()
    if options.output is not None:
        write_whole(options.output, json.dumps(result, indent=2) + "\n")
    if options.json:
        print_json(result)
        return 0
    if options.udp:
        packets = [
            (f"{slots} slots, {case}", value)
            for slots, cases in result["host_cpu_us_per_packet"].items()
            for case, value in cases.items()
        ]
        print("CPU time of a packet over UDP and its response:")
        packets.append(("CRC-32 of 1024 bytes", result["crc32_us_per_kb"]))
        print("\n".join(pairs((name, f"{value:.2f} µs") for name, value in packets)))
        return 0
    if options.serve:
        print("A product through tritloom serve, with a golden device:")
        lines = [
            (shape, ", ".join(f"{name} {value:.1f} µs" for name, value in each.items()))
            for shape, each in result["serve_us_per_product"].items()
        ]
        lines.append(("CRC-32 of 1024 bytes", f"{result['crc32_us_per_kb']:.2f} µs"))
        print("\n".join(pairs(lines)))
        return 0
    if options.load:
        speeds = result["packed_mb_per_second"]
        print("Packed weights, in CPU time of one core:")
        print("\n".join(pairs((LOAD_NAMES[name], f"{speeds[name]} MB/s") for name in LOAD_NAMES)))
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
