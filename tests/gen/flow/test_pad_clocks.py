"""The clock of a PHY in nextpnr's report."""

import pytest

from tritloom.boards.board import load_board
from tritloom.gen.flow.pad_clocks import pad_clocks
from tritloom.gen.flow.tools import BuildError


def test_clocks_at_pads():
    """Of the PHY, whatever nextpnr aimed at; another number of clocks is an error."""
    config = load_board("colorlight-5a75b-v7").build_config
    fmax = {"sync": {"achieved": 81}, "phy": {"constraint": 80, "achieved": 124.9}}
    (clock,) = pad_clocks(config, {"fmax": fmax}, ["sync"])
    assert clock == {"name": "phy", "wanted": 125.0, "reached": 124.9}
    with pytest.raises(BuildError, match="reports the clocks sync; 1 are at pads"):
        pad_clocks(config, {"fmax": {"sync": fmax["sync"]}}, ["sync"])
    uart = load_board("ulx3s-25f").build_config
    assert pad_clocks(uart, {"fmax": fmax}, ["sync"]) == []
