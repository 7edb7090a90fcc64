"""The weights and scales of a ternary tensor in a GGUF file, and whether one scale is enough."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tritloom.host.checkpoints.ggml_types import I2S_TAIL_BYTES
from tritloom.rtl.spec.errors import CheckpointError

__all__ = [
    "GgufTensor",
    "has_threes",
    "i2s_codes",
    "i2s_scale",
    "one_scale",
    "refuse_threes",
    "used_scales",
    "why_no_layer",
]

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

UNUSED_CODE = 3
CODE_PAIRS = 0x55
"""The lower bits of the four two-bit codes of a byte."""
SCALE_BYTES = 4


@dataclass(frozen=True, slots=True, eq=False)
class GgufTensor:
    """A ternary tensor as the file has it.

    Members
    -------
    weights : int8 `[out_features, in_features]` in {-1, 0, 1}, or with 2 where Q2_0 has code 3
    scales : float32 `[out_features, groups]`, or `[1, 1]` where the tensor has one
    group : inputs that share a scale; `in_features` where the tensor has one
    """

    weights: npt.NDArray[np.int8]
    scales: F32
    group: int


def has_threes(codes: U8) -> bool:
    """Whether a byte holds the two-bit code 3."""
    return bool((codes & codes >> 1 & CODE_PAIRS).any())


def i2s_codes(name: str, raw: U8) -> U8:
    """The codes of an I2_S tensor, none of which is 3."""
    codes = raw[:-I2S_TAIL_BYTES]
    threes = codes & codes >> 1 & CODE_PAIRS
    if threes.any():
        byte = int(threes.argmax())
        raise CheckpointError(
            f"{name} has code 3 in byte {byte} of its data, codes are 0, 1 or 2; get the file again"
        )
    return codes


def i2s_scale(name: str, raw: U8) -> np.float32:
    tail = raw[-I2S_TAIL_BYTES:][:4].tobytes()
    scale: np.float32 = np.frombuffer(tail, "<f4")[0]
    if not np.isfinite(scale):
        raise CheckpointError(f"{name} has the scale {scale}, not a finite number; get it again")
    return scale


def refuse_threes(name: str, codes: U8) -> None:
    bad = np.argwhere(codes == UNUSED_CODE)
    if len(bad):
        row, column = bad[0]
        raise CheckpointError(
            f"{name} has code 3 at [{row}, {column}], codes are 0, 1 or 2; get the file again"
        )


def blocks_of(tensor: GgufTensor) -> npt.NDArray[np.int8]:
    """The weights by group: int8 `[out_features, groups, group]`."""
    return tensor.weights.reshape(len(tensor.weights), -1, tensor.group)


def used_groups(tensor: GgufTensor) -> npt.NDArray[np.bool_]:
    """Which groups have a weight other than 0: bool `[out_features, groups]`."""
    used: npt.NDArray[np.bool_] = blocks_of(tensor).any(axis=2) & (tensor.scales != 0)
    return used


def used_scales(tensor: GgufTensor) -> F32:
    """The scales that matter, row after row."""
    used = used_groups(tensor)
    return np.broadcast_to(tensor.scales, used.shape)[used]


def why_no_layer(name: str, tensor: GgufTensor) -> str:
    """Why a tensor is no layer of today's core; empty if it is one."""
    used = used_groups(tensor)
    twos = (blocks_of(tensor) == 2) & used[:, :, None]
    if twos.any():
        row, group, place = np.argwhere(twos)[0]
        return (
            f"{name} has the weight 2 at [{row}, {group * tensor.group + place}], and a device "
            "takes -1, 0 and 1; keep this layer on the host"
        )
    scales = np.broadcast_to(tensor.scales, used.shape)
    first = scales[used][0] if used.any() else np.float32(0)
    other = used & (scales != first)
    if other.any():
        row, group = np.argwhere(other)[0]
        return (
            f"{name} has scales by groups of {tensor.group} ({first:g}, but "
            f"{scales[row, group]:g} in row {row}, group {group}), and a device takes one scale a "
            "tensor; keep this layer on the host"
        )
    return ""


def one_scale(name: str, tensor: GgufTensor) -> tuple[npt.NDArray[np.int8], np.float32]:
    """The trits and the scale of a tensor with one scale."""
    reason = why_no_layer(name, tensor)
    if reason:
        raise CheckpointError(reason)
    scales = used_scales(tensor)
    used = np.broadcast_to(used_groups(tensor)[:, :, None], blocks_of(tensor).shape)
    trits = np.where(used, blocks_of(tensor), np.int8(0)).reshape(tensor.weights.shape)
    scale: np.float32 = scales[0] if len(scales) else np.float32(0)
    return trits, scale
