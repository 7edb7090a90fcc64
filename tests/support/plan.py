"""What the tests of the time model share."""

from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig

SMALL = AcceleratorConfig(
    lanes=10,
    rows=2,
    fill=5,
    memory=BlockRam(words=64),
    max_in_features=20,
    max_out_features=8,
    packet_bytes=128,
    slots=4,
    clock_hz=50_000_000,
)
"""A window of three commands, and layers of at most two tiles of four row groups."""
