"""Offloaded layers as operations of PyTorch: `torch.compile` and `torch.export` keep one graph.

Python that calls a device cannot be traced. An operation is one node of the graph: what is inside
runs as it does without a graph, so the bits are the same.

An operation finds its layer by a number, which is a constant of the graph. A number is never given
again: a graph that outlives `restore`, or that another process loads, ends with an error.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Protocol

from tritloom.rtl.spec.errors import InputError

# Its error says how to install torch and transformers.
from tritloom.host.torch_tools import no_gradient  # isort: skip

import torch

__all__ = ["Computed", "feed_forward", "linear", "register"]


class Computed(Protocol):
    """What a device computes in the place of a module's `forward`."""

    name: str
    replaced: bool

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        """The module's output."""

    def output_like(self, x: torch.Tensor) -> torch.Tensor:
        """A tensor of the output's shape and dtype."""


_numbers = itertools.count(1)
_computed: weakref.WeakValueDictionary[int, Computed] = weakref.WeakValueDictionary()


def register(computed: Computed) -> int:
    """A number by which the operations find it."""
    number = next(_numbers)
    _computed[number] = computed
    return number


def _find(number: int) -> Computed:
    computed = _computed.get(number)
    if computed is None or not computed.replaced:
        what = f"layer {number}" if computed is None else computed.name
        raise InputError(
            f"{what}: no device computes it now, as this graph expects; offload the model, then "
            "compile or export it again"
        )
    return computed


@torch.library.custom_op("tritloom::linear", mutates_args=())
def linear(x: torch.Tensor, weight: torch.Tensor, layer: int) -> torch.Tensor:
    """The output of an offloaded BitLinear or AutoBitLinear.

    Parameters
    ----------
    x : float [..., in_features]
    weight : the module's; the graph sees from it that the output depends on it
    layer : of `register`

    Returns
    -------
    float [..., out_features], as the module gives it
    """
    return _find(layer).compute(x)


@torch.library.custom_op("tritloom::feed_forward", mutates_args=())
def feed_forward(x: torch.Tensor, weights: list[torch.Tensor], layer: int) -> torch.Tensor:
    """The output of an offloaded BitNetMLP; the parameters are those of `linear`."""
    return _find(layer).compute(x)


@torch.library.custom_op("tritloom::no_gradient", mutates_args=())
def _no_gradient(gradient: torch.Tensor, like: torch.Tensor, layer: int) -> torch.Tensor:
    """An error when the gradient is computed, not yet when a graph of the gradient is made.

    It takes the output's `gradient`, because a graph computes all else together with the output.
    """
    no_gradient(_find(layer).name)


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    x, *weights = ctx.saved_tensors
    gradients = [
        _no_gradient(gradient, tensor, ctx.layer) if tensor.is_floating_point() else None
        for tensor in (x, *weights)
    ]
    return gradients[0], gradients[1:] if ctx.is_list else gradients[1], None


def _save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, weights, ctx.layer = inputs
    ctx.is_list = isinstance(weights, list)
    ctx.save_for_backward(x, *(weights if ctx.is_list else [weights]))


_no_gradient.register_fake(lambda gradient, like, layer: torch.empty_like(like))
for _operation in (linear, feed_forward):
    _operation.register_fake(lambda x, weight, layer: _find(layer).output_like(x))
    _operation.register_autograd(_backward, setup_context=_save)
