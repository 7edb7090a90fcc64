"""The weights of a transformers module as the device can have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tritloom.host.checkpoints.packed import unpack_trits
from tritloom.host.layer import TernaryLayer
from tritloom.rtl.spec.errors import InputError

import torch  # isort: skip
from transformers.integrations.bitnet import BitLinear, WeightQuant

__all__ = ["require_finite", "ternary"]


def ternary(module: Any) -> TernaryLayer:
    """A module's weights; `InputError` if they are not ternary."""
    weight = module.weight.detach()
    if weight.is_meta:
        raise InputError("its weight is on the meta device; load the model into memory")
    if isinstance(module, BitLinear):
        shape = module.out_features // 4, module.in_features
        if weight.dtype != torch.uint8 or weight.shape != shape or module.out_features % 4:
            raise InputError(
                f"weight must be packed, uint8 [out_features / 4, in_features], not "
                f"{weight.dtype} {tuple(weight.shape)} for {module.out_features} × "
                f"{module.in_features}"
            )
        if not (isinstance(module.dtype, torch.dtype) and module.dtype.is_floating_point):
            raise InputError(f"dtype must be floating point, not {module.dtype}")
        trits, scale = unpack_trits(weight.cpu().numpy(), "weight"), module.weight_scale
        return _make(trits, scale, divides=True)
    if not weight.is_floating_point():
        raise InputError(f"weight must be floating point, not {weight.dtype}")
    require_finite(weight, "weights")
    if module.online_quant:
        weight = WeightQuant.apply(weight)
        return _make(weight.sign().to(torch.int8).cpu().numpy(), weight.abs().max(), divides=False)
    bad = (weight.abs() > 1) | (weight != weight.round())
    if bad.any():
        row, column = bad.nonzero()[0].tolist()
        raise InputError(
            f"weights must be -1, 0 or 1, not {weight[row, column].item()} at [{row}, {column}]; "
            "full weights need quantization_mode online"
        )
    return _make(weight.to(torch.int8).cpu().numpy(), module.weight_scale, divides=False)


def _make(trits: npt.NDArray[np.int8], scale: torch.Tensor, *, divides: bool) -> TernaryLayer:
    """A layer; `InputError` if scales have another shape, are not finite, or divide and are 0."""
    return TernaryLayer.from_trits(
        trits, scale.detach().float().cpu().numpy(), scale_divides=divides
    )


def require_finite(x: torch.Tensor, what: str) -> None:
    """`InputError` that names the first value of a tensor that is NaN or inf."""
    finite = torch.isfinite(x)
    if not finite.all():
        place = (~finite).nonzero()[0].tolist()
        raise InputError(f"{what} must be finite, not {x[tuple(place)].item()} at {place}")
