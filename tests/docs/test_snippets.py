"""Every Python snippet and shell step of README, tutorial and how-tos runs as it is printed.

The steps of a page run in their order in one folder: a copy of README, docs, examples and models,
with a stand-in for `.venv/bin/activate` that puts the tests' environment on the PATH. A step behind
the comment `<!-- not run: why -->` does not run; `NOT_RUN` names each, so that none is left out
unseen. A step behind `<!-- slow: why -->` or `<!-- torch: why -->` runs only in its page's
test with that mark.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import ROOT, snippets

PAGES = [
    "README.md",
    *(
        path.relative_to(ROOT).as_posix()
        for kind in ("tutorial", "howto")
        for path in sorted((ROOT / "docs" / kind).rglob("*.md"))
    ),
]
STEPS = {"python", "sh"}
SHOWN = {"", "c", "json", "text", "toml", "verilog", "yaml"}
"""Languages of blocks that show something and are no step."""

FIRST_LIGHT = {"icebreaker": 1, "ulx3s-12f": 0, "ulx3s-25f": 0, "ulx3s-45f": 0, "ulx3s-85f": 0}
"""Boards, and the number of the serial port that their pages name."""

NOT_RUN = {
    "README.md": [
        "make demo",
        "tritloom verify design --junit results.xml",
        "from tritloom.host.torch import offload",
        "tritloom llama build --ggml llama.cpp",
    ],
    "docs/tutorial/first-hour.md": [
        "make demo",
        "tritloom build --board icebreaker -o bitstream",
    ],
    "docs/howto/arty-z7.md": [
        "cd build/arty && vivado -mode batch -source ../../examples/arty-z7-20/design.tcl",
        "pip install numpy tritloom",
        "from driver import FifoTransport, MappedRegisters",
        "sudo build/arty/matmul /dev/mem@0x43C00000 build/arty/layer.bin activations.bin",
    ],
    "docs/howto/build-and-flash.md": [
        "tritloom build --board icebreaker -o build/ice",
        "tritloom build --board icebreaker --preset spram -o build/spram",
        "tritloom auto --board icebreaker --model tinylm -o mine.json",
        "tritloom flash build/ice",
        "tritloom devices",
        "tritloom info --device serial:///dev/ttyUSB0 --selftest --report selftest.txt",
    ],
    "docs/howto/debug-a-bench.md": ["tritloom verify build --seed 7 --fail-fast"],
    "docs/howto/llama.md": [
        "git clone https://github.com/ggml-org/llama.cpp",
        "tritloom llama build --ggml llama.cpp",
        'tritloom llama run -- llama.cpp/build/bin/llama-completion -m model.gguf -p "Emma was"',
        "tritloom serve --socket /tmp/tritloom.sock &",
        "from llama_cpp import Llama",
    ],
    "docs/howto/ethernet.md": [
        "sudo ip addr add 10.77.0.1/24 dev eth0",
        "tritloom devices --set-address 02:54:52:49:54:02 192.168.1.77",
        "tritloom info --device udp://10.77.0.2 --selftest",
        "unshare -rn",
    ],
    "docs/howto/sdram.md": ["tritloom build --board ulx3s-85f --preset sdram -o build/sdram"],
    "docs/howto/measure.md": [
        "tritloom measure engine --family ecp5 --engine table",
        "tritloom measure engine --family ecp5 --engine table --output results/mine.json",
        "tritloom measure table --family ecp5",
        "tritloom measure stream --shape 1024x256 --engine select --lanes 55 --rows 4",
        "tritloom measure stream --shape 256x512 --engine table --output stream-mine.json",
        "tritloom measure stream --memory axi --width 128 --latency 60 --shape 2560x2560",
        "tritloom measure host --udp",
        "tritloom measure host --load",
        "tritloom measure host --serve",
        "tritloom measure link --kind udp",
    ],
    **{
        f"docs/howto/first-light/{board}.md": [
            f"tritloom build --board {board} -o bitstream",
            "tritloom flash bitstream",
            "tritloom devices",
            f"tritloom info --device {url} --selftest --report selftest.txt",
            f'tritloom run models/tinylm --device {url} --prompt "Emma was"',
        ]
        for board, number in FIRST_LIGHT.items()
        for url in [f"serial:///dev/ttyUSB{number}"]
    },
}
"""First lines, without comments, of the steps that do not run, by page."""

BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>not run|slow|torch): [^>]+ -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    mark: str


def blocks(page):
    matches = BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))
    return [
        Block(match["language"], textwrap.dedent(match["text"]), match["mark"] or "")
        for match in matches
    ]


def steps(page, marks):
    return [
        (block.language, block.text)
        for block in blocks(page)
        if block.language in STEPS and block.mark in marks
    ]


def run_steps(page, marks, folder):
    for name in ("README.md", "docs", "examples", "models"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    activate = folder / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f'PATH="{Path(sys.executable).parent}:$PATH"\n')
    (folder / "steps.json").write_text(json.dumps(steps(page, marks)), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, snippets.__file__, "steps.json"],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert ran.returncode == 0, f"{page}:\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"


def pages_with(mark):
    return [page for page in PAGES if any(block.mark == mark for block in blocks(page))]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_known(page):
    """A misspelt language or an open fence would leave a step out."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert {block.language for block in blocks(page)} <= STEPS | SHOWN
    assert text.count("```") == 2 * len(blocks(page))
    comments = re.findall(r"<!-- (?:not run|slow|torch)\b", text)
    assert len(comments) == sum(bool(block.mark) for block in blocks(page))


def test_steps_left_out_are_listed():
    listed = {
        page: [
            block.text.splitlines()[0].partition("  #")[0].rstrip()
            for block in blocks(page)
            if block.mark == "not run"
        ]
        for page in pages_with("not run")
    }
    assert listed == NOT_RUN


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial/first-hour.md"])
def test_path_first(page):
    """A newcomer's first steps say how the command gets on the PATH before they use it."""
    script = "".join(block.text for block in blocks(page) if block.language == "sh")
    assert script.index(". .venv/bin/activate") < re.search("^tritloom ", script, re.M).start()


@pytest.mark.sim
@pytest.mark.parametrize("page", [page for page in PAGES if steps(page, {""})])
def test_steps_run(page, tmp_path):
    run_steps(page, {""}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("slow"))
def test_slow_steps_run(page, tmp_path):
    run_steps(page, {"", "slow"}, tmp_path)


@pytest.mark.torch
@pytest.mark.parametrize("page", pages_with("torch"))
def test_torch_steps_run(page, tmp_path):
    run_steps(page, {"", "torch"}, tmp_path)
