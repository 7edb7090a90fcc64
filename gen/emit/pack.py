"""Writes a layer's weights as a device's memory holds them, for drivers that are not in Python."""

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tritloom.gen.emit.files import write_files
from tritloom.gen.emit.names import check_name
from tritloom.host.checkpoints.gguf import GgufFile
from tritloom.host.checkpoints.gguf_header import is_gguf
from tritloom.host.checkpoints.huggingface import load_checkpoint
from tritloom.host.checkpoints.npz import load_npz
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import check_group, pack_weights

__all__ = ["PackedLayer", "pack", "read_layer"]

SHOWN_NAMES = 8
"""Layer names that an error lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedLayer:
    """What a driver must know of an image.

    Members
    -------
    in_features, out_features : shape of the weight matrix
    tiles, row_groups : payload of DEFINE, beside the base address
    groups : groups of inputs, each of which has its own sums; 1: the whole row
    group_features : inputs of a group
    group_tiles : `count` of DEFINE: tiles of a group, to whose end its activations are filled up
        with zeros; 0: the whole row is one group
    words : weight words that the layer takes in the device's memory
    word_bytes : bytes of each word in the image
    image_bytes : size of the image
    crc32 : of the image; COMMIT takes it as its address
    layout_digest : of the configuration that the image is for; IDENTIFY reads the device's
    """

    in_features: int
    out_features: int
    tiles: int
    row_groups: int
    groups: int
    group_features: int
    group_tiles: int
    words: int
    word_bytes: int
    image_bytes: int
    crc32: int
    layout_digest: str


def read_layer(source: Path, name: str | None = None, i2s_order: str | None = None) -> TernaryLayer:
    """One layer of an archive or a checkpoint.

    Parameters
    ----------
    source : an `.npz` archive of layers, a GGUF file, or a model's folder as transformers writes it
    name : of the layer; may be left out if there is only one
    i2s_order : of a GGUF file with I2_S tensors, the order of their codes

    Raises
    ------
    CheckpointError
        If the source cannot be read.
    InputError
        If it has no such layer, or several and no name is given.
    """
    if is_gguf(source):
        file = GgufFile(source, i2s_order)
        return file.layer(_one_name(source, file.require_layers(), name))
    if i2s_order is not None:
        raise InputError(f"--i2s-order goes with a GGUF file, and {source} is none; leave it out")
    layers = load_checkpoint(source).layers if source.is_dir() else load_npz(source)[0]
    return layers[_one_name(source, list(layers), name)]


def pack(
    config: AcceleratorConfig,
    trits: npt.NDArray[np.int8],
    folder: Path,
    name: str,
    group: int = 0,
) -> tuple[PackedLayer, list[Path]]:
    """Write `NAME.bin`, the image, and what a driver must know of it: `NAME.h` and `NAME.json`.

    Parameters
    ----------
    config : the device's
    trits : int8 `[out_features, in_features]`
    folder : made if it is not there
    name : of the files; the macros in `NAME.h` begin with it in capitals
    group : inputs that have a sum of their own; 0: the whole row. On a device with scales all
        scales are 1, so the results are the sums of rows

    Returns
    -------
    tuple[PackedLayer, list[Path]]
        The facts and the files.

    Raises
    ------
    InputError
        If the layer does not fit the device, the name does not fit, or a file cannot be written.
    """
    check_name(name)
    out_features, in_features = trits.shape
    check_group(config, in_features, group)
    shape = LayerShape.of(config, out_features, in_features, group)
    _check_fit(config, out_features, in_features, shape)
    image = pack_weights(config, trits, group)
    layer = PackedLayer(
        in_features=in_features,
        out_features=out_features,
        tiles=shape.tiles,
        row_groups=shape.row_groups,
        groups=shape.groups,
        group_features=group or in_features,
        group_tiles=shape.group_tiles,
        words=shape.words,
        word_bytes=config.word_bytes,
        image_bytes=len(image),
        crc32=zlib.crc32(image),
        layout_digest=config.layout_digest.hex(),
    )
    files: dict[str, str | bytes] = {
        f"{name}.bin": image,
        f"{name}.h": _c_header(layer, name),
        f"{name}.json": json.dumps(asdict(layer), indent=2) + "\n",
    }
    return layer, write_files(folder, files)


def _one_name(source: Path, names: list[str], name: str | None) -> str:
    """The name of the layer that is meant: `name`, or the only one."""
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise InputError(
            f"{source} holds {len(names)} layers; name one with --layer: {_some(names)}"
        )
    if name not in names:
        raise InputError(f"{source} has no layer {name!r}; it has {_some(names)}")
    return name


def _some(names: list[str]) -> str:
    shown = names[:SHOWN_NAMES]
    return ", ".join(shown) + (", …" if len(names) > SHOWN_NAMES else "")


def _check_fit(
    config: AcceleratorConfig, out_features: int, in_features: int, shape: LayerShape
) -> None:
    for what, size, limit in (
        ("in_features", in_features, config.max_in_features),
        ("out_features", out_features, config.max_out_features),
        ("tiles", shape.tiles, config.max_tiles),
        ("row groups of sums", config.results_of(shape), config.result_row_groups),
        ("weight words", shape.words, config.memory_words),
    ):
        if size > limit:
            raise InputError(
                f"{what} of the layer must be at most {limit} on this device, not {size}; "
                "choose a larger configuration or a smaller layer"
            )


def _c_header(layer: PackedLayer, name: str) -> str:
    """Macros of the facts; the digest is an initializer of a byte array."""
    prefix = name.upper()
    lines = [
        f"/* A layer packed for a Tritloom device; its image is {name}.bin. Do not edit. */",
        f"#ifndef {prefix}_H",
        f"#define {prefix}_H",
        "",
    ]
    for key, value in asdict(layer).items():
        if key == "layout_digest":
            value = "{" + ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(value)) + "}"
        elif key == "crc32":
            value = f"0x{value:08x}u"
        lines.append(f"#define {prefix}_{key.upper()} {value}")
    return "\n".join([*lines, "", "#endif"]) + "\n"
