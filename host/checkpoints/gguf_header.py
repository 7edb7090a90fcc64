"""Reads the header of a GGUF file with NumPy only: its metadata, and where its tensors lie.

A file is a magic word, a version, the metadata as pairs of key and value, a record for each tensor,
and the tensors' data. All numbers have their little end first. PyPI's `gguf` 0.19 refuses the ids
36, 42, 142 and 143 and trusts every length, so it is not used here; tests compare with it.

Source
------
The description of GGUF and `src/gguf.cpp` of ggml 0.25.3, versions 2 and 3 of the format
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritloom.host.checkpoints.ggml_types import TernaryType, layouts, row_multiple, type_name
from tritloom.host.checkpoints.values import show
from tritloom.rtl.spec.errors import CheckpointError

__all__ = ["GgufHeader", "TensorRecord", "ValueArray", "is_gguf", "read_header"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SUFFIX = ".gguf"
ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32
ALIGNMENTS = tuple(1 << bits for bits in range(3, 25))
MAX_DIMENSIONS = 4
"""As ggml has it."""
MAX_ELEMENTS = 2**48
"""More than any computer can store, and far below what overflows NumPy's 64 bits."""
STRING, ARRAY, BOOL = 8, 9, 7
SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    BOOL: "<B",
    10: "<Q",
    11: "<q",
    12: "<d",
}
"""Kinds of values by their id, as `struct` writes them."""


Layout = tuple[int, TernaryType | None]
"""Bytes of a tensor, and the layout of its blocks if it has groups."""


@dataclass(frozen=True, slots=True)
class ValueArray:
    """An array in the metadata; only its length is kept, since vocabularies are large."""

    count: int

    def __str__(self) -> str:
        return f"an array of {self.count}"


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """One tensor of a file.

    Members
    -------
    name : such as `blk.0.ffn_up.weight`
    type_id : ggml's number of its type
    shape : dimensions, the last of which is `in_features`: ggml's `ne` in reverse
    begin : first byte in the file
    bytes : what its data takes, without padding
    layout : of its blocks, None if the type has no groups
    """

    name: str
    type_id: int
    shape: tuple[int, ...]
    begin: int
    bytes: int
    layout: TernaryType | None

    @property
    def type_name(self) -> str:
        """The type as ggml writes it."""
        return type_name(self.type_id)


@dataclass(frozen=True, slots=True, eq=False)
class GgufHeader:
    """A file without its data.

    Members
    -------
    path : the file
    version : of the format
    metadata : values by key
    tensors : by name, in the order of their data
    """

    path: Path
    version: int
    metadata: dict[str, Any]
    tensors: dict[str, TensorRecord]

    def data(self, record: TensorRecord) -> npt.NDArray[np.uint8]:
        """The bytes of a tensor, read from the file when they are used."""
        content = np.asarray(np.memmap(self.path, np.uint8, "r"))
        raw = content[record.begin : record.begin + record.bytes]
        if len(raw) != record.bytes:
            raise CheckpointError(f"{self.path} changed while it was read; read it again")
        return raw


@dataclass(frozen=True, slots=True)
class _Info:
    """A tensor as the header has it; `offset` counts from the first byte of the data."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int


class _Truncated(Exception):
    """The header goes on behind the last byte."""


class _Cursor:
    """Reads values one after another."""

    def __init__(self, content: npt.NDArray[np.uint8], file: Path) -> None:
        self._content = content.data
        self._file = file
        self.position = 0

    def skip(self, size: int) -> None:
        if size > len(self._content) - self.position:
            raise _Truncated
        self.position += size

    def scalar(self, form: str) -> Any:
        begin = self.position
        self.skip(struct.calcsize(form))
        return struct.unpack_from(form, self._content, begin)[0]

    def raw_string(self) -> bytes:
        size = self.scalar("<Q")
        begin = self.position
        self.skip(size)
        return bytes(self._content[begin : begin + size])

    def name(self, what: str) -> str:
        """A string that must be a name: printable text in UTF-8."""
        raw = self.raw_string()
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = ""
        if not text or not text.isprintable():
            raise CheckpointError(
                f"{self._file} has {what} with the name {show(raw)}; copy it again"
            )
        return text

    def value(self, key: str) -> Any:
        """A value of the metadata, after the number of its kind."""
        kind = self.scalar("<I")
        if kind == STRING:
            return self.raw_string().decode(errors="replace")
        if kind == ARRAY:
            return self._array(key)
        number = self.scalar(self._form(kind, key))
        return bool(number) if kind == BOOL else number

    def _array(self, key: str) -> ValueArray:
        kind, count = self.scalar("<I"), self.scalar("<Q")
        if kind == STRING:
            for _ in range(count):
                self.skip(self.scalar("<Q"))
        else:
            self.skip(struct.calcsize(self._form(kind, key)) * count)
        return ValueArray(count)

    def _form(self, kind: int, key: str) -> str:
        if kind not in SCALARS:
            raise CheckpointError(
                f"{self._file} has a value of kind {kind} for {key}, kinds are 0 to 12; "
                "copy it again"
            )
        return SCALARS[kind]


def is_gguf(path: str | Path) -> bool:
    """Whether a path names a GGUF file: by its ending, or by its first bytes."""
    file = Path(path)
    if not file.is_file():
        return file.suffix == SUFFIX and not file.is_dir()
    with file.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC or file.suffix == SUFFIX


def read_header(path: str | Path) -> GgufHeader:
    """Read and check the header of a GGUF file.

    Parameters
    ----------
    path : the file, of format version 2 or 3

    Returns
    -------
    The metadata, and each tensor's type, shape and place. The tensors lie one behind the other and
    fill the file, so a file that is truncated or has a wrong size anywhere is refused here.

    Raises
    ------
    CheckpointError : the file is missing, truncated, of another format or one part of several; a
        tensor has an impossible size, or bytes that are not those of its type and shape
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"no model file {file}; give a GGUF file")
    size = file.stat().st_size
    content = np.asarray(np.memmap(file, np.uint8, "r")) if size else np.zeros(0, np.uint8)
    cursor = _Cursor(content, file)
    try:
        version, metadata, infos = _parse(cursor, file, size)
    except _Truncated:
        raise CheckpointError(
            f"{file} is truncated, its {size} bytes end in the header; copy it again"
        ) from None
    alignment = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment not in ALIGNMENTS:
        raise CheckpointError(
            f"{file} has {ALIGNMENT_KEY} {show(alignment)}, not a power of two from "
            f"{ALIGNMENTS[0]} to {ALIGNMENTS[-1]}; copy it again"
        )
    parts = metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise CheckpointError(
            f"{file} is one of {parts} parts (split.count); join them with llama-gguf-split --merge"
        )
    start = _padded(cursor.position, alignment)
    records = _place(infos, file, size, start, alignment)
    return GgufHeader(file, version, metadata, {record.name: record for record in records})


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _parse(cursor: _Cursor, file: Path, size: int) -> tuple[int, dict[str, Any], list[_Info]]:
    """Version, metadata and tensors, as they stand in the header."""
    magic = cursor.scalar("<4s")
    if magic != MAGIC:
        raise CheckpointError(f"{file} begins with {show(magic)}, not GGUF; give a GGUF file")
    version = cursor.scalar("<I")
    if version not in VERSIONS:
        hint = "; it may have its big end first" if version & 0xFFFF == 0 else ""
        raise CheckpointError(
            f"{file} has version {version} of GGUF, not 2 or 3{hint}; convert the model again"
        )
    tensor_count, value_count = cursor.scalar("<Q"), cursor.scalar("<Q")
    if max(tensor_count, value_count) > size:
        raise _Truncated
    metadata: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.name("a key")
        if key in metadata:
            raise CheckpointError(f"{file} has the key {key} twice; copy it again")
        metadata[key] = cursor.value(key)
    infos: list[_Info] = []
    names: set[str] = set()
    for _ in range(tensor_count):
        info = _parse_info(cursor, file)
        if info.name in names:
            raise CheckpointError(f"{file} has the tensor {info.name} twice; copy it again")
        names.add(info.name)
        infos.append(info)
    return version, metadata, infos


def _parse_info(cursor: _Cursor, file: Path) -> _Info:
    name = cursor.name("a tensor")
    dimensions = cursor.scalar("<I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise CheckpointError(
            f"{name} has {dimensions} dimensions, not 1 to {MAX_DIMENSIONS}; copy {file} again"
        )
    shape = tuple(cursor.scalar("<Q") for _ in range(dimensions))[::-1]
    if min(shape) < 1 or math.prod(shape) > MAX_ELEMENTS:
        raise CheckpointError(f"{name} has the impossible shape {list(shape)}; copy {file} again")
    type_id, offset = cursor.scalar("<I"), cursor.scalar("<Q")
    multiple = row_multiple(type_id)
    if shape[-1] % multiple:
        raise CheckpointError(
            f"{name} has {shape[-1]} inputs, {type_name(type_id)} takes multiples of {multiple}; "
            f"copy {file} again"
        )
    return _Info(name, shape, type_id, offset)


def _place(
    infos: list[_Info], file: Path, size: int, start: int, alignment: int
) -> list[TensorRecord]:
    """The tensors with their places; together they fill the file from `start`, without a gap."""
    infos = sorted(infos, key=lambda info: info.offset)
    if infos and infos[0].offset:
        raise CheckpointError(
            f"{infos[0].name} begins at byte {infos[0].offset} of the data, not 0; "
            f"copy {file} again"
        )
    ends = [info.offset for info in infos[1:]] + [size - start]
    fitting = []
    for index, (info, end) in enumerate(zip(infos, ends, strict=False)):
        last = index + 1 == len(infos)
        fitting.append(_fitting(info, end - info.offset, file, alignment, last))
    records = []
    for info, fits in zip(infos, fitting, strict=True):
        needed, layout = _chosen(info, fits, infos, fitting)
        records.append(
            TensorRecord(info.name, info.type_id, info.shape, start + info.offset, needed, layout)
        )
    return records


def _fitting(info: _Info, room: int, file: Path, alignment: int, last: bool) -> list[Layout]:
    """Bytes and layout of a tensor that has `room` bytes up to the next one or the file's end."""
    sizes = layouts(info.type_id, info.shape) or ([(room, None)] if room > 0 else [])
    least = min((each for each, _ in sizes), default=1)
    if last and room < least:
        raise CheckpointError(
            f"{file} is truncated, {info.name} needs {least} bytes and has {max(0, room)}; "
            "copy it again"
        )
    # The last tensor's padding may be missing.
    fits = [
        (each, layout)
        for each, layout in sizes
        if room == _padded(each, alignment) or (last and each <= room < _padded(each, alignment))
    ]
    if not fits or info.offset % alignment:
        wanted = " or ".join(str(_padded(each, alignment)) for each, _ in sizes) or "1 or more"
        raise CheckpointError(
            f"{info.name} has {room} bytes at byte {info.offset} of the data, not the {wanted} of "
            f"{type_name(info.type_id)} {list(info.shape)} in steps of {alignment}; "
            f"copy {file} again"
        )
    return fits


def _chosen(
    info: _Info, fits: list[Layout], infos: list[_Info], fitting: list[list[Layout]]
) -> Layout:
    """The layout of a tensor: of those that fit it, the one that fits all tensors of its type.

    The room of a small tensor may fit both layouts of a type; the file's larger tensors decide.
    """
    common = list(fits)
    for peer, others in zip(infos, fitting, strict=True):
        if peer.type_id == info.type_id:
            common = [each for each in common if any(each[1] is other for _, other in others)]
    if len(common) == 1:
        return common[0]
    groups = " and ".join(str(layout.group) for _, layout in fits if layout is not None)
    if common:
        raise CheckpointError(
            f"{info.name} may have {type_name(info.type_id)} groups of {groups}: both take the "
            "same room here; convert the model to TQ2_0"
        )
    raise CheckpointError(
        f"{info.name} has {type_name(info.type_id)} groups of {groups}, but other tensors of this "
        "type do not; convert the model to TQ2_0"
    )
