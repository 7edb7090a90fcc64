"""`tritloom sim`: the simulated board behind a port of this computer."""

import argparse
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from tritloom.gen.cli.options import Help, add_command, add_preset, board_of, config_of, path
from tritloom.gen.cli.text import CLEAR_LINE, is_terminal, print_json, progress_line, say
from tritloom.rtl.spec.errors import DeviceError, InputError, ToolError

if TYPE_CHECKING:
    from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["add"]

HELP = Help(
    summary="run a simulated board behind a port of this computer",
    text="""\
Runs a simulated board until Ctrl-C, behind a pseudo-terminal as if it were at a serial port, or
behind a network card as if it were at the other end of its cable. Any program that speaks the
protocol can connect to it, also one that is not written in Python. The simulation is the hardware
itself, cycle by cycle, with its UART or its Ethernet port.

--tap makes the network card, a TAP device, and gives it an address beside the board's. That takes
Linux and the rights of root, or a network of your own: `unshare -rn` starts a shell there.

It is built once for each configuration, which takes about a minute.
""",
    examples="""
  tritloom sim --board icebreaker --pty
  tritloom sim --config mine.json --pty
  tritloom sim --board icebreaker --pty --noise 0.001

In another terminal, with the URL that was printed:

  tritloom info --selftest \\
      --device "serial:///tmp/tritloom-x1k2/serial?baud=3000000"

A board on a network, all in one shell without root:

  unshare -rn
  tritloom sim --board colorlight-5a75b-v7 --tap tap0 &
  tritloom info --device udp://10.77.0.2 --selftest
""",
    prints="""
The device's URL on standard output, as soon as a program can connect; on standard error, if it is a
terminal, the bytes that have gone both ways.

--json prints an object instead of the URL: url, config, and with --tap interface (the network
card), host_address (its address).
""",
)
LOOK_S = 1.0
"""Seconds between two looks at the bridge."""


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "sim", HELP, _sim, extra="sim")
    design = parser.add_mutually_exclusive_group(required=True)
    design.add_argument("--board", metavar="NAME", help="a board that `tritloom boards` lists")
    design.add_argument("--config", metavar="FILE", type=path, help="a configuration in JSON")
    add_preset(parser)
    port = parser.add_mutually_exclusive_group(required=True)
    port.add_argument("--pty", action="store_true", help="behind a pseudo-terminal")
    port.add_argument("--tap", metavar="NAME", help="behind a TAP device of that name")
    parser.add_argument(
        *("--noise",),
        metavar="RATE",
        type=_rate,
        default=0.0,
        help="with --pty: flip a bit in this share of the bytes, lose as many, repeat as many (0)",
    )


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to below 1, not {text!r}")
    return rate


def _sim(options: argparse.Namespace) -> int:
    config = config_of(options) if options.board is None else board_of(options).build_config
    if options.tap is not None:
        if options.noise:
            raise InputError("--noise is that of a serial cable; leave it out, or give --pty")
        return _sim_tap(options, config)
    if os.name != "posix":
        raise ToolError("this system has no pseudo-terminals; connect to --device sim instead")
    from tritloom.sim.device.pty import Noise, PtyBridge

    with PtyBridge(config) as bridge:
        bridge.noise = {way: Noise.each(options.noise) for way in ("in", "out")}
        _run(options, bridge, {})
    return 0


def _sim_tap(options: argparse.Namespace, config: "AcceleratorConfig") -> int:
    from tritloom.sim.device.ethernet import EthernetBoard
    from tritloom.sim.device.tap import EthernetBridge, host_address, network_config, open_tap

    config = network_config(config)
    address = host_address(config)
    # First what may be refused at once, then what takes a minute.
    file = open_tap(options.tap, address)
    try:
        board = EthernetBoard(config)
    except BaseException:
        os.close(file)
        raise
    with EthernetBridge(board, file) as bridge:
        _run(options, bridge, {"interface": options.tap, "host_address": address})
    return 0


def _run(options: argparse.Namespace, bridge: Any, facts: dict[str, Any]) -> None:
    """Says where the board is, and waits for Ctrl-C."""
    if options.json:
        print_json({"url": bridge.url, "config": bridge.config.to_dict()} | facts)
    else:
        print(bridge.url)
    sys.stdout.flush()
    watched = is_terminal(sys.stderr)
    if watched:
        progress_line("the board is running; Ctrl-C stops it")
    try:
        _serve(bridge, watched)
    except KeyboardInterrupt:
        if watched:
            say("\n")


def _serve(bridge: Any, watched: bool) -> None:
    """Waits for Ctrl-C, and shows what moves where somebody watches."""
    shown = (0, 0)
    while bridge.is_running:
        moved = bridge.bytes_in, bridge.bytes_out
        if watched and moved != shown:
            say(f"{CLEAR_LINE}{moved[0]:,} bytes to the board, {moved[1]:,} bytes from it")
            shown = moved
        threading.Event().wait(LOOK_S)
    raise DeviceError("the simulated board has stopped by itself; start it again")
