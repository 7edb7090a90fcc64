"""The requests that a driver sends for a layer, in the order in which it sends them.

They carry neither session nor seq: whoever sends them numbers them.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tritloom.rtl.spec.commands import LAYER, Opcode, Request
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import pack_activations

__all__ = ["Trits", "define", "layer", "loads", "results", "writes"]

Trits = NDArray[np.int8]


def define(index: int, base: int, shape: LayerShape) -> Request:
    """The DEFINE of a layer."""
    return Request(
        Opcode.DEFINE, index=index, payload=LAYER.pack(base, shape.tiles, shape.row_groups)
    )


def writes(config: AcceleratorConfig, index: int, image: bytes, address: int = 0) -> list[Request]:
    """The WRITEs of an image from word `address` of a layer."""
    size = config.word_bytes
    step = config.max_payload // size * size
    return [
        Request(
            Opcode.WRITE, index=index, address=address + at // size, payload=image[at : at + step]
        )
        for at in range(0, len(image), step)
    ]


def layer(
    config: AcceleratorConfig,
    index: int,
    base: int,
    shape: LayerShape,
    image: bytes,
    sent: Callable[[bytes], bytes] = bytes,
) -> list[Request]:
    """Define, write and commit a layer.

    Parameters
    ----------
    config : the configuration of the device
    index : number of the layer
    base : first weight word of the layer in memory
    shape : tiles and row groups
    image : the packed weights, as COMMIT checks them
    sent : makes of `image` what WRITE sends, for example with noise in the unused bits
    """
    return [
        define(index, base, shape),
        *writes(config, index, sent(image)),
        Request(Opcode.COMMIT, index=index, address=zlib.crc32(image)),
    ]


def loads(config: AcceleratorConfig, codes: Trits) -> list[Request]:
    """The LOADs of activations, int8 [tokens, in]."""
    step = config.max_payload // config.fill * config.fill
    requests = []
    for token, row in enumerate(codes):
        image = pack_activations(config, row)
        requests += [
            Request(
                Opcode.LOAD, index=token, address=at // config.fill, payload=image[at : at + step]
            )
            for at in range(0, len(image), step)
        ]
    return requests


def results(
    config: AcceleratorConfig, out_features: int, rng: random.Random | None = None
) -> list[Request]:
    """The RESULTS of all tokens, as large as they can be, or with `rng` of several sizes."""
    rows = config.rows
    most = config.max_payload // config.acc_bytes
    requests = []
    for token in range(config.tokens):
        row = 0
        while row < out_features:
            count = min(most, out_features - row)
            if rng and count > rows and rng.random() < 0.3:
                count = rng.randrange(1, count // rows + 1) * rows
            if row + count < out_features:
                count -= count % rows  # the next request begins with a row group
            requests.append(Request(Opcode.RESULTS, index=token, address=row // rows, count=count))
            row += count
    return requests
