"""The requests of `tritloom.rtl.spec.requests`, in the sizes that the benches send.

They carry neither session nor seq: whoever sends them numbers them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tritloom.rtl.spec.commands import Opcode, Request
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.requests import (
    commit_layer,
    define_layer,
    load_activations,
    load_scales,
    write_words,
)
from tritloom.sim.conformance.operands import random_act_scales

__all__ = ["Trits", "layer", "loads", "results", "writes"]

Trits = NDArray[np.int8]


def writes(config: AcceleratorConfig, index: int, image: bytes, address: int = 0) -> list[Request]:
    """The WRITEs of an image from word `address` of a layer."""
    return list(write_words(config, index, image, config.max_payload, address))


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
        define_layer(index, base, shape),
        *writes(config, index, sent(image)),
        commit_layer(index, image),
    ]


def loads(
    config: AcceleratorConfig, codes: Trits, rng: random.Random, bank: int = 0
) -> list[Request]:
    """The LOADs of activations, int8 [tokens, in], to an activation bank.

    On a device with scales of activations SCALES follow: random ones, as if each tile were a group.
    """
    commands = [
        request
        for token, row in enumerate(codes)
        for request in load_activations(config, token, row, config.max_payload, bank)
    ]
    if config.scales_activations:
        shape = (len(codes), -(-codes.shape[1] // config.lanes))
        scales = random_act_scales(np.random.default_rng(rng.getrandbits(32)), shape)
        for token, row in enumerate(scales):
            commands += load_scales(token, row.view(np.float32), config.max_payload, bank)
    return commands


def results(
    config: AcceleratorConfig,
    out_features: int,
    rng: random.Random | None = None,
    bank: int = 0,
) -> list[Request]:
    """The RESULTS of all tokens of a result bank.

    They are as large as they can be, or with `rng` of several sizes.
    """
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
            requests.append(
                Request(
                    Opcode.RESULTS,
                    index=token,
                    address=row // rows,
                    count=count,
                    result_bank=bank,
                )
            )
            row += count
    return requests
