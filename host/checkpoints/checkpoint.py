"""Reads ternary models from files, with NumPy only.

`load_checkpoint` reads a Hugging Face directory (config.json and safetensors, in shards or not),
`load_npz` a NumPy archive of layers. Whatever cannot be read exactly is a `CheckpointError`.
"""

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.errors import CheckpointError, InputError
from tritloom.rtl.spec.numerics import absmean_ternarize

__all__ = ["Checkpoint", "load_checkpoint", "load_npz", "read_safetensors", "unpack_trits"]

Array = npt.NDArray[Any]

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


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A model as its files hold it.

    Members
    -------
    path : the directory
    config : config.json
    generation : generation_config.json, empty where there is none
    layers : ternary layers by module name, such as `model.layers.0.mlp.up_proj`
    tensors : all other tensors by tensor name; floats are float32
    """

    path: Path
    config: dict[str, Any]
    generation: dict[str, Any]
    layers: dict[str, TernaryLayer]
    tensors: dict[str, Array]


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a directory that transformers wrote for a BitNet-quantized model.

    `quantization_config.linear_class` tells what `weight_scale` means: it divides in `bitlinear`
    (the default), it multiplies in `autobitlinear`, which multiplies its bias as well. With
    `quantization_mode: online` the weights are floats, ternarized here by absmean. Raises
    `CheckpointError` for a missing, truncated or inconsistent file, an unknown class, a weight
    code 3, a missing scale.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(f"no model directory {folder}; give a folder with a config.json")
    config = _read_json(folder / "config.json")
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        raise CheckpointError(
            f"{folder / 'config.json'} has no quantization_config; the model is not a BitNet one"
        )
    method = _choice(quantization, "quant_method", ("bitnet",))
    linear_class = _choice(quantization, "linear_class", ("bitlinear", "autobitlinear"))
    mode = _choice(quantization, "quantization_mode", ("offline", "online"))
    if mode == "online" and linear_class == "bitlinear":
        raise CheckpointError(
            f"{method} quantization_mode must be offline for linear_class bitlinear, not online"
        )
    tensors = _read_tensors(folder)
    layers: dict[str, TernaryLayer] = {}
    skipped = quantization.get("modules_to_not_convert") or []
    for key in sorted(tensors):
        name = key.removesuffix(".weight")
        weight = tensors[key]
        if name == key or weight.ndim != 2:
            continue
        if any(f".{skip}." in f".{name}." for skip in [*skipped, "embed_tokens", "lm_head"]):
            if weight.dtype.kind != "f":
                raise CheckpointError(f"{key} must be a float tensor, not {weight.dtype}")
            continue
        layers[name] = _layer(name, tensors, linear_class == "bitlinear", mode == "online")
    if not layers:
        raise CheckpointError(f"{folder} holds no ternary layer; check modules_to_not_convert")
    used = {f"{name}.{part}" for name in layers for part in ("weight", "weight_scale", "bias")}
    rest = {key: tensor for key, tensor in tensors.items() if key not in used}
    generation = folder / "generation_config.json"
    return Checkpoint(
        folder, config, _read_json(generation) if generation.is_file() else {}, layers, rest
    )


def load_npz(path: str | Path) -> tuple[dict[str, TernaryLayer], dict[str, Array]]:
    """Read an archive with `NAME.trits` (int8) and `NAME.scale` (float32) for each layer.

    `NAME.bias` and `NAME.scale_divides` are optional. Returns the layers in the archive's order
    and every other array. Raises `CheckpointError`.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"no model file {file}; give an .npz with NAME.trits and NAME.scale")
    try:
        with zipfile.ZipFile(file), np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy raise nine kinds for a broken file
        raise CheckpointError(f"{file} is not a whole .npz archive; copy it again") from error
    names = [key.removesuffix(".trits") for key in arrays if key.endswith(".trits")]
    if not names:
        raise CheckpointError(f"{file} holds no NAME.trits; save int8 trits and a float32 scale")
    layers = {}
    for name in names:
        if f"{name}.scale" not in arrays:
            raise CheckpointError(f"{name}.trits has no {name}.scale; save both")
        divides = arrays.pop(f"{name}.scale_divides", np.array(False))
        if divides.shape != ():
            raise CheckpointError(f"{name}.scale_divides must be one bool, not {divides.shape}")
        layers[name] = _make(
            name,
            arrays.pop(f"{name}.trits"),
            arrays.pop(f"{name}.scale"),
            bool(divides),
            arrays.pop(f"{name}.bias", None),
        )
    return layers, arrays


def unpack_trits(packed: npt.NDArray[np.uint8], name: str = "weight") -> npt.NDArray[np.int8]:
    """Trits of transformers' packed format, four in a byte, the first quarter of the rows lowest.

    `packed` is uint8 `[out_features / 4, in_features]`, the result int8
    `[out_features, in_features]`: bits 2i+1..2i of packed[r, c] hold trit[r + i · rows, c] + 1.
    Raises `CheckpointError` for code 3, with `name` and the place in the result; the library
    itself reads it as 2. Source: `transformers.integrations.bitnet.unpack_weights`.
    """
    codes = np.concatenate([packed >> shift & 3 for shift in (0, 2, 4, 6)])
    bad = np.argwhere(codes == 3)
    if len(bad):
        row, column = bad[0]
        raise CheckpointError(
            f"{name} has code 3 at [{row}, {column}], codes are 0, 1 or 2; get the file again"
        )
    return codes.astype(np.int8) - np.int8(1)


def read_safetensors(path: str | Path) -> dict[str, Array]:
    """All tensors of one safetensors file: floats of any width as float32, integers as they are.

    Raises `CheckpointError` for a missing or truncated file, a broken header, an unknown dtype.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"no model file {file}; copy the whole model directory")
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
        if size < 8 or start > size:
            raise CheckpointError(f"{file} is truncated, {size} bytes end in its header; copy it")
        try:
            header = json.loads(stream.read(start - 8))
            header.pop("__metadata__", None)
            fields = {key: _field(entry) for key, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{file} has a broken header; copy it again") from error
    content = np.asarray(np.memmap(file, np.uint8, "r"))
    tensors = {}
    for key, (dtype, shape, begin, end) in fields.items():
        if dtype not in _DTYPES:
            raise CheckpointError(
                f"{key} has dtype {dtype}; save it as one of {', '.join(_DTYPES)}"
            )
        if start + end > size:
            raise CheckpointError(
                f"{file} is truncated, {key} ends at byte {start + end} of {size}; copy it again"
            )
        stored = np.dtype(_DTYPES[dtype])
        if min((begin, *shape)) < 0 or end - begin != math.prod(shape) * stored.itemsize:
            raise CheckpointError(
                f"{key} has {end - begin} bytes, not those of {dtype} {list(shape)}; copy {file}"
            )
        raw = content[start + begin : start + end].view(stored).reshape(shape)
        tensors[key] = _decode(raw, dtype)
    return tensors


def _field(entry: dict[str, Any]) -> tuple[str, tuple[int, ...], int, int]:
    """Dtype, shape, first byte and byte after the last, of a tensor's entry in the header."""
    begin, end = entry["data_offsets"]
    return str(entry["dtype"]), tuple(map(int, entry["shape"])), int(begin), int(end)


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


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"no {file.name} in {file.parent}; copy the whole model") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON; copy it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} must hold a JSON object, not {type(content).__name__}")
    return content


def _choice(config: dict[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    """The value of a key that may be absent: then it is the first allowed one."""
    value = config.get(key) or allowed[0]
    if value not in allowed:
        raise CheckpointError(
            f"quantization_config.{key} must be {' or '.join(allowed)}, not {value!r}"
        )
    return str(value)


def _read_tensors(folder: Path) -> dict[str, Array]:
    """All tensors of the directory, of its shards where there is an index."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return read_safetensors(folder / "model.safetensors")
    shards = _read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{index} has no weight_map; copy it again")
    tensors: dict[str, Array] = {}
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard:
            raise CheckpointError(f"{index} names {shard!r}; a shard must lie beside its index")
        tensors.update(read_safetensors(folder / shard))
    for key, shard in shards.items():
        if key not in tensors:
            raise CheckpointError(f"{key} is not in {folder / shard}; copy the shard again")
    return tensors


def _layer(name: str, tensors: dict[str, Array], divides: bool, online: bool) -> TernaryLayer:
    """The layer made of `NAME.weight`, `NAME.weight_scale` and `NAME.bias`."""
    key = f"{name}.weight"
    weight, scale, bias = tensors[key], tensors.get(f"{key}_scale"), tensors.get(f"{name}.bias")
    if online:
        if weight.dtype.kind != "f":
            raise CheckpointError(f"{key} must be a float tensor, not {weight.dtype}")
        try:
            trits, mean = absmean_ternarize(weight)
        except InputError as error:
            raise CheckpointError(f"{key}: {error}") from error
        return _make(name, trits, mean, False, bias)
    if scale is None:
        raise CheckpointError(
            f"{key} has no {key}_scale; convert the model again, or list it in "
            "modules_to_not_convert"
        )
    if weight.dtype == np.uint8:
        trits = unpack_trits(weight, key)
    else:
        bad = np.argwhere(~np.isin(weight, (-1, 0, 1)))
        if len(bad):
            row, column = bad[0]
            raise CheckpointError(
                f"{key} has {weight[row, column]} at [{row}, {column}], not -1, 0 or 1; "
                "set quantization_mode to online if these are full weights"
            )
        trits = weight.astype(np.int8)
    if bias is not None and not divides and scale.size in (1, bias.size):
        bias = bias * scale
    return _make(name, trits, scale, divides, bias)


def _make(
    name: str, trits: Array, scale: Array | np.float32, divides: bool, bias: Array | None
) -> TernaryLayer:
    try:
        return TernaryLayer.from_trits(trits, scale, scale_divides=divides, bias=bias)
    except InputError as error:
        raise CheckpointError(f"{name}: {error}") from error
