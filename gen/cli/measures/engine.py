"""`tritloom measure engine`: size and speed of a dot engine."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from tritloom.boards.families.family import family_names
from tritloom.gen.cli.options import Help, add_command, existing_folder, path, whole
from tritloom.gen.cli.text import print_json, progress_line
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.files import write_whole
from tritloom.rtl.spec.scale_facts import DEFAULT_KIND, KINDS

if TYPE_CHECKING:
    from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["add"]

HELP = Help(
    summary="measure the size and the speed of a dot engine",
    text="""\
Measures a dot engine. The whole core is synthesised, placed and routed in a fixed harness, which is
not counted. Then a layer runs on the simulated core, cycle by cycle, and each result is compared
with the golden model.

Where no geometry is given, it is the best that is known for the family. --engine auto measures what
`tritloom auto` would choose for the layer, or for the layers of --mix, with the whole part for the
core. Nothing is measured twice.

There is no open router for xc7: its clocks, and what follows from them, are null.
docs/reference/engines.md explains each figure.
""",
    examples="""
  tritloom measure engine --family ecp5 --engine table
  tritloom measure engine --family ecp5 --engine table --lanes 40 --rows 2
  tritloom measure engine --family ecp5 --engine table --mix bitnet-2b-4t --json
  tritloom measure engine --family xc7 --engine select --output select.json
  tritloom measure engine --family ecp5 --engine auto --in-features 2560
""",
    prints="""
The resources, the clock of each placement, the cycles of the layer and the rates.

--json prints the object that --output writes and docs/reference/engines.md explains.
""",
)
GEOMETRY = ("encoding", "alphabet", "lanes", "rows", "tokens", "fill", "act_bits")
"""Keys of the configuration that options set."""


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "engine", HELP, _engine, extra="measure")
    parser.add_argument("--family", choices=family_names(), required=True, help="of FPGAs")
    parser.add_argument("--engine", metavar="NAME", required=True, help="select, table, … or auto")
    parser.add_argument("--part", metavar="NAME", help="a part of the family (its first)")
    parser.add_argument("--encoding", metavar="NAME", help="encoding of the weights")
    parser.add_argument("--alphabet", metavar="NAME", help="ternary or binary (ternary)")
    for name, what in (
        ("lanes", "inputs a cycle"),
        ("rows", "outputs a cycle"),
        ("tokens", "tokens computed together (1)"),
        ("fill", "activations that the engine is filled with a cycle"),
        ("act-bits", "bits of an activation (8)"),
        ("in-features", "inputs of the layer (6912; 2560 on ice40)"),
        ("out-features", "outputs of the layer (4096; 640 on ice40)"),
    ):
        parser.add_argument(f"--{name}", metavar="N", type=whole(1), help=what)
    parser.add_argument(
        *("--seeds",), metavar="N", type=whole(1), default=3, help="placements, from seed 1 on (3)"
    )
    parser.add_argument(
        *("--scale",),
        metavar="INPUTS",
        type=whole(1),
        help="with units that scale the sums of groups of at most so many inputs (none)",
    )
    parser.add_argument(
        *("--scale-kind",), choices=tuple(KINDS), help=f"of these units ({DEFAULT_KIND})"
    )
    parser.add_argument("--mix", choices=("bitnet-2b-4t",), help="run a model's layers as well")
    parser.add_argument("--output", metavar="FILE", type=path, help="write the JSON object there")


def _engine(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.engine import engine_config, measure_engine

    if options.scale_kind is not None and options.scale is None:
        raise InputError("--scale-kind needs --scale, the inputs of a group")
    if options.engine == "auto":
        config = _auto_config(options)
    else:
        config = engine_config(
            options.family,
            options.engine,
            options.in_features,
            options.out_features,
            scale=options.scale,
            scale_kind=options.scale_kind,
            **{name: getattr(options, name) for name in GEOMETRY},
        )
    if options.output is not None:
        existing_folder(options.output, "--output")
    result = measure_engine(
        options.family,
        config,
        part=options.part,
        seeds=options.seeds,
        mix=options.mix,
        progress=progress_line,
    )
    if options.output is not None:
        write_whole(options.output, json.dumps(result, indent=2) + "\n")
    if options.json:
        print_json(result)
    else:
        from tritloom.gen.measure.report import summary

        print(summary(result))
    return 0


def _auto_config(options: argparse.Namespace) -> "AcceleratorConfig":
    """What `tritloom auto` chooses for the layer, or the mix, that is to be measured."""
    from tritloom.boards.families.family import load_family
    from tritloom.gen.plan.auto import choose
    from tritloom.gen.workloads import Layer, model_layers

    for name in ("encoding", "lanes", "rows", "fill"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name} is what --engine auto chooses; leave it out")
    if options.scale is not None:
        raise InputError("--scale does not go with --engine auto; name the engine")
    features = options.in_features, options.out_features
    if options.mix is not None:
        if features != (None, None):
            raise InputError("--mix names the layers of --engine auto; leave the features out")
        layers = model_layers(options.mix)
    else:
        default = load_family(options.family).measure.features
        layers = [Layer("the layer", features[0] or default[0], features[1] or default[1])]
    plan = choose(
        options.family,
        layers,
        part=options.part,
        tokens=options.tokens or 1,
        act_bits=options.act_bits or 8,
        alphabet=options.alphabet or "ternary",
        core_only=True,
    )
    best = plan.best
    progress_line(
        f"auto: {best.config.engine} {best.config.encoding} {best.config.lanes} × "
        f"{best.config.rows}, {best.utilization:.1%} of the peak"
    )
    return plan.config
