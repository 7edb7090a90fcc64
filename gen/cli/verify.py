"""`tritloom verify`: the packaged benches, run on a generated design."""

import argparse
import dataclasses
from typing import Any

from tritloom.gen.cli.options import Help, add_command, path, whole
from tritloom.gen.cli.text import paint, print_json, progress_line

__all__ = ["add"]

HELP = Help(
    summary="test a generated Verilog file with the packaged benches",
    text="""\
Runs the packaged cocotb benches on the Verilog that `tritloom generate` wrote, as it is, with the
configuration in its manifest. It needs an HDL simulator: Icarus Verilog, or Verilator.
""",
    examples="""
  tritloom generate --board icebreaker -o build/ice
  tritloom verify build/ice
  tritloom verify build/ice --junit results.xml     a file for a CI
  tritloom verify build/ice --plugin my_engine      the module of a plug-in
""",
    prints="""
A line a bench as it ends, then the failures with their reasons, then the counts. The status is 1 if
a bench failed.

--json prints an object: ok, simulator, seed, passed, failed, benches (name, ok, message, seconds).
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "verify", HELP, _verify, extra="sim")
    parser.add_argument("directory", metavar="DIR", type=path, help="what generate wrote")
    parser.add_argument("--junit", metavar="FILE", type=path, help="write the results as JUnit XML")
    parser.add_argument(
        *("--seed",), metavar="N", type=whole(0), default=0, help="seed of the random traffic (0)"
    )
    parser.add_argument(
        *("--plugin",),
        metavar="MODULE",
        action="append",
        default=[],
        help="import a module that registers a plug-in of the design; may be repeated",
    )
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first failure")


def _verify(options: argparse.Namespace) -> int:
    from tritloom.sim.verify.run import verify

    result = verify(
        options.directory,
        junit=options.junit,
        seed=options.seed,
        plugins=options.plugin,
        fail_fast=options.fail_fast,
        progress=progress_line,
    )
    if options.json:
        benches = [dataclasses.asdict(bench) | {"ok": bench.ok} for bench in result.benches]
        counts = {"passed": result.passed, "failed": result.failed, "benches": benches}
        print_json({"ok": result.ok, "simulator": result.simulator, "seed": result.seed} | counts)
    else:
        for bench in result.benches:
            if not bench.ok:
                print(f"{paint('FAILED', 'red')} {bench.name}: {bench.message}")
        outcome = f"{result.passed:,} passed, {result.failed:,} failed"
        print(paint(outcome, "green" if result.ok else "red"))
    return 0 if result.ok else 1
