"""Reads the ternary tensors of GGUF files: TQ1_0, TQ2_0, Q2_0, PQ2_0, PTQ1_0 and I2_S.

A weight is its trit times its group's scale. A tensor whose groups all have one scale becomes a
`TernaryLayer`. Group scales need hardware that does not exist yet, so other tensors can be listed
and read, but are no layers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tritloom.host.checkpoints.ggml_types import I2_S, I2S_ORDERS, TERNARY_TYPES, i2s_weights
from tritloom.host.checkpoints.gguf_header import TensorRecord, read_header
from tritloom.host.checkpoints.gguf_order import better_order, order_scores
from tritloom.host.checkpoints.gguf_scales import (
    GgufTensor,
    has_threes,
    i2s_codes,
    i2s_scale,
    one_scale,
    refuse_threes,
    used_scales,
    why_no_layer,
)
from tritloom.host.checkpoints.values import show
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.errors import CheckpointError, InputError

__all__ = ["GgufFile", "GgufTensor", "TensorFacts", "load_gguf"]

F32 = npt.NDArray[np.float32]

WEIGHT = ".weight"
LOOKUPS = ("token_embd", "position_embd", "token_types")
"""Matrices whose rows are looked up; no linear layer has them."""
ROTATION = "prism.hadamard."
"""PrismML's keys: activations are multiplied by signs and a Hadamard matrix before each layer."""
FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFacts:
    """A line of the listing of a file.

    Members
    -------
    name, type : of the tensor
    shape : its dimensions; of a matrix `[out_features, in_features]`
    bytes : what its data takes
    group : inputs that share a scale, 0 if the whole tensor has one; None if it is not ternary
    scales : how many different scales the tensor uses, None if it is not ternary
    fits : whether it is a layer for a device of today, which takes one scale a tensor
    reason : why it does not fit; empty if it fits, or if it is not ternary
    """

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int
    group: int | None
    scales: int | None
    fits: bool
    reason: str


class GgufFile:
    """A GGUF file whose tensors are read one by one, when they are asked for.

    Parameters
    ----------
    path : the file
    i2s_order : for files with I2_S tensors, which of `I2S_ORDERS` their codes have; x86 and arm
        files differ by nothing else

    Members
    -------
    header : metadata and places of the tensors

    Raises
    ------
    CheckpointError : as `read_header`
    InputError : an unknown order
    """

    def __init__(self, path: str | Path, i2s_order: str | None = None) -> None:
        if i2s_order is not None and i2s_order not in I2S_ORDERS:
            raise InputError(
                f"the order of I2_S must be {', '.join(I2S_ORDERS)}, not {show(i2s_order)}"
            )
        self._order = i2s_order
        self.header = read_header(path)

    @property
    def layer_names(self) -> list[str]:
        """The names of the linear layers with ternary weights, without `.weight`."""
        return [
            name.removesuffix(WEIGHT)
            for name, record in self.header.tensors.items()
            if _is_layer(record)
        ]

    def tensor(self, name: str) -> GgufTensor:
        """Read a ternary tensor, whatever scales it has.

        Parameters
        ----------
        name : of the tensor, such as `blk.0.ffn_up.weight`

        Raises
        ------
        CheckpointError : there is no such tensor or it is not a ternary matrix; it has a code
            without meaning or a scale that is not finite; the order of I2_S is missing or wrong
        """
        record = self._record(name)
        if record.type_id == I2_S and self._order is None:
            raise CheckpointError(
                f"{name} is I2_S, and the file does not say in which order its codes lie; name the "
                f"computer that wrote it: {', '.join(I2S_ORDERS)} (--i2s-order)"
            )
        if record.type_id == I2_S:
            self._refuse_wrong_order()
        return self._decode(record, self._order or "")

    def floats(self, name: str) -> F32 | None:
        """Read a tensor of F32, F16 or BF16, such as a bias, a norm or an embedding.

        Parameters
        ----------
        name : of the tensor

        Returns
        -------
        float32 in the tensor's shape, exactly the file's values; None if there is no such tensor

        Raises
        ------
        CheckpointError : it has another type
        """
        record = self.header.tensors.get(name)
        if record is None:
            return None
        if record.type_name not in FLOATS:
            raise CheckpointError(
                f"{name} is {record.type_name}, not one of {', '.join(FLOATS)}; convert it again"
            )
        raw = np.ascontiguousarray(self.header.data(record)).view(FLOATS[record.type_name])
        if record.type_name == "BF16":
            raw = (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return raw.astype(np.float32).reshape(record.shape)

    def layer(self, name: str) -> TernaryLayer:
        """Read a layer; the weights are its trits times one scale.

        Parameters
        ----------
        name : of the layer, such as `blk.0.ffn_up`; `NAME.weight` holds its weights, and
            `NAME.bias` and `NAME.scale` belong to it where they exist

        Returns
        -------
        A layer whose scale multiplies: float32, equal to the file's half-precision scale. In a
        group whose scale is 0 all trits are 0, since its weights are.

        Raises
        ------
        CheckpointError : as `tensor`; also if the groups have different scales, a weight is 2, or
            the file declares a rotation of the activations
        """
        key = f"{name}{WEIGHT}"
        if reason := self._rotation:
            raise CheckpointError(f"{key}: {reason}")
        tensor = self.tensor(key)
        trits, scale = one_scale(key, tensor)
        if reason := self._second_scale(key, scale):
            raise CheckpointError(reason)
        factor = self.floats(f"{name}.scale")
        if factor is not None:
            scale = factor.reshape(1)[0]
        try:
            return TernaryLayer.from_trits(trits, scale, bias=self.floats(f"{name}.bias"))
        except InputError as error:
            raise CheckpointError(f"{name}: {error}") from error

    def facts(self) -> Iterator[TensorFacts]:
        """A line for each tensor, in the file's order; a tensor that does not fit is no error."""
        for record in self.header.tensors.values():
            ternary = _is_ternary(record)
            group, scales, reason = None, None, ""
            if ternary:
                group = record.layout.group if record.layout else 0
                try:
                    scales, reason = self._scan(record)
                except CheckpointError as error:
                    reason = str(error)
            yield TensorFacts(
                name=record.name,
                type=record.type_name,
                shape=record.shape,
                bytes=record.bytes,
                group=group,
                scales=scales,
                fits=ternary and not reason,
                reason=reason,
            )

    def shapes(self) -> dict[str, tuple[int, int]]:
        """out_features and in_features of every layer by name, in the file's order.

        The order of I2_S does not matter here.

        Raises
        ------
        CheckpointError : there is no ternary layer, or one of them does not fit a device
        """
        shapes = {}
        for name in self.require_layers():
            record = self.header.tensors[f"{name}{WEIGHT}"]
            reason = self._scan(record)[1]
            if reason:
                raise CheckpointError(reason)
            shapes[name] = (record.shape[0], record.shape[1])
        return shapes

    def grouped_shapes(self) -> dict[str, tuple[int, int, int, int]]:
        """out_features, in_features, group and passes of every layer by name, in the file's order.

        The group is the number of inputs that share a scale, or 0 if the tensor has one scale and
        no weight is 2. A device computes a layer with a weight 2 in two passes, others in one.

        Raises
        ------
        CheckpointError : there is no ternary layer, or one of them does not fit even a device with
            groups of inputs
        """
        shapes = {}
        for name in self.require_layers():
            record = self.header.tensors[f"{name}{WEIGHT}"]
            group, passes = 0, 1
            if reason := self._scan(record)[1]:
                if (
                    self._rotation
                    or record.layout is None
                    or f"{name}.scale" in self.header.tensors
                ):
                    raise CheckpointError(reason)
                weights = self._decode(record, "").weights  # refuses a code without meaning
                group, passes = record.layout.group, 2 if weights.max() > 1 else 1
            shapes[name] = (record.shape[0], record.shape[1], group, passes)
        return shapes

    def layers(self) -> dict[str, TernaryLayer]:
        """All layers by name; errors are those of `layer`, or that there is none."""
        return {name: self.layer(name) for name in self.require_layers()}

    def require_layers(self) -> list[str]:
        """`layer_names`; raises `CheckpointError` if there is none."""
        names = self.layer_names
        if not names:
            known = ", ".join(
                dict.fromkeys(each.type_name for each in self.header.tensors.values())
            )
            raise CheckpointError(
                f"{self.header.path} holds no ternary layer, only {known or 'no tensor'}; "
                "convert the model to TQ2_0"
            )
        return names

    @property
    def _rotation(self) -> str:
        """Why no layer of the file can be used: its activations are rotated; empty otherwise."""
        for key, value in self.header.metadata.items():
            if key.startswith(ROTATION):
                shown = str(value) if not isinstance(value, str) else show(value)
                return (
                    f"the file declares {key} = {shown}, a rotation of the activations that is "
                    "not applied here; take a file without it"
                )
        return ""

    def _record(self, name: str) -> TensorRecord:
        record = self.header.tensors.get(name)
        if record is None:
            raise CheckpointError(f"{self.header.path} has no tensor {name}; see tritloom info")
        if not _is_ternary(record):
            raise CheckpointError(
                f"{name} is {record.type_name} {list(record.shape)}, not a ternary matrix; "
                "see tritloom info"
            )
        return record

    def _second_scale(self, key: str, scale: np.float32) -> str:
        """Why the tensor `NAME.scale` cannot take the place of `scale`; empty if it can."""
        record = self.header.tensors.get(f"{key.removesuffix(WEIGHT)}.scale")
        if record is None or (scale == 1 and math.prod(record.shape) == 1):
            return ""
        return (
            f"{key} has the scale {scale:g} and {record.name} of shape {list(record.shape)}, and a "
            "device takes one scale a tensor; keep this layer on the host"
        )

    def _scan(self, record: TensorRecord) -> tuple[int, str]:
        """How many scales a ternary tensor uses, and why it is no layer; empty if it is one."""
        raw = self.header.data(record)
        layout = record.layout
        count, reason = 1, ""
        if layout is not None:
            codes, scales = layout.split(raw)
            scale = scales[0]
            same = np.isfinite(scale) and scale != 0 and bool((scales == scale).all())
            if not same or (layout.two_bits and has_threes(codes)):
                tensor = self._decode(record, "")
                used = np.unique(used_scales(tensor))
                count, reason = max(1, len(used)), why_no_layer(record.name, tensor)
                scale = used[0] if len(used) else np.float32(0)
        else:
            i2s_codes(record.name, raw)
            scale = i2s_scale(record.name, raw)
        if not _is_layer(record):
            reason = f"{record.name} is not the weight of a linear layer"
        elif self._rotation:
            reason = f"{record.name}: {self._rotation}"
        return count, reason or self._second_scale(record.name, scale)

    def _decode(self, record: TensorRecord, order: str) -> GgufTensor:
        """The weights and scales of a ternary matrix."""
        name, raw, layout = record.name, self.header.data(record), record.layout
        out_features, in_features = record.shape
        if layout is None:
            codes = i2s_weights(i2s_codes(name, raw), (out_features, in_features), order, name)
            scale = np.full((1, 1), i2s_scale(name, raw))
            return GgufTensor(codes.astype(np.int8) - np.int8(1), scale, in_features)
        packed, scales = layout.split(raw)
        codes = layout.decode(packed).reshape(out_features, in_features)
        if layout.two_bits and not layout.has_two:
            refuse_threes(name, codes)
        scales = scales.reshape(out_features, -1)
        if not np.isfinite(scales).all():
            row, place = np.argwhere(~np.isfinite(scales))[0]
            raise CheckpointError(
                f"{name} has the scale {scales[row, place]} in row {row}, group {place}, not a "
                f"finite number; copy {self.header.path} again"
            )
        return GgufTensor(codes.astype(np.int8) - np.int8(1), scales, layout.group)

    def _refuse_wrong_order(self) -> None:
        """Refuse an order of I2_S if the codes' sums say that it is another one."""
        given = self._order or ""
        better = better_order(self._order_scores, given)
        if better is not None:
            scores = self._order_scores
            raise CheckpointError(
                f"{self.header.path} is not in the order {given} of I2_S: rows of ffn_up and "
                f"columns of ffn_down agree by {scores[given]:.1f} standard deviations, and by "
                f"{scores[better]:.1f} in the order {better}; give --i2s-order {better}"
            )

    @cached_property
    def _order_scores(self) -> dict[str, float]:
        return order_scores(
            self.header.tensors, lambda record, order: self._decode(record, order).weights
        )


def load_gguf(path: str | Path, i2s_order: str | None = None) -> dict[str, TernaryLayer]:
    """Read all ternary layers of a GGUF file.

    Parameters
    ----------
    path : the file
    i2s_order : see `GgufFile`

    Returns
    -------
    The layers by name, such as `blk.0.ffn_up`, in the file's order. Rows and columns are in the
    file's order too: llama.cpp's converter reorders the rows of q and k of Llama models.

    Raises
    ------
    CheckpointError : as `GgufFile` and `GgufFile.layer`; also if there is no ternary layer
    """
    return GgufFile(path, i2s_order).layers()


def _is_ternary(record: TensorRecord) -> bool:
    """Whether a tensor is a matrix of a ternary type."""
    ternary = record.type_id in TERNARY_TYPES or record.type_id == I2_S
    return ternary and len(record.shape) == 2


def _is_layer(record: TensorRecord) -> bool:
    named = record.name.endswith(WEIGHT) and not record.name.startswith(LOOKUPS)
    return named and _is_ternary(record)
