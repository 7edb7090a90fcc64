"""`tritloom measure block`: the floats, cycles and bytes of a model's blocks on a vector unit."""

import argparse
import json
from typing import Any

from tritloom.gen.cli.options import Help, add_command, existing_folder, path, whole
from tritloom.gen.cli.text import pairs, print_json, progress_line
from tritloom.rtl.spec.files import write_whole

__all__ = ["add"]

HELP = Help(
    summary="compare a model's blocks on a vector unit with transformers, and count their cycles",
    text="""\
Computes the blocks of a model for random tokens on a device with a vector unit, and compares the
bits of each float that the device gives: query, key and value of each block, the hidden vector
after each block, the final norm where the device computes it, and each feed-forward by itself.
The reference is transformers where it is installed, else the golden model. The layers' scales are
made to divide, as those of transformers' packed layers do.

The simulated FPGA is built once for each configuration, in a few minutes.
""",
    examples="""
  tritloom measure block tinylm
  tritloom measure block models/tinylm --device "serial:///dev/ttyUSB0" --tokens 256 --json
""",
    prints="""
How many floats were compared and how many differ, and the cycles and bytes of a token. If a float
differs the status is 1.

--json prints an object, which --output also writes: float_bits_compared, float_bits_different,
against, cycles_feed_forward, cycles_layer (all that the device computes of one block),
engine_cycles (of these, the layers'), vector_cycles (the unit's own, waits not counted),
link_bytes_per_token (both directions, tokens one by one), final_norm_on_device, model, device,
tokens, config, command.
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "block", HELP, _block, extra="sim")
    parser.add_argument("model", metavar="MODEL", help="a model's folder, or the name of ours")
    parser.add_argument(
        *("--device",),
        metavar="URL",
        default="sim?preset=bitlinear",
        help="the device (sim?preset=bitlinear)",
    )
    parser.add_argument("--tokens", metavar="N", type=whole(1), default=64, help="tokens (64)")
    parser.add_argument("--output", metavar="FILE", type=path, help="write the JSON object there")


def _block(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.block import measure_block
    from tritloom.host.models.run import find_model

    if options.output is not None:
        existing_folder(options.output, "--output")
    result = measure_block(find_model(options.model), options.device, options.tokens, progress_line)
    if options.output is not None:
        write_whole(options.output, json.dumps(result, indent=2) + "\n")
    if options.json:
        print_json(result)
    else:
        different, compared = result["float_bits_different"], result["float_bits_compared"]
        facts = {
            "floats that differ": f"{different:,} of {compared:,} ({result['against']})",
            "cycles of a feed-forward": f"{result['cycles_feed_forward']:,}",
            "cycles of a block": f"{result['cycles_layer']:,}",
            "of these, the layers": f"{result['engine_cycles']:,}",
            "the vector unit's own": f"{result['vector_cycles']:,}",
            "bytes on the link for a token": f"{result['link_bytes_per_token']:,}",
        }
        print("\n".join(pairs(facts.items(), indent="")))
    return 1 if result["float_bits_different"] else 0
