"""What the vector unit is: its configuration, and the constants that every folder reads."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.nested import NestedConfig

__all__ = [
    "FIELD_BITS",
    "LANES",
    "LAYER_BITS",
    "STEPS",
    "SUM_BITS",
    "VECTOR_WORD_BYTES",
    "WORDS",
    "WRAP_WORDS",
    "VectorConfig",
]

FIELD_BITS = 16
"""Width of an address or a count in a step."""
LAYER_BITS = 8
"""Width of an index into the layer table."""
VECTOR_WORD_BYTES = 4
"""Of a float32."""
WORDS = (64, 1 << FIELD_BITS)
"""Least and greatest number of vector words."""
LANES = (1, 2, 4)
"""Elements that a unit can compute in a cycle: divisors of `WRAP_WORDS`, so that no group of
elements crosses from the last of the interleaved sums to the first."""
SUM_BITS = 25
"""Greatest width of the core's results: their conversion to float32 need not round."""
STEPS = (512, 4096)
"""Least and greatest number of steps that the program memory holds. The least fill the block RAMs
that a memory of this width takes in any case."""
WRAP_WORDS = 32
"""Sums that are interleaved, in PyTorch's order of sums. A sum meets its next element that many
elements later, when the pipeline has written it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorConfig(NestedConfig):
    """Configuration of the vector unit; immutable.

    Parameters
    ----------
    words : float32 words of the vector memory, a multiple of 32
    lanes : elements that are computed in a cycle, 1, 2 or 4
    multipliers : products in a row that one step can make of an element, 1 or 2
    bfloat16 : whether steps can round to bfloat16
    steps : steps of the program memory, a power of two from 512 to 4096

    Raises
    ------
    ConfigError : a key has a value that cannot be built
    """

    key: ClassVar[str] = "vector"
    example: ClassVar[str] = (
        '{"words": 4096, "lanes": 1, "multipliers": 1, "bfloat16": false, "steps": 512}'
    )

    words: int = 4096
    lanes: int = 1
    multipliers: int = 1
    bfloat16: bool = False
    steps: int = STEPS[0]

    def __post_init__(self) -> None:
        for key in ("words", "lanes", "multipliers", "steps"):
            value = getattr(self, key)
            if type(value) is not int:
                raise ConfigError(f"vector {key} must be an integer, not {value!r:.40}")
        if type(self.bfloat16) is not bool:
            raise ConfigError(f"vector bfloat16 must be true or false, not {self.bfloat16!r:.40}")
        least, most = WORDS
        if not least <= self.words <= most:
            raise ConfigError(f"vector words must be {least} to {most}, not {self.words}")
        if self.words % WRAP_WORDS:
            raise ConfigError(f"vector words must be a multiple of {WRAP_WORDS}, not {self.words}")
        if not STEPS[0] <= self.steps <= STEPS[1] or self.steps & (self.steps - 1):
            raise ConfigError(
                f"vector steps must be a power of two from {STEPS[0]} to {STEPS[1]}, "
                f"not {self.steps}"
            )
        if self.lanes not in LANES:
            raise ConfigError(f"vector lanes must be 1, 2 or 4, not {self.lanes}")
        if self.multipliers not in (1, 2):
            raise ConfigError(f"vector multipliers must be 1 or 2, not {self.multipliers}")

    def check(self, config: Any) -> None:
        """Raise `ConfigError` for what the unit asks of the rest of an accelerator."""
        for key, needed in (("act_bits", 8), ("banks", 2)):
            value = getattr(config, key)
            if value != needed:
                raise ConfigError(f"{key} must be {needed} beside a vector unit, not {value}")
        if config.acc_bits > SUM_BITS:
            raise ConfigError(
                f"acc_bits must be at most {SUM_BITS} beside a vector unit, not {config.acc_bits}; "
                "lower max_in_features"
            )
        for key, moved in (("fill", "takes fill codes"), ("rows", "gives rows results")):
            value = getattr(config, key)
            if self.lanes > value:
                raise ConfigError(
                    f"vector lanes must be at most {key} = {value}, not {self.lanes}: "
                    f"the core {moved} in a cycle"
                )

    @property
    def address_bits(self) -> int:
        """Width of an address of the vector memory."""
        return (self.words - 1).bit_length()

    @property
    def lane_bits(self) -> int:
        """Width of a lane's number; the low bits of an address name its bank of the memory."""
        return (self.lanes - 1).bit_length()
