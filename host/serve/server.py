"""The process that holds a device: `tritloom serve`."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from tritloom.host.allocator import Allocator
from tritloom.host.device import Device
from tritloom.host.group_layer import GroupHandle, GroupJob, GroupLayer
from tritloom.host.handle import Handle, require_one_piece
from tritloom.host.job import Job
from tritloom.host.layer import TernaryLayer
from tritloom.host.serve.wire import Kind, Receiver, Room, send
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import (
    CapacityError,
    DeviceError,
    InputError,
    ToolError,
    TritloomError,
)
from tritloom.rtl.spec.packing import check_group

__all__ = ["Server"]

LONGEST_PATH = 107
"""Bytes of a socket's path: Linux has room for no more."""
AWAKE_S = 30e-6
"""A client that asks again so soon finds the server awake. More would take the processor from the
programs."""
SUMS, FLOATS = np.dtype("<i4"), np.dtype("<f4")
PRODUCTS, SCALED = Kind.PRODUCTS, Kind.SCALED
"""Python 3.11 looks up a member of an enumeration slowly."""


class Server:
    """A device behind a Unix socket; use it in a `with` statement.

    Each client has a thread. The device computes their messages one after the other.

    Members
    -------
    path : of the socket
    products : products that were computed, one for each layer of a message
    clients : clients that are connected
    """

    def __init__(self, device: Device, path: Path) -> None:
        """Open the socket.

        Parameters
        ----------
        device : the server computes with it; the caller closes it
        path : does not exist, or is the socket of a server that has ended

        Raises
        ------
        ToolError : no socket can be made there
        """
        self.path = path
        self.products = 0
        self.clients = 0
        self._device = device
        self._lock = threading.Lock()
        self._links: set[socket.socket] = set()
        self._failed: DeviceError | None = None
        self._wake_out, self._wake_in = socket.socketpair()
        try:
            self._socket = _listen(path)
        except BaseException:
            self._wake_out.close()
            self._wake_in.close()
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the socket, and end the connections. A second call does nothing."""
        if self._socket.fileno() < 0:
            return
        with suppress(FileNotFoundError):
            self.path.unlink()
        for link in (self._socket, self._wake_out, self._wake_in):
            link.close()
        with self._lock:
            for link in self._links:
                with suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Let `serve` return."""
        with suppress(OSError):
            self._wake_in.send(b"\0")

    def serve(self, changed: Callable[[Server], None] = lambda server: None) -> None:
        """Serve clients until `stop`.

        Parameters
        ----------
        changed : called when a client comes or goes

        Raises
        ------
        DeviceError : the device is lost; every client has been told
        """
        self._changed = changed
        while True:
            ready, _, _ = select.select([self._socket, self._wake_out], [], [])
            if self._wake_out in ready:
                break
            link, _ = self._socket.accept()
            threading.Thread(target=self._serve_one, args=[link], daemon=True).start()
        if self._failed is not None:
            raise self._failed

    def _serve_one(self, link: socket.socket) -> None:
        layers: dict[int, _Layer] = {}
        self._come(link)
        try:
            with link:
                self._answer_all(link, layers)
        except OSError:
            pass  # the client has gone
        finally:
            self._go(link)
            for layer in layers.values():
                try:
                    self._unload(layer)
                except TritloomError:
                    pass  # the device is lost, and the layer with it
                except Exception:  # noqa: BLE001 - a defect; the other layers are unloaded
                    _print_traceback()

    def _come(self, link: socket.socket) -> None:
        with self._lock:
            self._links.add(link)
            self.clients += 1
        self._changed(self)

    def _go(self, link: socket.socket) -> None:
        with self._lock:
            self._links.discard(link)
            self.clients -= 1
        self._changed(self)

    def _answer_all(self, link: socket.socket, layers: dict[int, _Layer]) -> None:
        """Answer a client's messages until it goes, or sends what is no message."""
        receiver = Receiver(link, AWAKE_S)
        while True:
            try:
                message = receiver.receive()
            except DeviceError as error:
                send(link, Kind.ERROR, str(error).encode())
                return
            if message is None:
                return
            kind, body = message
            try:
                answer = self._answer(kind, body, layers)
            except TritloomError as error:
                send(link, Kind.ERROR, str(error).encode())
                self._judge(error)
            except Exception as error:  # noqa: BLE001 - a defect, which ends nothing
                _print_traceback()
                send(link, Kind.ERROR, _defect(error).encode())
            else:
                send(link, kind, *answer)

    def _judge(self, error: TritloomError) -> None:
        """End the server if the device is lost: its layers are gone, so no client can go on."""
        if not isinstance(error, DeviceError):
            return
        try:
            self._device.counters()
        except DeviceError as lost:
            self._failed = lost
            self.stop()
        except Exception:  # noqa: BLE001 - a defect; the client has its answer
            _print_traceback()

    def _answer(
        self, kind: int, body: memoryview, layers: dict[int, _Layer]
    ) -> list[bytes | memoryview]:
        """The parts of an answer's body."""
        if kind == PRODUCTS:
            return self._products(body, layers)
        if kind == SCALED:
            return self._scaled(body, layers)
        if kind == Kind.INFO:
            return [json.dumps(self._info()).encode()]
        if kind == Kind.LOAD:
            return [self._load(body, layers)]
        if kind == Kind.UNLOAD:
            (number,) = _numbers(body, 1, "UNLOAD")
            self._unload(_layer(layers, number))
            del layers[number]
            return []
        if kind == Kind.FITS:
            return [self._fits(*_numbers(body, 3, "FITS"))]
        if kind == Kind.LOAD_SCALED:
            return [self._load_scaled(body, layers)]
        raise InputError(f"kind must be {', '.join(map(str, list(Kind)[1:]))}, not {kind}")

    def _info(self) -> dict[str, object]:
        info = self._device.info
        return {
            "url": info.url,
            "free_words": info.free_words,
            "max_out_features": info.config.max_out_features,
            "max_in_features": info.config.max_in_features,
            "act_bits": info.config.act_bits,
        }

    def _fits(self, rows: int, columns: int, group: int) -> bytes:
        config = self._device.info.config
        empty = Allocator(config)
        try:
            if _in_core(config, columns, group):
                empty.place(rows, columns, group)
                return struct.pack("<I", Room.SUMS if config.scale is None else Room.FLOATS)
            for first, last in _groups(columns, group):
                key = object()
                empty.take(key, empty.place(rows, last - first))
        except CapacityError:
            return struct.pack("<I", Room.NONE)
        return struct.pack("<I", Room.SUMS)

    def _load(self, body: memoryview, layers: dict[int, _Layer]) -> bytes:
        rows, columns, group = _numbers(body, 3, "LOAD")
        weights = body[12:]
        _require_size("LOAD", weights, rows * columns)
        trits = np.frombuffer(weights, np.int8).reshape(rows, columns)
        config = self._device.info.config
        layer = _Layer(columns, [])
        try:
            if config.scale is None and _in_core(config, columns, group):
                whole = self._device.load(GroupLayer.from_weights(trits, group))
                layer.parts.append(((0, columns), whole))
            else:
                for first, last in _groups(columns, group):
                    part = self._device.load(TernaryLayer.from_trits(trits[:, first:last], 1.0))
                    layer.parts.append(((first, last), part))
        except BaseException:
            self._unload(layer)
            raise
        return _numbered(layers, layer)

    def _load_scaled(self, body: memoryview, layers: dict[int, _Layer]) -> bytes:
        rows, columns, group = _numbers(body, 3, "LOAD_SCALED")
        if not self._device.info.config.scales_activations:
            raise InputError(
                "LOAD_SCALED needs a device whose configuration has a scale of the kind float; "
                "use LOAD"
            )
        groups = len(_groups(columns, group))
        start = 12 + 2 * rows * groups
        _require_size("LOAD_SCALED", body, start + rows * columns)
        scales = np.frombuffer(body[12:start], "<f2").reshape(rows, groups)
        weights = np.frombuffer(body[start:], np.int8).reshape(rows, columns)
        whole = self._device.load(GroupLayer.from_weights(weights, group, scales))
        return _numbered(layers, _Layer(columns, [((0, columns), whole)], groups))

    def _unload(self, layer: _Layer) -> None:
        for _, handle in layer.parts:
            self._device.unload(handle)

    def _products(self, body: memoryview, layers: dict[int, _Layer]) -> list[bytes | memoryview]:
        tokens, features, count = _numbers(body, 3, "PRODUCTS")
        start = 12 + 4 * count
        _require_size("PRODUCTS", body, start + tokens * features)
        asked = [_layer(layers, number) for number in struct.unpack_from(f"<{count}I", body, 12)]
        codes = np.frombuffer(body, np.int8, offset=start).reshape(tokens, features)
        sums = [_sums(jobs) for jobs in self._submit(asked, codes)]
        with self._lock:
            self.products += count
        return [each.astype(SUMS, copy=False).tobytes() for each in sums]

    def _scaled(self, body: memoryview, layers: dict[int, _Layer]) -> list[bytes | memoryview]:
        tokens, features, count, groups = _numbers(body, 4, "SCALED")
        middle = 16 + 4 * count
        start = middle + 4 * tokens * groups
        _require_size("SCALED", body, start + tokens * features)
        numbers = struct.unpack_from(f"<{count}I", body, 16)
        scales = np.frombuffer(body[middle:start], FLOATS).reshape(tokens, groups)
        codes = np.frombuffer(body, np.int8, offset=start).reshape(tokens, features)
        handles = [_scaled_handle(layers, number, codes, scales) for number in numbers]
        floats = [job.result() for job in self._device.submit_all(handles, codes, scales)]
        with self._lock:
            self.products += count
        return [each.astype(FLOATS, copy=False).tobytes() for each in floats]

    def _submit(self, layers: list[_Layer], codes: NDArray[np.int8]) -> list[list[Job | GroupJob]]:
        """The jobs of each layer: one for each of its parts.

        Jobs with the same inputs follow each other, so that these are loaded once.
        """
        features = codes.shape[1]
        handles: dict[_Columns, list[Handle | GroupHandle]] = {}
        for layer in layers:
            if features != layer.in_features:
                raise InputError(f"codes must have {layer.in_features} features, not {features}")
            for columns, handle in layer.parts:
                handles.setdefault(columns, []).append(handle)
        jobs = {
            (first, last): iter(self._device.submit_all(several, codes[:, first:last]))
            for (first, last), several in handles.items()
        }
        return [[next(jobs[columns]) for columns, _ in layer.parts] for layer in layers]


_Columns = tuple[int, int]
"""The first column of some inputs, and the column after the last."""


@dataclass(slots=True)
class _Layer:
    """A client's layer: its parts on the device, one for each group of inputs, or one for all.

    `scaled_groups` are the groups of one that has scales on the device, which is one part; else 0.
    """

    in_features: int
    parts: list[tuple[_Columns, Handle | GroupHandle]]
    scaled_groups: int = 0


def _in_core(config: AcceleratorConfig, columns: int, group: int) -> bool:
    """Whether the device's own groups of inputs serve a layer."""
    floats = config.scales_activations
    if not group or not (config.max_group_sums or floats):
        return False
    try:
        check_group(config, columns, group)
        if floats:
            require_one_piece(config, columns, group)
    except InputError:
        return False
    return True


def _numbered(layers: dict[int, _Layer], layer: _Layer) -> bytes:
    """Give a client's layer a number."""
    number = max(layers, default=0) + 1
    layers[number] = layer
    return struct.pack("<I", number)


def _scaled_handle(
    layers: dict[int, _Layer], number: int, codes: NDArray[np.int8], scales: NDArray[np.float32]
) -> GroupHandle:
    """The handle of a layer of `LOAD_SCALED`."""
    layer = _layer(layers, number)
    if not layer.scaled_groups:
        raise InputError(f"layer {number} has no scales on the device; use PRODUCTS")
    if scales.shape[1] != layer.scaled_groups:
        raise InputError(
            f"scales must have {layer.scaled_groups} groups a token, not {scales.shape[1]}"
        )
    if codes.shape[1] != layer.in_features:
        raise InputError(f"codes must have {layer.in_features} features, not {codes.shape[1]}")
    ((_, handle),) = layer.parts
    assert isinstance(handle, GroupHandle)
    return handle


def _sums(jobs: list[Job | GroupJob]) -> NDArray[np.int32]:
    """Wait for the sums of a layer, `[tokens, out, groups]`; one group may have no axis."""
    sums = [job.result() for job in jobs]
    return sums[0] if len(sums) == 1 else np.stack(sums, axis=-1)


def _groups(columns: int, group: int) -> list[_Columns]:
    """First and end of each group of inputs."""
    size = group or columns
    if group and columns % group:
        raise InputError(f"group must divide the {columns} inputs, not be {group}")
    return [(first, first + size) for first in range(0, columns, size or 1)] or [(0, 0)]


def _layer(layers: dict[int, _Layer], number: int) -> _Layer:
    if number not in layers:
        raise InputError(f"layer must be a number that LOAD gave this client, not {number}")
    return layers[number]


def _numbers(body: memoryview, count: int, name: str) -> tuple[int, ...]:
    """The numbers that a body begins with."""
    if len(body) < 4 * count:
        raise InputError(f"{name} must have at least {4 * count} bytes, not {len(body)}")
    return struct.unpack_from(f"<{count}I", body)


def _require_size(name: str, body: memoryview, size: int) -> None:
    if len(body) != size:
        raise InputError(f"{name} must have {size} bytes for its shape, not {len(body)}")


def _defect(error: Exception) -> str:
    """The line that a client gets of an error that nobody expected."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    return f"the server failed with {text}; its own output says where"


def _print_traceback() -> None:
    """Print where the error that is handled now came from."""
    with suppress(OSError):  # nobody reads it
        traceback.print_exc()


def _listen(path: Path) -> socket.socket:
    """A socket that only this user can connect to."""
    if not hasattr(socket, "AF_UNIX"):
        raise ToolError("this system has no Unix sockets; connect to the device directly")
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ToolError(f"{path}: a socket's path has at most {LONGEST_PATH} bytes; take a shorter")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(server, path)
        path.chmod(0o600)
        server.listen()
    except BaseException:
        server.close()
        raise
    return server


def _bind(server: socket.socket, path: Path) -> None:
    """Bind the socket; one that a server left behind is replaced."""
    try:
        server.bind(os.fspath(path))
        return
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise ToolError(f"{path}: {error.strerror}") from error
    if not path.is_socket():
        raise ToolError(f"{path} exists and is no socket; name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            server.bind(os.fspath(path))
            return
    raise ToolError(f"{path}: another server uses this socket; end it, or name another path")
