"""A record that stands in a configuration under a key of its own, such as `vector` or `scale`."""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from tritloom.rtl.spec.errors import ConfigError

__all__ = ["NestedConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NestedConfig:
    """What its records share; a record is a frozen dataclass that checks its own values.

    Attributes
    ----------
    key : under which the configuration has it
    example : of its value, as JSON writes it
    """

    key: ClassVar[str]
    example: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """The record from its JSON object.

        Raises
        ------
        ConfigError : it is no object, a key is unknown, or a value cannot be built
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(values, dict):
            raise ConfigError(
                f"{cls.key} must be an object such as {cls.example}, not {values!r:.40}"
            )
        for name in values:
            if name not in names:
                raise ConfigError(f"unknown key {name!r} of {cls.key}; it has {', '.join(names)}")
        return cls(**values)
