import json

import pytest

from tritloom.boards.board import board_names, load_board
from tritloom.boards.icebreaker import ICEBREAKER

BOARDS = board_names()
ULX3S = load_board("ulx3s-85f").config


class TestBoards:
    def test_text(self, run, monkeypatch):
        monkeypatch.setenv("COLUMNS", "120")
        status, out, err = run("boards")
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert [line.split()[0] for line in lines[-len(BOARDS) - 2 : -2]] == BOARDS
        assert "name" in lines[-len(BOARDS) - 3]
        (line,) = [line for line in lines if line.startswith("ulx3s-85f ")]
        assert line.split()[-6:] == [
            "LFE5U-85F-6BG381C",
            f"{ULX3S.macs_per_cycle}",
            f"{ULX3S.clock_hz / 1e6:g}",
            f"{ULX3S.memory_words * ULX3S.macs_per_cycle:,}",
            *("all", "all"),
        ]
        assert lines[-2:] == ["", "Run on the board itself so far: none."]

    @pytest.mark.parametrize("columns", [60, 80, 100])
    def test_width(self, run, monkeypatch, columns):
        """The table follows the terminal, and its columns never run together."""
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = run("boards")[1].splitlines()
        assert max(map(len, lines)) <= max(columns, 80)
        (line,) = [line for line in lines if line.startswith("ulx3s-85f ")]
        assert {"LFE5U-85F-6BG381C", "260", "80", "1,198,080", "all"} <= set(line.split())

    def test_json(self, run):
        status, out, _ = run("boards", "--json")
        assert status == 0
        boards = json.loads(out)
        assert [board["name"] for board in boards] == BOARDS
        board = boards[BOARDS.index("icebreaker")]
        assert board["config"] == ICEBREAKER.config.to_dict()
        assert board["run_on_hardware"] is False
        assert board["link"] == {"kind": "uart", "baud": 3_000_000}
        assert board["models"] == {"tinylm": "part", "digits": "all"}
