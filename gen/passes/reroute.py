"""A second routing of a design that misses its clock, with its cells in better places."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tritloom.boards.families.family import TOP
from tritloom.rtl.spec.errors import ToolError

__all__ = ["AGAIN", "PLACED", "TIMING", "route_again"]

PLACED, TIMING = "placed.json", "timing.json"
"""Files that nextpnr writes: the placed design, and the timing report."""
AGAIN = ("--no-pack", "--tmg-ripup")
"""nextpnr's options for a design whose cells have their places. `--tmg-ripup` makes routing try
harder, which takes long on large designs."""


def route_again(
    folder: Path,
    wanted_mhz: float,
    reached_mhz: Callable[[Path], float],
    run: Callable[[Path], None],
    shorten_paths: Callable[[str, float], str],
) -> str:
    """Where a routed design misses its clock, place it better, route it again, keep the faster one.

    Parameters
    ----------
    folder : has nextpnr's files; the faster result replaces them
    wanted_mhz : the clock that must be met
    reached_mhz : reads the clock from a folder with nextpnr's files
    run : routes in a folder that has the netlist, with every cell's place, and the pins
    shorten_paths : gets the text of a placed design and the clock's period in ns; returns the
        netlist with each cell's new place as a constraint

    Returns
    -------
    One line that says what came of it; empty if the clock was met already
    """
    before = reached_mhz(folder)
    if before >= wanted_mhz:
        return ""
    text = shorten_paths((folder / PLACED).read_text(encoding="utf-8"), 1000 / wanted_mhz)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        again = Path(name)
        (again / f"{TOP}.json").write_text(text, encoding="utf-8")
        for pins in folder.glob(f"{TOP}.lpf"):
            shutil.copy(pins, again)
        try:
            run(again)
        except ToolError as error:
            return f"shorter paths refused, nextpnr's placement kept: {error}"
        after = reached_mhz(again)
        if after > before:
            for file in again.iterdir():
                if file.name != f"{TOP}.json":
                    os.replace(file, folder / file.name)
    return f"shorter paths: {before:.4g} MHz, then {after:.4g}"
