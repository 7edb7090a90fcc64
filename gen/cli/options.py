"""How a command is declared: its help, its options, and the kinds of values that options take."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritloom.gen.cli.text import columns, fill
from tritloom.rtl.spec.errors import ConfigError, InputError

if TYPE_CHECKING:
    from tritloom.boards.board import Board
    from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = [
    "Help",
    "add_command",
    "add_group",
    "config_of",
    "existing_folder",
    "path",
    "read_config",
    "whole",
]

WIDEST_HELP = 100


@dataclass(frozen=True, slots=True)
class Help:
    """What `--help` says of a command.

    Members
    -------
    summary : one line, for the list of commands
    text : what the command does and why; paragraphs are wrapped to the terminal
    examples : command lines that work as they are typed, with or without remarks
    prints : what the command prints, and what `--json` prints instead
    """

    summary: str
    text: str
    examples: str
    prints: str

    @property
    def epilog(self) -> str:
        """What stands below the options."""
        parts = [("examples", self.examples), ("prints", self.prints)]
        return "\n\n".join(f"{name}:\n{text.strip(chr(10))}" for name, text in parts if text)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Wraps paragraphs to the terminal; what is indented, as examples are, stays as it is."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=min(columns() - 1, WIDEST_HELP))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return fill(text, width)


class _Parser(argparse.ArgumentParser):
    """A parser whose help fails where it cannot be written; argparse would ignore that."""

    def print_help(self, file: Any = None) -> None:
        stream = sys.stdout if file is None else file
        stream.write(self.format_help())
        stream.flush()


def new_parser(name: str, help_: Help) -> argparse.ArgumentParser:
    """The parser of the tool itself."""
    return _Parser(
        prog=name,
        description=help_.text,
        epilog=help_.epilog,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )


def add_command(
    commands: Any,
    name: str,
    help_: Help,
    run: Callable[[argparse.Namespace], int],
    extra: str = "",
) -> argparse.ArgumentParser:
    """A command's parser, with `--json`.

    Parameters
    ----------
    commands : what `add_subparsers` gave
    name : what the user types
    help_ : what `--help` says
    run : the command itself; gives the exit status
    extra : of pyproject's optional dependencies, the one that brings all that the command needs
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_.summary,
        description=help_.text,
        epilog=help_.epilog,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=run, extra=extra)
    parser.add_argument("--json", action="store_true", help="print one JSON value, for programs")
    return parser


def add_group(commands: Any, name: str, help_: Help) -> Any:
    """A command that has commands of its own; they are added to what this gives."""
    parser = commands.add_parser(
        name,
        help=help_.summary,
        description=help_.text,
        epilog=help_.epilog,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    return parser.add_subparsers(metavar="COMMAND", required=True)


def whole(least: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `least` on."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least}, not {text!r}")
        return int(text)

    return parse


def path(text: str) -> Path:
    """The type of an option that names a file or a folder; an empty name is none."""
    if not text:
        raise argparse.ArgumentTypeError("must name a file or a folder, not ''")
    return Path(text)


def existing_folder(file: Path, option: str) -> None:
    """`InputError` if the folder of a file to be written does not exist."""
    if not file.absolute().parent.is_dir():
        raise InputError(f"{option}: there is no folder {file.parent}")


def add_preset(parser: argparse.ArgumentParser) -> None:
    """Declares `--preset`, beside `--board`."""
    parser.add_argument(
        "--preset", metavar="NAME", help="another accelerator of the board, such as bitlinear"
    )


def board_of(options: argparse.Namespace) -> "Board":
    """The board that `--board` names, with the accelerator that `--preset` names."""
    from tritloom.boards.board import load_board

    return load_board(options.board).with_preset(options.preset)


def config_of(options: argparse.Namespace) -> "AcceleratorConfig":
    """The configuration that `--board` and `--preset`, or `--config`, name."""
    if options.board is not None:
        return board_of(options).config
    if options.preset is not None:
        raise InputError("--preset goes with --board; name the board")
    return read_config(options.config)


def read_config(file: Path) -> "AcceleratorConfig":
    """The configuration in a JSON file; an error begins with the file's name."""
    from tritloom.rtl.spec.config import AcceleratorConfig

    try:
        return AcceleratorConfig.from_json(file.read_bytes())
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{file}: the JSON is nested too deeply for a configuration") from None
