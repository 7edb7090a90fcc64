"""Layers with groups of inputs: their weights, and their products on a device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from tritloom.host.handle import Handle
from tritloom.host.job import Job
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.groups import MOST_WEIGHT, ternary_passes
from tritloom.rtl.spec.numerics import to_array

__all__ = ["GroupHandle", "GroupJob", "GroupLayer"]


@dataclass(frozen=True, slots=True, eq=False)
class GroupLayer:
    """Weights whose products have a sum for each group of inputs. Make it with `from_weights`.

    Members
    -------
    weights : int8 `[out_features, in_features]` in {-1, 0, 1, 2}, read-only
    group : inputs that have a sum of their own; 0: the whole row
    """

    weights: npt.NDArray[np.int8]
    group: int

    @property
    def out_features(self) -> int:
        """Rows of the weight matrix."""
        return int(self.weights.shape[0])

    @property
    def in_features(self) -> int:
        """Columns of the weight matrix."""
        return int(self.weights.shape[1])

    @classmethod
    def from_weights(cls, weights: npt.ArrayLike, group: int) -> GroupLayer:
        """Check the weights and copy them into a layer.

        Parameters
        ----------
        weights : int8 `[out_features, in_features]` in {-1, 0, 1, 2}
        group : divides in_features, such as 32, 64, 128 or 256; 0: the whole row is one group

        Raises
        ------
        InputError : another dtype or shape, no elements, another value (the message names its
            place), a masked array, or another group
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
        return cls(copy, group)

    @property
    def passes(self) -> tuple[TernaryLayer, ...]:
        """Ternary layers whose sums add up to those of this layer: one, or two if a weight is 2."""
        return tuple(TernaryLayer.from_trits(trits, 1.0) for trits in ternary_passes(self.weights))


class GroupHandle:
    """A layer with groups of inputs in a device's memory, from `Device.load` to `Device.unload`.

    Members
    -------
    layer : what was loaded
    parts : the ternary layers on the device, whose sums are added
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
        self._sums: NDArray[np.int32] | None = None

    def result(self) -> NDArray[np.int32]:
        """Wait for the sums, int32 `[tokens, out_features, groups]`.

        Raises
        ------
        DeviceError : the device refused a command of this job, or the session ended before
        """
        if self._sums is None:
            sums = self._jobs[0].result()
            for job in self._jobs[1:]:
                sums = sums + job.result()
            self._sums = sums if self._handle.layer.group else sums[:, :, np.newaxis]
        return self._sums
