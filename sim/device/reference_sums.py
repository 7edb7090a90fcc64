"""What a RUN of the reference device computes from the words of a layer, in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.groups import fixed_to_float, fixed_totals, float_totals
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.numerics import exact_product
from tritloom.rtl.spec.packing import unpack_scales, unpack_weights

__all__ = ["Trits", "as_operand", "layer_results", "layer_trits"]

Trits = npt.NDArray[np.int8] | npt.NDArray[np.float32]
MOST_FLOATS = 1 << 19
"""Trits of a layer that are kept as the floats of the product; more would take much memory."""


def layer_trits(config: AcceleratorConfig, shape: LayerShape, image: bytes) -> npt.NDArray[np.int8]:
    """The trits in the image of a layer, int8 [row groups × rows, tiles × lanes].

    Raises
    ------
    InputError : a code that stands for no trits, or a scale that is not finite
    """
    if config.scale is not None and not np.isfinite(_scales(config, shape, image)).all():
        raise InputError("scales must be finite; write the layer again")
    rows = shape.row_groups * config.rows
    return unpack_weights(config, image, rows, shape.tiles * config.lanes)


def as_operand(trits: npt.NDArray[np.int8]) -> Trits:
    """The trits of a layer as `layer_results` takes them soonest."""
    return trits.astype(np.float32) if trits.size <= MOST_FLOATS else trits


def layer_results(
    config: AcceleratorConfig,
    shape: LayerShape,
    trits: Trits,
    image: bytes,
    codes: npt.NDArray[np.int8],
    acts: npt.NDArray[np.uint32] | None,
) -> npt.NDArray[np.int32]:
    """The results of a layer with the trits of `as_operand`.

    int8 [tokens, tiles × lanes] → int32 [tokens, results].
    Without scales there are groups × row groups × rows of them; with scales row groups × rows
    patterns of float32. `acts` has the scales of the activations, patterns of float32
    [tokens, groups]; only a device of the kind `float` needs them.
    """
    if config.scale is not None:
        shape = shape.with_longest(config.most_group_tiles)
    group_tiles = shape.group_tiles
    if not group_tiles:
        return exact_product(trits, codes)
    group = group_tiles * config.lanes
    parts = [slice(start, start + group) for start in range(0, codes.shape[1], group)]
    sums = [exact_product(trits[:, part], codes[:, part]) for part in parts]
    if config.scale is None:
        return np.hstack(sums)
    scales = _scales(config, shape, image)
    scales = np.where(np.isfinite(scales), scales, np.float16(0))  # else results are unspecified
    of_groups, patterns = np.stack(sums, axis=-1), scales.view(np.uint16)
    if config.scale.scales_activations:
        assert acts is not None
        return float_totals(of_groups, patterns, acts[:, np.newaxis])[..., -1].view(np.int32)
    high, low = fixed_totals(of_groups, patterns)
    return fixed_to_float(high[..., -1], low[..., -1]).view(np.int32)


def _scales(config: AcceleratorConfig, shape: LayerShape, image: bytes) -> npt.NDArray[np.float16]:
    return unpack_scales(config, image, shape).view(np.float16)
