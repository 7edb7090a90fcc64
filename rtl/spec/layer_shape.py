"""How a layer's matrix is cut into tiles and row groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["LayerShape"]


class _Geometry(Protocol):
    @property
    def lanes(self) -> int: ...
    @property
    def rows(self) -> int: ...


@dataclass(frozen=True, slots=True)
class LayerShape:
    """A layer as the device sees it: `tiles` of `lanes` inputs × `row_groups` of `rows` outputs."""

    tiles: int
    row_groups: int

    @property
    def words(self) -> int:
        """Weight words of the layer."""
        return self.tiles * self.row_groups

    @classmethod
    def of(cls, config: _Geometry, out_features: int, in_features: int) -> LayerShape:
        """The shape of a layer of that many outputs and inputs on a device."""
        return cls(
            tiles=-(-in_features // config.lanes), row_groups=-(-out_features // config.rows)
        )
