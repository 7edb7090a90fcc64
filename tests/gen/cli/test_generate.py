import json
import os

import pytest

from tritloom.boards.board import board_names
from tritloom.rtl.spec.config import TINY

BOARDS = board_names()


def failed(text):
    return 1, "", f"tritloom: error: {text}\n"


class TestGenerate:
    @pytest.mark.sim
    def test_config(self, run, tmp_path):
        file = tmp_path / "tiny.json"
        file.write_text(TINY.to_json())
        status, out, err = run("generate", "--config", file, "-o", tmp_path / "out", "--json")
        assert (status, err) == (0, "")
        output = json.loads(out)
        assert output["build_digest"] == TINY.build_digest.hex()
        assert output["directory"] == str(tmp_path / "out")
        sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
        assert output["files"] == sizes
        status, out, err = run("generate", "--config", file, "-o", tmp_path / "out")
        assert (status, err) == (0, "")
        assert [line.split()[-1] for line in out.splitlines()] == [
            str(tmp_path / "out" / name) for name in output["files"]
        ]

    @pytest.mark.sim
    def test_names(self, run, tmp_path):
        file, out = tmp_path / "tiny.json", tmp_path / "out"
        file.write_text(TINY.to_json())
        status, _, err = run(
            *("generate", "--config", file, "-o", out, "--name", "core_a", "--axi")
        )
        assert (status, err) == (0, "")
        names = ["core_a.h", "core_a.svg", "core_a.v", "manifest.json"]
        assert sorted(path.name for path in out.iterdir()) == names
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["top"] == "core_a"
        assert manifest["interface"]["reset"] == "aresetn"
        assert "module core_a(" in (out / "core_a.v").read_text()

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            (("--board", "ulx3s-12f"), "ulx3s-12f has no preset 'bitlinear'; it has none"),
            (("--config", os.devnull), "--preset goes with --board; name the board"),
        ],
    )
    def test_no_such_preset(self, run, tmp_path, source, message):
        out = tmp_path / "out"
        assert run("generate", *source, "--preset", "bitlinear", "-o", out) == failed(message)
        assert not out.exists()

    def test_bad_name(self, run, tmp_path):
        file = tmp_path / "tiny.json"
        file.write_text(TINY.to_json())
        assert run(
            *("generate", "--config", file, "-o", tmp_path / "out", "--name", "module")
        ) == failed(
            "name must not be 'module', a reserved word of Verilog, VHDL or C; choose another"
        )
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "configuration is not JSON: "),
            ("[]", "configuration must be a JSON object"),
            ('{"lanes": 5}', "rows is missing; give it an integer"),
            ('{"lames": 5}', "unknown key 'lames'; known are lanes, rows, "),
            (TINY.to_json().replace('"lanes":5', '"lanes":12'), "lanes must be a multiple of 5"),
            (TINY.to_json().replace('"lanes":5', '"lanes":2000'), "lanes must be 1 to 1024"),
            ('"\udcff"', "configuration is not JSON: "),
        ],
    )
    def test_bad_config(self, run, tmp_path, text, message):
        file, out = tmp_path / "mine.json", tmp_path / "out"
        file.write_bytes(text.encode(errors="surrogateescape"))
        status, printed, err = run("generate", "--config", file, "-o", out)
        assert (status, printed) == (1, "")
        assert err.startswith(f"tritloom: error: {file}: {message}")
        assert err.count("\n") == 1
        assert not out.exists()

    def test_no_config(self, run, tmp_path):
        file = tmp_path / "none.json"
        assert run("generate", "--config", file, "-o", tmp_path / "out") == failed(
            f"{file}: No such file or directory"
        )

    def test_unknown_board(self, run, tmp_path):
        assert run("generate", "--board", "nix", "-o", tmp_path / "out") == failed(
            f"unknown board 'nix'; known are {', '.join(BOARDS)}"
        )
        assert not list(tmp_path.iterdir())

    @pytest.mark.sim
    def test_not_a_folder(self, run, tmp_path):
        file = tmp_path / "tiny.json"
        file.write_text(TINY.to_json())
        assert run("generate", "--config", file, "-o", file) == failed(
            f"cannot write to {file}: File exists; choose another folder"
        )
        assert file.read_text() == TINY.to_json()
