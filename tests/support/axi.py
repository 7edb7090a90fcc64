"""The memory `axi` with its model beside it, as one weight memory without pads: `test-axi`."""

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from amaranth.hdl import Assert, Module
from amaranth.lib.memory import Memory as Ram
from amaranth.lib.wiring import Out, connect, flipped

from tritloom.rtl.memories.axi import AxiMemory
from tritloom.rtl.memories.axi_facts import Axi
from tritloom.rtl.memories.axi_pads import axi_pads
from tritloom.rtl.memories.contract import WeightMemory
from tritloom.rtl.spec.plugins import memories
from tritloom.sim.models.axi import AxiModel


@dataclass(frozen=True, kw_only=True)
class TestAxi(Axi):
    """`Axi` with options of its model; `memory` is the component to test."""

    __test__: ClassVar[bool] = False
    name: ClassVar[str] = "test-axi"
    component: ClassVar[str] = "tests.support.axi:ModelledAxi"
    model: ClassVar[str] = ""
    memory: ClassVar[type[AxiMemory]] = AxiMemory

    options: tuple[tuple[str, Any], ...] = ()


class ModelledAxi(WeightMemory):
    """`AxiMemory` and `AxiModel`, whose lines are in RAM; it stops where a rule is broken."""

    def elaborate(self, platform):
        m = Module()
        config = self.config
        record = config.memory
        m.submodules.memory = memory = record.memory(config)
        m.submodules.model = model = AxiModel(config, **dict(record.options))
        for name, member in axi_pads(record).items():
            inner, outer = getattr(memory, name), getattr(model, name)
            m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)
        for number, store in enumerate(model.stores):
            port = getattr(model, f"store_{number}")
            m.submodules[f"ram_{number}"] = ram = Ram(shape=store.bits, depth=store.words, init=())
            write, read = ram.write_port(granularity=8), ram.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(port.address),
                write.data.eq(port.data),
                write.en.eq(port.write),
                read.addr.eq(port.address),
            ]
            m.d.sync += port.word.eq(read.data)
        for name in ("i_write", "i_read"):
            connect(m, flipped(getattr(self, name)), getattr(memory, name))
        connect(m, memory.o, flipped(self.o))
        m.d.comb += self.error.eq(memory.error)
        m.d.sync += Assert(model.violation == 0, "the model's rules are kept")
        return m


def modelled(config, memory=None, **options):
    """The same configuration with its `axi` memory as a `test-axi`."""
    values = {f.name: getattr(config.memory, f.name) for f in fields(Axi)}
    kind = TestAxi
    if memory is not None:
        kind = dataclass(frozen=True, kw_only=True)(type("Other", (TestAxi,), {"memory": memory}))
    return replace(config, memory=kind(**values, options=tuple(options.items())))


memories.add(TestAxi)
