"""`tritloom boards`: the boards and the accelerator of each."""

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from tritloom.gen.cli.options import Help, add_command
from tritloom.gen.cli.text import Column, columns, fill, print_json, table

if TYPE_CHECKING:
    from tritloom.boards.board import Board

__all__ = ["add"]

HELP = Help(
    summary="list the boards and the accelerator of each",
    text="""\
Lists the boards that are installed, each with the accelerator that its bitstream holds. The names
are those that --board and a device's URL take.
""",
    examples="""
  tritloom boards
  tritloom boards --json
""",
    prints="""
A line a board: MAC/cycle is how many multiply-accumulates a clock cycle does at most, weights is
how many ternary weights lie in the chip, and the last columns say how much of each model in models/
fits: all, part or none. Below stand the boards that somebody has run it on.

--json prints a list of objects: name, title, family, part, platform, leds, config, link, resources,
constants, loader, dfu, run_on_hardware, models (name, and all, part or none).
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    add_command(commands, "boards", HELP, _boards)


def _boards(options: argparse.Namespace) -> int:
    from tritloom.boards.board import board_names, load_board
    from tritloom.host.models.shipped import SHIPPED, shipped_models_that_fit

    boards = [load_board(name) for name in board_names()]
    fits = {board.name: shipped_models_that_fit(board.config) for board in boards}
    if options.json:
        print_json([_facts(board) | {"models": fits[board.name]} for board in boards])
        return 0
    heads = [
        Column("name"),
        Column("board", wraps=True),
        Column("part"),
        Column("MAC/cycle", right=True),
        Column("MHz", right=True),
        Column("weights", right=True),
        *(Column(f"{model} fits") for model in SHIPPED),
    ]
    rows = [
        (
            board.name,
            board.title,
            board.part,
            board.config.macs_per_cycle,
            f"{board.config.clock_hz / 1e6:g}",
            f"{board.config.memory_words * board.config.rows * board.config.lanes:,}",
            *fits[board.name].values(),
        )
        for board in boards
    ]
    print("\n".join(table(heads, rows)))
    proved = [board.name for board in boards if board.run_on_hardware]
    print(fill(f"\nRun on the board itself so far: {', '.join(proved) or 'none'}.", columns()))
    return 0


def _facts(board: "Board") -> dict[str, Any]:
    """A board as JSON holds it; the accelerator and the link in the form of a configuration."""
    config = board.build_config.to_dict()
    link = config["link"]
    return dataclasses.asdict(board) | {"config": board.config.to_dict(), "link": link}
