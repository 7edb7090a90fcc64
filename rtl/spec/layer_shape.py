"""How a layer's matrix is cut into tiles and row groups."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

__all__ = ["LayerShape"]


class _Geometry(Protocol):
    @property
    def lanes(self) -> int: ...
    @property
    def rows(self) -> int: ...


@dataclass(frozen=True, slots=True)
class LayerShape:
    """A layer as the device sees it: `tiles` of `lanes` inputs × `row_groups` of `rows` outputs.

    If its inputs are in groups, a tile ends where a group ends, and each row has a sum of each
    group. All groups have `group_tiles` tiles, but the last one may have fewer; 0 says that the
    whole row is one group.
    """

    tiles: int
    row_groups: int
    group_tiles: int = 0

    @property
    def words(self) -> int:
        """Weight words of the layer."""
        return self.tiles * self.row_groups

    @property
    def groups(self) -> int:
        """Groups of inputs: sums of each row."""
        return -(-self.tiles // self.group_tiles) if self.group_tiles else 1

    @property
    def result_row_groups(self) -> int:
        """Row groups of sums: those of the first group of inputs, then those of the second, …"""
        return self.groups * self.row_groups

    def with_longest(self, most_group_tiles: int) -> LayerShape:
        """As a device with scales computes it: without groups it has the longest ones."""
        return replace(self, group_tiles=self.group_tiles or most_group_tiles)

    @classmethod
    def of(
        cls, config: _Geometry, out_features: int, in_features: int, group: int = 0
    ) -> LayerShape:
        """The shape of a layer of that many outputs and inputs on a device.

        `group` inputs have a sum of their own; 0: the whole row has one.
        """
        group_tiles = -(-group // config.lanes)
        groups = -(-in_features // group) if group else 1
        return cls(
            tiles=groups * group_tiles if group else -(-in_features // config.lanes),
            row_groups=-(-out_features // config.rows),
            group_tiles=group_tiles,
        )
