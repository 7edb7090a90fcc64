"""Where the regions of several AXI ports lie, so that the ports seldom meet in a bank of the DRAM.

A DRAM's controller puts consecutive addresses into its banks in turn, and begins again after some
bytes, the *rotation*. Ports that read side by side at the same place of their rotations need the
same bank, each with a row of its own, and every access opens a row again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tritloom.rtl.memories.axi_facts import PAGE_BYTES, Axi
from tritloom.rtl.spec.errors import ConfigError, InputError

if TYPE_CHECKING:
    from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["EQUAL", "ROTATION_BYTES", "SPREAD", "with_offsets"]

ROTATION_BYTES = 1 << 16
"""Bytes after which a DDR4 on 64 wires with pages of 8 KiB and eight banks is at its first bank
again. A board with another memory has another number."""
EQUAL, SPREAD = "equal", "spread"
"""Every port begins at the same place of the rotation; or the ports divide it evenly."""
KIB = 1024


def with_offsets(
    config: AcceleratorConfig,
    choice: str | Sequence[int] = SPREAD,
    rotation_bytes: int = ROTATION_BYTES,
) -> AcceleratorConfig:
    """A configuration whose ports' regions lie at chosen places of the memory's rotation.

    Parameters
    ----------
    config : its memory is `axi`
    choice : `EQUAL`, `SPREAD`, or for each port the KiB behind a multiple of the rotation
    rotation_bytes : of the memory, a multiple of 4 KiB

    Raises
    ------
    InputError : the places are not one for each port
    ConfigError : the memory is another, or a region begins at no multiple of 4 KiB
    """
    record = config.memory
    if not isinstance(record, Axi):
        raise ConfigError(f"memory {record.name} has no offsets; they go with axi")
    if isinstance(choice, str):
        if choice not in (EQUAL, SPREAD):
            raise InputError(f"offsets must be {EQUAL}, {SPREAD} or KiB, not {choice!r}")
        step = rotation_bytes // record.ports // PAGE_BYTES * PAGE_BYTES if choice == SPREAD else 0
        places = [number * step for number in range(record.ports)]
    else:
        places = [KIB * place for place in choice]
    if len(places) != record.ports:
        raise InputError(
            f"offsets must be one for each of {record.ports} ports, not {len(places)} of them"
        )
    size = record.region_bytes(config)
    offsets: list[int] = []
    end = 0
    for place in places:
        begin = end + (place - end) % rotation_bytes
        offsets.append(begin)
        end = begin + size
    return replace(config, memory=replace(record, offsets=tuple(offsets)))
