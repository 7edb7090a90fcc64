"""The safetensors reader: every dtype, and one line for every bad header."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support import ROOT
from tests.support.checkpoints import message
from tritloom.host.checkpoints.safetensors import read_safetensors

MODELS = ROOT / "models"


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32 values that have nothing in the lower ones."""
    bits = values.astype(np.float32).view(np.uint32)
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype(np.uint16)


def write_raw(file: Path, header: Any, body: bytes = b"") -> Path:
    """A safetensors file by hand: length of the header, header, data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return file


def test_dtypes_of_safetensors(tmp_path: Path) -> None:
    """Written by hand, as NumPy has no bfloat16: an odd length puts the next out of alignment."""
    values = np.array([1.5, -0.0, 3e38, 2.0**-130, -256.0], np.float32)
    exact = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    arrays: dict[str, tuple[str, np.ndarray, np.ndarray]] = {
        "bytes": ("U8", np.arange(3, dtype=np.uint8), np.arange(3)),
        "bfloat": ("BF16", bfloat16(exact), exact),
        "half": ("F16", np.array([0.1, -2], np.float16), np.array([0.1, -2], np.float16)),
        "single": ("F32", values, values),
        "double": ("F64", np.array([[0.1]]), np.array([[0.1]], np.float32)),
        "signed": ("I8", np.array([-128, 127], np.int8), np.array([-128, 127])),
        "long": ("I64", np.array([-(2**40)]), np.array([-(2**40)])),
        "flag": ("BOOL", np.array([True, False]), np.array([True, False])),
        "scalar": ("F32", np.array(7, np.float32), np.array(7)),
        "nothing": ("F32", np.zeros((0, 4), np.float32), np.zeros((0, 4))),
    }
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for key, (dtype, stored, _) in arrays.items():
        offsets = [len(body), len(body) + stored.nbytes]
        header[key] = {"dtype": dtype, "shape": stored.shape, "data_offsets": offsets}
        body += stored.tobytes()
    read = read_safetensors(write_raw(tmp_path / "x.safetensors", header, body))
    assert read.keys() == arrays.keys()
    for key, (dtype, _, expected) in arrays.items():
        assert read[key].shape == expected.shape, key
        assert (read[key] == expected).all(), key
        assert type(read[key]) is np.ndarray
        if "F" in dtype:
            assert read[key].dtype == np.float32, key
    assert read["flag"].dtype == np.bool_
    assert np.signbit(read["bfloat"][1])


def test_reader_equals_the_library() -> None:
    file = MODELS / "tinylm" / "model.safetensors"
    ours, theirs = read_safetensors(file), load_file(file)
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert ours[key].dtype == tensor.dtype
        assert (ours[key] == tensor).all(), key


def test_file_without_tensors(tmp_path: Path) -> None:
    assert read_safetensors(write_raw(tmp_path / "x.safetensors", {})) == {}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"{", "has a broken header"),
        (b"\xff\xfe", "has a broken header"),
        ([1], "has a broken header"),
        ({"a": {"dtype": "F32"}}, "has a broken header"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}, "has a broken header"),
        (
            {"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}},
            "a has dtype 'F8_E4M3'; save it as one of F64, F32,",
        ),
        (
            {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
            "a has 4 bytes, not those of F32 [2]",
        ),
        (
            {"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
            "a has 4 bytes, not those of F32 [1]",
        ),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}, "a has -4 bytes"),
        (b'{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 4]}}', "a broken header"),
        ({"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}, "has a broken header"),
        ({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, "has a broken header"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, "has a broken header"),
        ({"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}, "has a broken header"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": "04"}}, "has a broken header"),
        ({"a": [1]}, "has a broken header"),
        (b"[" * 200_000, "has a broken header"),
        (b'{"a": ' * 100_000, "has a broken header"),
        (
            {"a": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}},
            "a has shape (1, 1, 1,",
        ),
        (
            {"a": {"dtype": "F32", "shape": [2**63, 0], "data_offsets": [0, 0]}},
            "a has shape (9223372036854775808, 0); copy",
        ),
        (
            {"a": {"dtype": "F32", "shape": [2**40] * 3, "data_offsets": [0, 4]}},
            "a has shape (1099511627776, 1099511627776,",
        ),
        (
            {"a": {"dtype": "F32", "shape": [1], "data_offsets": [2**70, 2**70 + 4]}},
            "is truncated, a ends at byte",
        ),
        (
            {"a\nb": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
            "the name 'a\\nb'; copy",
        ),
        (
            {"a": {"dtype": "F\n2", "shape": [1], "data_offsets": [0, 4]}},
            "a has dtype 'F\\n2'; save it as one of",
        ),
    ],
)
def test_broken_header(tmp_path: Path, header: Any, expected: str) -> None:
    file = write_raw(tmp_path / "x.safetensors", header, bytes(4))
    assert expected in message(lambda: read_safetensors(file))


def test_tensors_that_share_bytes(tmp_path: Path) -> None:
    """A small file that would fill the memory: every tensor is all of the data."""
    entry = {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}
    file = write_raw(tmp_path / "x.safetensors", {f"t{i}": entry for i in range(9)}, bytes(4000))
    assert message(lambda: read_safetensors(file)) == (
        "t1 begins at byte 0 of the data, not 4000 where the tensor before it ends; "
        f"copy {file} again"
    )


@pytest.mark.parametrize(
    ("shape", "fits"),
    [
        ([0], True),
        ([3, 0, 5], True),
        ([2**48, 0], True),
        ([2**24, 0, 2**24], True),
        ([2**48 + 1, 0], False),
        ([0, 2**48, 2**48], False),
        ([0] + [1] * 31, True),
        ([0] + [1] * 32, False),
    ],
)
def test_shapes_without_elements(tmp_path: Path, shape: list[int], fits: bool) -> None:
    header = {"t": {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]}}
    file = write_raw(tmp_path / "x.safetensors", header)
    if fits:
        assert read_safetensors(file)["t"].shape == tuple(shape)
    else:
        assert message(lambda: read_safetensors(file)).startswith("t has shape (")
