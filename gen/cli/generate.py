"""`tritloom generate`: an accelerator as Verilog."""

import argparse
import sys
from typing import Any

from tritloom.gen.cli.options import Help, add_command, add_preset, config_of, path
from tritloom.gen.cli.text import is_terminal, print_json, progress_line
from tritloom.rtl.links.port_names import AXI, DEFAULT_TOP, PLAIN

__all__ = ["add"]

HELP = Help(
    summary="write an accelerator as Verilog, with its manifest and C header",
    text="""\
Writes an accelerator into a folder: NAME.v (Verilog for the tools of any vendor), manifest.json
(configuration, ports, commands, weight layout), NAME.h (the same for C) and NAME.svg (a diagram).
The same configuration and tools give the same bytes.
""",
    examples="""
  tritloom generate --board icebreaker -o build/ice
  echo '{"lanes": 20, "rows": 2, "memory": {"kind": "bram", "words": 1024},
         "max_in_features": 256, "max_out_features": 256}' > mine.json
  tritloom generate --config mine.json -o build/mine
  tritloom generate --config mine.json -o build/a --name core_a --axi

The keys of mine.json above are needed; the others, and what all of them mean, are in each
manifest.json. `tritloom auto` writes a configuration that suits a model. Designs with a --name of
their own can share a project.
""",
    prints="""
The size and the name of each file.

--json prints an object: directory, files (name and size in bytes), layout_digest, build_digest.
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "generate", HELP, _generate, extra="gen")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--board", metavar="NAME", help="a board that `tritloom boards` lists")
    source.add_argument("--config", metavar="FILE", type=path, help="a configuration in JSON")
    add_preset(parser)
    parser.add_argument(
        *("-o", "--output"), metavar="DIR", type=path, required=True, help="folder to write to"
    )
    parser.add_argument(
        *("--name",),
        metavar="NAME",
        default=DEFAULT_TOP,
        help="name of the top module, the files and the C macros (tritloom)",
    )
    parser.add_argument(
        *("--axi",),
        action="store_true",
        help="AXI4-Stream names: aclk, aresetn (low), s_axis_*, m_axis_*",
    )


def _generate(options: argparse.Namespace) -> int:
    config = config_of(options)
    from tritloom.gen.emit.generate import generate

    if is_terminal(sys.stderr):
        progress_line(f"generating {config.macs_per_cycle} MAC/cycle …")
    names = AXI if options.axi else PLAIN
    files = generate(config, options.output, options.name, port_names=names)
    if options.json:
        print_json(
            {
                "directory": str(options.output),
                "files": {file.name: file.stat().st_size for file in files},
                "layout_digest": config.layout_digest.hex(),
                "build_digest": config.build_digest.hex(),
            }
        )
    else:
        for file in files:
            print(f"{file.stat().st_size:>10,} bytes  {file}")
    return 0
