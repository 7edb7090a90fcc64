"""`make dist`: what it makes is complete, and installs with its extras where nothing else is."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.test_packaging import PYPROJECT, project_files

VERSION = PYPROJECT["project"]["version"]
EXTRAS = ",".join(sorted(set(PYPROJECT["project"]["optional-dependencies"]) - {"test", "torch"}))
"""All that a user may want, except torch's two gigabytes."""
ADDED = {"PKG-INFO", "setup.cfg"}
"""Files that setuptools adds to a source archive."""


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Runs `make dist` in a copy of the project; gives the copy's `dist`."""
    source = tmp_path_factory.mktemp("dist") / "source"
    for name in project_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    # The tests' own environment stands in for the one that make would install.
    command = ["make", "-s", "dist", "-o", ".venv/.test", f"BIN={Path(sys.executable).parent}"]
    environment = {**os.environ, "MAKEFLAGS": ""}
    subprocess.run(command, cwd=source, env=environment, check=True, timeout=300)
    return source / "dist"


@pytest.mark.slow
def test_both_are_made(dist):
    assert sorted(path.name for path in dist.iterdir()) == [
        f"tritloom-{VERSION}-py3-none-any.whl",
        f"tritloom-{VERSION}.tar.gz",
    ]


@pytest.mark.slow
def test_source_archive_is_the_project(dist):
    with tarfile.open(dist / f"tritloom-{VERSION}.tar.gz") as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    ours = {name for name in names if ".egg-info/" not in name}
    assert ours - ADDED == set(project_files()) - ADDED


@pytest.mark.slow
def test_wheel_installs_with_its_extras(dist, tmp_path):
    """In an empty environment, with what its extras name and nothing else."""
    wheel = dist / f"tritloom-{VERSION}-py3-none-any.whl"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
    bin_folder = tmp_path / "venv" / "bin"
    pip = [bin_folder / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    requirements = [f"{wheel}[{EXTRAS}]", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, "install", *requirements], check=True, timeout=1200)
    subprocess.run([*pip, "check"], check=True, timeout=120)

    def run(*command):
        environment = {**os.environ, "TRITLOOM_CACHE": str(tmp_path / "cache")}
        program = [bin_folder / command[0], *command[1:]]
        subprocess.run(program, cwd=tmp_path, env=environment, check=True, timeout=600)

    run("tritloom", "boards")
    run("tritloom", "generate", "--board", "icebreaker", "-o", "design")
    assert (tmp_path / "design" / "tritloom.v").exists()
    run("tritloom", "info", "--device", "sim?board=icebreaker", "--selftest")
    run("python", "-c", "import matplotlib, safetensors, tokenizers, gguf, cocotb")
