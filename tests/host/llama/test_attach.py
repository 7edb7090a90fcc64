"""`attach` without llama.cpp: what it hands to ggml, and what it refuses."""

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tritloom.host import connect
from tritloom.host.llama import attach
from tritloom.host.serve.client import Client
from tritloom.rtl.spec.errors import InputError, ToolError

MODULE = sys.modules[attach.__module__]


@pytest.fixture
def backend(tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "_attached", False)
    for name in ("TRITLOOM_SOCKET", "TRITLOOM_CODES", "TRITLOOM_VERIFY"):
        monkeypatch.setenv(name, "before")
    path = tmp_path / "libggml-tritloom.so"
    path.write_bytes(b"")
    return path


def loads(monkeypatch, load):
    """Put a llama_cpp in place whose ggml loads back ends with `load`."""
    module = ModuleType("llama_cpp.llama_cpp")
    module._lib = SimpleNamespace(ggml_backend_load=load, _name=None)
    monkeypatch.setitem(sys.modules, "llama_cpp", ModuleType("llama_cpp"))
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_cpp", module)


def test_it_hands_the_device_to_ggml(monkeypatch, backend):
    seen = []

    def load(path):
        names = ("TRITLOOM_CODES", "TRITLOOM_VERIFY")
        seen.append((os.fsdecode(path), *(os.environ[name] for name in names)))
        return 1

    loads(monkeypatch, load)
    with connect("golden") as device:
        with attach(device, backend=backend, codes="token", verify="always") as server:
            socket = Path(os.environ["TRITLOOM_SOCKET"])
            with Client(socket) as client:
                layer = client.load(np.ones((2, 3), np.int8))
                (sums,) = client.products([layer], np.full((1, 3), 4, np.int8))
                assert sums.ravel().tolist() == [12, 12]
            assert server.products == 1
        assert seen == [(str(backend), "token", "always")]
        assert not socket.exists()
        device.counters()  # it is the caller's, and open
        with (
            pytest.raises(InputError, match="has attached a device before; start another process"),
            attach(device, backend=backend),
        ):
            pass


def test_a_ggml_that_refuses(monkeypatch, backend):
    """Nothing was attached: another back end may be tried."""
    loads(monkeypatch, lambda path: None)
    with connect("golden") as device:
        for _ in range(2):
            with (
                pytest.raises(ToolError, match=r"ggml did not take .*tritloom llama build --ggml"),
                attach(device, backend=backend),
            ):
                pass


def test_what_it_refuses(monkeypatch, backend, tmp_path):
    with connect("golden") as device:
        for options, message in (
            ({"codes": "row"}, "codes must be one of block, token, not 'row'"),
            ({"verify": ""}, "verify must be one of first, always, off, not ''"),
            ({"backend": tmp_path / "no.so"}, "no.so: no such file; make it with tritloom llama"),
        ):
            with (
                pytest.raises(InputError, match=message),
                attach(device, **{"backend": backend, **options}),
            ):
                pass
        monkeypatch.setitem(sys.modules, "llama_cpp", None)
        with (
            pytest.raises(ToolError, match="run pip install llama-cpp-python"),
            attach(device, backend=backend),
        ):
            pass
