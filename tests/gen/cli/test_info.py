import json
import re

from tritloom.boards.board import load_board
from tritloom.boards.icebreaker import ICEBREAKER
from tritloom.gen.cli import info

ULX3S = load_board("ulx3s-85f").config


def failed(text):
    return 1, "", f"tritloom: error: {text}\n"


class TestInfo:
    def test_json(self, run):
        status, out, err = run("info", "--device", "golden?board=icebreaker", "--json")
        assert (status, err) == (0, "")
        output = json.loads(out)
        assert output["packages"]["amaranth"] and output["tritloom"] == "0.1.0"
        assert set(output["tools"]) == {"C++ compiler", "HDL simulator"}
        link = {"kind": "stream", "width": 4}
        assert output["device"]["config"] == ICEBREAKER.config.to_dict() | {"link": link}
        assert output["device"]["layout_digest"] == ICEBREAKER.config.layout_digest.hex()

    def test_text(self, run):
        status, out, err = run("info", "--device", "golden")
        assert (status, err) == (0, "")
        assert (
            "\ndevice golden\n" in out
            and "" in out
            and re.search(rf"^  lanes +{ULX3S.lanes}$", out, re.M)
        )

    def test_nothing_found(self, run, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("CXX", "g++-99")
        monkeypatch.setattr(info, "PACKAGES", ("numpy", "no-such-package"))
        monkeypatch.setattr("tritloom.sim.tools.importlib.util.find_spec", lambda name: None)
        status, out, _ = run("info")
        assert status == 0
        words = " ".join(out.split())
        assert "no-such-package not installed" in words
        assert "C++ compiler CXX is g++-99, which is not found; unset CXX or install it" in words
        assert "HDL simulator no HDL simulator found; install Icarus Verilog (apt-get" in words

    def test_unknown_device(self, run):
        status, out, err = run("info", "--device", "nix")
        assert (status, out) == (1, "")
        assert err.startswith("tritloom: error: unknown device 'nix'; known are golden, ")

    def test_selftest(self, run):
        status, out, err = run("info", "--device", "golden?board=icebreaker", "--selftest")
        assert (status, err) == (0, "")
        lines = out[out.index("self-test\n") :].splitlines()
        assert [line.split(":")[0] for line in lines] == [
            *("self-test", "ok   identity", "ok   weight memory", "ok   known layer"),
            *("ok   link", "ok   clock"),
        ]

    def test_selftest_fails(self, run, monkeypatch):
        monkeypatch.setattr("tritloom.host.selftest._check_clock", lambda *of: (False, "slow"))
        arguments = ("info", "--device", "golden?board=icebreaker", "--selftest")
        status, out, _ = run(*arguments)
        assert (status, out.splitlines()[-1]) == (1, "FAIL clock: slow")
        status, out, _ = run(*arguments, "--json")
        output = json.loads(out)["selftest"]
        assert (status, output["ok"]) == (1, False)
        assert output["checks"][-1].pop("seconds") >= 0
        assert output["checks"][-1] == {"name": "clock", "ok": False, "detail": "slow"}

    def test_report(self, run, tmp_path):
        file = tmp_path / "board.txt"
        arguments = ("info", "--device", "golden?board=icebreaker", "--selftest", "--report", file)
        status, out, err = run(*arguments)
        assert (status, err) == (0, "") and "self-test\n" in out
        assert file.read_text().startswith("tritloom self-test: passed\n")
        assert run(*arguments[:3], "--report", file) == failed(
            "--report is that of the self-test; give --selftest too"
        )
        missing = tmp_path / "none" / "board.txt"
        assert run(*arguments[:4], "--report", missing) == failed(
            f"--report: there is no folder {missing.parent}"
        )

    def test_selftest_of_nothing(self, run):
        assert run("info", "--selftest") == failed(
            "--selftest needs a device; name it with --device"
        )
