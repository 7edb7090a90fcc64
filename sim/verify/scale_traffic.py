"""Random SCALES, as a part of random traffic."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from tritloom.rtl.spec.commands import Opcode, Request
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES
from tritloom.sim.conformance.operands import random_act_scales

__all__ = ["ScaleTraffic"]


class ScaleTraffic:
    """SCALES, right and wrong.

    Parameters
    ----------
    config : of the device
    rng : of everything random
    number : makes a number of some bits: mostly from a least to a most one, else beside them
    tiles : most tiles of a layer
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        rng: random.Random,
        number: Callable[[int, int, int], int],
        tiles: int,
    ) -> None:
        self._config, self._rng, self._number, self._tiles = config, rng, number, tiles
        self._most = min(config.max_payload // FLOAT_BYTES, tiles)

    def right(self, bank: int) -> Request:
        """One that stores at least a scale, which a layer may read."""
        count = self._rng.randint(1, self._most)
        return Request(
            Opcode.SCALES,
            index=self._rng.randrange(self._config.tokens),
            address=self._rng.randint(0, self._tiles - count),
            payload=self._payload(count),
            activation_bank=bank,
        )

    def any(self, bank: int) -> Request:
        """One that may be wrong in any field."""
        count = self._rng.randint(0, self._most)
        payload = self._payload(count)
        if self._rng.random() < 0.1:
            payload = payload[: self._rng.randrange(len(payload) + 1)]
        return Request(
            Opcode.SCALES,
            index=self._number(0, self._config.tokens - 1, 8),
            address=self._number(0, self._config.max_tiles - count, 32),
            payload=payload,
            activation_bank=bank,
        )

    def _payload(self, count: int) -> bytes:
        generator = np.random.default_rng(self._rng.getrandbits(32))
        return random_act_scales(generator, (1, count)).astype("<u4").tobytes()
