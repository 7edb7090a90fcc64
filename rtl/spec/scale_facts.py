"""What scales on the device are: their configuration, and the constants that every folder reads."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.groups import fixed_bits
from tritloom.rtl.spec.nested import NestedConfig

__all__ = [
    "FLOAT_BYTES",
    "FLOAT_CYCLES",
    "KINDS",
    "MOST_GROUP",
    "SCALE_BITS",
    "SCALE_CYCLES",
    "SCALE_SUM_BITS",
    "SLICE_BITS",
    "ScaleConfig",
]

SCALE_BITS = 16
"""Bits of a scale: half precision."""
FLOAT_BYTES = 4
"""Bytes of a result: float32."""
SCALE_CYCLES = 6
"""Cycles from the sum of a group to its row's total."""
FLOAT_CYCLES = 8
"""Cycles from a row group's totals to its first float32; the others follow, one in each cycle."""
SCALE_SUM_BITS = 17
"""Greatest width of a group's sum: what the multiplier of a unit takes."""
SLICE_BITS = 16
"""Bits of a total in one memory. Of a wider one synthesis may make rows of blocks with a choice
between them, to save a block in 17, and data leaves a block late in a cycle."""
KINDS = ("fixed",)
"""Units: `fixed` adds exactly, and rounds the total once (`GroupFixed`)."""
MOST_GROUP = (1, 4096)
"""Least and greatest value of `group`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleConfig(NestedConfig):
    """Configuration of the scales on the device; immutable.

    Parameters
    ----------
    kind : the unit that scales a group's sum and adds it to its row's total: `fixed`
    group : the most inputs of a group; whole tiles count

    Raises
    ------
    ConfigError : a key has a value that cannot be built
    """

    key: ClassVar[str] = "scale"
    example: ClassVar[str] = '{"kind": "fixed", "group": 256}'

    kind: str = "fixed"
    group: int = 256

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"scale kind must be {' or '.join(KINDS)}, not {self.kind!r:.40}")
        least, most = MOST_GROUP
        if type(self.group) is not int or not least <= self.group <= most:
            raise ConfigError(f"scale group must be {least} to {most}, not {self.group!r:.40}")

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
        """Signed bits of a row's total of that many groups."""
        return fixed_bits(sum_bits, groups)
