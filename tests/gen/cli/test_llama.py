import json
import os
import sys
from pathlib import Path

import pytest

from tritloom.gen.flow import llama
from tritloom.gen.flow.llama import build_backend, ggml_folder, ggml_version
from tritloom.rtl.spec.errors import InputError, ToolError
from tritloom.rtl.spec.llama import LIBRARY

CLIENT = """
import os, sys
from pathlib import Path
import numpy as np
from tritloom.host.serve.client import Client
with Client(Path(os.environ["TRITLOOM_SOCKET"])) as client:
    layer = client.load(np.ones((3, 5), np.int8))
    for _ in range(int(sys.argv[1])):
        assert client.products([layer], np.full((1, 5), 2, np.int8))[0].tolist() == [[[10]] * 3]
names = "GGML_BACKEND_PATH TRITLOOM_CODES TRITLOOM_VERIFY"
Path(sys.argv[3]).write_text(" ".join(os.environ[name] for name in names.split()))
sys.exit(int(sys.argv[2]))
"""
LISTS = "set(GGML_VERSION_MAJOR 1)\nset(GGML_VERSION_MINOR 2)\nset(GGML_VERSION_PATCH 3)\n"


@pytest.fixture
def sources(tmp_path):
    """Something that looks like ggml's sources."""
    folder = tmp_path / "llama.cpp" / "ggml"
    for name in llama.HEADERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "CMakeLists.txt").write_text(LISTS)
    return folder


@pytest.fixture
def backend(tmp_path):
    (tmp_path / LIBRARY).write_bytes(b"")
    return tmp_path / LIBRARY


def test_where_ggml_may_be(sources):
    assert ggml_folder(sources) == ggml_folder(sources.parent) == sources
    assert ggml_version(sources) == "1.2.3"


def test_no_sources(run, tmp_path):
    status, out, err = run("llama", "build", "--ggml", tmp_path)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert f"{tmp_path} has no sources of ggml (include/ggml.h and src/ggml-backend-impl.h)" in err


def test_no_version(sources):
    (sources / "CMakeLists.txt").write_text(LISTS.replace("GGML_VERSION_MINOR", "OTHER"))
    with pytest.raises(InputError, match="does not set GGML_VERSION_MAJOR, MINOR and PATCH"):
        ggml_version(sources)
    (sources / "CMakeLists.txt").unlink()
    with pytest.raises(InputError, match="does not set GGML_VERSION_MAJOR"):
        ggml_version(sources)


@pytest.mark.sim
def test_the_compiler_fails(sources, tmp_path):
    (sources / "include" / "ggml.h").write_text("#error not the real one\n")
    with pytest.raises(ToolError, match=r"C\+\+ compiler failed for ggml 1\.2\.3: .*not the real"):
        build_backend(sources, tmp_path / "x.so")
    assert not (tmp_path / "x.so").exists()


def client(run, backend, products, status, *options):
    return run(
        *("llama", "run", "--device", "golden", "--backend", backend, *options, "--"),
        *(sys.executable, "-c", CLIENT, str(products), str(status), f"{backend}.txt"),
    )


@pytest.mark.sim
def test_run(run, backend):
    status, out, err = client(run, backend, 2, 0, "--codes", "token", "--verify", "always")
    assert (status, out, err) == (0, "", "2 products on golden\n")
    assert Path(f"{backend}.txt").read_text() == f"{backend} token always"


@pytest.mark.sim
@pytest.mark.parametrize(("products", "ends", "status"), [(0, 0, 1), (0, 3, 3), (1, 3, 3)])
def test_status(run, backend, products, ends, status):
    """Of the program; one that ends well without a product is an error."""
    got, out, err = client(run, backend, products, ends, "--json")
    assert got == status
    assert json.loads(out) == {"device": "golden", "products": products, "status": ends}
    assert ("ended without one product on the device" in err) == ((products, ends) == (0, 0))
    assert err.count("\n") <= 1


@pytest.mark.sim
def test_a_program_that_a_signal_ends(run, backend):
    killed = "import os; os.kill(os.getpid(), 9)"
    status, _, _ = run(
        *("llama", "run", "--device", "golden", "--backend", backend, "--"),
        *(sys.executable, "-c", killed),
    )
    assert status == 128 + 9


def test_what_cannot_run(run, backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "..")
    for arguments, message in (
        (["--backend", tmp_path / "no.so", "--", "x"], "no such file; make it with tritloom llama"),
        (["--", "x"], f"{LIBRARY}: no such file; make it with tritloom llama build"),
        (
            ["--device", "golden", "--backend", backend, "--", tmp_path / "no-program"],
            f"{tmp_path / 'no-program'}: No such file or directory",
        ),
    ):
        status, out, err = run("llama", "run", *arguments)
        assert (status, out) == (1, "")
        assert err.count("\n") == 1 and message in err
    assert os.path.exists(backend)
