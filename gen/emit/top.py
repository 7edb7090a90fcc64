# amaranth: UnusedElaboratable=no
"""The top module of the emitted Verilog: an accelerator whose pins have names for other languages.

Amaranth joins the parts of a member's name by two underscores, which VHDL does not accept, and puts
a packet's bytes and their mark `last` into one port. This top gives each its own port.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Module, ResetSignal, Shape, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import Flow, In, Out

from tritloom.rtl.lib.crossing import LongReset
from tritloom.rtl.lib.streams import packet_layout
from tritloom.rtl.links.keep import KeepMask
from tritloom.rtl.links.port_names import PLAIN, PortNames, StreamNames
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import InputError
from tritloom.rtl.spec.plugins import MEMORY_DOMAIN
from tritloom.rtl.top import Accelerator

__all__ = ["EmittedTop", "Port", "has_packet_streams"]

STREAMS = {"i": "commands", "o": "responses"}
"""Packet streams of the accelerator, and the fields of `PortNames` that name their pins."""


@dataclass(frozen=True, slots=True)
class Port:
    """A pin of the emitted top and what it stands for.

    Members
    -------
    name : the pin's name
    flow : `In` or `Out`, from the design's side
    bits : width
    member : the accelerator's member that it belongs to; empty for clock and reset
    role : for a packet stream `data`, `last`, `valid`, `ready` or `keep`; `clock`, `reset`, or
        `memory clock`; otherwise empty
    """

    name: str
    flow: Flow
    bits: int
    member: str
    role: str


class EmittedTop(wiring.Component):
    """An `Accelerator` in the clock domain of its own pins.

    Parameters
    ----------
    config : the accelerator
    names : of clock, reset and packet streams

    Members
    -------
    clock, reset : the pins that `names` names; the reset is synchronous
    the memory's clock : only if the weight memory has one of its own; its domain is reset with the
        rest of the design
    streams : four or five pins each, if the link brings packet streams
    others : every other member of the accelerator, with the parts of its name joined by one
        underscore

    Attributes
    ----------
    accelerator : the component inside
    port_list : a `Port` for each member, in order

    Raises
    ------
    InputError
        If `names` renames packet streams that the configuration's link does not have, or if two
        pins get one name.
    """

    def __init__(self, config: AcceleratorConfig, names: PortNames = PLAIN) -> None:
        self.names = names.of_width(config.link.beat_bytes)
        self.accelerator = Accelerator(config)
        if names != PLAIN and not has_packet_streams(self.accelerator):
            raise InputError(
                "AXI4-Stream names need packet streams, which this configuration's link does not "
                "have; choose the stream link or leave --axi out"
            )
        self.port_list = _ports(self.accelerator, self.names)
        members = {port.name: port.flow(port.bits) for port in self.port_list}
        if len(members) != len(self.port_list):
            raise InputError("two pins of the design have one name; rename the plug-in's pin")
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        accelerator = self.accelerator
        # Its own module, not one inside this, so that the Verilog has no level more.
        m = accelerator.elaborate(platform)
        m.domains.sync = ClockDomain("sync")
        reset = getattr(self, self.names.reset)
        active = ~reset if self.names.reset_active == "low" else reset
        m.d.comb += ClockSignal().eq(getattr(self, self.names.clock))
        if _has_memory_clock(accelerator):
            m.domains += ClockDomain(MEMORY_DOMAIN)
            m.submodules.memory_reset = ResetSynchronizer(ResetSignal("sync"), domain=MEMORY_DOMAIN)
            config = accelerator.config
            own_hz = config.memory.own_clock_hz(config)
            m.submodules.long_reset = long_reset = LongReset(config.clock_hz, own_hz)
            m.d.comb += long_reset.i.eq(active)
            active = long_reset.o
            m.d.comb += ClockSignal(MEMORY_DOMAIN).eq(getattr(self, self.names.memory_clock))
        m.d.comb += ResetSignal().eq(active)
        for _, pins in _leaves(accelerator, self.names):
            for pin, part in pins:
                port: Any = getattr(self, pin)
                flow = self.signature.members[pin].flow
                m.d.comb += part.eq(port) if flow is In else port.eq(part)
        if keep := _keep(accelerator, self.names):
            o = accelerator.o
            m.submodules.marks = mask = KeepMask(accelerator.config.link.beat_bytes)
            m.d.comb += [
                mask.beat.eq(o.payload),
                mask.transfer.eq(o.valid & o.ready),
                getattr(self, keep).eq(mask.keep),
            ]
        return m


def has_packet_streams(accelerator: Accelerator) -> bool:
    """Whether the accelerator's commands and responses are packet streams at its pins."""
    packets = stream.Signature(_packets(accelerator))
    members = dict(accelerator.signature.members.items())
    return bool(members.get("i") == In(packets) and members.get("o") == Out(packets))


def _has_memory_clock(accelerator: Accelerator) -> bool:
    """Whether the weight memory has a clock of its own."""
    config = accelerator.config
    return config.memory.own_clock_hz(config) > 0


def _packets(accelerator: Accelerator) -> data.StructLayout:
    """Payload of the accelerator's packet streams."""
    return packet_layout(accelerator.config.link.beat_bytes)


def _ports(accelerator: Accelerator, names: PortNames) -> list[Port]:
    ports = [Port(names.clock, In, 1, "", "clock"), Port(names.reset, In, 1, "", "reset")]
    if _has_memory_clock(accelerator):
        ports.append(Port(names.memory_clock, In, 1, "", "memory clock"))
    for (member, flow), pins in _leaves(accelerator, names):
        for pin, part in pins:
            width = Shape.cast(part.shape()).width
            ports.append(Port(pin, flow, width, member, _role(pin, names)))
    if keep := _keep(accelerator, names):
        ports.append(Port(keep, Out, accelerator.config.link.beat_bytes, "o", "keep"))
    return ports


def _keep(accelerator: Accelerator, names: PortNames) -> str:
    """The pin that marks the bytes of a response, if there is one."""
    return names.responses.keep if has_packet_streams(accelerator) else ""


def _leaves(
    accelerator: Accelerator, names: PortNames
) -> Iterator[tuple[tuple[str, Flow], list[tuple[str, Value]]]]:
    """Each leaf of the accelerator's signature: its member and flow; its pins and their values."""
    renamed = STREAMS if has_packet_streams(accelerator) else {}
    packets = _packets(accelerator)
    for path, member, value in accelerator.signature.flatten(accelerator):
        name, *rest = map(str, path)
        if name not in renamed:
            pins = [("_".join([name, *rest]), Value.cast(value))]
        else:
            pin_names: StreamNames = getattr(names, renamed[name])
            if rest == ["payload"]:
                pins = [(getattr(pin_names, field), value[field]) for field, _ in packets]
            else:
                pins = [(getattr(pin_names, rest[0]), value)]
        yield (name, member.flow), pins


def _role(pin: str, names: PortNames) -> str:
    for pin_names in (names.commands, names.responses):
        for role in ("data", "last", "valid", "ready", "keep"):
            if getattr(pin_names, role) == pin:
                return role
    return ""
