"""What `quantization_config` in config.json says about a BitNet model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tritloom.host.checkpoints.values import choice, number, show, yes_or_no
from tritloom.rtl.spec.errors import CheckpointError

__all__ = ["Quantization"]

DEFAULT_NORM_EPS = 1e-6
"""Epsilon of the norm inside a layer, as in transformers."""
DEFAULT_FLOAT_MODULES = ("lm_head",)
"""Linear layers that transformers leaves as floats if the configuration has no list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How the linear layers of a checkpoint are stored, and which of them are ternary.

    Members
    -------
    linear_class : `bitlinear` divides by `weight_scale`; `autobitlinear` multiplies by it, also
        its bias
    online : the weights are floats, which are ternarized when they are read
    float_modules : patterns of the layers that stay floats; `is_float` applies them
    norm_eps : epsilon of the RMSNorm inside each ternary layer, None without such a norm
    """

    linear_class: Literal["bitlinear", "autobitlinear"]
    online: bool
    float_modules: tuple[str, ...]
    norm_eps: float | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> "Quantization":
        """Read and check `quantization_config`; `source` names the file in the error message.

        Raises
        ------
        CheckpointError : a value is unknown or has a wrong type; the message names it
        """
        values = config.get("quantization_config")
        if not isinstance(values, dict):
            raise CheckpointError(
                f"{source} has no quantization_config; the model is not a BitNet one"
            )

        def word(key: str, *allowed: str) -> str:
            """The first allowed word is the value of a key that is absent."""
            value = values.get(key)
            return choice(
                f"quantization_config.{key}", allowed[0] if value is None else value, allowed
            )

        method = word("quant_method", "bitnet")
        linear_class = word("linear_class", "bitlinear", "autobitlinear")
        online = word("quantization_mode", "offline", "online") == "online"
        if online and linear_class == "bitlinear":
            raise CheckpointError(
                f"{method} quantization_mode must be offline for linear_class bitlinear, not online"
            )
        norm = yes_or_no(values, "use_rms_norm", False)
        return cls(
            linear_class="bitlinear" if linear_class == "bitlinear" else "autobitlinear",
            online=online,
            float_modules=_patterns(values.get("modules_to_not_convert")),
            norm_eps=number(values, "rms_norm_eps", DEFAULT_NORM_EPS) if norm else None,
        )

    def is_float(self, name: str) -> bool:
        """Whether the linear layer of this full name stays a layer of floats.

        A pattern is a regular expression that matches from the name's start to the end of one of
        its components, with or without the dot that follows; or the name ends with the pattern's
        own text.

        Source
        ------
        `transformers.quantizers.quantizers_utils.should_convert_module`
        """
        return any(
            name.endswith(pattern) or re.match(rf"(?:{pattern})(?:(?<=\.)|\.|$)", name)
            for pattern in self.float_modules
        )


def _patterns(values: object) -> tuple[str, ...]:
    """The list `modules_to_not_convert`; each of its patterns is a valid regular expression."""
    if values is None:
        return DEFAULT_FLOAT_MODULES
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise CheckpointError(
            f'modules_to_not_convert must be a list of names, not {show(values)}; write ["lm_head"]'
        )
    for value in values:
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            raise CheckpointError(
                f"modules_to_not_convert has {show(value)}, which is no regular expression: {error}"
            ) from None
    return tuple(values)
