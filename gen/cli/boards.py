"""`tritloom boards`: the boards and the accelerator of each."""

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from tritloom.gen.cli.figures import rate, seconds
from tritloom.gen.cli.options import Help, add_command
from tritloom.gen.cli.text import Column, columns, fill, print_json, table

if TYPE_CHECKING:
    from tritloom.boards.board import Board
    from tritloom.gen.plan.models import OnDevice
    from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["add"]

HELP = Help(
    summary="list the boards and the accelerator of each",
    text="""\
Lists the boards that are installed, each with the accelerator that its bitstream holds, and how
fast each model runs on it. The names are those that --board and a device's URL take.
""",
    examples="""
  tritloom boards
  tritloom boards --json
""",
    prints="""
A line a board: peak MAC/cycle is how many multiply-accumulates a clock cycle of RUN does at most,
weights is how many ternary weights lie in the chip. Then a line for each board and model: how much
of the model fits (all, part or none), tokens/s end to end (loading, link, front end, RUN, driver;
the rest of the model is not counted), which of these binds, and GMAC/s of RUN alone. What does not
fit is loaded for every token; `tritloom run` leaves it on the host instead. Below stand the boards
that somebody has run it on.

--json prints a list of objects: name, title, family, part, platform, leds, config, link, resources,
pin_options, pin_attributes, constants, large_cells, loader, dfu, run_on_hardware, models (by name:
fits, and end_to_end with tokens_per_s, bound, the seconds of each part, and gmac_per_s_run of RUN
alone).
""",
)


def add(commands: Any) -> None:
    """Declares the command."""
    add_command(commands, "boards", HELP, _boards)


def _boards(options: argparse.Namespace) -> int:
    from tritloom.boards.board import board_names, load_board
    from tritloom.gen.plan.models import on_device

    boards = [load_board(name) for name in board_names()]
    models = {board.name: on_device(board.build_config) for board in boards}
    if options.json:
        print_json(
            [
                _facts(board)
                | {"models": {name: each.to_dict() for name, each in models[board.name].items()}}
                for board in boards
            ]
        )
        return 0
    heads = [
        Column("name"),
        Column("board", wraps=True),
        Column("part"),
        Column("peak MAC/cycle", right=True),
        Column("MHz", right=True),
        Column("weights", right=True),
    ]
    rows = [
        (
            board.name,
            board.title,
            board.part,
            board.config.macs_per_cycle,
            f"{board.config.clock_hz / 1e6:g}",
            f"{board.config.memory_words * board.config.rows * board.config.lanes:,}",
        )
        for board in boards
    ]
    print("\n".join([*table(heads, rows), "", *_models_table(models)]))
    for board in boards:
        for name, preset in board.presets.items():
            print(fill(f"\n{board.name}, preset {name}: {_additions(board, preset)}.", columns()))
    proved = [board.name for board in boards if board.run_on_hardware]
    print(fill(f"\nRun on the board itself so far: {', '.join(proved) or 'none'}.", columns()))
    return 0


def _models_table(models: "dict[str, dict[str, OnDevice]]") -> list[str]:
    """Board × model: does it fit, how many tokens a second, what binds."""
    heads = [
        *(Column("board"), Column("model"), Column("fits")),
        *(Column("tokens/s", right=True), Column("a token", right=True), Column("binds")),
        Column("RUN alone: GMAC/s", right=True),
    ]
    rows = []
    for board, each in models.items():
        for model, result in each.items():
            times = result.times
            figures = ["unknown", "", "", ""]
            if times is not None:
                token_s = times.total_s / times.tokens
                figures = [rate(times.tokens_per_s), seconds(token_s), times.bound]
                figures.append(rate(times.gmac_per_s_run))
            rows.append([board, model, result.fits, *figures])
    return table(heads, rows)


def _additions(board: "Board", preset: "AcceleratorConfig") -> str:
    """What a preset has and the board's own accelerator has not."""
    parts = []
    if preset.vector is not None and board.config.vector is None:
        parts.append(f"a vector unit of {preset.vector.words:,} words")
    if preset.scale is not None and board.config.scale is None:
        parts.append(f"{preset.scale.kind} scales of groups up to {preset.scale.group}")
    if preset.memory.name != board.config.memory.name:
        weights = preset.memory_words * preset.rows * preset.lanes
        parts.append(f"{weights:,} weights in {preset.memory.name}")
    if preset.macs_per_cycle != board.config.macs_per_cycle:
        parts.append(f"{preset.macs_per_cycle} MAC/cycle")
    if preset.clock_hz != board.config.clock_hz:
        parts.append(f"{preset.clock_hz / 1e6:g} MHz")
    return ", ".join(parts) or "other limits"


def _facts(board: "Board") -> dict[str, Any]:
    """A board as JSON holds it; the accelerator and the link in the form of a configuration."""
    config = board.build_config.to_dict()
    link = config["link"]
    presets = {name: preset.to_dict() for name, preset in board.presets.items()}
    values = {f.name: getattr(board, f.name) for f in dataclasses.fields(board)}
    return values | {"config": board.config.to_dict(), "link": link, "presets": presets}
