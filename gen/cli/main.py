"""The command `tritloom`: its parser, its errors and its end.

Each group of commands has a file of its own beside this one, with a function `add` that declares
the commands. What a command needs is imported when it runs, so that `--help` is quick and no
command needs the packages of another.
"""

import argparse
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tritloom.gen.cli import (
    auto,
    boards,
    build,
    devices,
    generate,
    info,
    llama,
    measure,
    pack,
    plan,
    run,
    serve,
    sim,
    verify,
)
from tritloom.gen.cli.options import Help, new_parser
from tritloom.gen.cli.text import error_line, say
from tritloom.rtl.spec.errors import TritloomError
from tritloom.rtl.spec.remedies import known_module, package_remedy

__all__ = ["main"]

INTERRUPTED, BROKEN_PIPE = 130, 141
"""Statuses of a program that SIGINT or SIGPIPE ended."""

HELP = Help(
    summary="",
    text="""\
Generates FPGA hardware for ternary (BitNet b1.58) matrix products, verifies it and drives it.
""",
    examples="""
  tritloom boards                                     list the boards
  tritloom run tinylm --prompt "Emma was"             a language model on a
                                                      simulated FPGA
  tritloom generate --board ulx3s-85f -o build/ulx3s  Verilog of a design
  tritloom verify build/ulx3s                         test that Verilog
  tritloom auto --board ulx3s-85f --model tinylm      the best design for it
  tritloom build --board icebreaker -o build/ice      a bitstream
  tritloom flash build/ice                            write it to the board
  tritloom info --device sim --selftest               check a device
""",
    prints="""
Results go to standard output, progress and errors to standard error. The status is 0, or 1 if
something failed, or 2 if the command line is wrong. `tritloom COMMAND --help` explains a command.
""",
)
GROUPS = (
    *(boards, generate, verify, pack, auto, plan, build, run, serve, llama, sim),
    *(devices, info, measure),
)
"""The files that declare commands, in the order of the list in `--help`."""
TEXT_OPTIONS = ("--prompt",)
"""Options whose value may begin with a dash."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Parameters
    ----------
    arguments : the words after `tritloom`, those of the process if none are given

    Returns
    -------
    The exit status. A wrong command line ends with `SystemExit(2)`.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    words = _adapted(sys.argv[1:] if arguments is None else arguments)
    extra = ""
    with _clean_end():
        try:
            options = _parse(words)
            extra = options.extra
            command: Callable[[argparse.Namespace], int] = options.command
            status = command(options)
            sys.stdout.flush()
            return status
        except KeyboardInterrupt:
            say("\n")
            return INTERRUPTED
        except BrokenPipeError:
            _drop_output()
            return BROKEN_PIPE
        except ModuleNotFoundError as error:
            return _fail(_module_message(error, extra))
        except OSError as error:
            return _fail(_os_message(error))
        except TritloomError as error:
            return _fail(str(error))


def _fail(message: str) -> int:
    error_line(message)
    return 1


def _adapted(words: Sequence[str]) -> list[str]:
    """The command line as the parser takes it.

    The value of a text option is joined to it, or the parser takes a value that begins with a dash
    for an option. The old name of `measure` is replaced.
    """
    adapted: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in TEXT_OPTIONS and (value := next(rest, None)) is not None:
            word = f"{word}={value}"
        adapted.append(word)
    if adapted[:1] == ["bench"]:
        say("tritloom: bench is now called measure; the old name goes with the next release\n")
        adapted[0] = "measure"
    return adapted


def _open_closed_streams() -> None:
    """Opens the null device where the caller closed a standard stream.

    Otherwise the first file that is opened gets the number of that stream, and what a tool prints
    is written into the file.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 - as long as the process
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _drop_output() -> None:
    """Leads standard output to the null device.

    What is still in the buffer cannot be written, and Python would try again at its end.
    """
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _os_message(error: OSError) -> str:
    """The line for an error of the operating system, with the name of the file if there is one."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{error.filename}: {reason}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        _drop_output()
        return f"cannot write: {reason}; free some space, or write to another place"
    return reason


def _module_message(error: ModuleNotFoundError, extra: str) -> str:
    """The line for a package that is not installed; any other module is a defect of ours."""
    module = (error.name or "").partition(".")[0]
    if not known_module(module):
        raise error
    return f"this needs {module}; {package_remedy(module, extra)}"


@contextmanager
def _clean_end() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does: tools are stopped, scratch is removed."""

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


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """The options; `--help` and `--version` end here, and fail if what they print cannot go out."""
    try:
        return _parser().parse_args(words)
    except SystemExit:
        sys.stdout.flush()
        raise


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("tritloom", HELP)
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the version of the tool and end"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in GROUPS:
        group.add(commands)
    return parser


class _Version(argparse.Action):
    """Prints the version; only then is it looked up."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        from importlib.metadata import version

        print(f"tritloom {version('tritloom')}")
        parser.exit()
