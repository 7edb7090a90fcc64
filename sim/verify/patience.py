"""How long a design may take: what takes longer never comes."""

from __future__ import annotations

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.vector_program import STEP_BYTES

__all__ = ["drain_cycles", "patience"]


def patience(config: AcceleratorConfig) -> int:
    """Cycles without a byte in or out after which a design is taken to be dead.

    A command moves at most `packet_bytes`, at the slowest in a few cycles for each byte, and up to
    `slots` packets wait before it. DEFINE counts tiles, RESET counts layers.
    """
    moving = 16 * config.packet_bytes + 64 * config.slots
    if config.vector is not None:
        moving += config.vector.steps * STEP_BYTES * 2  # COMMIT_PROGRAM reads and checks all steps
    return 2_000 + moving + 200 * config.word_bytes + config.max_tiles + config.max_layers


def drain_cycles(config: AcceleratorConfig) -> int:
    """Cycles in which any design is done with the largest packet of an unknown opcode."""
    return 1_000 + 4 * config.packet_bytes
