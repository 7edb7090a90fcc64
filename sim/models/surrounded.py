# amaranth: UnusedElaboratable=no
"""The accelerator with models of the chips around it, as simulations run it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Member, Out, connect, flipped

from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.top import STATUS, Accelerator
from tritloom.sim.models.contract import VIOLATION_BITS, MemoryModel, StoreSignature, create_model

__all__ = ["SurroundedAccelerator", "store_bench", "surrounded"]


class SurroundedAccelerator(wiring.Component):
    """An accelerator with a model of the memory's chip at the memory's pads.

    Parameters
    ----------
    config : names a memory with a model
    options : keyword arguments of the model's constructor

    Members
    -------
    the link's pads, and the state outputs : those of `Accelerator`
    violation, store_0, … : those of the model

    Raises
    ------
    ConfigError : see `create_model`
    """

    def __init__(self, config: AcceleratorConfig, options: Mapping[str, Any]) -> None:
        self.config = config
        self.accelerator = Accelerator(config)
        self.model = create_model(config, self.accelerator.pads["memory"], options)
        ports: dict[str, Member] = {
            f"store_{n}": Out(StoreSignature(store)) for n, store in enumerate(self.model.stores)
        }
        for name in [*ports, "violation"]:
            if name in self.accelerator.pads["link"]:
                raise ConfigError(f"the link's pad {name!r} has a name of the model; rename it")
        super().__init__(
            {
                **self.accelerator.pads["link"],
                **ports,
                **{name: Out(1) for name in STATUS},
                "violation": Out(VIOLATION_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.accelerator = accelerator = self.accelerator
        m.submodules.model = model = self.model
        for name, member in accelerator.pads["memory"].items():
            _join(m, getattr(accelerator, name), getattr(model, name), member)
        for name, member in accelerator.pads["link"].items():
            _join(m, getattr(accelerator, name), getattr(self, name), member)
        for name in STATUS:
            m.d.comb += getattr(self, name).eq(getattr(accelerator, name))
        m.d.comb += self.violation.eq(model.violation)
        for number in range(len(model.stores)):
            name = f"store_{number}"
            connect(m, getattr(model, name), flipped(getattr(self, name)))
        return m


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
    component: SurroundedAccelerator | MemoryModel,
    contents: MutableMapping[int, int],
    number: int = 0,
) -> Any:
    """Background test bench of Amaranth's simulator that keeps the words of a store.

    Parameters
    ----------
    component : has the port `store_<number>`
    contents : the words by address; a word that is missing is 0
    number : of the store
    """
    port = getattr(component, f"store_{number}")

    async def bench(ctx: Any) -> None:
        ticks = ctx.tick().sample(port.address, port.write, port.data)
        async for *_, address, write, data in ticks:
            word = contents.get(address, 0)
            ctx.set(port.word, word)
            if write:
                mask = sum(0xFF << 8 * byte for byte in range(len(port.write)) if write >> byte & 1)
                contents[address] = (word & ~mask) | (data & mask)

    return bench
