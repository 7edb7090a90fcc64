"""The blocks of a decoder by the functions of transformers: what a device's floats are held to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.activations import ACT2FN
from transformers.integrations.bitnet import BitLinear, pack_weights
from transformers.models.bitnet.modeling_bitnet import BitNetRMSNorm

from tritloom.host.layer import TernaryLayer
from tritloom.host.models.decoder import Decoder
from tritloom.host.models.golden_blocks import GoldenBlocks

__all__ = ["LibraryBlocks"]

F32 = NDArray[np.float32]


class LibraryBlocks(GoldenBlocks):
    """Norms, BitLinear, activation and residual as transformers computes them, eager, on the CPU.

    Parameters
    ----------
    decoder : its layers' scales must divide, as those of the library's packed layers do
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._dtype = torch.bfloat16 if decoder.bfloat16 else torch.float32
        self._modules: dict[int, Any] = {}
        self._eps = decoder.eps

    def norm(self, x: F32, weight: F32) -> F32:
        module = self._modules.get(id(weight))
        if module is None:
            module = BitNetRMSNorm(len(weight), eps=self._eps)
            module.weight.data = torch.from_numpy(weight.copy())
            self._modules[id(weight)] = module.to(self._dtype)
        return self._call(self._modules[id(weight)], x)

    def linear(self, layer: TernaryLayer, x: F32) -> F32:
        if id(layer) not in self._modules:
            self._modules[id(layer)] = self._parts(layer)
        return np.concatenate([self._call(each, x) for each in self._modules[id(layer)]], axis=1)

    def activation(self, gate: F32, up: F32) -> F32:
        return self._call(lambda gate, up: ACT2FN["relu2"](gate) * up, gate, up)

    def add(self, x: F32, y: F32) -> F32:
        return self._call(torch.add, x, y)

    def _parts(self, layer: TernaryLayer) -> list[Any]:
        """A layer of the library for all rows of one scale."""
        scales = np.broadcast_to(layer.scale, layer.out_features)
        ends = np.flatnonzero(np.diff(scales)) + 1
        parts = []
        for rows in np.split(np.arange(layer.out_features), ends):
            part = BitLinear(
                layer.in_features, len(rows), bias=layer.bias is not None, dtype=self._dtype
            )
            part.weight = pack_weights(torch.from_numpy(layer.trits[rows]).to(self._dtype))
            part.weight_scale = torch.tensor([scales[rows[0]]]).to(self._dtype)
            if layer.bias is not None:
                part.bias = torch.from_numpy(layer.bias[rows].copy()).to(self._dtype)
            parts.append(part)
        return parts

    def _call(self, function: Any, *values: F32) -> F32:
        """A function of the library, of vectors of the model's dtype."""
        with torch.no_grad():
            result = function(*(torch.from_numpy(each.copy()).to(self._dtype) for each in values))
        floats: F32 = result.float().numpy()
        return floats
