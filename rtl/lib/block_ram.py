"""Block RAM: a memory with a write port and a registered read port, as every family has it."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory

__all__ = ["ReadPort", "block_ram"]


def block_ram(shape: Any, depth: int, init: Any = ()) -> Memory:
    """A memory of which no port reads a word that it needs while another writes it.

    Families differ in what such a read gives. Synthesis is told not to care: it would else build
    comparators and a by-pass around every block, larger than all the rest of a small memory's use.
    That no such word is used is shown at gate level, where that read is made to be wrong.
    """
    return Memory(shape=shape, depth=depth, init=init, attrs={"no_rw_check": 1})


class ReadPort:
    """Read port of a ``block_ram``: ``data`` is the word at ``addr``, a cycle later, if ``en``.

    Synthesis keeps to ``no_rw_check`` where the port is a read and a register, not where Amaranth's
    synchronous port asks for the old word.
    """

    def __init__(self, m: Module, memory: Memory) -> None:
        port = memory.read_port(domain="comb")
        self.addr = Signal(len(port.addr))
        self.en = Signal(init=1)
        self.data: Any = Signal(memory.shape, name="data", reset_less=True)
        m.d.comb += port.addr.eq(self.addr)
        with m.If(self.en):
            m.d.sync += self.data.eq(port.data)
