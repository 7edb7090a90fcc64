"""Layers with groups of inputs: their weights, and their products on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from tritloom.host.handle import Handle
from tritloom.host.job import Job
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.groups import MOST_WEIGHT, fixed_to_float, fixed_totals, ternary_passes
from tritloom.rtl.spec.numerics import to_array
from tritloom.rtl.spec.packing import half_scales

__all__ = ["GroupHandle", "GroupJob", "GroupLayer"]


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
    def joined(self) -> tuple[TernaryLayer, npt.NDArray[np.uint16]]:
        """The passes side by side as one layer, and the patterns of its scales.

        Raises
        ------
        InputError : the layer has no scales
        """
        if self.scales is None:
            raise InputError(
                "the layer has no scales; give them to GroupLayer.from_weights, or use a device "
                "whose configuration has max_group_sums"
            )
        trits = ternary_passes(self.weights)
        patterns = np.hstack([self.scales] * len(trits))
        return TernaryLayer.from_trits(np.hstack(trits), 1.0), patterns.view(np.uint16)


class GroupHandle:
    """A layer with groups of inputs in a device's memory, from `Device.load` to `Device.unload`.

    Members
    -------
    layer : what was loaded
    parts : the ternary layers on the device, whose sums are added; one on a device with scales,
        of two passes side by side if a weight is 2
    """

    def __init__(self, layer: GroupLayer, parts: tuple[Handle, ...]) -> None:
        self.layer = layer
        self.parts = parts

    @property
    def words(self) -> int:
        """Words of weight memory that it takes; 0 after `unload`."""
        return sum(part.words for part in self.parts)


class GroupJob:
    """A product that the device computes; `result` waits for it."""

    def __init__(self, handle: GroupHandle, jobs: list[Job]) -> None:
        self._handle = handle
        self._jobs = jobs
        self._sums: NDArray[Any] | None = None

    def result(self) -> NDArray[Any]:
        """Wait for the sums, int32 `[tokens, out_features, groups]`.

        Of a device with scales: the scaled sums of each row, float32 `[tokens, out_features]`.

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

        Raises
        ------
        DeviceError : as `result`
        InputError : the layer has no scales
        """
        sums = self.result()
        if sums.dtype == np.float32:
            return sums
        patterns = self._handle.layer.joined[1][:, : sums.shape[2]]
        high, low = fixed_totals(sums, np.broadcast_to(patterns, sums.shape))
        return fixed_to_float(high[..., -1], low[..., -1]).view(np.float32)
