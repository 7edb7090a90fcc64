"""`tritloom serve`: a device behind a local socket, for programs that are not the driver."""

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from tritloom.gen.cli.options import Help, add_command, path
from tritloom.gen.cli.text import CLEAR_LINE, is_terminal, print_json, progress_line, say

if TYPE_CHECKING:
    from tritloom.host.serve.server import Server

__all__ = ["add"]

HELP = Help(
    summary="hold a device for other programs, behind a local socket",
    text="""\
Opens a device and serves programs through a Unix socket, until Ctrl-C: they load ternary layers,
and send activation codes for exact sums. Several programs may be connected; their products are
computed one after the other. The layers of a program that ends, or dies, are unloaded.

Products that this computer computes, with --device golden, run in one thread, because more threads
would take the processors from the programs; OPENBLAS_NUM_THREADS says another number.

Only your user can connect. The messages are described in host/serve/wire.py; a client in Python is
tritloom.host.serve.client.
""",
    examples="""
  tritloom serve --socket /tmp/tritloom.sock
  tritloom serve --device "sim?board=icebreaker" --socket /tmp/tritloom.sock
  tritloom serve --device serial:///dev/ttyUSB0 --socket /tmp/tritloom.sock
""",
    prints="""
The path of the socket on standard output, as soon as a program can connect; on standard error, if
it is a terminal, how many clients there are and the products that were computed.

--json prints an object instead of the path: socket, device, config.
""",
)

BLAS_THREADS = (
    "OPENBLAS_NUM_THREADS",
    "OPENBLAS_DEFAULT_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OMP_NUM_THREADS",
)
"""Where OpenBLAS, which NumPy's packages have, looks for the number of its threads."""


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "serve", HELP, _serve, extra="sim")
    parser.add_argument("--device", metavar="URL", default="sim", help="the device (sim)")
    parser.add_argument(
        *("--socket",), metavar="PATH", type=path, required=True, help="where programs connect"
    )


def _serve(options: argparse.Namespace) -> int:
    _take_one_blas_thread()
    from tritloom.host.device import connect
    from tritloom.host.serve.server import Server

    watched = is_terminal(sys.stderr)
    with connect(options.device) as device, Server(device, options.socket) as server:
        if options.json:
            config = device.info.config.to_dict()
            print_json({"socket": str(server.path), "device": options.device, "config": config})
        else:
            print(server.path)
        sys.stdout.flush()
        if watched:
            progress_line("the device is served; Ctrl-C ends it")
        try:
            server.serve(_show if watched else _say_nothing)
        except KeyboardInterrupt:
            if watched:
                say("\n")
    return 0


def _take_one_blas_thread() -> None:
    """Let NumPy's products run in one thread, unless the user chose how many.

    A product of one token is too short for more threads: while they wait for each other they use
    the processors of the programs that are served. NumPy reads this when it is imported.
    """
    if not any(name in os.environ for name in BLAS_THREADS):
        os.environ[BLAS_THREADS[0]] = "1"


def _say_nothing(server: "Server") -> None:
    """Nobody watches."""


def _show(server: "Server") -> None:
    say(f"{CLEAR_LINE}{server.clients:,} clients, {server.products:,} products")
