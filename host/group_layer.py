"""Layers with groups of inputs: their weights, and their products on a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from tritloom.host.allocator import Allocator
from tritloom.host.handle import Handle, load_layer
from tritloom.host.inputs import checked_scales
from tritloom.host.job import Job
from tritloom.host.layer import TernaryLayer
from tritloom.host.session import Session
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.groups import (
    MOST_WEIGHT,
    fixed_to_float,
    fixed_totals,
    float_totals,
    ternary_passes,
)
from tritloom.rtl.spec.numerics import to_array
from tritloom.rtl.spec.packing import half_scales

__all__ = ["GroupHandle", "GroupJob", "GroupLayer", "JoinedLayer", "load_groups", "scales_of"]


@dataclass(frozen=True, slots=True, eq=False)
class GroupLayer:
    """Weights whose products have a sum for each group of inputs. Make it with `from_weights`.

    Members
    -------
    weights : int8 `[out_features, in_features]` in {-1, 0, 1, 2}, read-only
    group : inputs that have a sum of their own; 0: the whole row
    scales : float16 `[out_features, groups]`, read-only; None if the host applies them itself
    """

    weights: npt.NDArray[np.int8]
    group: int
    scales: npt.NDArray[np.float16] | None = None

    @property
    def out_features(self) -> int:
        """Rows of the weight matrix."""
        return int(self.weights.shape[0])

    @property
    def in_features(self) -> int:
        """Columns of the weight matrix."""
        return int(self.weights.shape[1])

    @classmethod
    def from_weights(
        cls, weights: npt.ArrayLike, group: int, scales: npt.ArrayLike | None = None
    ) -> GroupLayer:
        """Check the weights and copy them into a layer.

        Parameters
        ----------
        weights : int8 `[out_features, in_features]` in {-1, 0, 1, 2}
        group : divides in_features, such as 32, 64, 128 or 256; 0: the whole row is one group
        scales : float16 `[out_features, groups]`, or floats that half precision holds exactly; for
            `Device.matmul_scaled`

        Raises
        ------
        InputError : another dtype or shape, no elements, another value (the message names its
            place), a masked array, another group, or a scale that is not finite or not of half
            precision
        """
        matrix = to_array(weights, "weights")
        if matrix.dtype != np.int8:
            raise InputError(f"weights must be int8, not {matrix.dtype}; use .astype(np.int8)")
        if matrix.ndim != 2 or matrix.size == 0:
            raise InputError(
                f"weights must have shape [out_features, in_features], not {matrix.shape}; "
                "reshape them"
            )
        if matrix.min() < -1 or matrix.max() > MOST_WEIGHT:
            row, column = np.argwhere((matrix < -1) | (matrix > MOST_WEIGHT))[0]
            raise InputError(
                f"weights must be -1, 0, 1 or 2, not {matrix[row, column]} at [{row}, {column}]; "
                "subtract the zero point of the format first"
            )
        if not isinstance(group, int) or isinstance(group, bool) or group < 0:
            raise InputError(f"group must be a number of inputs or 0, not {group!r}")
        if group and matrix.shape[1] % group:
            raise InputError(
                f"group must divide the {matrix.shape[1]} inputs of the layer, not be {group}"
            )
        copy = np.array(matrix, np.int8, order="C")
        copy.flags.writeable = False
        if scales is None:
            return cls(copy, group)
        groups = matrix.shape[1] // (group or matrix.shape[1])
        halves = half_scales(to_array(scales, "scales"), (matrix.shape[0], groups)).copy()
        halves.flags.writeable = False
        return cls(copy, group, halves.view(np.float16))

    @property
    def passes(self) -> tuple[TernaryLayer, ...]:
        """Ternary layers whose sums add up to those of this layer: one, or two if a weight is 2."""
        return tuple(TernaryLayer.from_trits(trits, 1.0) for trits in ternary_passes(self.weights))

    @property
    def groups(self) -> int:
        """Groups of inputs of a row."""
        return self.in_features // (self.group or self.in_features)

    @property
    def patterns(self) -> npt.NDArray[np.uint16]:
        """The patterns of the scales, uint16 `[out_features, groups]`.

        Raises
        ------
        InputError : the layer has no scales
        """
        if self.scales is None:
            raise InputError(
                "the layer has no scales; give them to GroupLayer.from_weights, or use a device "
                "whose configuration has max_group_sums"
            )
        return self.scales.view(np.uint16)

    def joined(self, config: AcceleratorConfig) -> JoinedLayer:
        """The passes as one layer of a device with scales.

        If it adds exactly, all groups of the second pass follow those of the first one. If it
        rounds every operation, the two passes of a group are one group, whose sum is rounded once.

        Raises
        ------
        InputError : the layer has no scales, or its groups are too long for the device
        """
        patterns, passes = self.patterns, ternary_passes(self.weights)
        joined = JoinedLayer(passes[0], self.group, patterns)
        if config.scales_activations:
            _require_one_group(config, self, len(passes))
            if len(passes) > 1:
                both = _join_groups(passes, self.groups)
                joined = JoinedLayer(both, self.group * len(passes), patterns)
        elif len(passes) > 1:
            joined = JoinedLayer(np.hstack(passes), self.group, np.hstack([patterns] * len(passes)))
        return joined


class JoinedLayer(NamedTuple):
    """A layer with scales as a device has it.

    Members
    -------
    trits : int8 `[out_features, in_features]`
    group : inputs that have a sum of their own; 0: the whole row
    patterns : of the scales, uint16 `[out_features, groups]`
    """

    trits: npt.NDArray[np.int8]
    group: int
    patterns: npt.NDArray[np.uint16]


def _join_groups(several: Sequence[npt.NDArray[np.int8]], groups: int) -> npt.NDArray[np.int8]:
    """Arrays int8 `[n, inputs]` side by side within each of their groups of inputs.

    The first group of each array, then the second group of each, and so on.
    """
    rows = len(several[0])
    parts = [each.reshape(rows, groups, -1) for each in several]
    return np.concatenate(parts, axis=2).reshape(rows, -1)


def _require_one_group(config: AcceleratorConfig, layer: GroupLayer, passes: int) -> None:
    """`InputError` if the device would cut a group in two, because it rounds after each."""
    group = layer.group or layer.in_features
    most = config.most_group_tiles * config.lanes // passes
    if group > most:
        what = "groups of the layer" if passes == 1 else "groups of a layer with weights of 2"
        raise InputError(
            f"{what} must have at most {most} inputs on this device, not {group}, because a "
            "group's sum is rounded once; use a device whose scale group and max_in_features are "
            f"at least {group * passes}"
        )


class GroupHandle:
    """A layer with groups of inputs in a device's memory, from `Device.load` to `Device.unload`.

    Members
    -------
    layer : what was loaded
    parts : the ternary layers on the device, whose sums are added; one on a device with scales,
        of two passes side by side if a weight is 2, see `GroupLayer.joined`
    """

    def __init__(self, layer: GroupLayer, parts: tuple[Handle, ...]) -> None:
        self.layer = layer
        self.parts = parts

    @property
    def words(self) -> int:
        """Words of weight memory that it takes; 0 after `unload`."""
        return sum(part.words for part in self.parts)

    def device_codes(
        self, config: AcceleratorConfig, codes: npt.NDArray[np.int8]
    ) -> npt.NDArray[np.int8]:
        """The codes, int8 `[tokens, in_features]`, as the parts take them.

        That is twice if two passes are side by side.
        """
        if self.parts[0].in_features == codes.shape[1]:
            return codes
        return _join_groups([codes, codes], self.layer.groups if config.scales_activations else 1)


class GroupJob:
    """A product that the device computes; `result` waits for it."""

    def __init__(
        self,
        handle: GroupHandle,
        jobs: list[Job],
        scales: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self._handle = handle
        self._jobs = jobs
        self._scales = scales
        self._sums: NDArray[Any] | None = None

    def result(self) -> NDArray[Any]:
        """Wait for the sums, int32 `[tokens, out_features, groups]`.

        Of a device with scales: the scaled sums of each row, float32 `[tokens, out_features]`, as
        `scaled`.

        Raises
        ------
        DeviceError : the device refused a command of this job, or the session ended before
        """
        if self._sums is None:
            sums = self._jobs[0].result()
            for job in self._jobs[1:]:
                sums = sums + job.result()
            plain = self._handle.layer.group or sums.dtype != np.int32
            self._sums = sums if plain else sums[:, :, np.newaxis]
        return self._sums

    def scaled(self) -> NDArray[np.float32]:
        """Wait for the scaled sums, float32 `[tokens, out_features]`; from every device the same.

        With scales of activations they are `float_totals`, else `fixed_totals`, both in
        `tritloom.rtl.spec.groups`.

        Raises
        ------
        DeviceError : as `result`
        InputError : the layer has no scales
        """
        sums = self.result()
        if sums.dtype == np.float32:
            return sums
        patterns = self._handle.layer.patterns
        if self._scales is not None:
            acts = self._scales.view(np.uint32)[:, np.newaxis]
            return float_totals(sums, patterns, acts)[..., -1].view(np.float32)
        high, low = fixed_totals(sums, np.broadcast_to(patterns, sums.shape))
        return fixed_to_float(high[..., -1], low[..., -1]).view(np.float32)


def load_groups(
    session: Session, config: AcceleratorConfig, allocator: Allocator, layer: GroupLayer
) -> GroupHandle:
    """Write a layer with groups of inputs to a device's weight memory.

    Raises
    ------
    CapacityError : there is no room; the device is as before
    InputError : a layer without scales for a device with scales, or groups that it cannot have
    DeviceError : the memory does not keep it, or the session ended
    """
    device = (session, config, allocator)
    if config.scale is not None:
        trits, group, scales = layer.joined(config)
        joined = TernaryLayer.from_trits(trits, 1.0)
        return GroupHandle(layer, (load_layer(*device, joined, group=group, scales=scales),))
    parts: list[Handle] = []
    try:
        for each in layer.passes:
            parts.append(load_layer(*device, each, group=layer.group))
    except BaseException:
        for part in parts:
            allocator.release(part)
        raise
    return GroupHandle(layer, tuple(parts))


def scales_of(
    session: Session,
    config: AcceleratorConfig,
    handle: GroupHandle,
    scales: npt.ArrayLike | None,
    tokens: int,
) -> npt.NDArray[np.float32] | None:
    """Scales of codes, float32 `[tokens, groups]`, as a product on a device takes them; or none.

    Raises
    ------
    InputError : another dtype or shape, a scale that is not finite, a layer without scales, or a
        device that does not compute with them, or not without them
    """
    rounds = config.scales_activations
    if scales is None:
        if rounds:
            raise InputError(
                f"{session.name} scales the activations of each group; pass their scales, float32 "
                "[tokens, groups]"
            )
        return None
    if config.scale is not None and not rounds:
        raise InputError(
            f"{session.name} takes no scales of activations; pass none, or use a device whose "
            "scale has kind float, or one with max_group_sums"
        )
    return checked_scales(scales, (tokens, handle.layer.patterns.shape[1]))
