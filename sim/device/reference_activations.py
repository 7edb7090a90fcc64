"""The activation banks of the reference device: codes, and on some devices their scales."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tritloom.rtl.spec.commands import Request
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.scale_facts import FLOAT_BYTES

__all__ = ["ActivationBanks", "store_words"]


class ActivationBanks:
    """What LOAD and SCALES store, and RUN reads. All of it is zero at first.

    Members
    -------
    scales : bytes of float32 `[banks, tokens, max_tiles, 4]`; without groups on a device whose
        activations have no scales
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        tokens = (config.banks, config.tokens)
        self._codes = np.zeros((*tokens, config.activation_words, config.fill), np.uint8)
        groups = config.max_tiles if config.scales_activations else 0
        self.scales = np.zeros((*tokens, groups, FLOAT_BYTES), np.uint8)

    def load(self, request: Request) -> None:
        """LOAD: the whole words of the payload, as far as there is room."""
        store_words(self._codes[request.activation_bank, request.index], request)

    def load_scales(self, request: Request) -> None:
        """SCALES: the whole numbers of the payload, as far as there is room."""
        store_words(self.scales[request.activation_bank, request.index], request)

    def store(self, bank: int, token: int, image: npt.NDArray[np.uint8]) -> None:
        """Write the codes of a token from the first on, as many as there is room for."""
        codes = self._codes[bank, token].reshape(-1)
        count = min(len(codes), len(image))
        codes[:count] = image[:count]

    def codes(self, bank: int, features: int) -> npt.NDArray[np.int8]:
        """The first codes of each token, int8 `[tokens, features]`."""
        config = self._config
        codes: npt.NDArray[np.int8]
        codes = self._codes[bank].reshape(config.tokens, -1).view(np.int8)[:, :features]
        if spare := 8 - config.act_bits:  # the device does not store these high bits
            codes = codes << spare >> spare
        return codes

    def scales_of(self, bank: int, groups: int) -> npt.NDArray[np.uint32]:
        """The scales of each token's first groups, patterns of float32 `[tokens, groups]`."""
        patterns: npt.NDArray[np.uint32] = self.scales[bank].view("<u4")[:, :groups, 0]
        return patterns.astype(np.uint32)


def store_words(words: npt.NDArray[np.uint8], request: Request) -> int:
    """Write the whole words of a payload, as far as `words` has room for them; how many."""
    size = words.shape[1]
    room = max(0, len(words) - request.address)
    count: int = min(len(request.payload) // size, room)
    source = np.frombuffer(request.payload, np.uint8, count * size).reshape(count, size)
    words[request.address : request.address + count] = source
    return count
