"""`tritloom pack`: a layer's weights as the memory of a device holds them."""

import argparse
from dataclasses import asdict
from typing import Any

from tritloom.gen.cli.options import Help, add_command, add_preset, config_of, path, whole
from tritloom.gen.cli.text import print_json

__all__ = ["add"]

HELP = Help(
    summary="write a layer's weights as a device holds them, for a driver in C",
    text="""\
Writes the weights of one layer into a folder: NAME.bin (the image, as the payloads of WRITE hold
it), NAME.h (its shape, size and CRC-32 as C macros) and NAME.json (the same). The layer is one of
an .npz archive, of a GGUF file or of a model's folder. Our own driver needs none of this; it packs
by itself.
""",
    examples="""
  tritloom pack models/tinylm --layer model.layers.0.mlp.up_proj \\
      --board ulx3s-85f --name up_proj -o build
  tritloom pack weights.npz --config mine.json -o build

An archive holds NAME.trits (int8, -1 to 1) and NAME.scale (float32) for each layer.
docs/reference/core.md explains how to drive a core; examples/c/matmul.c does it.
""",
    prints="""
The size and the name of each file.

--json prints an object: files (name and size in bytes) and what NAME.json holds.
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "pack", HELP, _pack, extra="gen")
    parser.add_argument(
        "source", metavar="SOURCE", type=path, help="an .npz, a .gguf or a model's folder"
    )
    parser.add_argument("--layer", metavar="LAYER", help="its name; needed if there are several")
    parser.add_argument(
        *("--i2s-order",),
        metavar="ORDER",
        help="of a GGUF file with I2_S tensors, who wrote it: x86, arm or x86-rows",
    )
    parser.add_argument(
        *("--group",),
        metavar="INPUTS",
        type=whole(1),
        default=0,
        help="inputs that have a sum of their own, such as 64 (the whole row)",
    )
    device = parser.add_mutually_exclusive_group(required=True)
    device.add_argument("--board", metavar="NAME", help="a board that `tritloom boards` lists")
    device.add_argument("--config", metavar="FILE", type=path, help="a configuration in JSON")
    add_preset(parser)
    parser.add_argument(
        *("-o", "--output"), metavar="DIR", type=path, required=True, help="folder to write to"
    )
    parser.add_argument(
        *("--name",),
        metavar="NAME",
        default="layer",
        help="name of the files and the C macros (layer)",
    )


def _pack(options: argparse.Namespace) -> int:
    from tritloom.gen.emit.pack import pack, read_layer

    config = config_of(options)
    layer = read_layer(options.source, options.layer, options.i2s_order)
    facts, files = pack(config, layer.trits, options.output, options.name, options.group)
    if options.json:
        sizes = {file.name: file.stat().st_size for file in files}
        print_json({"files": sizes} | asdict(facts))
    else:
        for file in files:
            print(f"{file.stat().st_size:>10,} bytes  {file}")
    return 0
