"""The back end of ggml, compiled for the ggml that will load it."""

from __future__ import annotations

import re
import subprocess
from importlib.resources import files
from pathlib import Path

from tritloom.rtl.spec.errors import InputError, ToolError
from tritloom.sim.tools import find_cxx

__all__ = ["build_backend", "ggml_folder", "ggml_version"]

HEADERS = ("include/ggml.h", "src/ggml-backend-impl.h")
SOURCE = files("tritloom.host.llama") / "backend.cc"
FLAGS = ("-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden")
EXACT = "-ffp-contract=off"
"""No product is fused with the sum behind it: each is rounded, as the back end promises."""
NUMBER = re.compile(r"^set\(GGML_VERSION_(MAJOR|MINOR|PATCH) +(\d+)\)", re.MULTILINE)


def ggml_folder(folder: Path) -> Path:
    """The folder of ggml's sources, which may be that of llama.cpp around it.

    Raises
    ------
    InputError : there are no such sources
    """
    for each in (folder, folder / "ggml", folder / "vendor" / "llama.cpp" / "ggml"):
        if all((each / name).is_file() for name in HEADERS):
            return each
    raise InputError(
        f"{folder} has no sources of ggml ({' and '.join(HEADERS)}); name the folder of the "
        "llama.cpp that will load the back end"
    )


def ggml_version(folder: Path) -> str:
    """The version of ggml's sources, as `ggml_version()` will say it.

    Raises
    ------
    InputError : the sources do not say it where ggml 0.9 and later do
    """
    lists = folder / "CMakeLists.txt"
    text = lists.read_text(encoding="utf-8", errors="replace") if lists.is_file() else ""
    numbers = dict(NUMBER.findall(text))
    if len(numbers) < 3:
        raise InputError(f"{lists} does not set GGML_VERSION_MAJOR, MINOR and PATCH; take another")
    return ".".join(numbers[name] for name in ("MAJOR", "MINOR", "PATCH"))


def build_backend(folder: Path, output: Path) -> str:
    """Compile the back end.

    Parameters
    ----------
    folder : of the ggml that will load it, or of the llama.cpp around that
    output : the shared object to write

    Returns
    -------
    The version of ggml that it is for.

    Raises
    ------
    InputError : no sources of ggml
    ToolError : no compiler, or it fails; the message has its first error
    """
    ggml = ggml_folder(folder)
    version = ggml_version(ggml)
    includes = [f"-I{ggml / 'include'}", f"-I{ggml / 'src'}"]
    command = [
        *(*find_cxx(), *FLAGS, EXACT, *includes),
        f'-DTRITLOOM_GGML_VERSION="{version}"',
        *(str(SOURCE), "-o", str(output)),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if ran.returncode:
        lines = [line for line in ran.stderr.splitlines() if "error" in line] or [ran.stderr[-200:]]
        raise ToolError(f"the C++ compiler failed for ggml {version}: {lines[0].strip()}")
    return version
