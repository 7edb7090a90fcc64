"""Random shapes of layers, with and without groups of inputs."""

from __future__ import annotations

import random

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape

__all__ = ["random_shape"]


def random_shape(
    config: AcceleratorConfig, rng: random.Random, most_tiles: int, most_words: int
) -> LayerShape:
    """A shape within the limits of a device.

    Where the device has groups of inputs, most layers have some. Their sums fit a result bank, if
    they are results.

    Parameters
    ----------
    config : the configuration of the device
    rng : where the shape comes from
    most_tiles, most_words : limits of the shape
    """
    tiles = rng.randint(1, min(most_tiles, most_words))
    row_groups = rng.randint(1, min(config.max_row_groups, most_words // tiles))
    if not config.has_groups or rng.random() < 0.3:
        return LayerShape(tiles, row_groups)
    if config.scale is not None:
        return LayerShape(tiles, row_groups, rng.randint(1, config.most_group_tiles))
    most_groups = config.result_row_groups // row_groups
    return LayerShape(tiles, row_groups, rng.randint(-(-tiles // most_groups), config.max_tiles))
