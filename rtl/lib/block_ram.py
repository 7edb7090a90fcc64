"""Block RAM: a memory with a write port and a registered read port, as every family has it."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory

__all__ = ["ReadPort", "block_ram"]


def block_ram(shape: Any, depth: int, init: Any = ()) -> Memory:
    """A memory whose user never needs a word that is read and written in the same cycle.

    FPGA families differ in what such a read returns. By default synthesis makes it return the old
    word on all of them: it builds comparators and a by-pass around every block, which take more
    logic than a small memory's user does. The attribute `no_rw_check` forbids that. The gate-level
    tests make each such read return a wrong word, and so show that no user needs it.

    Parameters
    ----------
    shape : shape of a word
    depth : number of words
    init : contents at power-up; the remaining words are 0

    Returns
    -------
    A memory component; the caller adds it to its submodules.
    """
    return Memory(shape=shape, depth=depth, init=init, attrs={"no_rw_check": 1})


class ReadPort:
    """Registered read port of a `block_ram`.

    It is an asynchronous read followed by a register. Synthesis honours `no_rw_check` on that form;
    it ignores the attribute on Amaranth's own synchronous port, which asks for the old word.

    Members
    -------
    addr : driven by the user
    en : driven by the user, 1 if left alone
    data : the word at `addr`, one cycle after a cycle with `en`; else unchanged
    """

    def __init__(self, m: Module, memory: Memory) -> None:
        port = memory.read_port(domain="comb")
        self.addr = Signal(len(port.addr))
        self.en = Signal(init=1)
        self.data: Any = Signal(memory.shape, name="data", reset_less=True)
        m.d.comb += port.addr.eq(self.addr)
        with m.If(self.en):
            m.d.sync += self.data.eq(port.data)
