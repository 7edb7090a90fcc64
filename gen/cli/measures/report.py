"""`tritloom measure report`: the page and the plots of the measurements."""

import argparse
from typing import Any

from tritloom.gen.cli.options import Help, add_command, path
from tritloom.gen.cli.text import print_json

__all__ = ["add"]

HELP = Help(
    summary="make the page and the plots of the measurements",
    text="""\
Writes the page of the measurements from the JSON files in a folder: the table in the page DIR.md,
between its markers, and the plots in DIR. The same files give the same bytes.
""",
    examples="""
  tritloom measure report docs/reference/engines
""",
    prints="""
The name of each file that was written.

--json prints an object: files, a list of names.
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "report", HELP, _report, extra="measure")
    parser.add_argument("directory", metavar="DIR", type=path, help="folder of the JSON files")


def _report(options: argparse.Namespace) -> int:
    from tritloom.gen.measure.report import write_report

    files = write_report(options.directory)
    if options.json:
        print_json({"files": [str(file) for file in files]})
    else:
        for file in files:
            print(file)
    return 0
