import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tritloom.rtl.spec.config import TINY
from tritloom.sim.verify import run as verify_module


@dataclass
class Bench:
    name: str
    ok: bool
    message: str = ""


@dataclass
class Result:
    ok: bool
    passed: int = 3
    failed: int = 0
    simulator: str = "icarus"
    seed: int = 5
    benches: tuple = ()


class TestVerify:
    @pytest.fixture
    def verified(self, monkeypatch):
        """`verify` replaced; what it was called with, and what it shall give."""
        calls = []

        def verify(directory, **options):
            calls.append((directory, options))
            options.pop("progress")("mix: passed")
            return calls[0]

        monkeypatch.setattr(verify_module, "verify", verify)
        return calls

    @pytest.mark.parametrize("ok", [True, False])
    def test_status(self, run, verified, monkeypatch, tmp_path, ok):
        bench = Bench("mix", ok, "" if ok else "response to RUN: value must be 1, not 2")
        result = Result(ok, passed=int(ok), failed=int(not ok), benches=(bench,))
        verified.append(result)
        junit = tmp_path / "junit.xml"
        status, out, err = run("verify", "folder", "--junit", junit, "--seed", 5)
        options = {"junit": junit, "seed": 5, "plugins": [], "fail_fast": False}
        assert verified[1] == (Path("folder"), options)
        assert err == "mix: passed\n"
        if ok:
            assert (status, out) == (0, "1 passed, 0 failed\n")
        else:
            lines = ["FAILED mix: response to RUN: value must be 1, not 2", "0 passed, 1 failed"]
            assert (status, out.splitlines()) == (1, lines)
        status, out, _ = run("verify", "folder", "--json")
        output = json.loads(out)
        assert status == (0 if ok else 1)
        assert (
            output["ok"] is ok and output["passed"] == int(ok) and output["failed"] == int(not ok)
        )
        assert output["benches"] == [{"name": "mix", "ok": ok, "message": bench.message}]

    def test_options(self, run, verified):
        verified.append(Result(True))
        run("verify", "folder", "--plugin", "one", "--plugin", "two.three", "--fail-fast")
        options = {"junit": None, "seed": 0, "plugins": ["one", "two.three"], "fail_fast": True}
        assert verified[1] == (Path("folder"), options)

    def test_plugin_missing(self, run, tmp_path):
        status, _, err = run("verify", tmp_path, "--plugin", "no_such_engine")
        assert status == 1
        assert err.startswith("tritloom: error: plug-in 'no_such_engine' cannot be imported: ")

    @pytest.mark.sim
    @pytest.mark.slow
    def test_real(self, run, tmp_path):
        """The whole way: a configuration, its Verilog, the benches, a file for a CI."""
        (tmp_path / "tiny.json").write_text(TINY.to_json())
        assert run("generate", "--config", tmp_path / "tiny.json", "-o", tmp_path / "out")[0] == 0
        junit = tmp_path / "junit.xml"
        status, out, err = run("verify", tmp_path / "out", "--junit", junit)
        assert (status, out.splitlines()[1:]) == (0, [])
        assert out.endswith(" passed, 0 failed\n")
        lines = re.findall(r"^\S.* passed +[\d.]+ s$", err, re.MULTILINE)
        assert len(lines) == int(out.split()[0]) > 10
        assert junit.read_text().count("<testcase") == int(out.split()[0])

    def test_not_generated(self, run, tmp_path):
        status, out, err = run("verify", tmp_path / "none")
        assert (status, out) == (1, "")
        assert err == (
            f"tritloom: error: {tmp_path / 'none'} is not a folder; name one that generate wrote\n"
        )
