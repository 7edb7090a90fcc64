"""What scales on the device are: their configuration, and the constants that every folder reads."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.nested import NestedConfig

__all__ = [
    "DEFAULT_KIND",
    "FLOAT_BYTES",
    "KINDS",
    "MOST_GROUP",
    "SCALE_BITS",
    "SCALE_SUM_BITS",
    "SLICE_BITS",
    "ScaleConfig",
    "ScaleUnit",
    "fixed_bits",
]

SCALE_BITS = 16
"""Bits of a scale: half precision."""
FLOAT_BYTES = 4
"""Bytes of a result, and of a scale of activations: float32."""
SCALE_SUM_BITS = 17
"""Greatest width of a group's sum: what the multiplier of a unit takes."""
HALF_PRECISION = 11
MOST_POWER = 29
"""The largest half-precision number is less than 2^11 · 2^29 · 2^-24."""
SLICE_BITS = 16
"""Bits of a total in one memory. Of a wider one synthesis may make rows of blocks with a choice
between them, to save a block in 17, and data leaves a block late in a cycle."""


class ScaleUnit(NamedTuple):
    """Cycles of the unit of a kind of scales.

    Members
    -------
    cycles : from the sum of a group to its row's total
    again : after which a row may come again
    float_cycles : from a row group's totals to its first float32; the others follow, one in each
        cycle
    """

    cycles: int
    again: int
    float_cycles: int


KINDS = {"fixed": ScaleUnit(6, 5, 8), "float": ScaleUnit(20, 12, 3)}
"""Units: `fixed` adds exactly, and rounds the total once (`GroupFixed`). `float` also multiplies by
a scale of the activations for each token and group, and rounds every operation (`GroupFloat`)."""
DEFAULT_KIND = "fixed"
MOST_GROUP = (1, 4096)
"""Least and greatest value of `group`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleConfig(NestedConfig):
    """Configuration of the scales on the device; immutable.

    Parameters
    ----------
    kind : the unit that scales a group's sum and adds it to its row's total: `fixed` (exact,
        rounded once), or `float` (with a scale of the activations for each group, too)
    group : the most inputs of a group; whole tiles count

    Raises
    ------
    ConfigError : a key has a value that cannot be built
    """

    key: ClassVar[str] = "scale"
    example: ClassVar[str] = '{"kind": "fixed", "group": 256}'

    kind: str = DEFAULT_KIND
    group: int = 256

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"scale kind must be {' or '.join(KINDS)}, not {self.kind!r:.40}")
        least, most = MOST_GROUP
        if type(self.group) is not int or not least <= self.group <= most:
            raise ConfigError(f"scale group must be {least} to {most}, not {self.group!r:.40}")

    @property
    def unit(self) -> ScaleUnit:
        """Cycles of its unit."""
        return KINDS[self.kind]

    @property
    def scales_activations(self) -> bool:
        """Whether activations have scales on the device, of each token and group."""
        return self.kind == "float"

    def check(self, config: Any) -> None:
        """Raise `ConfigError` for what the scales ask of the rest of an accelerator."""
        for key in ("vector", "max_group_sums"):
            if value := getattr(config, key):
                raise ConfigError(f"{key} must be left out beside scale, not {value}")
        if config.acc_bits > SCALE_SUM_BITS:
            tile_bits = (config.lanes << config.act_bits - 1).bit_length() + 1
            remedy = "scale group" if tile_bits <= SCALE_SUM_BITS else "lanes"
            raise ConfigError(
                f"acc_bits must be at most {SCALE_SUM_BITS} beside scale, not {config.acc_bits}: "
                f"{config.most_group_tiles} tiles of {config.lanes} lanes; lower {remedy}"
            )

    def result_bits(self, sum_bits: int, groups: int) -> int:
        """Bits of a row's total of that many groups: a signed integer, or a float32."""
        return fixed_bits(sum_bits, groups) if self.kind == "fixed" else 8 * FLOAT_BYTES


def fixed_bits(sum_bits: int, groups: int) -> int:
    """Signed bits of a total of `GroupFixed` that never overflow.

    A product of a sum and a scale is less than 2^(sum_bits − 1) · 2^11 · 2^29 units of 2^-24.
    """
    return sum_bits + HALF_PRECISION + MOST_POWER + (groups - 1).bit_length()
