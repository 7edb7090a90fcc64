"""The link `bus8`: packets over a bus of eight bits each way, which brings its own clock."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Module
from amaranth.lib import io
from amaranth.lib.fifo import AsyncFIFO
from amaranth.lib.wiring import In, Out

from tritloom.rtl.links.contract import PacketLink
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.plugins import Config, Link, require_integer

__all__ = ["Bus8", "Bus8Link", "tie"]

INPUTS = {"bus_clk": 1, "rx_data": 8, "rx_last": 1, "rx_valid": 1, "tx_ready": 1}
OUTPUTS = {"rx_ready": 1, "tx_data": 8, "tx_last": 1, "tx_valid": 1}


@dataclass(frozen=True, kw_only=True)
class Bus8(Link):
    """What a configuration says of the link: `{"kind": "bus8", "depth": 8}`.

    Parameters
    ----------
    depth : bytes of the queue in each direction, which crosses between the clocks
    """

    name: ClassVar[str] = "bus8"
    component: ClassVar[str] = f"{__name__}:Bus8Link"
    pins: ClassVar = MappingProxyType(
        {
            "bus_clk": "clock of the bus, rising edge",
            "rx_data": "byte of a packet of commands",
            "rx_last": "that byte is the packet's last",
            "rx_valid": "rx_data and rx_last are there",
            "rx_ready": "the byte is taken in each cycle with rx_valid and rx_ready",
            "tx_data": "byte of a packet of responses",
            "tx_last": "that byte is the packet's last",
            "tx_valid": "tx_data and tx_last are there",
            "tx_ready": "the byte is taken in each cycle with tx_valid and tx_ready",
        }
    )
    resource: ClassVar[str] = "bus"
    tie: ClassVar[str] = f"{__name__}:tie"

    depth: int = 8

    def check(self, config: Config) -> None:
        require_integer("link: depth", self.depth, 4, 64)


class Bus8Link(PacketLink):
    """Two queues between the clock of the bus and the accelerator's.

    Members (beside the contract's): the pads that `Bus8.pins` explains.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        assert isinstance(config.link, Bus8)
        self._depth = config.link.depth
        pads = {name: In(bits) for name, bits in INPUTS.items()}
        super().__init__(config, pads | {name: Out(bits) for name, bits in OUTPUTS.items()})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.bus = ClockDomain(reset_less=True)
        m.submodules.rx = rx = AsyncFIFO(
            width=9, depth=self._depth, w_domain="bus", r_domain="sync"
        )
        m.submodules.tx = tx = AsyncFIFO(
            width=9, depth=self._depth, w_domain="sync", r_domain="bus"
        )
        m.d.comb += [
            ClockSignal("bus").eq(self.bus_clk),
            rx.w_data.eq(Cat(self.rx_data, self.rx_last)),
            rx.w_en.eq(self.rx_valid),
            self.rx_ready.eq(rx.w_rdy),
            self.o_packet.payload.eq(rx.r_data),
            self.o_packet.valid.eq(rx.r_rdy),
            rx.r_en.eq(self.o_packet.ready),
            tx.w_data.eq(self.i_packet.payload),
            tx.w_en.eq(self.i_packet.valid),
            self.i_packet.ready.eq(tx.w_rdy),
            Cat(self.tx_data, self.tx_last).eq(tx.r_data),
            self.tx_valid.eq(tx.r_rdy),
            tx.r_en.eq(self.tx_ready),
        ]
        return m


def tie(m: Module, accelerator: Any, ports: Any) -> None:
    """Put buffers between the link's pads and a board's resource `bus`."""
    for name in INPUTS:
        buffer = io.Buffer("i", getattr(ports, name))
        m.submodules[name] = buffer
        m.d.comb += getattr(accelerator, name).eq(buffer.i)
    for name in OUTPUTS:
        buffer = io.Buffer("o", getattr(ports, name))
        m.submodules[name] = buffer
        m.d.comb += buffer.o.eq(getattr(accelerator, name))
