import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import quick_first
from tritloom.boards.board import board_names
from tritloom.gen.flow import build as build_module
from tritloom.rtl.spec.config import TINY

BOARDS = board_names()


def failed(text):
    return 1, "", f"tritloom: error: {text}\n"


class TestBuild:
    """What is built is tested in test_build.py."""

    @pytest.fixture
    def built(self, monkeypatch):
        """`build` and `fit` replaced; what they were called with."""
        calls = []
        report = {
            **{key: {"used": 1000, "available": 5280} for key in ("luts", "ffs")},
            **{key: {"used": 7, "available": 30} for key in ("block_rams", "dsps")},
            "clock_mhz": {"wanted": 24.0, "reached": 30.25},
            "timing_met": True,
            "mac_per_cycle": 20,
            "lut_per_mac": 50.0,
            "weight_capacity": {"trits": 30720, "bits": 49152},
            "models": {
                "a-model": {
                    "fits": "all",
                    "end_to_end": {
                        "total_s": 0.125,
                        "tokens": 2,
                        "tokens_per_s": 16.0,
                        "bound": "link out",
                        "gmac_per_s_run": 12.3,
                    },
                },
                "other": {"fits": "none", "end_to_end": None},
            },
            "critical_path": {"from": "a", "to": "b"},
        }

        def replacement(name):
            def fake_build(board, directory, *, progress, **options):
                calls.append((name, board.name, directory, options))
                progress("     0 s  synthesis …")
                return build_module.Build(directory / f"{board.name}.bin", report)

            return fake_build

        for name in ("build", "fit"):
            monkeypatch.setattr(build_module, name, replacement(name))
        return calls, report

    def test_text(self, run, built):
        assert run("build", "--board", "icebreaker", "-o", "out") == (
            0,
            (
                "out/icebreaker.bin\n"
                "1,000 of 5,280 LUTs, 1,000 of 5,280 flip-flops, 7 of 30 block RAMs, 7 of 30 DSPs\n"
                "30.2 of 24 MHz, at most 20 MAC/cycle, 50.0 LUT/MAC, room for 30,720 weights\n"
                "a-model: fits all, end to end 16 tokens/s, 62.5 ms a token, link out binds; RUN\n"
                "alone 12.3 GMAC/s\n"
                "other: fits none, no time is known\n"
            ),
            "     0 s  synthesis …\n",
        )
        options = {"config": None, "seed": 1, "seeds": 4}
        assert built[0] == [("build", "icebreaker", Path("out"), options)]

    def test_options(self, run, built, tmp_path):
        file = tmp_path / "tiny.json"
        file.write_text(TINY.to_json())
        status, out, _ = run(
            *("build", "--board", "icebreaker", "-o", "out", "--config", file, "--fit"),
            *("--seed", "3", "--seeds", "9", "--json"),
        )
        assert status == 0
        assert json.loads(out) == {"bitstream": "out/icebreaker.bin", **built[1]}
        options = {"config": TINY, "seed": 3, "seeds": 9}
        assert built[0] == [("fit", "icebreaker", Path("out"), options)]

    def test_fit_places_once_for_each(self, run, built):
        run("build", "--board", "icebreaker", "-o", "out", "--fit")
        options = {"config": None, "seed": 1, "seeds": 1}
        assert built[0] == [("fit", "icebreaker", Path("out"), options)]

    def test_timing_missed(self, run, built):
        built[1].update(timing_met=False, clock_mhz={"wanted": 24.0, "reached": 23.07})
        status, out, err = run("build", "--board", "icebreaker", "-o", "out")
        assert status == 1 and out.startswith("out/icebreaker.bin\n")
        assert err.splitlines()[1:] == [
            (
                "tritloom: error: timing missed by 0.93 MHz: 23.07 of 24 MHz, from a to b; try "
                "--seeds 8 or --fit, or set clock_hz to at most 23000000; out has the files"
            )
        ]

    def test_unknown_board(self, run, tmp_path):
        assert run("build", "--board", "nix", "-o", tmp_path / "out") == failed(
            f"unknown board 'nix'; known are {', '.join(BOARDS)}"
        )
        assert not list(tmp_path.iterdir())

    def test_bad_config(self, run, tmp_path):
        file = tmp_path / "bad.json"
        file.write_text("{")
        status, _, err = run("build", "--board", "icebreaker", "--config", file, "-o", "out")
        assert status == 1 and err.startswith(f"tritloom: error: {file}: configuration is not JSON")

    @quick_first("locked", [True, False])
    def test_unusable_cache(self, run, tmp_path, monkeypatch, locked):
        """The cache is a file, or a file lies where a folder of it should be."""
        cache = tmp_path / "cache"
        if locked:
            cache.mkdir()
        (cache / "builds" if locked else cache).touch()
        monkeypatch.setenv("TRITLOOM_CACHE", str(cache))
        (tmp_path / "tiny.json").write_text(replace(TINY, clock_hz=18_000_000).to_json())
        reason = "File exists" if locked else "Not a directory"
        assert run(
            *("build", "--board", "icebreaker", "--config", tmp_path / "tiny.json"),
            *("-o", tmp_path / "out"),
        ) == failed(
            f"cannot use the cache {cache / 'builds'}: {reason}; "
            "set TRITLOOM_CACHE to a folder that you can write to"
        )
        assert not (tmp_path / "out").exists()
