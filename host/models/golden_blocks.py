"""The blocks of a decoder by the functions of `numerics`: what every device must give."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tritloom.host.layer import TernaryLayer
from tritloom.host.models.decoder import Decoder, Mlp
from tritloom.rtl.spec import numerics

__all__ = ["GoldenBlocks", "golden_mlp"]

F32 = NDArray[np.float32]


def golden_mlp(mlp: Mlp, x: F32, eps: float, bfloat16: bool = False) -> F32:
    """What a routine of `mlp_program` must give: float32 `[tokens, hidden]` → the same shape."""

    def linear(layer: TernaryLayer, x: F32) -> F32:
        return numerics.bitlinear(
            x, layer.trits, layer.scale, layer.scale_divides, layer.bias, bfloat16
        )

    inner = numerics.relu2_times(linear(mlp.gate, x), linear(mlp.up, x), bfloat16)
    if mlp.inner_norm is not None:
        inner = numerics.rms_norm(inner, mlp.inner_norm, eps, bfloat16)
    return linear(mlp.down, inner)


class GoldenBlocks:
    """The golden model of a decoder's blocks.

    All vectors are float32 `[tokens, features]`, also those of a bfloat16 decoder.

    Parameters
    ----------
    decoder : the weights
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def qkv(self, index: int, x: F32) -> F32:
        """Query, key and value of a block side by side, from the hidden vectors."""
        block = self._decoder.blocks[index]
        return self.linear(block.qkv, self._norm(x, block.input_norm))

    def attention(self, index: int, x: F32, attention: F32) -> F32:
        """The hidden vectors after the attention of a block, from those before and its output."""
        block = self._decoder.blocks[index]
        return self.add(x, self.linear(block.o, self._norm(attention, block.attention_norm)))

    def gate_up(self, index: int, x: F32) -> F32:
        """Gate and up of a block side by side, from the hidden vectors after its attention."""
        block = self._decoder.blocks[index]
        return self.linear(block.gate_up, self._norm(x, block.post_norm))

    def down(self, index: int, x: F32, inner: F32) -> F32:
        """The hidden vectors after a block, from those after its attention and the activation."""
        block = self._decoder.blocks[index]
        return self.add(x, self.linear(block.down, self._norm(inner, block.inner_norm)))

    def feed_forward(self, index: int, x: F32) -> F32:
        """`gate_up`, relu(gate)² · up, `down`."""
        gate, up = np.split(self.gate_up(index, x), 2, axis=1)
        return self.down(index, x, self.activation(gate, up))

    def final(self, x: F32) -> F32:
        """The final norm."""
        return self.norm(x, self._decoder.final_norm)

    def norm(self, x: F32, weight: F32) -> F32:
        """RMSNorm."""
        return numerics.rms_norm(x, weight, self._decoder.eps, self._decoder.bfloat16)

    def linear(self, layer: TernaryLayer, x: F32) -> F32:
        """BitLinear."""
        bfloat16 = self._decoder.bfloat16
        return numerics.bitlinear(
            x, layer.trits, layer.scale, layer.scale_divides, layer.bias, bfloat16
        )

    def activation(self, gate: F32, up: F32) -> F32:
        """relu(gate)² · up."""
        return numerics.relu2_times(gate, up, self._decoder.bfloat16)

    def add(self, x: F32, y: F32) -> F32:
        """The residual: x + y."""
        return numerics.add_residual(x, y, self._decoder.bfloat16)

    def _norm(self, x: F32, weight: F32 | None) -> F32:
        return x if weight is None else self.norm(x, weight)
