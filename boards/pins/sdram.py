"""Pins of a chip of SDR SDRAM."""

from typing import Any

from amaranth.lib import io

from tritloom.rtl.spec.plugins import MEMORY_DOMAIN

__all__ = ["tie"]

OUTPUTS = {
    "clk_en": "cke",
    "ras": "ras_n",
    "cas": "cas_n",
    "we": "we_n",
    "ba": "bank",
    "a": "address",
    "dqm": "dqm",
}
"""Subsignal of amaranth-boards' SDRAM resource → the accelerator's pad, without `sdram_`."""
STRAPPED = ("clk_en", "dqm")
"""Subsignals that a board need not have; the chip's pin is then wired to what enables it."""


def tie(m: Any, accelerator: Any, ports: Any) -> None:
    """Put registers and buffers between the accelerator's pads and an SDRAM resource.

    Every pad has its registers in the I/O cell, so that no wire of the FPGA adds to the chip's
    times. All of them are double-rate registers: data is taken at both edges, and an output gets
    the same value for both halves of a cycle. How many cycles such a register takes depends on the
    family; it is the same for all pads, and the search for the phase finds the sum.

    The chip's clock is the controller's, inverted: its edge lies in the middle of the time in
    which a command is stable. It is the accelerator's clock, or one of its own.

    Parameters
    ----------
    m : the board's module; the buffers are added to it
    accelerator : the component with the pads of `tritloom.rtl.memories.sdram_facts`
    ports : the resource's ports, without buffers
    """
    config = accelerator.config
    domain = MEMORY_DOMAIN if config.memory.own_clock_hz(config) else "sync"
    for name, pad in OUTPUTS.items():
        if name in STRAPPED and not hasattr(ports, name):
            continue
        port = getattr(ports, name)
        m.submodules[f"sdram_{name}"] = buffer = io.DDRBuffer("o", port, o_domain=domain)
        value = getattr(accelerator, f"sdram_{pad}")[: len(port)]
        # A port that is low when active inverts what its buffer is given.
        value = ~value if any(port.invert) else value
        m.d.comb += [half.eq(value) for half in buffer.o]
    if hasattr(ports, "cs"):
        m.submodules.sdram_cs = chip_select = io.Buffer("o", ports.cs)
        m.d.comb += chip_select.o.eq(1)
    m.submodules.sdram_dq = dq = io.DDRBuffer("io", ports.dq, i_domain=domain, o_domain=domain)
    m.d.comb += [
        accelerator.sdram_dq_i.eq(dq.i[0]),
        accelerator.sdram_dq_i_fall.eq(dq.i[1]),
        *(half.eq(accelerator.sdram_dq_o) for half in dq.o),
        dq.oe.eq(accelerator.sdram_dq_oe),
    ]
    m.submodules.sdram_clk = clock = io.DDRBuffer("o", ports.clk, o_domain=domain)
    m.d.comb += [clock.o[0].eq(0), clock.o[1].eq(1)]
