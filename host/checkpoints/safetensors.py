"""Reads safetensors files with NumPy only.

A file is the length of its header (8 bytes, little end first), the header in JSON and the data. The
header gives each tensor's dtype, shape and first and last byte in the data.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritloom.host.checkpoints.values import show
from tritloom.rtl.spec.errors import CheckpointError

__all__ = ["read_safetensors"]

Array = npt.NDArray[Any]

LENGTH_BYTES = 8
"""Bytes before the header that give its length."""
MAX_DIMENSIONS = 32
"""More than any tensor of a model has, and no more than NumPy takes."""
MAX_ELEMENTS = 2**48
"""More than any computer can store, and far below what overflows NumPy's 64 bits.

The dimensions of a tensor without elements count as well, but not those that are 0.
"""

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U8": "<u1",
    "BOOL": "<u1",
}


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor in the header; `begin` and `end` count from the first byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_safetensors(path: str | Path) -> dict[str, Array]:
    """Read all tensors of one safetensors file.

    Returns
    -------
    The tensors by name. Floats of any width are float32, integers keep their type.

    Raises
    ------
    CheckpointError : the file is missing or truncated, its header is broken, a dtype is unknown
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"no model file {file}; copy the whole model directory")
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = LENGTH_BYTES + int.from_bytes(stream.read(LENGTH_BYTES), "little")
        if size < LENGTH_BYTES or start > size:
            raise CheckpointError(f"{file} is truncated, {size} bytes end in its header; copy it")
        entries = _parse_header(stream.read(start - LENGTH_BYTES), file)
    _check_entries(entries, file, size - start, start)
    content = np.asarray(np.memmap(file, np.uint8, "r"))
    tensors = {}
    for key, entry in entries.items():
        raw = content[start + entry.begin : start + entry.end].view(_DTYPES[entry.dtype])
        tensors[key] = _decode(raw.reshape(entry.shape), entry.dtype)
    return tensors


def _parse_header(text: bytes, file: Path) -> dict[str, _Entry]:
    """The entries of a header, in the order of their data."""
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        entries = {key: _parse_entry(value) for key, value in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} has a broken header; copy it again") from error
    for key in entries:
        if not key.isprintable():
            raise CheckpointError(f"{file} has a tensor with the name {show(key)}; copy it again")
    return dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))


def _parse_entry(value: dict[str, Any]) -> _Entry:
    begin, end = value["data_offsets"]
    shape = tuple(value["shape"])
    if any(type(number) is not int for number in (begin, end, *shape)):
        raise TypeError("shape and data_offsets must be integers")
    return _Entry(str(value["dtype"]), shape, begin, end)


def _check_entries(entries: dict[str, _Entry], file: Path, data_bytes: int, start: int) -> None:
    """Check that every tensor has a known dtype, and that together they are the data, once.

    Without the last check a small file could name the same bytes many times and fill the memory.
    """
    position = 0
    for key, entry in entries.items():
        if entry.dtype not in _DTYPES:
            raise CheckpointError(
                f"{key} has dtype {show(entry.dtype)}; save it as one of {', '.join(_DTYPES)}"
            )
        if entry.end > data_bytes:
            raise CheckpointError(
                f"{file} is truncated, {key} ends at byte {start + entry.end} of "
                f"{start + data_bytes}; copy it again"
            )
        elements = math.prod(max(1, size) for size in entry.shape)
        if len(entry.shape) > MAX_DIMENSIONS or elements > MAX_ELEMENTS:
            raise CheckpointError(f"{key} has shape {show(entry.shape)}; copy {file} again")
        needed = math.prod(entry.shape) * np.dtype(_DTYPES[entry.dtype]).itemsize
        if min((entry.begin, *entry.shape)) < 0 or entry.end - entry.begin != needed:
            raise CheckpointError(
                f"{key} has {entry.end - entry.begin} bytes, not those of {entry.dtype} "
                f"{list(entry.shape)}; copy {file}"
            )
        if entry.begin != position:
            raise CheckpointError(
                f"{key} begins at byte {entry.begin} of the data, not {position} where the tensor "
                f"before it ends; copy {file} again"
            )
        position = entry.end


def _decode(raw: Array, dtype: str) -> Array:
    """A copy in this machine's byte order; bfloat16 is the upper half of a float32."""
    if dtype == "BF16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype in ("F64", "F32", "F16"):
        with np.errstate(over="ignore"):
            return np.array(raw, np.float32)
    if dtype == "BOOL":
        return np.array(raw, np.bool_)
    return np.array(raw, raw.dtype.newbyteorder("="))
