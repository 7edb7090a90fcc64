"""`tritloom measure block`: the floats, cycles and bytes of a model's blocks on a vector unit."""

import argparse
import json
from typing import Any

from tritloom.gen.cli.options import Help, add_command, existing_folder, path, whole
from tritloom.gen.cli.text import pairs, print_json, progress_line
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.files import write_whole

__all__ = ["add"]

HELP = Help(
    summary="compare a model's blocks on a vector unit with transformers, and count their cycles",
    text="""\
Computes the blocks of a model for random tokens on a device with a vector unit, and compares the
bits of each float that the device gives: query, key and value of each block, the hidden vector
after each block, the final norm where the device computes it, and each feed-forward by itself.
Then it computes each norm, BitLinear, activation and residual of the model alone, with the inputs
that it has there, and compares all outputs. The reference is transformers where it is installed,
else the golden model. The layers' scales are made to divide, as those of transformers' packed
layers do.

Of bitnet-2b-4t the shapes are known, not the weights. Random layers and norms of these shapes are
computed alone, with inputs that are hard to compute: ties, zeros, subnormal numbers, the hardest
quotients. A simulated device gets room for them; --rows makes the layers smaller.

--cycles counts the unit's own cycles for one block of known shapes, by the contract of cycles that
simulation confirms on small shapes, beside an engine of --macs products a cycle. Nothing is
simulated.

The simulated FPGA is built once for each configuration, in a few minutes. The reference device
(--device "golden?preset=bitlinear") computes more tokens in the same time.
""",
    examples="""
  tritloom measure block tinylm
  tritloom measure block tinylm --device "golden?preset=bitlinear" --tokens 2048 --bfloat16
  tritloom measure block bitnet-2b-4t --rows 64 --tokens 8
  tritloom measure block bitnet-2b-4t --cycles --lanes 4 --multipliers 2 --macs 198
  tritloom measure block models/tinylm --device "serial:///dev/ttyUSB0" --tokens 256 --json
""",
    prints="""
How many floats were compared and how many differ, and the cycles and bytes of a token. If a float
differs the status is 1.

--json prints an object, which --output also writes: float_bits_compared, float_bits_different,
operations (the same of each operation), bfloat16, against, model, device, tokens, config, command.
Of a model also cycles_feed_forward, cycles_layer (all that the device computes of one block),
engine_cycles (of these, the layers'), vector_cycles (the unit's own, waits not counted),
link_bytes_per_token (both directions, tokens one by one), final_norm_on_device. Of random layers
also layers and norms: their shapes and features.

With --cycles: steps, elements (of all products), vector_cycles, bound_cycles (elements / lanes),
macs_per_cycle, engine_cycles, share_percent and bound_percent (of engine_cycles), model, lanes,
multipliers, bfloat16, command.
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "block", HELP, _block, extra="sim")
    parser.add_argument(
        *("model",), metavar="MODEL", help="a model's folder, the name of ours, or bitnet-2b-4t"
    )
    parser.add_argument(
        *("--device",),
        metavar="URL",
        default="sim?preset=bitlinear",
        help="the device (sim?preset=bitlinear)",
    )
    parser.add_argument("--tokens", metavar="N", type=whole(1), default=64, help="tokens (64)")
    parser.add_argument(
        *("--rows",), metavar="N", type=whole(1), help="most rows of a random layer (all)"
    )
    parser.add_argument("--bfloat16", action="store_true", help="compute in bfloat16")
    parser.add_argument(
        *("--lanes",), metavar="N", type=whole(1), help="of a simulated unit, 1, 2 or 4 (its own)"
    )
    parser.add_argument(
        "--cycles", action="store_true", help="count the cycles of known shapes, compute nothing"
    )
    parser.add_argument(
        *("--multipliers",), metavar="N", type=whole(1), help="with --cycles: 1 or 2 (2)"
    )
    parser.add_argument(
        *("--macs",), metavar="N", type=whole(1), help="with --cycles: products a cycle (198)"
    )
    parser.add_argument("--output", metavar="FILE", type=path, help="write the JSON object there")


def _block(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.block import measure_block
    from tritloom.gen.workloads import MIXES
    from tritloom.host.models.run import find_model

    if options.output is not None:
        existing_folder(options.output, "--output")
    if options.cycles:
        return _cycles(options)
    for name in ("macs", "multipliers"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name} is for --cycles; add --cycles or leave it out")
    known = options.model in MIXES
    if options.rows is not None and not known:
        raise InputError("--rows is for random layers; leave it out")
    if known:
        from tritloom.gen.measure.random_layers import measure_random_layers

        result = measure_random_layers(
            *(options.model, options.device, options.tokens, options.rows, progress_line),
            bfloat16=options.bfloat16,
            lanes=options.lanes,
        )
    else:
        result = measure_block(
            *(find_model(options.model), options.device, options.tokens, progress_line),
            bfloat16=options.bfloat16,
            lanes=options.lanes,
        )
    if options.output is not None:
        write_whole(options.output, json.dumps(result, indent=2) + "\n")
    if options.json:
        print_json(result)
    else:
        print("\n".join(pairs(_facts(result).items(), indent="")))
    return 1 if result["float_bits_different"] else 0


def _cycles(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.unit_cycles import unit_cycles

    if options.rows is not None:
        raise InputError("--rows is for random layers; leave it out")
    result = unit_cycles(
        options.model,
        lanes=1 if options.lanes is None else options.lanes,
        multipliers=2 if options.multipliers is None else options.multipliers,
        bfloat16=options.bfloat16,
        macs_per_cycle=198 if options.macs is None else options.macs,
    )
    if options.output is not None:
        write_whole(options.output, json.dumps(result, indent=2) + "\n")
    if options.json:
        print_json(result)
        return 0
    facts = {
        "the vector unit's cycles": f"{result['vector_cycles']:,} a block and token",
        "its bound": f"{result['bound_cycles']:,}, {result['elements']:,} elements on "
        f"{result['lanes']} lanes",
        "the engine's cycles": f"{result['engine_cycles']:,} at {result['macs_per_cycle']} "
        "products a cycle",
        "share": f"{result['share_percent']} % of the engine's; the bound is "
        f"{result['bound_percent']} %",
    }
    print("\n".join(pairs(facts.items(), indent="")))
    return 0


def _facts(result: dict[str, Any]) -> dict[str, str]:
    """The lines that are printed; a measurement of random layers counts floats only."""
    different, compared = result["float_bits_different"], result["float_bits_compared"]
    facts = {"floats that differ": f"{different:,} of {compared:,} ({result['against']})"}
    for what, each in result["operations"].items():
        facts[f"of these, {what}"] = f"{each['different']:,} of {each['compared']:,}"
    names = {
        "cycles of a feed-forward": "cycles_feed_forward",
        "cycles of a block": "cycles_layer",
        "of these, the layers": "engine_cycles",
        "the vector unit's own": "vector_cycles",
        "bytes on the link for a token": "link_bytes_per_token",
    }
    return facts | {name: f"{result[key]:,}" for name, key in names.items() if key in result}
