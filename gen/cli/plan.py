"""`tritloom plan`: what a board or another platform will do for a model, and the CPU beside it."""

import argparse
from typing import Any

from tritloom.gen.cli.figures import rate, seconds
from tritloom.gen.cli.options import Help, add_command, add_preset, board_of, path, whole
from tritloom.gen.cli.text import Column, columns, fill, pairs, print_json, table
from tritloom.rtl.spec.errors import InputError

__all__ = ["add"]

HELP = Help(
    summary="predict how fast a model runs on a board",
    text="""\
Predicts how many tokens a second a model makes on a board, or on a platform that a short file
describes, what binds it, and how fast this computer's CPU is, measured now. The answer is honest
where the CPU wins, and where the model does not fit: what does not stay in the memory is loaded for
each token.

The ternary layers are computed by the accelerator. Their time follows the cycle formula, the
memory, the link and the driver. Attention and head are computed by the host, which is this computer
unless the platform says otherwise.

--model takes a folder with a config.json, a GGUF file, or the name of a known model;
--model list lists those.
""",
    examples="""
  tritloom plan --board ulx3s-85f --model tinylm
  tritloom plan --platform examples/platforms/kv260.toml --model bitnet-2b-4t
  tritloom plan --board icebreaker --model bitnet-2b-4t --context 512 --json
""",
    prints="""
Tokens a second, what binds, and the CPU beside it. Then the layers of each shape: how many stay in
the memory, their bytes, cycles, share of the memory's roofline, and time. Then the parts of a
token's time, a prompt, and several sequences at once.

--json prints an object: tokens_per_second, binds (memory, engine, link in, link out, front end,
loading, host, attention, head or other), cpu_tokens_per_second, faster (platform or cpu), fits
(all, part or none), platform, model, source, context, memory_bytes, needed_bytes, token_s, parts_s,
layers (name, in_features, out_features, count, resident, bytes, bits_per_weight, cycles,
share_of_roofline, seconds, binds), total (bytes, cycles, share_of_roofline, seconds), prefill and
sequences (tokens, seconds, tokens_per_second), rest_on_host (null if all fits; else layers,
weights, bytes, and token_s and tokens_per_second if this computer computes them), cpu (the ternary
layers alone, by the fastest method), cpu_methods (by each method: NumPy, and ONNX Runtime's
MatMulNBits if it is installed), cpu_missing (what is not installed, or null), config. The parts
overlap, so a token takes less than their sum. model is null where only the layers are known; then
attention and head count as nothing.
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "plan", HELP, _plan)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--board", metavar="NAME", help="a board of `tritloom boards`")
    where.add_argument("--platform", metavar="FILE", type=path, help="a TOML file")
    add_preset(parser)
    parser.add_argument("--model", metavar="MODEL", required=True, help="folder, file or name")
    for name, default, what in (
        ("context", 64, "positions that attention reads"),
        ("prefill", 128, "tokens of a prompt"),
        ("sequences", 4, "sequences that are computed together"),
    ):
        parser.add_argument(
            f"--{name}", metavar="N", type=whole(1), default=default, help=f"{what} ({default})"
        )


def _plan(options: argparse.Namespace) -> int:
    from tritloom.gen.plan.cpu_onnx import MISSING, measure_onnx
    from tritloom.gen.plan.platform import platform_of, read_platform
    from tritloom.gen.plan.prediction import predict
    from tritloom.gen.plan.shapes import SHAPES, find_shape

    if options.model == "list":
        return _list(SHAPES, options.json)
    if options.board is None and options.platform is None:
        raise InputError("name a board with --board, or give a file with --platform")
    if options.board is not None:
        platform = platform_of(board_of(options))
    elif options.preset is not None:
        raise InputError("--preset goes with --board; name the board")
    else:
        platform = read_platform(options.platform)
    prediction = predict(
        platform,
        *find_shape(options.model),
        context=options.context,
        prefill=options.prefill,
        sequences=options.sequences,
        also=measure_onnx,
    )
    result = prediction.to_dict()
    result["cpu_missing"] = MISSING if len(prediction.cpus) == 1 else None
    if options.json:
        print_json(result)
    else:
        print("\n".join(_lines(result)))
    return 0


def _list(shapes: Any, as_json: bool) -> int:
    """The known models."""
    if as_json:
        print_json({name: shape.source for name, shape in shapes.items()})
        return 0
    heads = [Column("model"), Column("shape published in", wraps=True)]
    print("\n".join(table(heads, [[name, shape.source] for name, shape in shapes.items()])))
    return 0


def _lines(result: dict[str, Any]) -> list[str]:
    """The prediction for a person."""
    model = result["model"] or "the model's ternary layers"
    first = (
        f"{model} on {result['platform']}: {rate(result['tokens_per_second'])} tokens/s, "
        f"{seconds(result['token_s'])} a token; {result['binds']} binds. "
        f"{_room(result)} This computer's CPU ({result['cpu']['name']}, {result['cpu']['method']}, "
        f"measured now): {rate(result['cpu_tokens_per_second'])} tokens/s. {_faster(result)} "
        f"{_methods(result)}"
    )
    heads = [
        *(Column("layers", wraps=True), Column("out × in", right=True), Column("of", right=True)),
        *(Column("stay", right=True), Column("bytes", right=True), Column("cycles", right=True)),
        *(Column("roofline", right=True), Column("time", right=True), Column("binds")),
    ]
    rows = [
        [
            layer["name"],
            f"{layer['out_features']} × {layer['in_features']}",
            layer["count"],
            layer["resident"],
            f"{layer['bytes']:,}",
            f"{layer['cycles']:,}",
            f"{layer['share_of_roofline']:.1%}",
            seconds(layer["seconds"]),
            layer["binds"],
        ]
        for layer in result["layers"]
    ]
    total = result["total"]
    rows.append(
        [
            *("all", "", "", "", f"{total['bytes']:,}", f"{total['cycles']:,}"),
            *(f"{total['share_of_roofline']:.1%}", seconds(total["seconds"]), ""),
        ]
    )
    batches = [
        (
            what,
            f"{rate(result[name]['tokens_per_second'])} tokens/s, {result[name]['tokens']} tokens",
        )
        for name, what in (("prefill", "a prompt"), ("sequences", "several sequences"))
    ]
    parts = [(name, seconds(value)) for name, value in result["parts_s"].items() if value]
    return [fill(first, columns()), "", *table(heads, rows), "", *pairs(parts), "", *pairs(batches)]


def _room(result: dict[str, Any]) -> str:
    needed, room = result["needed_bytes"], result["memory_bytes"]
    if result["fits"] == "all":
        return f"All of its {needed:,} bytes of weights stay in the memory."
    rest = result["rest_on_host"]
    return (
        f"It does not fit: its weights take {needed:,} bytes, the memory holds {room:,}; "
        f"{rest['layers']} layers of {rest['bytes']:,} bytes are loaded for each token. If this "
        f"computer computes them instead: {rate(rest['tokens_per_second'])} tokens/s."
    )


def _methods(result: dict[str, Any]) -> str:
    """What each method takes for the ternary layers, or why there is only one."""
    if result["cpu_missing"]:
        return f"{result['cpu_missing']}."
    each = ", ".join(
        f"{seconds(cpu['total_s'])} with {cpu['method']}" for cpu in result["cpu_methods"]
    )
    return f"Its ternary layers take {each}."


def _faster(result: dict[str, Any]) -> str:
    ratio = result["tokens_per_second"] / result["cpu_tokens_per_second"]
    if ratio >= 1:
        return f"The platform is {rate(ratio)} times faster."
    return f"The CPU is {rate(1 / ratio)} times faster."
