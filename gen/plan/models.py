"""What each known model takes on a device: does it fit, and how long does a token take."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tritloom.gen.plan.timing import Times, resident_counts, token_times
from tritloom.gen.workloads import MIXES, Layer, model_layers
from tritloom.host.models.shipped import SHIPPED, shipped_models_that_fit
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError

__all__ = ["MODELS", "OnDevice", "known_layers", "on_device"]

MODELS = (*SHIPPED, *MIXES)
"""The models in `models/`, then those whose layers alone are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDevice:
    """A model on a device.

    Members
    -------
    fits : how much of it the weight memory holds: all, part or none
    times : end to end, for as many tokens as the device computes at once; what does not fit is
        loaded for each call. `None` if the device cannot run the model, or has no cycle formula.
    """

    fits: str
    times: Times | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        times = None if self.times is None else self.times.to_dict()
        return {"fits": self.fits, "end_to_end": times}


def known_layers(model: str) -> list[Layer]:
    """The layers of one of `MODELS`, counted by shape."""
    if model in MIXES:
        return model_layers(model)
    counts = Counter(SHIPPED[model].values())
    return [
        Layer(f"{out} × {inputs}", inputs, out, count) for (out, inputs), count in counts.items()
    ]


def on_device(config: AcceleratorConfig) -> dict[str, OnDevice]:
    """Each of `MODELS` on a device of this configuration, link and clock included.

    All have ternary weights and 8-bit activations.
    """
    if config.alphabet != "ternary" or config.act_bits != 8:
        return {model: OnDevice(fits="none", times=None) for model in MODELS}
    fits: dict[str, str] = {**shipped_models_that_fit(config)}
    result = {}
    for model in MODELS:
        layers = known_layers(model)
        if model not in fits:
            whole = resident_counts(config, layers)[0] == [layer.count for layer in layers]
            fits[model] = "all" if whole else "part"
        try:
            times = token_times(config, layers, tokens=config.tokens)
        except ConfigError:
            times = None  # its memory gives no bound
        result[model] = OnDevice(fits=fits[model], times=times)
    return result
