"""llama.cpp for the tests: from the source archive of PyPI's llama-cpp-python, built once."""

import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from tests.support import ROOT

__all__ = ["LlamaCpp", "build_llama"]

VERSION = "0.3.36"
"""Of llama-cpp-python: it has ggml 0.25.3."""
FOLDER = ROOT / ".cache" / "llama"
COMMON = (
    *("-GNinja", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=OFF", "-DGGML_BACKEND_DL=ON"),
    *("-DBUILD_SHARED_LIBS=ON", "-DGGML_OPENMP=OFF", "-DGGML_LLAMAFILE=OFF", "-DLLAMA_CURL=OFF"),
    *("-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF"),
)
PLAIN = (
    *(f"-DGGML_{name}=OFF" for name in ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")),
    *("-DCMAKE_C_FLAGS=-ffp-contract=off", "-DCMAKE_CXX_FLAGS=-ffp-contract=off"),
)
"""ggml's plain C code, every operation rounded once: the order that our back end promises."""
FAST = tuple(f"-DGGML_{name}=ON" for name in ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C"))
"""ggml's code for AVX2, whose codes our back end promises."""


class LlamaCpp:
    """The sources and what was built of them."""

    def __init__(self, sources: Path, build: Path) -> None:
        self.sources = sources
        self.programs = build / "bin"
        self.cpu = build / "bin" / "libggml-cpu.so"
        self.fast_cpu = build.parent / "fast" / "bin" / "libggml-cpu.so"
        self.python = [sources.parents[1], FOLDER / "python"]
        """Folders of llama-cpp-python and of what it needs; it takes its library from
        LLAMA_CPP_LIB_PATH."""


def build_llama() -> LlamaCpp:
    """Download, unpack and build; says how long it took. A second call finds all of it done."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    sources = FOLDER / f"llama_cpp_python-{VERSION}" / "vendor" / "llama.cpp"
    if not sources.is_dir():
        archive = FOLDER / f"llama_cpp_python-{VERSION}.tar.gz"
        if not archive.exists():
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            wanted = f"llama-cpp-python=={VERSION}"
            where = ["--dest", str(FOLDER), "--no-binary", "llama-cpp-python"]
            subprocess.run([*pip, *where, wanted], check=True)
        with tarfile.open(archive) as file:
            file.extractall(FOLDER, filter="data")
    if not (FOLDER / "python").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--target", FOLDER / "python", "diskcache", "jinja2"], check=True)
    build = FOLDER / "build"
    jobs = str(len(os.sched_getaffinity(0)))
    for folder, options, targets in (
        (build, PLAIN, ["ggml-cpu", "llama-completion", "test-backend-ops"]),
        (FOLDER / "fast", FAST, ["ggml-cpu"]),
    ):
        subprocess.run(["cmake", "-S", sources, "-B", folder, *COMMON, *options], check=True)
        subprocess.run(["cmake", "--build", folder, "-j", jobs, "--target", *targets], check=True)
    print(f"llama.cpp was built in {time.monotonic() - start:.0f} s")
    return LlamaCpp(sources, build)
