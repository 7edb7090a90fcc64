"""Writes a bitstream to a board, with the tool that is there: openFPGALoader or dfu-util."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tritloom.boards.board import board_names, load_board
from tritloom.rtl.spec.errors import ConfigError, InputError, ToolError

__all__ = ["flash", "flash_command"]

REMEDIES = {
    "openFPGALoader": "apt-get install openfpgaloader, brew install openfpgaloader, or "
    "https://trabucayre.github.io/openFPGALoader",
    "dfu-util": "apt-get install dfu-util, or brew install dfu-util",
}
SUFFIXES = (".bit", ".bin")


def flash(path: Path, board: str | None = None, *, tell: Callable[[str], object]) -> list[str]:
    """Write a bitstream, or the one in a folder, to the board; gives the command that did."""
    command = flash_command(path, board)
    tell(shlex.join(command))
    # What the tool tells is for people: a program reads standard output.
    status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode
    if status:
        raise ToolError(
            f"{Path(command[0]).name} failed with status {status}; is the board plugged in, and "
            "may you use its USB port?"
        )
    return command


def flash_command(path: Path, board: str | None = None) -> list[str]:
    """The command that writes a bitstream; without ``board``, its name is that of the file."""
    file = _bitstream(path, board)
    name = board or file.stem
    if name not in board_names():
        known = ", ".join(board_names())
        raise ConfigError(f"unknown board {name!r}; give --board, known are {known}")
    facts = load_board(name)
    tools: dict[str, Sequence[str]] = {}
    if facts.loader:
        tools["openFPGALoader"] = ("--board", facts.loader, "--write-flash")
    if facts.dfu:
        tools["dfu-util"] = facts.dfu
    if not tools:
        raise ToolError(f"no loader is known for {name}; write {file} with its vendor's tool")
    for tool, options in tools.items():
        if found := shutil.which(tool):
            return [found, *options, str(file)]
    how = REMEDIES[next(iter(tools))]
    raise ToolError(f"{' or '.join(tools)} not found; install one ({how})")


def _bitstream(path: Path, board: str | None) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path} is not there; name a bitstream or a folder that build wrote")
    names = [board] if board else board_names()
    found = [file for name in names for s in SUFFIXES if (file := path / f"{name}{s}").is_file()]
    if not found:
        what = f"bitstream of {board}" if board else "bitstream"
        raise InputError(f"no {what} in {path}; run tritloom build into that folder")
    if len(found) > 1:
        several = ", ".join(file.name for file in found)
        raise InputError(f"{path} has several bitstreams, {several}; choose with --board")
    return found[0]
