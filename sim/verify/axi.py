"""A memory behind the AXI ports of a design under test: `AxiRam` of cocotbext-axi."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["attach"]

PAUSE = 0.2
"""Share of the cycles in which a channel of a port pauses."""
WIDTHS = {3: {"len": 4, "lock": 2}, 4: {"len": 8, "lock": 1}}
"""Bits of the signals of an address that differ between the versions of AXI."""
CHANNELS = ("aw", "w", "b", "ar", "r")


def attach(
    dut: Any, config: AcceleratorConfig, clock: Any, reset: Any, reset_active_high: bool, seed: str
) -> None:
    """Put a memory at the ports `m_axi_…` of a design; every channel pauses at random.

    Parameters
    ----------
    dut : the design, in cocotb
    config : its configuration, whose memory is an `Axi`
    clock, reset : its pins
    reset_active_high : whether the reset resets while it is 1
    seed : of the pauses
    """
    from cocotbext.axi import AxiBus, AxiRam
    from cocotbext.axi.axi_channels import AxiARSink, AxiAWSink

    record = config.memory
    assert isinstance(record, Axi)
    # AxiRam demands the widths of AXI4. In AXI3 a burst's length has fewer bits and means the same;
    # AxiRam does not look at a lock.
    for sink, letters in ((AxiAWSink, "aw"), (AxiARSink, "ar")):
        for name, bits in WIDTHS[record.version].items():
            sink._signal_widths[letters + name] = bits
    # Addresses count modulo the size. No two regions meet if all of them fit.
    bases = record.bases(config)
    span = max(bases) + record.region_bytes(config) - min(bases)
    rams: list[Any] = []
    for number, prefix in enumerate(record.prefixes):
        bus = AxiBus.from_prefix(dut, prefix.removesuffix("_"))
        # The ports share one memory.
        shared = {"mem": rams[0].mem} if rams else {}
        ram = AxiRam(
            bus,
            clock,
            reset,
            reset_active_level=reset_active_high,
            size=1 << (span - 1).bit_length(),
            **shared,
        )
        rams.append(ram)
        for interface in (ram.write_if, ram.read_if):
            for name in CHANNELS:
                channel = getattr(interface, f"{name}_channel", None)
                if channel is not None:
                    channel.set_pause_generator(_pauses(f"{seed} {number} {name}"))


def _pauses(seed: str) -> Iterator[bool]:
    """True in random cycles."""
    rng = random.Random(seed)
    while True:
        yield rng.random() < PAUSE
