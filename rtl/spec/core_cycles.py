"""Cycles between the parts of the core, from which the length of a run follows."""

__all__ = [
    "PARTIAL_SUM_CYCLES",
    "PARTIAL_SUM_READ_CYCLES",
    "REQUEST_AHEAD_CYCLES",
    "RESULT_CYCLES",
    "TILE_START_CYCLES",
]

PARTIAL_SUM_CYCLES = 5
"""Cycles from reading a partial sum to the cycle in which its new value can be read."""
PARTIAL_SUM_READ_CYCLES = 5
"""Cycles from a row group's turn to its partial sum: number, address, memory, register, wires."""
TILE_START_CYCLES = 4
"""Cycles from an engine's `ready` to the first weight word of the tile."""
REQUEST_AHEAD_CYCLES = 1
"""Cycles by which the range of words is requested before RUN counts its first cycle."""
RESULT_CYCLES = 2
"""Cycles from a result's last addition to `done`."""
