"""llama-cpp-python in this process with a device."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tritloom.host.device import Device
from tritloom.host.serve.server import Server
from tritloom.host.serve.thread import serving
from tritloom.rtl.spec.errors import InputError, ToolError
from tritloom.rtl.spec.llama import CODES, LIBRARY, VERIFY

__all__ = ["attach"]

_attached = False


@contextmanager
def attach(
    device: Device,
    *,
    backend: str | os.PathLike[str] = LIBRARY,
    codes: str = "block",
    verify: str = "first",
) -> Iterator[Server]:
    """Let the models that llama-cpp-python loads in the `with` statement compute on a device.

    Make the models inside the statement, and close them before it ends. ggml keeps a back end until
    the process ends, so a process can attach one device, once.

    Parameters
    ----------
    device : stays the caller's, who closes it; the statement must not outlast it
    backend : the file that `tritloom llama build` wrote for the ggml of llama-cpp-python
    codes : `block` or `token`, as in `tritloom llama run --codes`
    verify : `first`, `always` or `off`, as in `tritloom llama run --verify`

    Yields
    ------
    Server
        Its `products` counts the products that the device computed.

    Raises
    ------
    InputError : an argument is wrong, or this process has attached a device before
    ToolError : llama-cpp-python is not installed, or its ggml refuses the back end
    DeviceError : the device was lost; raised at the end of the statement
    """
    global _attached
    for name, value, choices in (("codes", codes, CODES), ("verify", verify, VERIFY)):
        if value not in choices:
            raise InputError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    path = Path(backend).absolute()
    if not path.is_file():
        raise InputError(f"{backend}: no such file; make it with tritloom llama build")
    if _attached:
        raise InputError("this process has attached a device before; start another process")
    try:
        from llama_cpp.llama_cpp import _lib as library
    except (ImportError, FileNotFoundError, RuntimeError) as error:
        raise ToolError(
            f"llama_cpp cannot be imported ({error}); run pip install llama-cpp-python"
        ) from error
    # Python keeps a library's symbols to itself; the back end needs ggml's.
    ctypes.CDLL(library._name, mode=ctypes.RTLD_GLOBAL)
    load = library.ggml_backend_load
    load.argtypes, load.restype = [ctypes.c_char_p], ctypes.c_void_p
    with serving(device) as server:
        os.environ |= {
            "TRITLOOM_SOCKET": str(server.path),
            "TRITLOOM_CODES": codes,
            "TRITLOOM_VERIFY": verify,
        }
        if not load(os.fsencode(path)):
            raise ToolError(
                f"llama-cpp-python's ggml did not take {backend}; the line before says why. Build "
                "it with that ggml's sources: tritloom llama build --ggml DIR"
            )
        _attached = True
        yield server
