"""Programs of llama.cpp with a device, as the tests run them."""

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

from tests.support import ROOT
from tritloom.gen.flow.llama import ggml_folder
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.sim.tools import find_cxx

__all__ = [
    "FLOATS",
    "GROUPS",
    "PROMPTS",
    "TOKENS",
    "TRITLOOM",
    "compiled",
    "completion",
    "environment",
    "is_same_text",
    "run_on",
    "run_with",
    "served",
]

TRITLOOM = [sys.executable, "-m", "tritloom"]
PROMPTS = (
    *("Emma was", "Mr. Darcy", "It was a", "The door"),
    *("She had", "There was no", "Elizabeth", "In the morning"),
)
TOKENS = 40
GROUPS = AcceleratorConfig(
    lanes=35,
    rows=4,
    fill=5,
    memory=BlockRam(words=20480),
    max_in_features=560,
    max_out_features=512,
    max_group_sums=4096,
    max_layers=32,
    packet_bytes=1024,
    slots=8,
    link=PacketStream(width=4),
)
"""A tile for each group of 32 inputs, and room for all of tinylm."""
FLOATS = replace(GROUPS, max_group_sums=0, scale=ScaleConfig(kind="float", group=256))
"""The same, but the device scales the sums, as llama.cpp's activations need it."""


def compiled(llama, name, folder):
    """The program of a source file beside this one."""
    source, program = ROOT / "tests" / "llama" / f"{name}.cc", folder / name
    libraries = [f"-L{llama.programs}", "-lggml", "-lggml-base", f"-Wl,-rpath,{llama.programs}"]
    ggml = ggml_folder(llama.sources)
    folders = (ggml / "include", ggml / "src", ROOT / "host" / "llama")
    flags = ["-std=c++17", "-O2", "-ffp-contract=off", *(f"-I{each}" for each in folders)]
    subprocess.run([*find_cxx(), *flags, source, "-o", program, *libraries, "-ldl"], check=True)
    return program


def run_with(backend, *command, device="golden", codes="block", verify="first", status=0):
    """What a program prints, run by `tritloom llama run`, and what is said beside it."""
    options = ["--device", device, "--codes", codes, "--verify", verify, "--backend", backend]
    ran = subprocess.run(
        [*TRITLOOM, "llama", "run", *options, "--", *command],
        capture_output=True,
        text=True,
        timeout=1200,
        cwd=ROOT,
    )
    assert ran.returncode == status, ran.stderr
    return ran.stdout, ran.stderr


def completion(llama, model, prompt, tokens=TOKENS):
    options = ["-m", model, "-p", prompt, "-n", str(tokens), "--temp", "0", "--no-warmup"]
    return [llama.programs / "llama-completion", *options, "-no-cnv", "-t", "1", "-c", "256"]


def is_same_text(text, other):
    """The program sometimes loses the end of its text, also on the CPU alone."""
    least = min(len(text), len(other))
    return least > 10 and text[:least] == other[:least]


def run_on(server, backend, command):
    """What a program gives with a server of this process; each product is compared."""
    env = environment(backend, server.path, TRITLOOM_VERIFY="always")
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=1200)


@contextmanager
def served(path, device="golden"):
    command = [*TRITLOOM, "serve", "--device", device, "--socket", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as server:
        assert server.stdout.readline().strip() == os.fsencode(path)
        try:
            yield server
        finally:
            server.terminate()


def environment(backend, path, **more):
    return {"GGML_BACKEND_PATH": str(backend), "TRITLOOM_SOCKET": str(path), **os.environ, **more}
