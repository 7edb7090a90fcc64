"""The memory `guarded`: block RAM whose words nobody can overwrite while a jumper is set."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from amaranth.hdl import Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.memories.bram import BlockRamMemory
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.memories.contract import WeightMemory
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.plugins import Config, Memory

__all__ = ["Guarded", "GuardedMemory", "tie"]


@dataclass(frozen=True, kw_only=True)
class Guarded(Memory):
    """What a configuration says of the memory: `{"kind": "guarded", "words": 1024}`."""

    name: ClassVar[str] = "guarded"
    component: ClassVar[str] = f"{__name__}:GuardedMemory"
    pins: ClassVar = MappingProxyType(
        {
            "protect": "while high, weight words are not written and COMMIT fails; asynchronous",
            "reading": "high while weight words leave the memory",
        }
    )
    resource: ClassVar[str] = "guard"
    tie: ClassVar[str] = f"{__name__}:tie"

    def latency(self, config: Config) -> int:
        return BlockRam.LATENCY


class GuardedMemory(WeightMemory):
    """Block RAM behind a switch.

    Members (beside the contract's)
    -------
    protect : 1 bit in, asynchronous; words are taken but not written
    reading : 1 bit out; a word leaves the memory
    """

    protect: Signal
    reading: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(config, {"protect": In(1), "reading": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inner = inner = BlockRamMemory(self.config)
        protected = Signal()
        m.submodules.synchronizer = FFSynchronizer(self.protect, protected)
        connect(m, flipped(self.i_read), inner.i_read)
        connect(m, inner.o, flipped(self.o))
        m.d.comb += [
            inner.i_write.payload.eq(self.i_write.payload),
            inner.i_write.valid.eq(self.i_write.valid & ~protected),
            self.i_write.ready.eq(inner.i_write.ready),
            self.reading.eq(self.o.valid & self.o.ready),
        ]
        return m


def tie(m: Module, accelerator: Any, ports: Any) -> None:
    """Put buffers between the memory's pads and a board's resource `guard`."""
    m.submodules.protect = protect = io.Buffer("i", ports.protect)
    m.submodules.reading = reading = io.Buffer("o", ports.reading)
    m.d.comb += [accelerator.protect.eq(protect.i), reading.o.eq(accelerator.reading)]
