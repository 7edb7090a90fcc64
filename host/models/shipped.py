"""Which of the models in `models/` a device can run."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from tritloom.host.placement import place_layers
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["SHIPPED", "shipped_models_that_fit"]

_BLOCK = {
    "self_attn.qkv_proj": (512, 256),
    "self_attn.o_proj": (256, 256),
    "mlp.gate_up_proj": (1024, 256),
    "mlp.down_proj": (256, 512),
}

SHIPPED: Mapping[str, Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "tinylm": {
            f"model.layers.{index}.{name}": shape
            for index in range(2)
            for name, shape in _BLOCK.items()
        },
        "digits": {"l1": (128, 64), "l2": (128, 128), "l3": (16, 128)},
    }
)
"""Layers of each model as they are loaded: out_features and in_features by name.

An installed package has no `models/`, so the shapes stand here; a test holds them to the files.
"""


def shipped_models_that_fit(config: AcceleratorConfig) -> dict[str, Literal["all", "part", "none"]]:
    """How much of each shipped model fits a device of this configuration.

    Both models have ternary weights and 8-bit activations; a device for others runs none of them.
    """
    if config.alphabet != "ternary" or config.act_bits != 8:
        return dict.fromkeys(SHIPPED, "none")
    return {name: place_layers(config, shapes).fit for name, shapes in SHIPPED.items()}
