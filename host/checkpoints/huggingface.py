"""Reads the directories that Hugging Face transformers writes for BitNet models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritloom.host.checkpoints.packed import unpack_trits
from tritloom.host.checkpoints.quantization import Quantization
from tritloom.host.checkpoints.safetensors import read_safetensors
from tritloom.host.checkpoints.values import read_json, show, yes_or_no
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.errors import CheckpointError, InputError
from tritloom.rtl.spec.numerics import absmean_ternarize

__all__ = ["Checkpoint", "load_checkpoint"]

Array = npt.NDArray[Any]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
BASE = "model."
"""Prefix of every tensor but the head's. Files of the model without a head do not have it."""
HEAD = "lm_head."
EMBEDDING = "model.embed_tokens"
"""The one matrix that is not the weight of a linear layer."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A model as its files hold it.

    Members
    -------
    path : the directory
    config : config.json
    generation : generation_config.json, None if there is none
    layers : ternary layers by module name, such as `model.layers.0.mlp.up_proj`
    tensors : all other tensors by tensor name; floats are float32
    """

    path: Path
    config: dict[str, Any]
    generation: dict[str, Any] | None
    layers: dict[str, TernaryLayer]
    tensors: dict[str, Array]


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a model directory.

    Parameters
    ----------
    path : a folder with config.json and safetensors files, as transformers writes it

    Returns
    -------
    The model's configuration and weights; `Quantization` says which layers are ternary.

    Raises
    ------
    CheckpointError : a file is missing, truncated or inconsistent, or it holds what this reader
        does not know: another class of layers, a weight code 3, a layer without a scale
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(f"no model directory {folder}; give a folder with a config.json")
    config = read_json(folder / "config.json")
    quantization = Quantization.from_config(config, str(folder / "config.json"))
    tensors = _with_base(_read_tensors(folder))
    head, embedding = f"{HEAD}weight", f"{EMBEDDING}.weight"
    if yes_or_no(config, "tie_word_embeddings", False):
        # One of the two is enough. With both in the files transformers uses each for itself.
        if embedding in tensors:
            tensors.setdefault(head, tensors[embedding])
        elif head in tensors:
            tensors[embedding] = tensors[head]
    layers: dict[str, TernaryLayer] = {}
    for key in sorted(tensors):
        name = key.removesuffix(".weight")
        if name in (key, EMBEDDING) or tensors[key].ndim != 2:
            continue
        if not quantization.is_float(name):
            layers[name] = _read_layer(name, tensors, quantization)
        elif tensors[key].dtype.kind != "f":
            raise CheckpointError(f"{key} must be a float tensor, not {tensors[key].dtype}")
    if not layers:
        raise CheckpointError(f"{folder} holds no ternary layer; check modules_to_not_convert")
    used = {f"{name}.{part}" for name in layers for part in ("weight", "weight_scale", "bias")}
    generation = folder / "generation_config.json"
    return Checkpoint(
        path=folder,
        config=config,
        generation=read_json(generation) if generation.is_file() else None,
        layers=layers,
        tensors={key: tensor for key, tensor in tensors.items() if key not in used},
    )


def _read_tensors(folder: Path) -> dict[str, Array]:
    """All tensors of the directory: of its whole file, else of the shards in its index."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return read_safetensors(folder / WEIGHTS)
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{index} has no weight_map; copy it again")
    tensors: dict[str, Array] = {}
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not shard.isprintable():
            raise CheckpointError(f"{index} names {show(shard)}; a shard must lie beside its index")
        tensors.update(read_safetensors(folder / shard))
    for key, shard in shards.items():
        if key not in tensors:
            raise CheckpointError(f"{key} is not in {folder / shard}; copy the shard again")
    return tensors


def _with_base(tensors: dict[str, Array]) -> dict[str, Array]:
    """The tensors by the names that a model with a head has.

    As in transformers, each name may lack the prefix `model.` or have it once too often.
    """
    named: dict[str, Array] = {}
    for key, tensor in tensors.items():
        if key.startswith((BASE + BASE, BASE + HEAD)):
            name = key.removeprefix(BASE)
        else:
            name = key if key.startswith((BASE, HEAD)) else BASE + key
        if name in named:
            raise CheckpointError(f"{name} is in the files twice; keep one of the two")
        named[name] = tensor
    return named


def _read_layer(name: str, tensors: dict[str, Array], quantization: Quantization) -> TernaryLayer:
    """The layer made of `NAME.weight`, `NAME.weight_scale` and `NAME.bias`."""
    key = f"{name}.weight"
    weight, bias = tensors[key], tensors.get(f"{name}.bias")
    try:
        if quantization.online:
            if weight.dtype.kind != "f":
                raise CheckpointError(f"{key} must be a float tensor, not {weight.dtype}")
            trits, mean = absmean_ternarize(weight)
            return TernaryLayer.from_trits(trits, mean, bias=bias)
        scale = tensors.get(f"{key}_scale")
        if scale is None:
            raise CheckpointError(
                f"{key} has no {key}_scale; convert the model again, or list it in "
                "modules_to_not_convert"
            )
        divides = quantization.linear_class == "bitlinear"
        if bias is not None and not divides and scale.size in (1, bias.size):
            bias = bias * scale
        return TernaryLayer.from_trits(
            _read_trits(key, weight), scale, scale_divides=divides, bias=bias
        )
    except InputError as error:
        raise CheckpointError(f"{name}: {error}") from error


def _read_trits(key: str, weight: Array) -> npt.NDArray[np.int8]:
    """The trits of an offline layer: packed, or one a number."""
    if weight.dtype == np.uint8:
        return unpack_trits(weight, key)
    bad = np.argwhere(~np.isin(weight, (-1, 0, 1)))
    if len(bad):
        row, column = bad[0]
        raise CheckpointError(
            f"{key} has {weight[row, column]} at [{row}, {column}], not -1, 0 or 1; "
            "set quantization_mode to online if these are full weights"
        )
    return weight.astype(np.int8)
