"""A server in a thread of this process."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tritloom.host.device import Device
from tritloom.host.serve.server import Server
from tritloom.rtl.spec.errors import DeviceError

__all__ = ["serving"]


@contextmanager
def serving(device: Device) -> Iterator[Server]:
    """Serve a device on a socket of its own while the `with` statement runs.

    Raises
    ------
    DeviceError : the device was lost meanwhile; raised at the end of the statement
    ToolError : no socket can be made
    """
    failed: list[DeviceError] = []

    def serve(server: Server) -> None:
        try:
            server.serve()
        except DeviceError as error:
            failed.append(error)

    with (
        tempfile.TemporaryDirectory(prefix="tritloom-") as folder,
        Server(device, Path(folder) / "device") as server,
    ):
        thread = threading.Thread(target=serve, args=[server], daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()
    if failed:
        raise failed[0]
