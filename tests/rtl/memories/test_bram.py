"""Weight memory in block RAM: what was written comes back, in order, at full rate."""

import pytest

from tritloom.rtl.memories.bram import BlockRamMemory
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.registry import load_component
from tritloom.sim.conformance.memory import check_memory
from tritloom.sim.conformance.streams import FLOWS

GEOMETRIES = [(5, 1, 1), (5, 2, 7), (10, 3, 16), (20, 2, 33)]


def config_of(lanes: int, rows: int, memory_words: int) -> AcceleratorConfig:
    return AcceleratorConfig(
        lanes=lanes,
        rows=rows,
        memory=BlockRam(words=memory_words),
        max_in_features=2 * lanes,
        max_out_features=8,
    )


@pytest.mark.parametrize(("idle", "pause"), FLOWS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_block_ram(geometry, idle, pause):
    check_memory(config_of(*geometry), idle=idle, pause=pause, seed=geometry[2], gapless=True)


def test_latency():
    config = config_of(5, 1, 4)
    assert load_component(config.memory.component) is BlockRamMemory
    assert config.memory.latency(config) == BlockRam.LATENCY == 4


@pytest.mark.parametrize(("idle", "pause"), FLOWS)
def test_banks(monkeypatch: pytest.MonkeyPatch, idle: float, pause: float) -> None:
    """Several banks, the last one not full; ranges run across their bounds."""
    monkeypatch.setattr(BlockRam, "BANK_WORDS", 4)
    check_memory(config_of(5, 1, 11), idle=idle, pause=pause, seed=5, gapless=True)
