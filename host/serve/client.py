"""A client of `tritloom serve`."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritloom.host.serve.wire import Kind, Receiver, Room, send
from tritloom.rtl.spec.errors import DeviceError

__all__ = ["Client"]


class Client:
    """A connection to a server; use it in a `with` statement.

    Layers are numbers. They are unloaded when the connection ends.
    """

    def __init__(self, path: Path) -> None:
        """Connect.

        Parameters
        ----------
        path : the socket that `tritloom serve` printed

        Raises
        ------
        DeviceError : nobody serves there
        """
        self._path = path
        self._shapes: dict[int, tuple[int, int]] = {}
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._link.connect(os.fspath(path))
        except OSError as error:
            self._link.close()
            raise DeviceError(f"{path}: {error.strerror}; start tritloom serve there") from error
        self._receiver = Receiver(self._link)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the server unloads its layers."""
        self._link.close()

    def info(self) -> dict[str, Any]:
        """What the device is; the keys are those of `INFO` in `tritloom.host.serve.wire`."""
        info: dict[str, Any] = json.loads(self._ask(Kind.INFO))
        return info

    def fits(self, out_features: int, in_features: int, group: int = 0) -> Room:
        """Whether an empty device has room for such a layer, and whether it scales its sums."""
        shape = struct.pack("<3I", out_features, in_features, group)
        return Room(int.from_bytes(self._ask(Kind.FITS, shape), "little"))

    def load(
        self, trits: NDArray[np.int8], group: int = 0, scales: NDArray[np.float16] | None = None
    ) -> int:
        """Write a layer to the device.

        Parameters
        ----------
        trits : weights `[out, in]`
        group : inputs that are summed for themselves, a divisor of `in`; 0 means all
        scales : float16 `[out, groups]` for a device that scales the sums: `Room.FLOATS`

        Raises
        ------
        DeviceError : the server refused it, or has gone; the text says why
        """
        rows, columns = trits.shape
        weights = np.ascontiguousarray(trits, np.int8).tobytes()
        shape = struct.pack("<3I", rows, columns, group)
        if scales is None:
            answer = self._ask(Kind.LOAD, shape, weights)
        else:
            halves = np.ascontiguousarray(scales, "<f2").tobytes()
            answer = self._ask(Kind.LOAD_SCALED, shape, halves, weights)
        layer = int.from_bytes(answer, "little")
        self._shapes[layer] = rows, columns // (group or columns)
        return layer

    def unload(self, layer: int) -> None:
        """Free a layer's memory."""
        self._ask(Kind.UNLOAD, struct.pack("<I", layer))
        del self._shapes[layer]

    def products(self, layers: Sequence[int], codes: NDArray[np.int8]) -> list[NDArray[np.int32]]:
        """Exact sums of several layers with the same activations.

        Parameters
        ----------
        layers : of `load`
        codes : int8 `[tokens, in_features]`

        Returns
        -------
        int32 `[tokens, out_features, groups]` for each layer; one group means no groups

        Raises
        ------
        DeviceError : the server refused it, or has gone; the text says why
        """
        tokens, features = codes.shape
        head = struct.pack(f"<{3 + len(layers)}I", tokens, features, len(layers), *layers)
        body = self._ask(Kind.PRODUCTS, head, np.ascontiguousarray(codes, np.int8).tobytes())
        sums, at = [], 0
        for layer in layers:
            shape = (tokens, *self._shapes[layer])
            size = tokens * shape[1] * shape[2]
            sums.append(np.frombuffer(body, "<i4", size, at).reshape(shape))
            at += 4 * size
        return sums

    def scaled_products(
        self, layers: Sequence[int], codes: NDArray[np.int8], scales: NDArray[np.float32]
    ) -> list[NDArray[np.float32]]:
        """Scaled sums of several layers with the same activations.

        Parameters
        ----------
        layers : of `load` with scales
        codes : int8 `[tokens, in_features]`
        scales : of the activations, float32 `[tokens, groups]`

        Returns
        -------
        float32 `[tokens, out_features]` for each layer

        Raises
        ------
        DeviceError : the server refused it, or has gone; the text says why
        """
        tokens, features = codes.shape
        count = len(layers)
        head = struct.pack(f"<{4 + count}I", tokens, features, count, scales.shape[1], *layers)
        parts = np.ascontiguousarray(scales, "<f4").tobytes(), codes.astype(np.int8).tobytes()
        body = self._ask(Kind.SCALED, head, *parts)
        rows = [self._shapes[layer][0] for layer in layers]
        floats = np.frombuffer(body, "<f4")
        ends = np.cumsum([tokens * each for each in rows])[:-1]
        of_layers = np.split(floats, ends) if rows else []
        return [each.reshape(tokens, -1) for each in of_layers]

    def _ask(self, kind: Kind, *parts: bytes) -> bytes:
        try:
            send(self._link, kind, *parts)
            message = self._receiver.receive()
        except OSError as error:
            raise DeviceError(
                f"{self._path}: {error.strerror}; start tritloom serve again"
            ) from error
        if message is None:
            raise DeviceError(f"{self._path}: the server has ended; start tritloom serve again")
        if message[0] == Kind.ERROR:
            raise DeviceError(bytes(message[1]).decode(errors="replace"))
        return bytes(message[1])
