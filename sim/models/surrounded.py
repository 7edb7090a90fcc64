# amaranth: UnusedElaboratable=no
"""The accelerator with models of the chips around it, as simulations run it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from amaranth.hdl import DomainRenamer, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Member, Out, connect, flipped

from tritloom.rtl.memories.contract import create_memory, memory_members
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.plugins import MEMORY_DOMAIN
from tritloom.rtl.top import STATUS, Accelerator
from tritloom.sim.models.contract import MemoryModel, create_model

__all__ = [
    "SurroundedAccelerator",
    "SurroundedMemory",
    "model_domain",
    "store_bench",
    "surrounded",
]


class SurroundedAccelerator(wiring.Component):
    """An accelerator with a model of the memory's chip at the memory's pads.

    Parameters
    ----------
    config : names a memory with a model
    options : keyword arguments of the model's constructor

    Members
    -------
    the link's pads, and the state outputs : those of `Accelerator`
    violation, store_0, …, dram_0, … : those of the model

    Raises
    ------
    ConfigError : see `create_model`
    """

    def __init__(self, config: AcceleratorConfig, options: Mapping[str, Any]) -> None:
        self.config = config
        self.accelerator = Accelerator(config)
        self.model = create_model(config, self.accelerator.pads["memory"], options)
        ports = self.model.outer_ports()
        for name in ports:
            if name in self.accelerator.pads["link"]:
                raise ConfigError(f"the link's pad {name!r} has a name of the model; rename it")
        super().__init__(
            {
                **self.accelerator.pads["link"],
                **ports,
                **{name: Out(1) for name in STATUS},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.accelerator = accelerator = self.accelerator
        m.submodules.model = DomainRenamer(model_domain(self.config))(self.model)
        _wire_model(m, self, accelerator, accelerator.pads["memory"])
        for name, member in accelerator.pads["link"].items():
            _join(m, getattr(accelerator, name), getattr(self, name), member)
        for name in STATUS:
            m.d.comb += getattr(self, name).eq(getattr(accelerator, name))
        return m


class SurroundedMemory(wiring.Component):
    """A weight memory alone, with a model of its chip at its pads.

    Parameters
    ----------
    config : names a memory with a model
    options : keyword arguments of the model's constructor

    Members
    -------
    i_write, i_read, o, error : those of `WeightMemory`
    violation, store_0, …, dram_0, … : those of the model

    Raises
    ------
    ConfigError : see `create_model`
    """

    def __init__(self, config: AcceleratorConfig, options: Mapping[str, Any]) -> None:
        self.config = config
        self.memory = create_memory(config)
        contract = memory_members(config)
        members = self.memory.signature.members
        self._pads = {name: member for name, member in members.items() if name not in contract}
        self.model = create_model(config, self._pads, options)
        super().__init__({**contract, **self.model.outer_ports()})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = self.memory
        m.submodules.model = DomainRenamer(model_domain(self.config))(self.model)
        _wire_model(m, self, self.memory, self._pads)
        for name, member in memory_members(self.config).items():
            _join(m, getattr(self.memory, name), getattr(self, name), member)
        return m


def model_domain(config: AcceleratorConfig) -> str:
    """The clock domain of a memory's pads, and so of its model and its stores."""
    return MEMORY_DOMAIN if config.memory.own_clock_hz(config) else "sync"


def _wire_model(m: Module, outer: Any, component: Any, pads: Mapping[str, Member]) -> None:
    """Put `outer.model` at the pads of a component, and its other ports at those of `outer`."""
    model = outer.model
    for name, member in pads.items():
        _join(m, getattr(component, name), getattr(model, name), member)
    m.d.comb += outer.violation.eq(model.violation)
    for name, member in model.outer_ports().items():
        if member.is_signature:
            connect(m, getattr(model, name), flipped(getattr(outer, name)))


def _join(m: Module, inner: Any, outer: Any, member: Member) -> None:
    """Wire a pad of the accelerator to what is outside: a model's pad, or a port of the design."""
    if member.is_signature:
        same = outer.signature == inner.signature
        connect(m, inner, flipped(outer) if same else outer)
    elif member.flow == Out:
        m.d.comb += outer.eq(inner)
    else:
        m.d.comb += inner.eq(outer)


def surrounded(
    config: AcceleratorConfig, options: Mapping[str, Any] | None = None
) -> Accelerator | SurroundedAccelerator:
    """The accelerator as a simulation runs it: with the model of its memory, if it has one.

    Raises
    ------
    ConfigError : there are options for a memory without a model; see `create_model` for others
    """
    if config.memory.model:
        return SurroundedAccelerator(config, options or {})
    if options:
        raise ConfigError(f"memory {config.memory.name!r} has no model that takes options")
    return Accelerator(config)


def store_bench(
    component: SurroundedAccelerator | SurroundedMemory | MemoryModel,
    contents: MutableMapping[int, int],
    number: int = 0,
    domain: str = "sync",
) -> Any:
    """Background test bench of Amaranth's simulator that keeps the words of a store.

    Parameters
    ----------
    component : has the port `store_<number>`
    contents : the words by address; a word that is missing is 0
    number : of the store
    domain : see `model_domain`
    """
    port = getattr(component, f"store_{number}")

    async def bench(ctx: Any) -> None:
        ticks = ctx.tick(domain).sample(port.address, port.write, port.data)
        async for *_, address, write, data in ticks:
            word = contents.get(address, 0)
            ctx.set(port.word, word)
            if write:
                mask = sum(0xFF << 8 * byte for byte in range(len(port.write)) if write >> byte & 1)
                contents[address] = (word & ~mask) | (data & mask)

    return bench
