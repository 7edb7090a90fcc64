"""`tritloom devices`: the devices of this computer and of its networks."""

import argparse
from typing import TYPE_CHECKING, Any

from tritloom.gen.cli.options import Help, add_command
from tritloom.gen.cli.text import pairs, print_json

if TYPE_CHECKING:
    from tritloom.rtl.links.udp_facts import Announcement

__all__ = ["add"]

HELP = Help(
    summary="list what --device can name",
    text="""\
Lists the devices that --device can name: the simulated ones, the serial ports of this computer, and
the boards that answer on its networks. A port is listed whether or not an FPGA responds there;
`tritloom info --device URL` reads it.

A board on Ethernet has the address of its configuration. --set-address gives it another one, which
it has until it is switched off. The board needs no address of the network for that.
""",
    examples="""
  tritloom devices
  tritloom devices --set-address 02:54:52:49:54:02 192.168.1.77
  tritloom info --device golden
""",
    prints="""
A line a device: its URL and what it is. With --set-address only the board that has it now. The
status is 1 if no board of that MAC address answers.

--json prints a list of objects: url, description. A board on Ethernet has more: mac, address,
build_digest (of its configuration), board (the board and preset of this digest, or null).
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(commands, "devices", HELP, _devices)
    parser.add_argument(
        *("--set-address",),
        nargs=2,
        metavar=("MAC", "ADDRESS"),
        help="give the board of this MAC address another IPv4 address",
    )


def _devices(options: argparse.Namespace) -> int:
    from tritloom.host.links.contract import DEFAULT_BOARD
    from tritloom.host.links.discovery import find_boards, set_address
    from tritloom.host.links.serial import serial_ports

    if options.set_address is not None:
        devices = [_facts(set_address(*options.set_address))]
    else:
        texts = [
            ("sim", f"simulated hardware of {DEFAULT_BOARD}; ?board=NAME for another"),
            ("golden", f"reference model of {DEFAULT_BOARD}; ?board=NAME for another"),
            *sorted(serial_ports()),
        ]
        devices = [{"url": url, "description": text} for url, text in texts]
        devices += [_facts(board) for board in find_boards()]
    if options.json:
        print_json(devices)
    else:
        print("\n".join(pairs([(d["url"], d["description"]) for d in devices], indent="")))
    return 0


def _facts(board: "Announcement") -> dict[str, Any]:
    """A board on Ethernet as JSON holds it."""
    from tritloom.host.links.discovery import address_text, mac_text

    digest, mac = board.build_digest.hex(), mac_text(board.mac)
    name = _board_of(board.build_digest)
    return {
        "url": f"udp://{address_text(board.address)}",
        "description": f"{name or f'build {digest}'} on Ethernet, MAC address {mac}",
        "mac": mac,
        "address": address_text(board.address),
        "build_digest": digest,
        "board": name,
    }


def _board_of(build_digest: bytes) -> str | None:
    """The installed board, and preset, whose configuration has a digest."""
    from tritloom.boards.board import board_names, load_board

    for name in board_names():
        board = load_board(name)
        for preset in (None, *board.presets):
            if board.with_preset(preset).build_config.build_digest == build_digest:
                return name if preset is None else f"{name}, preset {preset}"
    return None
