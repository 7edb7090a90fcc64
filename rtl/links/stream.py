"""The link `stream`: the accelerator's ports are the packet streams themselves."""

from amaranth.hdl import Module
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from tritloom.rtl.lib.streams import packet_layout
from tritloom.rtl.links.contract import PacketLink
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["StreamLink"]


class StreamLink(PacketLink):
    """Wires from the ports to the accelerator.

    Members (beside the contract's)
    -------
    i : stream in of `packet_layout`; packets of commands
    o : stream out of `packet_layout`; packets of responses
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, config: AcceleratorConfig) -> None:
        packets = stream.Signature(packet_layout(config.link.beat_bytes))
        super().__init__(config, {"i": In(packets), "o": Out(packets)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        connect(m, flipped(self.i), flipped(self.o_packet))
        connect(m, flipped(self.i_packet), flipped(self.o))
        return m
