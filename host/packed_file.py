"""A file of packed weights: the images of a model's layers, so that a model is packed once.

The images lie in the file as the device's memory holds them, and are mapped to memory: a layer is
read from the file while it is written to the device. Each image has its checksum, and so have the
weights that it was made of, because an image of other weights would give wrong results.

A file begins with `PREFIX`: the magic bytes, the format's number, and the place, size and CRC-32 of
the directory. The directory, JSON, is the end of the file. The images lie between both.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tritloom.host.allocator import cut_layer
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import CheckpointError, InputError
from tritloom.rtl.spec.files import scratch_folder
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import check_trits, pack_into
from tritloom.rtl.spec.plugins import engines

__all__ = ["PackedFile", "Packing", "write_packed"]

MAGIC = b"TRITPACK"
FORMAT = 1
PREFIX = struct.Struct("<8sIQQI")
"""Magic bytes, number of the format, place, size and CRC-32 of the directory."""
ALIGN = 1 << 16
"""Images begin at multiples of this many bytes: where any computer can map a file from."""
AGAIN = "remove it, and it is packed again"

Packing = Callable[[int, int], object]
"""Receives the weights that are packed so far, and all."""


def _layout(config: AcceleratorConfig) -> dict[str, Any]:
    """All of a configuration that an image depends on."""
    return {
        "encoding": config.encoding,
        "lanes": config.lanes,
        "rows": config.rows,
        "code_stride": engines[config.engine].code_stride(config),
        "max_in_features": config.max_in_features,
        "max_out_features": config.max_out_features,
    }


def _weights_crc32(layer: TernaryLayer) -> int:
    return zlib.crc32(np.ascontiguousarray(layer.trits).data)


def write_packed(
    path: str | Path,
    config: AcceleratorConfig,
    layers: Mapping[str, TernaryLayer],
    packing: Packing = lambda done, total: None,
) -> None:
    """Pack layers into a file, which appears whole or not at all.

    Parameters
    ----------
    path : of the file
    config : of the device
    layers : by name; each is packed in the pieces that the device's limits ask for
    packing : see `Packing`

    Raises
    ------
    InputError : a weight that the device's alphabet does not have, or the file cannot be written
    """
    path = Path(path)
    for layer in layers.values():
        check_trits(config, layer.trits)
    entries: list[dict[str, Any]] = []
    end = ALIGN
    for name, layer in layers.items():
        pieces = []
        for row, rows, column, columns in cut_layer(config, layer.out_features, layer.in_features):
            size = LayerShape.of(config, rows, columns).words * config.word_bytes
            pieces.append({"row": row, "rows": rows, "column": column, "columns": columns})
            pieces[-1] |= {"start": end, "bytes": size}
            end += -(-size // ALIGN) * ALIGN
        shape = {"out_features": layer.out_features, "in_features": layer.in_features}
        entries.append({"name": name, **shape, "pieces": pieces})
    total = sum(layer.trits.size for layer in layers.values())
    done = 0
    try:
        with scratch_folder(path.parent) as folder:
            new = folder / "packed"
            with open(new, "w+b") as file:
                file.truncate(end)
                for entry in entries:
                    layer = layers[entry["name"]]
                    entry["weights_crc32"] = _weights_crc32(layer)
                    for piece in entry["pieces"]:
                        _pack_piece(file.fileno(), config, layer, piece)
                        done += piece["rows"] * piece["columns"]
                        packing(done, total)
                directory = json.dumps({"layout": _layout(config), "layers": entries}).encode()
                file.seek(end)
                file.write(directory)
                file.seek(0)
                crc32 = zlib.crc32(directory)
                file.write(PREFIX.pack(MAGIC, FORMAT, end, len(directory), crc32))
            os.replace(new, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; choose another file"
        ) from error


def _pack_piece(
    file: int, config: AcceleratorConfig, layer: TernaryLayer, piece: dict[str, Any]
) -> None:
    """Pack a piece straight into the mapped file, and note its checksum."""
    rows = slice(piece["row"], piece["row"] + piece["rows"])
    columns = slice(piece["column"], piece["column"] + piece["columns"])
    with mmap.mmap(file, piece["bytes"], offset=piece["start"]) as mapped:
        image = np.frombuffer(mapped, np.uint8)
        pack_into(config, layer.trits[rows, columns], image)
        piece["crc32"] = zlib.crc32(image.data)
        del image  # or the map could not be closed


class PackedFile:
    """A file of `write_packed`, mapped to memory.

    Parameters
    ----------
    path : of the file
    config : of the device; the file must have been packed for its layout

    Members
    -------
    names : of its layers

    Raises
    ------
    CheckpointError : the file cannot be read, is damaged, or was packed for another device
    """

    def __init__(self, path: str | Path, config: AcceleratorConfig) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < PREFIX.size:
                    raise self._damaged(f"it has {size} bytes")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
        directory = self._directory(size)
        layout = _layout(config)
        if directory["layout"] != layout:
            raise CheckpointError(
                f"{path} was packed for a device with {_words(directory['layout'], layout)}, this "
                f"one has {_words(layout, directory['layout'])}; {AGAIN}"
            )
        self._layers: dict[str, dict[str, Any]] = {
            entry["name"]: entry for entry in directory["layers"]
        }
        self.names = tuple(self._layers)

    def images(self, name: str, layer: TernaryLayer) -> list[memoryview]:
        """The images of a layer's pieces, in the order of `cut_layer`.

        Raises
        ------
        CheckpointError : the file has no such layer, it was packed from other weights, or an image
            is damaged
        """
        entry = self._layers.get(name)
        if entry is None:
            raise CheckpointError(f"{self.path} has no layer {name!r}; {AGAIN}")
        shape = (entry["out_features"], entry["in_features"])
        if shape != layer.trits.shape:
            raise CheckpointError(
                f"{self.path}: {name} is {shape[0]} × {shape[1]} there, not "
                f"{layer.out_features} × {layer.in_features}; {AGAIN}"
            )
        if entry["weights_crc32"] != _weights_crc32(layer):
            raise CheckpointError(
                f"{self.path}: {name} was packed from other weights than the model has; {AGAIN}"
            )
        images = []
        for piece in entry["pieces"]:
            image = memoryview(self._map)[piece["start"] : piece["start"] + piece["bytes"]]
            if zlib.crc32(image) != piece["crc32"]:
                raise self._damaged(f"the checksum of {name} is wrong")
            images.append(image)
        return images

    def _directory(self, size: int) -> dict[str, Any]:
        """What the end of the file says of the images."""
        magic, number, start, length, crc32 = PREFIX.unpack_from(self._map)
        if magic != MAGIC:
            raise CheckpointError(f"{self.path} is no file of packed weights; give another name")
        if number != FORMAT:
            raise CheckpointError(
                f"{self.path} has format {number} of packed weights, not {FORMAT}; {AGAIN}"
            )
        if start + length != size:
            raise self._damaged(f"it has {size} bytes, not {start + length}")
        text = self._map[start:]
        if zlib.crc32(text) != crc32:
            raise self._damaged("the checksum of its directory is wrong")
        directory: dict[str, Any] = json.loads(text)
        return directory

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged: {why}; {AGAIN}")


def _words(layout: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What of a layout differs from another one, in words."""
    differing = [name for name in layout if layout[name] != other.get(name)]
    return ", ".join(f"{name} {layout[name]}" for name in differing)
