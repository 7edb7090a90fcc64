"""What the Makefile makes again, and when, with a stand-in for Python that notes its calls."""

import os
import re
import shutil
import subprocess

import pytest

from tests.support import ROOT

PYTHON = r"""#!/bin/sh
echo "$*" >> "$LOG"
case "$*" in
  "-m venv .venv")
    mkdir -p .venv/bin
    echo "command = /usr/bin/python3 -m venv $PWD/.venv" > .venv/pyvenv.cfg
    cp "$0" .venv/bin/python ;;
esac
"""
MOVED = ".venv was made in another folder or for another Python; making it anew."


class Clone:
    """A folder with the project's Makefile, in which `make` runs the stand-in."""

    def __init__(self, folder):
        self.folder = folder / "clone"
        self.folder.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt", "requirements-torch.txt"):
            shutil.copy(ROOT / name, self.folder)
        self.python = folder / "python"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)
        self.log = folder / "log"

    def make(self, target):
        """Returns what `make` printed, and the arguments of each call of Python."""
        self.log.write_text("")
        ran = subprocess.run(
            ["make", "-s", target, f"PYTHON={self.python}"],
            cwd=self.folder,
            env={**os.environ, "LOG": str(self.log), "MAKEFLAGS": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout, self.log.read_text().splitlines()


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


def installs(calls):
    return [call.rsplit(" ", 1)[1] for call in calls if "pip" in call and " install " in call]


def test_first_and_second_run(clone):
    printed, calls = clone.make("demo")
    assert printed.count("\n") == 1 and printed.startswith("Installing into .venv")
    assert "-m venv .venv" in calls and installs(calls) == [".[sim,models]"]
    assert calls[-1] == "examples/demo.py"
    printed, calls = clone.make("demo")
    assert printed == "" and calls == ["-c pass", "examples/demo.py"]


def test_pip_is_quiet(clone):
    _, calls = clone.make("demo")
    assert all("--quiet" in call for call in calls if " install " in call)


@pytest.mark.parametrize("target", ["demo", "formal", "test-torch"])
def test_moved(clone, target):
    """The scripts and the editable installation of a moved clone name the old place."""
    _, first = clone.make(target)
    clone.folder = clone.folder.rename(clone.folder.with_name("moved"))
    printed, calls = clone.make(target)
    assert printed.startswith(f"{MOVED}\n")
    assert installs(calls) == installs(first)
    printed, calls = clone.make(target)
    assert printed == "" and not installs(calls)


def test_moved_to_an_end_of_its_old_path(clone):
    clone.make("demo")
    settings = clone.folder / ".venv" / "pyvenv.cfg"
    settings.write_text(settings.read_text().replace(" /", " /old/").replace("/old/usr", "/usr"))
    assert MOVED in clone.make("demo")[0]


def test_python_gone(clone):
    clone.make("demo")
    python = clone.folder / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nonexistent/python3")
    printed, calls = clone.make("demo")
    assert MOVED in printed and "-m venv .venv" in calls and installs(calls)


def test_help_and_clean_leave_it(clone):
    clone.make("demo")
    clone.folder = clone.folder.rename(clone.folder.with_name("moved"))
    for target in ("help", "clean"):
        assert MOVED not in clone.make(target)[0]
        assert (clone.folder / ".venv" / "bin" / "python").exists()


def test_help_lists_every_target():
    """One line a target, and none wider than a terminal."""
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    # These tests may run inside make, which would then name its folder in lines of its own.
    command = ["make", "--no-print-directory", "help"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()
    assert {line.split()[0] for line in lines} == phony - {"simulator", "stale"}
    assert max(map(len, lines)) <= 80
