"""What the offloaded modules of a transformers model share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from tritloom.rtl.spec.errors import InputError, ToolError, TritloomError
from tritloom.rtl.spec.remedies import package_remedy

try:
    import torch
    import transformers.integrations.bitnet  # noqa: F401  # its layers are what is offloaded
except ImportError as _error:
    raise ToolError(
        f"tritloom.host.torch needs torch and transformers 5 ({_error}); "
        f"{package_remedy('torch', 'torch')}"
    ) from _error

__all__ = ["NoGradient", "named", "no_gradient", "stamp"]


class NoGradient(torch.autograd.Function):
    """An output without gradient: to ask for its gradient is an error."""

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, name: str, *inputs: torch.Tensor) -> torch.Tensor:
        ctx.name = name
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> NoReturn:
        no_gradient(ctx.name)


def no_gradient(name: str) -> NoReturn:
    """`InputError`: the gradient of a layer was asked for."""
    raise InputError(f"{name}: a device computes this layer, without gradient; restore()")


@contextmanager
def named(name: str) -> Iterator[None]:
    """Put the layer's name before the text of an error."""
    try:
        yield
    except TritloomError as error:
        raise type(error)(f"{name}: {error}") from error


def stamp(weight: torch.Tensor) -> tuple[object, ...]:
    """A value that changes if torch replaces, moves, casts or writes the tensor."""
    version = 0 if weight.is_inference() else weight._version
    return weight.data_ptr(), weight.dtype, weight.device, version
