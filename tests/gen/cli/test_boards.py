import json

import pytest

from tritloom.boards.board import board_names, load_board
from tritloom.boards.icebreaker import ICEBREAKER
from tritloom.gen.cli.figures import rate
from tritloom.gen.plan.models import MODELS, OnDevice, on_device

BOARDS = board_names()
ULX3S = load_board("ulx3s-85f").config


class TestBoards:
    def test_text(self, run, monkeypatch):
        monkeypatch.setenv("COLUMNS", "120")
        status, out, err = run("boards")
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert "ulx3s-85f, preset bitlinear: a vector unit of 4,096 words." in lines
        assert "icebreaker, preset spram: 655,360 weights in spram." in lines
        first, second = lines.index(""), lines.index("", lines.index("") + 1)
        assert [line.split()[0] for line in lines[first - len(BOARDS) : first]] == BOARDS
        assert "name" in lines[first - len(BOARDS) - 1]
        (line,) = [line for line in lines[:first] if line.startswith("ulx3s-85f ")]
        assert line.split()[-4:] == [
            "LFE5U-85F-6BG381C",
            f"{ULX3S.macs_per_cycle}",
            f"{ULX3S.clock_hz / 1e6:g}",
            f"{ULX3S.memory_words * ULX3S.macs_per_cycle:,}",
        ]
        rows = [line.split()[:4] for line in lines[second - len(BOARDS) * len(MODELS) : second]]
        assert [row[:2] for row in rows] == [[name, model] for name in BOARDS for model in MODELS]
        times = on_device(load_board("ulx3s-85f").build_config)["tinylm"].times
        assert ["ulx3s-85f", "tinylm", "all", rate(times.tokens_per_s)] in rows
        assert lines[-2:] == ["", "Run on the board itself so far: none."]

    @pytest.mark.parametrize("columns", [60, 80, 100])
    def test_width(self, run, monkeypatch, columns):
        """The table follows the terminal, and its columns never run together."""
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = run("boards")[1].splitlines()
        assert max(map(len, lines)) <= max(columns, 80)
        line = next(line for line in lines if line.startswith("ulx3s-85f "))
        assert {"LFE5U-85F-6BG381C", "260", "80", "1,198,080"} <= set(line.split())

    def test_json(self, run):
        status, out, _ = run("boards", "--json")
        assert status == 0
        boards = json.loads(out)
        assert [board["name"] for board in boards] == BOARDS
        board = boards[BOARDS.index("icebreaker")]
        assert board["config"] == ICEBREAKER.config.to_dict()
        assert board["run_on_hardware"] is False
        assert board["presets"]["spram"]["memory"] == {"kind": "spram", "words": 32768}
        bitlinear = boards[BOARDS.index("ulx3s-85f")]["presets"]["bitlinear"]
        assert bitlinear["vector"]["words"] == 4096
        assert board["link"] == {"kind": "uart", "baud": 3_000_000}
        models = on_device(ICEBREAKER.build_config)
        assert board["models"] == {name: each.to_dict() for name, each in models.items()}

    def test_presets(self, run):
        """What each has that the board's own accelerator has not."""
        text = " ".join(run("boards")[1].split())
        assert "ulx3s-85f, preset bitlinear: a vector unit of 4,096 words." in text
        sdram = "167,772,160 weights in sdram, 40 MAC/cycle."
        assert f"ulx3s-85f, preset sdram: {sdram}" in text
        llama = "float scales of groups up to 256, 140 MAC/cycle."
        assert f"ulx3s-85f, preset llama: {llama}" in text

    def test_without_figures(self, run, monkeypatch):
        """A device that has no formula, or cannot run the models."""
        unknown = {"tinylm": OnDevice(fits="none", times=None)}
        monkeypatch.setattr("tritloom.gen.plan.models.on_device", lambda config: unknown)
        lines = run("boards")[1].splitlines()
        last = [line.split() for line in lines if line.endswith("unknown")][-1]
        assert last == ["versa-ecp5", "tinylm", "none", "unknown"]
