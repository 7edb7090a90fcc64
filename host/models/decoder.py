"""What a program of the vector unit needs to know about a model: its weights and sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tritloom.host.layer import TernaryLayer

__all__ = ["Block", "Decoder", "Mlp"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """Weights of one block of a decoder.

    Members
    -------
    qkv : the rows of query, key and value, `[queries + 2 · keys, hidden]`
    o : `[hidden, queries]`
    gate_up : the rows of gate and up, `[2 · inner, hidden]`
    down : `[hidden, inner]`
    input_norm, post_norm : float32 `[hidden]`, weights of the norms before `qkv` and `gate_up`
    attention_norm : float32 `[queries]`, of the norm before `o`; None if there is no such norm
    inner_norm : float32 `[inner]`, of the norm before `down`; None if there is no such norm
    """

    qkv: TernaryLayer
    o: TernaryLayer
    gate_up: TernaryLayer
    down: TernaryLayer
    input_norm: F32
    post_norm: F32
    attention_norm: F32 | None
    inner_norm: F32 | None

    @property
    def layers(self) -> tuple[TernaryLayer, ...]:
        """The layers in the order of use."""
        return self.qkv, self.o, self.gate_up, self.down


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoder:
    """What a program needs to know about a model.

    Members
    -------
    blocks : in the order of use
    hidden, inner, queries, keys : features of the hidden vector, of `down`, of `o`, of a key
    final_norm : float32 `[hidden]`, weight of the norm behind the last block
    eps : of all norms
    relu2 : whether the activation is relu(gate)² · up; the host computes any other
    bfloat16 : whether the model rounds each operation to bfloat16
    """

    blocks: tuple[Block, ...]
    hidden: int
    inner: int
    queries: int
    keys: int
    final_norm: F32
    eps: float
    relu2: bool = True
    bfloat16: bool = False

    @property
    def qkv_rows(self) -> tuple[int, int, int]:
        """Rows of query, key and value."""
        return self.queries, self.keys, self.keys


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mlp:
    """Weights of the part of a feed-forward between its norm and its residual.

    Members
    -------
    gate, up : `[inner, hidden]`
    down : `[hidden, inner]`
    inner_norm : float32 `[inner]`, of the norm before `down`; None if there is no such norm
    """

    gate: TernaryLayer
    up: TernaryLayer
    down: TernaryLayer
    inner_norm: F32 | None
